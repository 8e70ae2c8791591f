"""Which undo each migration has, as `--plan` and verbosity 2 tell it."""

from pathlib import Path

import pytest

from tests.support.histories import Database, Vendor, execute
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import ITEM, KIND, NOTE
from tests.support.small_project import SmallProject

pytestmark = pytest.mark.long_on("sqlite")

_HEADING = "Undo, should anything fail:"
_MORE = KIND.replace("0002_note", "0003_kind").replace("'kind'", "'more'")
_OUTSIDE = {
    "demo.0002_note": NOTE,
    # What SQLite runs in no transaction is a statement, not `atomic = False`.
    "demo.0003_kind": KIND.replace("atomic = True", "atomic = False").replace(
        "operations = [", "operations = [migrations.RunSQL(OUTSIDE, ''),"
    ),
    "demo.0004_more": _MORE,
}
_ROLLBACK = "  whole-call transaction, by ROLLBACK: "
_JOURNAL = "  operation journal, newest first by reverse operations: "
_EMPTY = "  empty database, by dropping everything again: "
_ALL = "demo.0002_note, demo.0003_kind, demo.0004_more"


def project_of(
    directory: Path, databases: NewDatabases, release: dict[str, str], *, empty: bool = False
) -> SmallProject:
    database: Database = databases.new()
    outside = "'VACUUM'" if databases.vendor is Vendor.SQLITE else "'SELECT 1'"
    sources = {name: source.replace("OUTSIDE", outside) for name, source in release.items()}
    project = SmallProject(directory / "project", {"default": database.django}, {"demo.0001_item": ITEM})
    if not empty:
        project.succeed("migrate", "--verbosity=0")
        execute(database, "INSERT INTO demo_item (name) VALUES ('tea')")
    for name, source in sources.items():
        project.write_migration(name, source)
    return project


def expected(vendor: Vendor, release: str, *, empty: bool) -> list[str]:
    first = "demo.0001_item, " if empty else ""
    early = _EMPTY if empty else _JOURNAL
    if vendor is Vendor.MYSQL:
        return [f"{early}{first}{_ALL}"]
    if release == "held":
        return [f"{_ROLLBACK}{first}{_ALL}"]
    return [f"{early}{first}demo.0002_note, demo.0003_kind", f"{_ROLLBACK}demo.0004_more"]


@pytest.mark.parametrize("empty", [False, True], ids=["with rows", "empty"])
@pytest.mark.parametrize("release", ["held", "mixed"])
def test_a_plan_and_a_talkative_call_tell_the_undo_of_each_migration(
    every_database: NewDatabases, tmp_path: Path, release: str, *, empty: bool
) -> None:
    migrations = _OUTSIDE if release == "mixed" else {**_OUTSIDE, "demo.0003_kind": KIND}
    project = project_of(tmp_path, every_database, migrations, empty=empty)
    wanted = expected(every_database.vendor, release, empty=empty)

    stock = project.succeed("migrate", "--plan").splitlines()
    plan = project.succeed("apply_migrations", "--plan").splitlines()
    assert plan == [*stock, _HEADING, *wanted]

    lines = project.succeed("apply_migrations", "--verbosity=2").splitlines()
    at = lines.index(_HEADING)
    assert lines[at + 1 : at + 1 + len(wanted)] == wanted
    assert lines[at + 1 + len(wanted)] == "Running migrations:"


def test_a_plan_that_ends_the_program_tells_it_too(databases: NewDatabases, tmp_path: Path) -> None:
    project = project_of(tmp_path, databases, {"demo.0002_note": NOTE})

    result = project.run("apply_migrations", "--plan", "--check")

    assert result.returncode == 1
    assert result.stdout.splitlines()[-2:] == [_HEADING, f"{_ROLLBACK}demo.0002_note"]


@pytest.mark.parametrize("target", [("demo",), ("demo", "0001"), ("demo", "zero")], ids=" ".join)
def test_the_plan_of_a_target_is_the_one_that_django_makes(
    databases: NewDatabases, tmp_path: Path, target: tuple[str, ...]
) -> None:
    project = project_of(tmp_path, databases, {"demo.0002_note": NOTE, "demo.0003_kind": KIND})
    project.succeed("migrate", "demo", "0002", "--verbosity=0")
    wanted = {
        ("demo",): "demo.0003_kind",
        ("demo", "0001"): "demo.0002_note",
        ("demo", "zero"): "demo.0002_note, demo.0001_item",
    }

    assert project.succeed("apply_migrations", *target, "--plan").splitlines()[-1] == f"{_ROLLBACK}{wanted[target]}"


def test_nothing_is_told_where_nothing_is_planned_nor_otherwise(databases: NewDatabases, tmp_path: Path) -> None:
    project = project_of(tmp_path, databases, {"demo.0002_note": NOTE})

    assert _HEADING not in project.succeed("apply_migrations")
    assert project.succeed("apply_migrations", "--plan") == project.succeed("migrate", "--plan")
    assert _HEADING not in project.succeed("apply_migrations", "--verbosity=2")


@pytest.mark.parametrize("options", ["plan=True", "verbosity=2"])
def test_a_caller_of_the_command_reads_what_django_prints(
    databases: NewDatabases, tmp_path: Path, options: str
) -> None:
    project = project_of(tmp_path, databases, {"demo.0002_note": NOTE})
    call = "from django.core.management import call_command; call_command('{}', {})"

    assert _HEADING not in project.succeed("shell", "-v0", "-c", call.format("apply_migrations", options))
