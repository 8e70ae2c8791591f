"""Two releases of one project, each a process that reads and writes by its own models, all the time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

from tests.support.histories import Database
from tests.support.leases import until
from tests.support.small_project import SmallProject

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["Serving", "serving"]

_PATIENCE_S = 90.0
_POLL_S = 0.02

_MODELS = """\
from django.db import models


class Kind(models.Model):
    label = models.CharField(max_length=20)


class Item(models.Model):
    name = models.CharField(max_length=40)
    code = models.CharField(max_length=10, default="c")
    note = models.TextField(null=True)
    {field} = models.IntegerField()
    kind = models.ForeignKey(Kind, models.CASCADE)
"""
# What it is about is one field; `{field}` is its name in this release, and `{label}` who this is.
_SERVE = """\
import json
import pathlib
import traceback

from django.db import transaction
from django.db.models import Count, F

from demo.models import Item, Kind

here = pathlib.Path(__file__).parent
kind = Kind.objects.order_by("pk")[0]
told = {{"rounds": 0, "errors": []}}


def expect(is_so, what):
    if not is_so:
        told["errors"].append(f"{{told['rounds']}}: {{what}}")


def once(number):
    item = Item.objects.create(name="{label}", kind=kind, {field}=number)
    item.refresh_from_db()
    expect(item.{field} == number, "created")
    item.{field} = number + 1
    item.save()
    Item.objects.filter(pk=item.pk, {field}=number + 1).update({field}=F("{field}") + 1)
    with transaction.atomic():
        expect(Item.objects.select_for_update().get(pk=item.pk).{field} == number + 2, "updated")
        Item.objects.filter(pk=item.pk).update(name="{label}!")
    many = Item.objects.bulk_create(Item(name="{label}", kind=kind, {field}=number) for _ in range(3))
    for each in many:
        each.{field} = -number
    Item.objects.bulk_update(many, ["{field}"])
    expect({{*Item.objects.filter(pk__in=[each.pk for each in many]).values_list("{field}", flat=True)}} == {{-number}},
           "bulk")
    Item.objects.bulk_create(
        [Item(pk=item.pk, name="{label}", kind=kind, {field}=number + 7)],
        update_conflicts=True, unique_fields=["id"], update_fields=["{field}"],
    )
    found, is_new = Item.objects.get_or_create(pk=item.pk, defaults={{"name": "?", "kind": kind, "{field}": 0}})
    expect(not is_new and found.{field} == number + 7 and found.name == "{label}!", "conflict")
    counted = Item.objects.filter({field}__gt=number).annotate(kinds=Count("kind")).order_by("-{field}")
    expect({{each.kinds for each in counted[:5]}} <= {{1}}, "counted")
    Item.objects.filter(pk__in=[each.pk for each in many]).delete()
    item.delete()
    Item.objects.create(name="{label} kept", kind=kind, {field}=number)


while not (here / "stop").exists():
    try:
        once(told["rounds"])
    except Exception:
        told["errors"].append(traceback.format_exc())
    told["rounds"] += 1
    (here / "told.new").write_text(json.dumps(told))
    (here / "told.new").replace(here / "told")
    if told["errors"]:
        break
"""


class Serving:
    """A release at work.

    Args:
        directory: its project's.
        process: that does it.
    """

    def __init__(self, directory: Path, process: "Popen[str]") -> None:
        self._directory = directory
        self._process = process

    def _told(self) -> tuple[int, list[str]]:
        file = self._directory / "told"
        told: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"rounds": 0, "errors": []}
        return told["rounds"], told["errors"]

    def _check(self) -> None:
        errors = "\n".join(self._told()[1])
        assert errors == "", errors

    def go_on(self, rounds: int = 2) -> None:
        """Wait until it has gone through some more rounds, the last of which it has begun since, or has ended."""
        begun, _ = self._told()
        until(lambda: self._told()[0] >= begun + rounds or self._ends(), patience_s=_PATIENCE_S)
        self._check()
        assert self._process.poll() is None, self._process.communicate()[1]

    def _ends(self) -> bool:
        """Leave it the processor for a moment, and return whether it has ended."""
        with suppress(TimeoutExpired):
            self._process.wait(_POLL_S)
        return self._process.poll() is not None

    def stop(self) -> int:
        """End it, and return how many rounds it has gone through, each of which has left a row."""
        (self._directory / "stop").touch()
        _, told = self._process.communicate()
        assert self._process.returncode == 0, told
        self._check()
        return self._told()[0]


@contextmanager
def serving(directory: Path, database: Database, label: str, field: str) -> Iterator[Serving]:
    """Let a release serve for the length of a block.

    Args:
        directory: an empty one, for its project.
        database: that has the tables of `tests.support.two_releases`.
        label: what it calls its rows.
        field: what it calls the field, of integers, that is called otherwise in the other one.
    """
    project = SmallProject(directory, {"default": database.django}, {"demo.0001_none": ""})
    project.write("demo/models.py", _MODELS.format(field=field))
    project.write("serve.py", _SERVE.format(field=field, label=label))
    with project.start("shell", "--verbosity", "0", "--command", "import serve") as process:
        try:
            yield Serving(directory, process)
        finally:
            (directory / "stop").touch()
