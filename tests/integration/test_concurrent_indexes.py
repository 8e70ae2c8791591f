"""Indexes that PostgreSQL builds concurrently: what an earlier build has left, and how far this one has come."""

from collections.abc import Iterable
from pathlib import Path

import psycopg
import pytest

from tests.support.dump import diff, dump
from tests.support.histories import execute
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_migrations import BROKEN, ITEM
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(120)

_BY_OPERATION = "AddIndexConcurrently('item', models.Index(fields=['name'], name='demo_item_name'))"
_BY_SQL = (
    "migrations.RunSQL('CREATE INDEX CONCURRENTLY IF NOT EXISTS demo_item_name ON demo_item (name)', "
    "'DROP INDEX demo_item_name')"
)
_OPERATIONS = pytest.mark.parametrize("operation", [_BY_OPERATION, _BY_SQL], ids=["operation", "SQL"])


def project_of(directory: Path, database: PostgresDatabase, operation: str) -> SmallProject:
    project = SmallProject(directory / "project", {"default": database.django}, {"demo.0001_item": ITEM})
    project.succeed("migrate", "--verbosity=0")
    execute(database, "INSERT INTO demo_item (name) VALUES ('tea'), ('tea')")
    project.write_migration("demo.0002_note", migration(operation, after=[("demo", "0001_item")], atomic=False))
    return project


def leave_invalid(database: PostgresDatabase, name: str = "demo_item_name") -> None:
    with database.connect() as session, pytest.raises(psycopg.errors.UniqueViolation):
        session.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON demo_item (name)".encode())


def wait_for_progress(output: Iterable[str], seen: list[str]) -> list[str]:
    """Return the lines up to the first that tells of an index, unless one was seen already."""
    lines: list[str] = []
    if not any("demo_item_name:" in line for line in seen):
        for line in output:
            lines.append(line)
            if "demo_item_name:" in line:
                break
    return lines


def validity(database: PostgresDatabase) -> dict[str, bool]:
    with database.connect() as session:
        return dict(
            session.execute(
                "SELECT relname::text, indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
                "WHERE relname LIKE 'demo_item_%' AND relname NOT LIKE '%_pkey'"
            ).fetchall()
        )


@_OPERATIONS
def test_an_invalid_index_of_that_name_makes_room(
    pg_database: PostgresDatabase, tmp_path: Path, operation: str
) -> None:
    project = project_of(tmp_path, pg_database, operation)
    leave_invalid(pg_database)
    leave_invalid(pg_database, "demo_item_other")

    project.succeed("apply_migrations")

    assert validity(pg_database) == {"demo_item_name": True, "demo_item_other": False}


@_OPERATIONS
def test_an_undo_that_leaves_an_invalid_index_out_is_exact(
    pg_database: PostgresDatabase, tmp_path: Path, operation: str
) -> None:
    project = project_of(tmp_path, pg_database, operation)
    without = dump(pg_database.dsn, sequences=False)
    leave_invalid(pg_database)
    project.write_migration("demo.0003_kind", BROKEN)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert "ValueError: no such kind" in result.stderr
    assert not diff(without, dump(pg_database.dsn, sequences=False))


@_OPERATIONS
def test_a_build_that_fails_leaves_no_index(pg_database: PostgresDatabase, tmp_path: Path, operation: str) -> None:
    fails = operation.replace("fields=['name']", "models.F('id') / 0").replace("(name)", "((id / 0))")
    project = project_of(tmp_path, pg_database, fails)
    before = dump(pg_database.dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert validity(pg_database) == {}
    assert not diff(before, dump(pg_database.dsn, sequences=False))


@_OPERATIONS
def test_a_valid_index_of_that_name_is_left_alone(
    pg_database: PostgresDatabase, tmp_path: Path, operation: str
) -> None:
    project = project_of(tmp_path, pg_database, operation)
    execute(pg_database, "CREATE INDEX demo_item_name ON demo_item (name, id)")

    assert project.run("apply_migrations").returncode == (0 if operation is _BY_SQL else 1)

    assert validity(pg_database) == {"demo_item_name": True}


@pytest.mark.parametrize("verbosity", [1, 2])
def test_a_talkative_call_tells_how_far_a_build_has_come(
    pg_database: PostgresDatabase, tmp_path: Path, verbosity: int
) -> None:
    project = project_of(tmp_path, pg_database, _BY_OPERATION)
    with pg_database.connect() as writer:
        writer.autocommit = False
        writer.execute("INSERT INTO demo_item (name) VALUES ('jam')")
        with project.start("apply_migrations", f"--verbosity={verbosity}") as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if f"pid {writer.info.backend_pid} (" in line:
                    break
            watcher_lines = wait_for_progress(process.stdout, lines) if verbosity > 1 else []
            writer.rollback()
            process.communicate()
    assert process.returncode == 0
    told = [line for line in [*lines, *watcher_lines] if "waiting for writers before build" in line]
    assert told == (["  demo_item_name: waiting for writers before build, 0 %\n"] if verbosity > 1 else [])
