"""Commands that are started where there is nothing any more, as by a shell in a release that was removed."""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.support.runs import Outcome, run_words
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

_PLAN: Final = """\
version = 1
deploy.name = "small"
projects.one = { path = "project", settings = "small_settings" }
databases.primary = { project = "one", alias = "default" }
"""
_GONE: Final = ("sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh")


class _Person:
    """Somebody with a plan, and nowhere to be.

    Args:
        directory: of the plan.
    """

    def __init__(self, directory: Path) -> None:
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / "primary.sqlite3")}
        self._directory = directory
        self._environment = {"SMALL_DATABASES": json.dumps({"default": database})}
        SmallProject(directory / "project", {"default": database}, {"demo.0001_item": ITEM})
        (directory / "deploy.toml").write_text(_PLAN)

    def run(self, command: str, *options: str) -> Outcome:
        """Run a command over the plan from a directory that was removed."""
        plan = str(self._directory / "deploy.toml")
        return run_words(self._directory, self._environment, command, plan, *options, under=_GONE)


@pytest.fixture
def person(tmp_path: Path) -> _Person:
    return _Person(tmp_path)


def test_every_command_does_what_it_does_elsewhere(person: _Person) -> None:
    for command in ("check", "lint", "deploy", "status", "runs", "report"):
        done = person.run(command)
        assert done.exit_code == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("option", ["--log-file", "--metrics-file"])
def test_a_file_that_would_be_there_is_a_mistake(person: _Person, option: str) -> None:
    refused = person.run("check", option, "told.txt")
    assert refused.exit_code == 2, refused.stdout
    assert [each["place"] for each in refused.report["errors"]] == [option]


def test_a_page_that_would_be_there_cannot_be_written(person: _Person) -> None:
    assert person.run("deploy").exit_code == 0
    shown = person.run("report", "--html", "report.html")
    assert (shown.exit_code, shown.report["outcome"]) == (2, "committed")
