import signal
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, execute
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import BROKEN, ITEM, KIND, NOTE, failing, run_python
from tests.support.small_project import SmallProject, migration

_SOUND = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
_ONE_ITEM = "INSERT INTO demo_item (name) VALUES ('tea')"
_OTHER_APP = migration("migrations.CreateModel('Crate', [('id', models.BigAutoField(primary_key=True))])")


def _project(directory: Path, database: Database, **migrations: str) -> SmallProject:
    named = {f"demo.{name}": source for name, source in migrations.items()}
    return SmallProject(directory / "project", {"default": database.django}, {**_SOUND, **named})


def _at_first(project: SmallProject, database: Database) -> None:
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    execute(database, _ONE_ITEM)


def test_a_success_prints_what_migrate_prints_and_leaves_what_migrate_leaves(
    databases: NewDatabases, tmp_path: Path
) -> None:
    outputs, dumps = [], []
    for command in ("migrate", "apply_migrations"):
        database = databases.new()
        project = SmallProject(
            tmp_path / command,
            {"default": database.django},
            {**_SOUND, "demo.0003_kind": KIND},
            installed=["django.contrib.contenttypes", "django.contrib.auth"],
        )
        outputs.append(project.succeed(command))
        dumps.append(dump(database.dsn, ignore_applied_times=True))

    assert outputs[0] == outputs[1]
    assert not diff(*dumps)


def test_a_failure_prints_its_cause_what_was_rolled_back_and_the_traceback(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": BROKEN})
    _at_first(project, database)

    result = project.run("apply_migrations")

    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "Operations to perform:",
        "  Apply all migrations: demo",
        "Running migrations:",
        "  Applying demo.0002_note... OK",
        "  Applying demo.0003_kind... FAIL",
        "The migration has failed.",
        "no such kind",
        "Operations to perform:",
        "  Rolling back to the last migration state: demo 0001_item",
        "Running rollback:",
        "  Unapplying demo.0002_note... OK",
        "Exception detail:",
    ]
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.endswith("ValueError: no such kind\n")


def test_a_failed_call_leaves_everything_as_it_was_and_the_mended_project_applies(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": BROKEN})
    _at_first(project, database)
    before = databases.dump(database)

    assert project.run("apply_migrations").returncode == 1
    assert not diff(before, databases.dump(database))

    project.write_migration("demo.0003_kind", KIND)
    project.succeed("apply_migrations")
    execute(database, "INSERT INTO demo_item (name, note, kind) VALUES ('jam', '', '')")


def test_a_failure_on_an_empty_database_leaves_it_empty(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": BROKEN})
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert "Rolling back to the last migration state: demo zero" in result.stdout
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "ValueError: no such kind")
    assert not diff(before, databases.dump(database))


@pytest.mark.parametrize("early", ["CREATE TABLE early (id integer)", "UPDATE demo_item SET name = 'jam'"])
def test_a_failure_after_a_commit_of_the_migrations_own_is_not_called_undone(
    databases: NewDatabases, tmp_path: Path, early: str
) -> None:
    database = databases.new()
    commits = migration(
        f"migrations.RunSQL({early!r}, '')",
        "migrations.RunSQL('COMMIT', '')",
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0001_item")],
        functions=run_python("raise ValueError('too late')"),
    )
    project = _project(tmp_path, database, **{"0002_note": commits})
    _at_first(project, database)

    result = project.run("apply_migrations")

    assert result.returncode == 4
    assert "demo.0002_note has ended the transaction itself; what it did before that may stay" in result.stderr


@pytest.mark.parametrize("raises", [True, False], ids=["and fails", "and ends well"])
def test_a_migration_that_commits_and_begins_again_is_not_called_undone(
    databases: NewDatabases, tmp_path: Path, *, raises: bool
) -> None:
    database = databases.new()
    statements = ["UPDATE demo_item SET name = 'jam'", "COMMIT", "BEGIN"]
    code = f"[editor.connection.cursor().execute(each) for each in {statements}] and {'1 / 0' if raises else '1'}"
    commits = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0001_item")], functions=run_python(code)
    )
    project = _project(tmp_path, database, **{"0002_note": commits, "0003_kind": BROKEN})
    _at_first(project, database)

    result = project.run("apply_migrations")

    assert result.returncode == 4, result.stdout + result.stderr
    assert "demo.0002_note has ended the transaction itself; what it did before that may stay" in result.stderr


def test_a_migration_that_raises_several_errors_at_once_is_undone(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(
        tmp_path, database, **{"0003_kind": failing("raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])")}
    )
    _at_first(project, database)
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert (result.returncode, "Unapplying demo.0002_note... OK" in result.stdout) == (1, True)
    assert not diff(before, databases.dump(database))


def test_a_signal_breaks_off_a_statement_that_runs_in_c(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    endless = "WITH RECURSIVE one (x) AS (SELECT 1 UNION ALL SELECT x FROM one) SELECT count(*) FROM one"
    waits = migration(
        "migrations.RunPython(forwards, nothing)",
        f"migrations.RunSQL('{endless}', '')",
        after=[("demo", "0002_note")],
        functions=run_python("print('waiting', flush=True)"),
    )
    project = _project(tmp_path, database, **{"0003_kind": waits})
    _at_first(project, database)
    before = databases.dump(database)

    with project.start("apply_migrations") as process:
        assert process.stdout is not None
        assert any(line.endswith("waiting\n") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        _stdout, stderr = process.communicate()

    assert process.returncode == 1
    assert stderr == "CommandError: ended by SIGTERM; what was done has been undone\n"
    assert not diff(before, databases.dump(database))


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit",
        "from django.core.management.base import CommandError; raise CommandError('no', returncode=0)",
    ],
    ids=["exit", "command error"],
)
def test_a_migration_that_ends_the_program_as_if_it_had_succeeded_has_failed(
    databases: NewDatabases, tmp_path: Path, body: str
) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": failing(body)})
    before = databases.dump(database)

    results = [project.run("apply_migrations", *options) for options in ([], ["--json"])]

    assert [result.returncode for result in results] == [1, 1]
    assert results[0].stderr.startswith("CommandError: ")
    assert not diff(before, databases.dump(database))


def test_a_program_freezes_what_its_start_has_made_and_a_callers_collector_stays_as_it_is(
    databases: NewDatabases, tmp_path: Path
) -> None:
    frozen = "print(__import__('gc').get_freeze_count())"
    call = f"from django.core.management import call_command; call_command('apply_migrations', verbosity=0); {frozen}"
    project = _project(tmp_path, databases.new(), **{"0003_kind": failing(frozen)})

    [printed] = [line for line in project.succeed("apply_migrations").splitlines() if "demo.0003_kind" in line]

    assert int(printed.removeprefix("  Applying demo.0003_kind...")) > 10_000
    assert int(project.succeed("shell", "--no-imports", "--command", call)) == 0
