"""Whom a call waits for, told while it waits."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import SqliteDatabase
from tests.support.mariadb_database import MariadbDatabase
from tests.support.next_release import project_of
from tests.support.pgbouncer import PgBouncer, why_not
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import DEFINES, ITEM, NOTE, run_python
from tests.support.small_project import SmallProject, migration

if TYPE_CHECKING:
    import subprocess

    from MySQLdb.cursors import Cursor

pytestmark = pytest.mark.timeout(120)

_WAITING_NAMES = "SELECT application_name FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
_OUTSIDE = NOTE.replace("atomic = True", "atomic = False")


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """Return the first line of standard output that holds this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the call ended without {text!r}")


@pytest.mark.parametrize("note", [NOTE, _OUTSIDE], ids=["atomic", "not atomic"])
def test_postgresql_tells_who_blocks_once_and_our_session_has_its_name(
    pg_database: PostgresDatabase, tmp_path: Path, note: str
) -> None:
    project = project_of(tmp_path, pg_database, {"demo.0002_note": note})
    with pg_database.connect() as holder, pg_database.connect() as watcher:
        holder.execute("SET application_name = 'nightly report'")
        holder.autocommit = False
        pid = holder.info.backend_pid
        holder.execute("SELECT name,\n  id FROM demo_item")
        with project.start("apply_migrations", "--show-queries") as process:
            line = read_until(process, "Waiting for a lock")
            names = watcher.execute(_WAITING_NAMES).fetchall()
            # It goes on looking, and says nothing more.
            watcher.execute("SELECT pg_sleep(1)")
            holder.rollback()
            rest, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert re.fullmatch(
        rf"  Waiting for a lock: pid {pid} \(nightly report, idle in transaction\), "
        r"its query \d+\.\d s old: SELECT name, id FROM demo_item\n",
        line,
    )
    assert "Waiting for a lock" not in rest
    assert [re.sub("[0-9a-f]{32}", "run", name) for (name,) in names] == ["smooth:run:default"]


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("note", [NOTE, _OUTSIDE], ids=["atomic", "not atomic"])
def test_a_pooler_of_transactions_does_not_hide_who_blocks(
    pg_server: PostgresServer, pg_database: PostgresDatabase, tmp_path: Path, note: str
) -> None:
    project_of(tmp_path / "direct", pg_database)
    with PgBouncer(pg_server, pool_size=3) as pooler, pg_database.connect() as holder:
        sources = {"demo.0001_item": ITEM, "demo.0002_note": note}
        project = SmallProject(tmp_path / "pooled", {"default": pooler.django(pg_database.name)}, sources)
        pid = holder.info.backend_pid
        holder.autocommit = False
        holder.execute("SELECT * FROM demo_item")
        with project.start("apply_migrations") as process:
            line = read_until(process, "Waiting for a lock")
            holder.rollback()
            _rest, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert line.startswith(f"  Waiting for a lock: pid {pid} (")


