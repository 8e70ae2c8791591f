"""`smooth-orchestrate lint`: the migrations of all projects of a plan, without any of their databases."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.runs import Outcome, run_in
from tests.support.small_migrations import BROKEN, ITEM, NOTE
from tests.support.small_project import SmallProject

_PLAN: Final = """\
version = 1
deploy = { name = "small" }
projects.one = { path = "one", settings = "small_settings" }
projects.two = { path = "two", settings = "small_settings" }
databases.primary = { project = "one", alias = "default" }
databases.shards = { project = "one", aliases = "shard_*" }
databases.kiosk = { project = "two", alias = "kiosk", expand_contract = false }
"""
_AWAY: Final = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "PASSWORD": "open-sesame"}


@dataclass(frozen=True, slots=True)
class Site:
    """Two projects and a plan.

    Args:
        directory: where they are.
        databases: of both projects.
    """

    directory: Path
    databases: Mapping[str, Mapping[str, str]]

    def lint(self, *options: str) -> Outcome:
        """Run `lint` over the plan."""
        return run_in(self.directory, {"SMALL_DATABASES": json.dumps(self.databases)}, "lint", *options)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    kiosk = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "kiosk.db")}
    databases = {name: {**_AWAY, "NAME": name} for name in ("default", "shard_1", "shard_2")} | {"kiosk": kiosk}
    for name, migrations in {"one": {"demo.0003_kind": BROKEN}, "two": {}}.items():
        SmallProject(tmp_path / name, databases, {"demo.0001_item": ITEM, "demo.0002_note": NOTE, **migrations})
    (tmp_path / "deploy.toml").write_text(_PLAN)
    return Site(tmp_path, databases)


def codes(database: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(finding["code"], finding["migration"], finding["file"]) for finding in database["findings"]]


def test_each_database_of_the_plan_is_told_with_what_it_is_for(site: Site) -> None:
    outcome = site.lint()
    assert outcome.exit_code == outcome.report["exit_code"] == 1, outcome.stderr
    assert (outcome.report["command"], outcome.report["deploy"]) == ("lint", "small")
    primary, shards, kiosk = outcome.report["databases"]
    assert [each["database"] for each in (primary, shards, kiosk)] == ["primary", "shards:shard_1", "kiosk"]
    assert primary["basis"] == (
        "every migration, each as a deploy by itself, since default cannot be read (OperationalError)"
    )
    assert codes(primary) == codes(shards) == [("SM303", "demo.0003_kind", "one/demo/migrations/0003_kind.py")]
    assert [each["contract"] for each in primary["migrations"]][1] == ["drop the default of demo_item.note"]
    assert codes(kiosk) == [("SM102", "demo.0002_note", "two/demo/migrations/0002_note.py")]
    assert [each["contract"] for each in kiosk["migrations"]] == [[], []]
    assert not (site.directory / "kiosk.db").exists()
    assert not (site.directory / ".smooth").exists()


@pytest.mark.long
def test_what_is_so_for_several_databases_is_annotated_once(site: Site) -> None:
    outcome = site.lint("--format", "github")
    assert outcome.exit_code == 1
    assert [line.partition(",title=")[2][:5] for line in outcome.stdout.splitlines()] == ["SM303", "SM102"]


@pytest.mark.parametrize("form", ["text", "sarif"])
def test_it_is_written_for_people_and_for_code_scanning_without_a_secret(site: Site, form: str) -> None:
    outcome = site.lint("--all", "--format", form)
    assert outcome.exit_code == 1
    assert "SM303" in outcome.stdout
    assert "open-sesame" not in outcome.stdout + outcome.stderr


@pytest.mark.long
def test_a_revision_that_there_is_not_is_refused_with_what_git_says(site: Site) -> None:
    outcome = site.lint("--since", "nowhere")
    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused")
    assert {error["place"] for error in outcome.report["errors"]} == {"primary", "shards:shard_1", "kiosk"}
    assert {error["hint"] for error in outcome.report["errors"]} == {"name a revision that was fetched, or use --all"}


def test_two_ways_to_choose_are_a_usage_error(site: Site) -> None:
    assert site.lint("--since", "main", "--all").exit_code == 2
