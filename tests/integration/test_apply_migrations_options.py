"""The options that `apply_migrations` adds to those of `migrate`."""

from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, execute
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_migrations import BROKEN, BROKEN_LATE, ITEM, KIND, NOTE, run_python
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.long_on("sqlite")


def project_of(directory: Path, database: Database, **further: str) -> SmallProject:
    """Bring a database to its first migration, with a row, and write what comes next."""
    project = SmallProject(directory / "project", {"default": database.django}, {"demo.0001_item": ITEM})
    project.succeed("migrate", "--verbosity=0")
    execute(database, "INSERT INTO demo_item (name) VALUES ('tea')")
    for name, source in {"0002_note": NOTE, **further}.items():
        project.write_migration(f"demo.{name}", source)
    return project


def test_a_rehearsal_says_that_it_would_succeed_and_changes_nothing(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = project_of(tmp_path, database, **{"0003_kind": KIND})
    before = databases.dump(database)

    result = project.run("apply_migrations", "--rehearse")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "Rehearsed: these migrations would succeed. Nothing was changed."
    assert not diff(before, databases.dump(database))


def test_a_rehearsal_that_fails_says_why_and_changes_nothing(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = project_of(tmp_path, database, **{"0003_kind": BROKEN})
    before = databases.dump(database)

    result = project.run("apply_migrations", "--rehearse")

    assert result.returncode == 1
    assert "ValueError: no such kind" in result.stderr
    assert not diff(before, databases.dump(database))


def test_what_no_transaction_holds_cannot_be_rehearsed(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    project = project_of(tmp_path, database, **{"0003_kind": KIND.replace("atomic = True", "atomic = False")})
    before = stepping_databases.dump(database)

    result = project.run("apply_migrations", "--rehearse")

    assert result.returncode == 3
    assert "Refused: these cannot be rehearsed: demo.0002_note, demo.0003_kind" in result.stderr
    assert not diff(before, stepping_databases.dump(database))


def test_without_rollback_a_failure_leaves_what_had_run_before(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    project = project_of(tmp_path, database, **{"0003_kind": BROKEN})

    result = project.run("apply_migrations", "--no-rollback")

    assert result.returncode == 1
    assert "Unapplying" not in result.stdout
    assert "0002_note" in every_database.dump(database)


def test_a_lock_that_is_not_to_be_had_is_tried_for_again(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_of(tmp_path, pg_database)
    before = dump(pg_database.dsn, sequences=False)
    with pg_database.connect() as holder, holder.transaction():
        holder.execute("SELECT * FROM demo_item")
        result = project.run("apply_migrations", "--lock-timeout=100ms", "--lock-retries=2")
    assert result.returncode == 1
    assert [line.partition("(attempt ")[2] for line in result.stdout.splitlines() if "trying again" in line] == [
        "1)",
        "2)",
    ]
    assert "lock timeout" in result.stderr
    assert not diff(before, dump(pg_database.dsn, sequences=False))


def test_a_statement_that_takes_too_long_is_ended(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    slow = migration("migrations.RunSQL('SELECT pg_sleep(60)', '')", after=[("demo", "0002_note")])
    project = project_of(tmp_path, pg_database, **{"0003_slow": slow})
    before = dump(pg_database.dsn, sequences=False)

    result = project.run("apply_migrations", "--statement-timeout=100ms")

    assert result.returncode == 1
    assert "statement timeout" in result.stderr
    assert not diff(before, dump(pg_database.dsn, sequences=False))


def test_what_could_not_be_undone_runs_when_it_is_allowed(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    one_way = migration("migrations.RunPython(forwards)", after=[("demo", "0001_item")], functions=run_python("pass"))
    late = KIND.replace("atomic = True", "atomic = False")
    project = project_of(tmp_path, database, **{"0002_note": one_way, "0003_kind": late})
    before = stepping_databases.dump(database)

    assert project.run("apply_migrations").returncode == 3
    assert not diff(before, stepping_databases.dump(database))

    project.succeed("apply_migrations", "--allow-irreversible")
    assert "0003_kind" in stepping_databases.dump(database)


def test_an_undo_that_is_not_exact_is_told_line_by_line(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    careless = migration(
        "migrations.RunSQL('CREATE INDEX left_behind ON demo_item (name)', migrations.RunSQL.noop)",
        after=[("demo", "0001_item")],
        atomic=False,
    )
    broken = BROKEN_LATE.replace("0002_note", "0002_note")
    project = project_of(tmp_path, database, **{"0002_note": careless, "0003_kind": broken})

    result = project.run("apply_migrations")

    if "the schema is not as it was before:" not in result.stderr:
        # Where every DDL statement is a commit, tables get their definitions back whatever the reverse says.
        assert "left_behind" not in every_database.dump(database)
        return
    assert result.returncode == 4
    assert any("left_behind" in line and "+ " in line for line in result.stderr.splitlines())


@pytest.mark.parametrize("text", ["5", "s", "-1s", "1 s", "1d"])
def test_what_is_no_duration_is_a_usage_error(databases: NewDatabases, tmp_path: Path, text: str) -> None:
    project = project_of(tmp_path, databases.new())

    result = project.run("apply_migrations", f"--wait={text}")

    assert result.returncode == 2
    assert f"{text!r} is no duration; write 250ms, 2s, 15min or 24h" in result.stderr


def test_what_ends_forgotten_transactions_does_not_end_one_that_is_held(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    noting = migration(
        "migrations.RunSQL(\"INSERT INTO demo_item (name, note) VALUES ('idle', "
        "current_setting('idle_in_transaction_session_timeout'))\", '')",
        after=[("demo", "0002_note")],
    )
    project = project_of(tmp_path, pg_database, **{"0003_noting": noting})
    execute(pg_database, f"ALTER DATABASE {pg_database.name} SET idle_in_transaction_session_timeout = '1s'")

    project.succeed("apply_migrations")

    with pg_database.connect() as session:
        assert session.execute("SELECT note FROM demo_item WHERE name = 'idle'").fetchall() == [("0",)]


@pytest.mark.parametrize("text", ["0s", "0.4ms", "99999999h"])
def test_a_limit_that_a_server_would_take_for_another_is_refused(
    pg_database: PostgresDatabase, tmp_path: Path, text: str
) -> None:
    result = project_of(tmp_path, pg_database).run("apply_migrations", f"--lock-timeout={text}")

    assert result.returncode == 2
    assert f"{text!r} is no limit that a server takes; write 1ms to 596h" in result.stderr