def test_without_being_asked_no_query_is_told(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_of(tmp_path, pg_database, {"demo.0002_note": NOTE})
    before = dump(pg_database.dsn, sequences=False)
    with pg_database.connect() as holder, holder.transaction():
        holder.execute("SELECT 'secret' FROM demo_item")
        pid = holder.info.backend_pid
        result = project.run("apply_migrations", "--lock-timeout=1s")
    assert result.returncode == 1
    assert result.stdout.count(f"Waiting for a lock: pid {pid} (") == 1
    assert "secret" not in result.stdout + result.stderr
    assert not diff(before, dump(pg_database.dsn, sequences=False))


def test_a_session_has_its_own_name_again_afterwards(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_of(tmp_path, pg_database, {"demo.0002_note": NOTE})
    code = (
        "from django.core.management import call_command; from django.db import connection; "
        "cursor = connection.cursor(); cursor.execute(\"SET application_name = 'own'\"); "
        "call_command('apply_migrations', verbosity=0); "
        "cursor.execute('SHOW application_name'); print(*cursor.fetchone())"
    )
    assert project.succeed("shell", "-v0", "-c", code) == "own\n"


def session_of(cursor: "Cursor") -> int:
    """Return the number of a session on its MariaDB server."""
    cursor.execute("SELECT CONNECTION_ID()")  # type: ignore[no-untyped-call]  # MySQLdb's
    (number,) = cursor.fetchone()  # type: ignore[no-untyped-call]
    return int(number)


def test_mariadb_tells_who_may_hold_a_table(mariadb_database: MariadbDatabase, tmp_path: Path) -> None:
    project = project_of(tmp_path, mariadb_database, {"demo.0002_note": NOTE})
    before = dump(mariadb_database.dsn, sequences=False)
    with mariadb_database.connect() as holder, holder.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM demo_item")
        pid = session_of(cursor)
        result = project.run("apply_migrations", "--lock-timeout=2s")
    assert result.returncode == 1
    assert result.stdout.count(f"  Waiting for a lock: pid {pid} (") == 1
    assert "1205" in result.stderr
    assert not diff(before, dump(mariadb_database.dsn, sequences=False))


def test_mariadb_tells_who_holds_a_row_and_its_query(mariadb_database: MariadbDatabase, tmp_path: Path) -> None:
    update = migration("migrations.RunSQL(\"UPDATE demo_item SET name = 'jam'\", '')", after=[("demo", "0001_item")])
    project = project_of(tmp_path, mariadb_database, {"demo.0002_note": update})
    with mariadb_database.connect() as holder, holder.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("UPDATE demo_item SET name = 'oil'")
        pid = session_of(cursor)
        with project.start("apply_migrations", "--show-queries") as process:
            line = read_until(process, "Waiting for a lock")
            cursor.execute("ROLLBACK")
            process.communicate()
    assert process.returncode == 0
    assert line.startswith(f"  Waiting for a lock: pid {pid} (")


def test_mariadb_has_its_own_time_outs_again_for_the_undo(mariadb_database: MariadbDatabase, tmp_path: Path) -> None:
    values = (
        "def _values(editor):\n    with editor.connection.cursor() as cursor:\n"
        "        cursor.execute('SELECT @@lock_wait_timeout, @@innodb_lock_wait_timeout, @@max_statement_time')\n"
        "        return [float(value) for value in cursor.fetchone()]\n\n"
    )
    told = migration(
        "migrations.RunPython(forwards, forwards)",
        after=[("demo", "0001_item")],
        functions=values + run_python(f"{DEFINES}; print(*_values(editor))"),
    )
    fails = migration("migrations.RunSQL('SELECT nothing', '')", after=[("demo", "0002_note")])
    project = project_of(tmp_path, mariadb_database, {"demo.0002_note": told, "demo.0003_kind": fails})

    result = project.run("apply_migrations", "--lock-timeout=1500ms", "--statement-timeout=3s")

    there, back = re.findall(r"(\d+\.\d+ \d+\.\d+ \d+\.\d+)$", result.stdout, re.MULTILINE)
    assert there == "2.0 2.0 3.0"
    assert float(back.split()[0]) > 2
    assert back.split()[2] == "0.0"


@pytest.mark.long
def test_a_locked_file_is_named(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "own.sqlite3")
    database.path.touch()
    locks = (
        "import sqlite3; forwards.other = sqlite3.connect(editor.connection.settings_dict['NAME']); "
        "forwards.other.execute('BEGIN IMMEDIATE')"
    )
    takes = migration(
        "migrations.RunPython(forwards, nothing)",
        "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))",
        after=[("demo", "0001_item")],
        functions=run_python(locks),
    )
    project = project_of(tmp_path, database, {"demo.0002_note": takes})

    result = project.run("apply_migrations", "--lock-timeout=100ms")

    assert result.returncode == 1
    assert f"The file {database.path} is locked by another session.\n" in result.stdout


def test_a_file_that_is_locked_from_the_start_is_named(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "own.sqlite3")
    database.path.touch()
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE})
    with closing(sqlite3.connect(database.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        result = project.run("apply_migrations")
    assert result.returncode == 1
    assert f"The file {database.path} is locked by another session.\n" in result.stdout
