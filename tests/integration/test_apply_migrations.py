import signal
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, execute
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import BROKEN, BROKEN_LATE, ITEM, KIND, NOTE, SLOW_TO_FAIL, failing, run_python
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


def test_a_failure_leaves_an_empty_table_of_migrations_empty(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": BROKEN})
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    project.succeed("migrate", "demo", "zero", "--verbosity=0")
    before = databases.dump(database)

    assert project.run("apply_migrations").returncode == 1

    assert not diff(before, databases.dump(database))


def test_the_first_migration_of_a_new_app_is_undone_too(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = SmallProject(
        tmp_path / "project",
        {"default": database.django},
        {
            **_SOUND,
            "crates.0001_initial": _OTHER_APP,
            "demo.0003_kind": BROKEN.replace("dependencies = [", "dependencies = [('crates', '0001_initial'), "),
        },
    )
    _at_first(project, database)
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert "  Unapplying crates.0001_initial... OK\n" in result.stdout
    assert not diff(before, databases.dump(database))


def test_another_database_is_rolled_back_without_a_look_at_the_default(databases: NewDatabases, tmp_path: Path) -> None:
    default, other = databases.new(), databases.new()
    project = SmallProject(
        tmp_path / "project",
        {"default": default.django, "other": other.django},
        {**_SOUND, "demo.0003_kind": BROKEN},
    )
    project.succeed("migrate", "demo", "0001", "--database=other", "--verbosity=0")
    before = [databases.dump(default), databases.dump(other)]

    assert project.run("apply_migrations", "--database=other").returncode == 1

    assert [databases.dump(default), databases.dump(other)] == before


def test_what_fake_initial_found_in_place_is_only_unrecorded(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": BROKEN_LATE})
    _at_first(project, database)
    execute(database, "DELETE FROM django_migrations")
    before = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations", "--fake-initial")

    assert "  Unapplying demo.0001_item... OK\n" in result.stdout
    assert not diff(before, dump(database.dsn, sequences=False))


def test_what_fake_recorded_is_only_unrecorded(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": BROKEN_LATE})
    _at_first(project, database)
    project.write(
        "demo/management/__init__.py",
        "from django.db.models.signals import post_migrate\n\n"
        "def fail(**kwargs):\n    raise ValueError('no')\n\npost_migrate.connect(fail)\n",
    )
    before = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations", "--fake")

    assert "  Unapplying demo.0003_kind... OK\n" in result.stdout
    assert not diff(before, dump(database.dsn, sequences=False))


def test_siblings_go_back_to_their_common_parent(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    sibling = migration(
        "migrations.AddField('item', 'size', models.IntegerField(default=0))", after=[("demo", "0001_item")]
    )
    merge = migration(
        "migrations.RunPython(forwards)",
        after=[("demo", "0002_note"), ("demo", "0002_size")],
        functions=run_python("raise ValueError('no')"),
    )
    project = _project(tmp_path, database, **{"0002_size": sibling, "0003_merge": merge})
    _at_first(project, database)
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert "Rolling back to the last migration state: demo 0001_item\n" in result.stdout
    assert not diff(before, databases.dump(database))


def test_what_was_unapplied_before_a_failure_is_applied_again(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    stuck = migration(
        "migrations.RunPython(nothing, forwards)",
        after=[("demo", "0001_item")],
        functions=run_python("raise ValueError('no way back')"),
    )
    project = _project(tmp_path, database, **{"0002_note": stuck, "0003_kind": KIND})
    project.succeed("migrate", "--verbosity=0")
    execute(database, "INSERT INTO demo_item (name, kind) VALUES ('tea', 'green')")
    before = databases.dump(database)

    result = project.run("apply_migrations", "demo", "0001")

    assert result.returncode == 1
    assert "Rolling back to the last migration state: demo 0003_kind\n" in result.stdout
    assert "  Applying demo.0003_kind... OK\n" in result.stdout
    assert not diff(before, databases.dump(database))


@pytest.mark.parametrize(
    ("body", "returncode"),
    [
        pytest.param("raise KeyboardInterrupt", -signal.SIGINT, id="KeyboardInterrupt"),
        pytest.param("raise SystemExit(7)", 7, id="SystemExit"),
    ],
)
def test_a_migration_that_ends_the_process_is_undone(
    databases: NewDatabases, tmp_path: Path, body: str, returncode: int
) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": failing(body, atomic=False)})
    _at_first(project, database)
    before = dump(database.dsn, sequences=False)

    assert project.run("apply_migrations").returncode == returncode

    assert not diff(before, dump(database.dsn, sequences=False))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_call_that_a_signal_ends_undoes_what_it_did(
    number: signal.Signals, databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0003_kind": SLOW_TO_FAIL})
    _at_first(project, database)
    before = databases.dump(database)

    with project.start("apply_migrations") as process:
        assert process.stdout is not None
        assert any(line.endswith("waiting\n") for line in process.stdout)
        process.send_signal(number)
        stdout, stderr = process.communicate()

    assert process.returncode == 1
    assert "  Unapplying demo.0002_note... OK\n" in stdout
    assert stderr == f"CommandError: ended by {number.name}; what was done has been undone\n"
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


def test_no_rollback_is_announced_when_nothing_had_run(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(tmp_path, database, **{"0002_note": BROKEN.replace("0002_note", "0001_item")})
    _at_first(project, database)

    result = project.run("apply_migrations")

    assert result.stdout.splitlines()[-4:] == [
        "  Applying demo.0002_note... FAIL",
        "The migration has failed.",
        "no such kind",
        "Exception detail:",
    ]


def test_a_table_with_deferred_foreign_keys_may_be_filled_and_then_altered(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    parts = migration(
        "migrations.CreateModel('Part', [('id', models.BigAutoField(primary_key=True)), "
        "('item', models.ForeignKey('demo.item', models.CASCADE))])",
        after=[("demo", "0002_note")],
    )
    filled = migration(
        "migrations.RunPython(forwards)",
        after=[("demo", "0003_part")],
        functions=run_python(
            "apps.get_model('demo', 'Part').objects.create(item=apps.get_model('demo', 'Item').objects.get())"
        ),
    )
    altered = migration(
        "migrations.AddField('part', 'size', models.IntegerField(default=0))", after=[("demo", "0004_fill")]
    )
    project = _project(tmp_path, database, **{"0003_part": parts, "0004_fill": filled, "0005_size": altered})
    _at_first(project, database)

    project.succeed("apply_migrations")

    execute(database, "INSERT INTO demo_part (item_id, size) SELECT item_id, size + 1 FROM demo_part")
    assert "0005_size" in databases.dump(database)
