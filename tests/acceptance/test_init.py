import json
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.postgres_database import PostgresDatabase
from tests.support.runs import Outcome, run_words
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

SETTINGS: Final = ("--settings", "small_settings")
Databases = dict[str, dict[str, Any]]


def _sqlite(directory: Path, name: str) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / f"{name}.sqlite3")}


class Beginner:
    """Somebody with a project, and no plan yet.

    Args:
        directory: the working directory; the project is in `shop`, within it.
        databases: of the project.
        settings: further lines of its settings.
    """

    def __init__(self, directory: Path, databases: Databases, settings: str = "") -> None:
        self.directory = directory
        self.databases = databases
        self.project = SmallProject(directory / "shop", databases, {"demo.0001_item": ITEM}, settings=settings)
        manage = (directory / "shop/manage.py").read_text()
        # As `startproject` writes it.
        variable = '"DJANGO_SETTINGS_MODULE"'
        written = manage.replace(f'os.environ[{variable}] = "small', f'os.environ.setdefault({variable}, "small')
        self.project.write("manage.py", written.replace('small_settings"', 'small_settings")'))

    def run(self, *words: str, under: Sequence[str] = ()) -> Outcome:
        """Run the program with these words to its end, or a command line that does."""
        return run_words(self.directory, {"SMALL_DATABASES": json.dumps(self.databases)}, *words, under=under)

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that was written."""
        return tomllib.loads((self.directory / "deploy.toml").read_text(encoding="utf-8"))

    def assert_refused(self, outcome: Outcome, message: str, exit_code: int = 2) -> None:
        """Assert that nothing was written, and why."""
        assert outcome.exit_code == exit_code, outcome.stderr
        assert message in outcome.stdout
        assert not (self.directory / "deploy.toml").exists()


@pytest.fixture
def beginner(tmp_path: Path, pg_database: PostgresDatabase) -> Beginner:
    """One with a database on a server, and files."""
    shards = {f"shard_{number}": _sqlite(tmp_path, f"shard_{number}") for number in range(3)}
    return Beginner(tmp_path, {"default": pg_database.django, **shards, "again": pg_database.django})


def test_the_plan_it_writes_is_deployed_by_the_command_that_it_ends_with(beginner: Beginner) -> None:
    written = beginner.run("init", "shop")
    assert written.exit_code == 0, written.stderr
    assert [each["alias"] for each in written.report["left_out"]] == ["again"]

    program, *words = shlex.split(written.report["next"])
    assert (program, words) == ("smooth-orchestrate", ["check", "deploy.toml"])
    checked = beginner.run(*words)
    assert checked.exit_code == 0, checked.stdout
    planned = beginner.run("plan", "deploy.toml").report["databases"]
    assert [(each["database"], each["phase"]) for each in planned] == [
        ("primary", "canary"),
        *((f"shards:shard_{number}", "fleet") for number in range(3)),
    ]
    assert [entry["migration"] for entry in planned[0]["migrations"]] == ["demo.0001_item"]
    deployed = beginner.run("deploy", "deploy.toml")
    assert set(deployed.outcomes.values()) == {"committed"}


@pytest.mark.parametrize("kind", ["file", "symbolic link to nothing"])
def test_nothing_is_overwritten(beginner: Beginner, kind: str) -> None:
    output = beginner.directory / "deploy.toml"
    if kind == "file":
        output.write_text("mine")
    else:
        output.symlink_to("elsewhere.toml")
    again = beginner.run("init", "shop")
    assert again.exit_code == 2
    assert again.report["errors"][0]["message"] == "is there already"
    assert (output.read_text() == "mine") if kind == "file" else not output.exists()
    assert not (beginner.directory / "elsewhere.toml").exists()

    beginner.directory.joinpath("plans").mkdir()
    other = beginner.run("init", "shop", "--output", "plans/my plan.toml")
    assert other.report["next"] == "smooth-orchestrate check 'plans/my plan.toml'"
    assert beginner.run(*shlex.split(other.report["next"])[1:]).exit_code == 0


def test_the_projects_own_interpreter_runs_it_where_there_is_one(beginner: Beginner) -> None:
    (beginner.directory / "shop/.venv").symlink_to(sys.prefix)
    assert beginner.run("init", "shop").exit_code == 0
    assert beginner.plan["projects"]["shop"]["python"] == "shop/.venv/bin/python"
    assert beginner.run("plan", "deploy.toml").exit_code == 0


def test_a_project_is_found_through_symbolic_links_and_from_within(beginner: Beginner) -> None:
    (beginner.directory / "linked").symlink_to("shop")
    (beginner.directory / "elsewhere").mkdir()
    (beginner.directory / "plans").symlink_to("elsewhere")
    for output in ("plans/deploy.toml", "shop/deploy.toml"):
        assert beginner.run("init", "linked", "--output", output).exit_code == 0
        assert beginner.run("plan", output).exit_code == 0
    assert (beginner.directory / "elsewhere/deploy.toml").is_file()


def test_two_hundred_aliases_with_names_of_every_kind_stand_in_a_plan_once(tmp_path: Path) -> None:
    odd = ['it"s', "ünï-cødé", "a b", "x\ny", "[1]", "it_s", "<script>alert(1)</script>", "primary", "y" * 300, "\x7f"]
    names = ["default", *odd, *(f"shard_{number}" for number in range(189))]
    beginner = Beginner(tmp_path, {name: _sqlite(tmp_path, str(number)) for number, name in enumerate(names)})
    assert beginner.run("init", "shop").exit_code == 0
    planned = beginner.run("plan", "deploy.toml")
    assert sorted(each["alias"] for each in planned.report["databases"]) == sorted(names)


def test_files_that_are_not_there_yet_are_not_taken_for_one_database(tmp_path: Path) -> None:
    beginner = Beginner(tmp_path, {name: _sqlite(tmp_path, name) for name in ("default", "kiosk", "till")})
    assert beginner.run("init", "shop").exit_code == 0
    assert beginner.run("check", "deploy.toml").exit_code == 0


def test_routers_are_known(tmp_path: Path) -> None:
    beginner = Beginner(tmp_path, {"default": _sqlite(tmp_path, "a")}, "DATABASE_ROUTERS = ['demo.Router']")
    assert beginner.run("init", "shop").exit_code == 0
    assert "The project has DATABASE_ROUTERS" in (tmp_path / "deploy.toml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "does not exist"),
        (["shop/manage.py"], "is not a directory"),
        (["shop/demo"], "is not a Django project"),
        (["shop", "--settings", "shop/settings.py"], "is not the name of a module"),
        (["shop", "--output", "nowhere/deploy.toml"], "cannot be written: No such file or directory"),
        (["shop", "--output", "shop/manage.py/deploy.toml"], "cannot be written: "),
        (["shop", "--output", "/proc/deploy.toml"], "cannot be written: "),
        (["shop", "--output", "."], "is there already"),
    ],
)
def test_what_no_plan_can_be_written_for_is_exit_2(beginner: Beginner, words: list[str], message: str) -> None:
    beginner.assert_refused(beginner.run("init", *words), message)


def test_a_disk_that_is_full_leaves_no_half_of_a_plan(beginner: Beginner) -> None:
    full = beginner.run("init", "shop", under=["prlimit", "--fsize=100"])
    beginner.assert_refused(full, "cannot be written: File too large")


@pytest.mark.parametrize(
    ("settings", "databases", "message", "exit_code"),
    [
        ("raise RuntimeError('no such key')", "default", "RuntimeError: no such key", 3),
        ("import nothing_of_the_kind", "default", "No module named 'nothing_of_the_kind'", 3),
        ("import os; os._exit(7)", "default", "exited with 7", 3),
        ("DATABASES = {}", "default", "name no database that could be deployed to", 2),
        ("DATABASES['default']['NAME'] = ':memory:'", "default", "it is in memory", 2),
        ("", "other", "You must define a 'default' database", 3),
    ],
)
def test_settings_that_tell_of_no_database_are_told_of(
    tmp_path: Path, settings: str, databases: str, message: str, exit_code: int
) -> None:
    beginner = Beginner(tmp_path, {databases: _sqlite(tmp_path, "a")}, settings)
    beginner.assert_refused(beginner.run("init", "shop"), message, exit_code)


def test_no_database_is_connected_to_and_no_secret_is_written(tmp_path: Path) -> None:
    # Nobody answers at this address (RFC 5737).
    entry = {"ENGINE": "django.db.backends.postgresql", "HOST": "192.0.2.1", "NAME": "shop", "PASSWORD": "open-sesame"}
    beginner = Beginner(tmp_path, {"default": entry}, "API_TOKEN = 'tell-nobody'")
    written = beginner.run("init", "shop")
    assert written.exit_code == 0
    plan = tmp_path / "deploy.toml"
    text = plan.read_text() + written.stdout + written.stderr
    assert [secret for secret in ("open-sesame", "tell-nobody", "192.0.2.1") if secret in text] == []
    assert plan.stat().st_mode & 0o022 == 0
