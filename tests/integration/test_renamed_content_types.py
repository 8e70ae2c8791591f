"""The content type of a renamed model: it has the new name since the deploy, and the release before may not know."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.skew.cases import CASES
from tests.support.skew.releases import ByCommand, Releases
from tests.support.small_project import SmallProject

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

_CASE = "a generic foreign key to a renamed model"
# A process that begins now, as both releases have it: one row more, then what each row's target is to this release.
_LOOK = """\
import json
from django.contrib.contenttypes.models import ContentType
from demo import models

model = getattr(models, "Thing", None) or models.Item
kind = models.Kind.objects.create(by="{by}", stamp=1, label="x")
target = model.objects.create(by="{by}", stamp=1, name="x", kind=kind)
models.Note.objects.create(by="{by}", stamp=1, text="x", target=target)
found = {{}}
for note in models.Note.objects.all():
    known = ContentType.objects.get(pk=note.content_type_id).model_class()
    found[note.by] = note.target.by if known else None
print(json.dumps([found, sorted(ContentType.objects.filter(app_label="demo").values_list("model", flat=True))]))
"""


def _looked(project: SmallProject, by: str) -> tuple[dict[str, str | None], list[str]]:
    printed = project.succeed("shell", "--verbosity", "0", "--command", _LOOK.format(by=by))
    found, types = json.loads(printed.splitlines()[-1])
    return found, types


def test_a_process_of_the_release_before_that_begins_after_the_deploy_makes_another(
    pg_databases: NewDatabases, tmp_path: Path
) -> None:
    releases = Releases(tmp_path, CASES[_CASE], pg_databases.new())
    releases.migrate()
    way = ByCommand(releases)
    assert _looked(releases.old, "before") == ({"before": "before"}, ["item", "kind", "note"])

    way.deploy()

    assert _looked(releases.new, "new") == ({"before": "before", "new": "new"}, ["kind", "note", "thing"])
    assert _looked(releases.old, "late") == (
        {"before": None, "new": None, "late": "late"},
        ["item", "kind", "note", "thing"],
    )
    way.finalise()
    assert _looked(releases.new, "last") == (
        {"before": "before", "new": "new", "late": "late", "last": "last"},
        ["kind", "note", "thing"],
    )


def test_what_such_a_process_has_written_is_found_when_the_deploy_was_taken_back(
    pg_databases: NewDatabases, tmp_path: Path
) -> None:
    releases = Releases(tmp_path, CASES[_CASE], pg_databases.new())
    releases.migrate()
    way = ByCommand(releases)
    _looked(releases.old, "before")
    way.deploy()
    _looked(releases.new, "new")
    _looked(releases.old, "late")

    way.roll_back()

    assert _looked(releases.old, "after") == (
        {"before": "before", "new": "new", "late": "late", "after": "after"},
        ["item", "kind", "note"],
    )


def test_where_something_unique_is_in_the_way_it_stays_as_it_is(pg_databases: NewDatabases, tmp_path: Path) -> None:
    once = "\n    class Meta:\n        unique_together = [('content_type', 'object_id')]\n"
    case = CASES[_CASE]
    releases = Releases(tmp_path, replace(case, old=case.old + once, new=case.new + once), pg_databases.new())
    releases.migrate()
    way = ByCommand(releases)
    _looked(releases.old, "before")
    way.deploy()
    code = _LOOK.format(by="late").replace("target=target", "target=model.objects.get(by='before')")
    releases.old.succeed("shell", "--verbosity", "0", "--command", code)

    way.finalise()

    assert _looked(releases.new, "last") == (
        {"before": "before", "late": None, "last": "last"},
        ["item", "kind", "note", "thing"],
    )
