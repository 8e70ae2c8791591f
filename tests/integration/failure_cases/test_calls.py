"""Calls that are told something, and calls in which the databases of a project play different parts."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.failure_cases import case
from tests.support.histories import Database, Vendor, execute
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_migrations import BROKEN, ITEM, KIND, NOTE, run_python
from tests.support.small_project import SmallProject, migration

_SOUND = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
_CODE = "migrations.RunPython(forwards, nothing)"
_STRAY = "apps.get_model('demo', 'Item').objects.create(name='stray')"
_FAIL = "\ndef fail(apps, editor):\n    raise ValueError('no')\n"
_DURATION = re.compile(r"\d+\.\d+s")
# What ours says besides, of the undo that each migration has.
_CHOICE = re.compile(r"Undo, should anything fail:\n(?:  (?:whole-call|operation|empty) [^\n]+\n)+")
# Every option of `migrate`; what is no list is SQL.
_SESSION: Sequence[Sequence[str] | str] = [
    ["demo", "0002", "--plan"],
    ["demo", "0002"],
    ["--check"],
    ["--run-syncdb", "--no-input", "--skip-checks"],
    ["demo", "0001", "--verbosity=0"],
    ["demo", "zero", "--fake"],
    ["--fake-initial", "--verbosity=2"],
    ["demo", "0001", "--fake"],
    ["demo", "0002", "--database=other"],
    "INSERT INTO django_migrations (id, app, name, applied) VALUES (99, 'demo', '0009_gone', '2020-01-01 00:00:00')",
    ["demo", "--prune"],
    ["demo", "0009"],
]


def _two(
    databases: NewDatabases, directory: Path, migrations: dict[str, str], *, first: Sequence[str]
) -> tuple[SmallProject, list[Database]]:
    """Return a project with two databases, of which these aliases are at its first migration."""
    both = [databases.new(), databases.new()]
    aliases = dict(zip(("default", "other"), (database.django for database in both), strict=True))
    project = SmallProject(directory / "project", aliases, migrations)
    for alias in first:
        project.succeed("migrate", "demo", "0001", f"--database={alias}", "--verbosity=0")
    return project, both


def _is_undone(databases: NewDatabases, directory: Path, migrations: dict[str, str], *, first: Sequence[str]) -> None:
    project, both = _two(databases, directory, migrations, first=first)
    before = [databases.dump(database) for database in both]

    assert project.run("apply_migrations", "--database=other").returncode == 1

    assert [diff(was, databases.dump(database)) for was, database in zip(before, both, strict=True)] == ["", ""]


@case(3, about="another alias than the default")
def test_another_database_is_undone_without_a_look_at_the_default(every_database: NewDatabases, tmp_path: Path) -> None:
    _is_undone(every_database, tmp_path, {**_SOUND, "demo.0003_kind": BROKEN}, first=["other"])


@pytest.mark.parametrize(
    "operation", ["{}", "migrations.SeparateDatabaseAndState([{}], [{}])"], ids=["bare", "wrapped"]
)
@case(15, about="an index that cannot be built concurrently", on=[Vendor.POSTGRESQL])
def test_an_index_that_cannot_be_built_concurrently_is_not_left_behind(
    every_database: NewDatabases, tmp_path: Path, operation: str
) -> None:
    database = every_database.new()
    index = "AddUniqueIndexConcurrently('item', models.Index(fields=['name'], name='demo_item_name'))"
    unique = migration(
        operation.replace("{}", index),
        after=[("demo", "0002_note")],
        atomic=False,
        functions=(
            "class AddUniqueIndexConcurrently(AddIndexConcurrently):\n"
            "    def database_forwards(self, app_label, editor, from_state, to_state):\n"
            "        editor.sql_create_index_concurrently = (\n"
            "            editor.sql_create_index_concurrently.replace('CREATE INDEX', 'CREATE UNIQUE INDEX'))\n"
            "        super().database_forwards(app_label, editor, from_state, to_state)\n"
        ),
    )
    project = SmallProject(tmp_path / "project", {"default": database.django}, {**_SOUND, "demo.0003_unique": unique})
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    execute(database, "INSERT INTO demo_item (name) VALUES ('tea'), ('tea')")
    before = every_database.dump(database)

    result = project.run("apply_migrations")

    assert "UniqueViolation" in result.stderr
    assert diff(before, every_database.dump(database)) == ""
    assert isinstance(database, PostgresDatabase)
    with database.connect() as session:
        assert session.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)


@pytest.mark.timeout(600)
@case(18, about="every option", seldom={Vendor.MYSQL, Vendor.POSTGRESQL})
def test_options_of_migrate_say_and_do_what_they_do_there(every_database: NewDatabases, tmp_path: Path) -> None:
    sessions = [
        list(_session(every_database, tmp_path / command, command)) for command in ("migrate", "apply_migrations")
    ]

    for step, stock, ours in zip(_SESSION, *sessions, strict=True):
        assert stock == ours, step


def _session(databases: NewDatabases, directory: Path, command: str) -> Iterator[tuple[object, ...]]:
    """Yield what each step of a session prints, how it ends, and what the databases are after it."""
    project, both = _two(databases, directory, {**_SOUND, "demo.0003_kind": KIND}, first=[])
    for step in _SESSION:
        printed: tuple[object, ...] = ()
        if isinstance(step, str):
            execute(both[0], step)
        else:
            result = project.run(command, *step)
            printed = (result.returncode, _CHOICE.sub("", _DURATION.sub("s", result.stdout)), result.stderr)
        yield (*printed, *(dump(database.dsn, ignore_applied_times=True) for database in both))


@case(20, about="nothing had run")
def test_no_rollback_is_announced_when_nothing_had_run(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    fails = migration(_CODE, after=[("demo", "0001_item")], functions=run_python("raise ValueError('no')"))
    project = SmallProject(
        tmp_path / "project", {"default": database.django}, {"demo.0001_item": ITEM, "demo.0002_fails": fails}
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    before = every_database.dump(database)

    result = project.run("apply_migrations")

    assert result.stdout.splitlines()[-4:] == [
        "  Applying demo.0002_fails... FAIL",
        "The migration has failed.",
        "no",
        "Exception detail:",
    ]
    assert diff(before, every_database.dump(database)) == ""


@case(24, about="a success")
def test_a_table_with_deferred_foreign_keys_may_be_filled_and_then_altered(
    every_database: NewDatabases, tmp_path: Path
) -> None:
    after = [("demo", "0001_item")]
    part = migration(
        "migrations.CreateModel('Part', [('id', models.BigAutoField(primary_key=True)), "
        "('item', models.ForeignKey('demo.item', models.CASCADE))])",
        after=after,
    )
    fill = migration(
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0002_part")],
        functions=run_python(
            "apps.get_model('demo', 'Part').objects.create(item=apps.get_model('demo', 'Item').objects.get())"
        ),
    )
    size = migration(
        "migrations.AddField('part', 'size', models.IntegerField(default=0))", after=[("demo", "0003_fill")]
    )
    dumps = []
    for command in ("migrate", "apply_migrations"):
        database = every_database.new()
        project = SmallProject(tmp_path / command, {"default": database.django}, {"demo.0001_item": ITEM})
        project.succeed("migrate", "--verbosity=0")
        execute(database, "INSERT INTO demo_item (name) VALUES ('tea')")
        for name, source in {"0002_part": part, "0003_fill": fill, "0004_size": size}.items():
            project.write_migration(f"demo.{name}", source)
        project.succeed(command)
        dumps.append(dump(database.dsn, ignore_applied_times=True))

    assert diff(*dumps) == ""


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
@case(25, about="the migration that strays fails")
def test_what_a_migration_wrote_to_another_alias_is_undone_with_it(
    every_database: NewDatabases, tmp_path: Path, *, atomic: bool
) -> None:
    strays = migration(
        _CODE,
        "migrations.RunPython(fail, nothing)",
        after=[("demo", "0001_item")],
        atomic=atomic,
        functions=run_python(_STRAY) + _FAIL,
    )
    migrations = {"demo.0001_item": ITEM, "demo.0002_note": strays}
    _is_undone(every_database, tmp_path, migrations, first=["default", "other"])


@case(25, about="a later one outside a transaction strays too, and fails")
def test_another_alias_joins_again_after_a_migration_without_transaction(
    every_database: NewDatabases, tmp_path: Path
) -> None:
    strays = migration(_CODE, after=[("demo", "0001_item")], atomic=False, functions=run_python(_STRAY)).replace(
        "    pass", "    apps.get_model('demo', 'Item').objects.all().delete()"
    )
    again = migration(_CODE, after=[("demo", "0002_note")], functions=run_python(f"{_STRAY}; raise ValueError('no')"))
    migrations = {"demo.0001_item": ITEM, "demo.0002_note": strays, "demo.0003_again": again}
    _is_undone(every_database, tmp_path, migrations, first=["default", "other"])


@case(25, about="a later one fails")
def test_what_a_migration_wrote_to_another_alias_is_undone_with_a_later_failure(
    every_database: NewDatabases, tmp_path: Path
) -> None:
    strays = migration(_CODE, after=[("demo", "0001_item")], functions=run_python(_STRAY))
    migrations = {"demo.0001_item": ITEM, "demo.0002_note": strays, "demo.0003_kind": BROKEN}
    _is_undone(every_database, tmp_path, migrations, first=["default", "other"])
