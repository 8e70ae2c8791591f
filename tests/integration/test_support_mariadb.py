"""The tests' own MariaDB: a server that leaves nothing behind, and a dump that misses nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import mariadb_server as support
from tests.support.dump import diff, dump
from tests.support.histories import execute
from tests.support.leases import until
from tests.support.mariadb_database import MariadbDatabase, temporary_mariadb_database
from tests.support.mariadb_server import MariadbServer

ROOT = Path(__file__).parents[2]

_SCHEMA = """
    CREATE TABLE item (id integer AUTO_INCREMENT PRIMARY KEY, name varchar(20), KEY item_name (name));
    INSERT INTO item (name) VALUES ('one'), ('two');
    CREATE TABLE django_migrations (id integer, app text, applied text);
    INSERT INTO django_migrations VALUES (1, 'shop', 'today');
    CREATE VIEW named AS SELECT name FROM item;
    CREATE SEQUENCE counter;
    CREATE PROCEDURE work() SELECT 1;
    CREATE EVENT daily ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01' DO SELECT 1;
    CREATE TRIGGER touched BEFORE UPDATE ON item FOR EACH ROW SET NEW.name = 'touched';
"""


@pytest.fixture
def filled(mariadb_database: MariadbDatabase) -> MariadbDatabase:
    execute(mariadb_database, _SCHEMA)
    return mariadb_database


def test_what_is_missing_is_named_with_the_packages_that_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "_PLACES", "/nowhere")
    assert support.why_not() == (
        "mariadbd, mariadb-install-db, my_print_defaults not found: install MariaDB 10.6 or newer with its client "
        "library's headers (Debian: mariadb-server-core mariadb-client-core libmariadb-dev gcc pkg-config), "
        "then `make test`"
    )


@pytest.mark.usefixtures("mariadb_server")  # skips where there is none
def test_mariadb_leaves_no_process_and_no_file_and_two_run_side_by_side() -> None:
    with MariadbServer() as server, MariadbServer() as second:
        directories, pids = [server.directory, second.directory], [server.pid, second.pid]
        assert server.port != second.port
        with second.connect() as session, session.cursor() as cursor:
            cursor.execute("SELECT @@port")
            assert cursor.fetchall() == ((second.port,),)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not any(directory.exists() for directory in directories)


@pytest.mark.usefixtures("mariadb_server")
def test_mariadb_ends_and_cleans_up_when_its_owner_is_killed() -> None:
    program = (
        "import sys; from tests.support.mariadb_server import *\n"
        "with MariadbServer() as s: print(s.pid, s.directory, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        guard = psutil.Process(int(pid)).parent()
        assert guard is not None
        os.kill(owner.pid, signal.SIGKILL)
    psutil.wait_procs([guard])
    assert not psutil.pid_exists(int(pid))
    assert not Path(directory).exists()


@pytest.mark.usefixtures("mariadb_server")
def test_mariadb_comes_back_on_its_port_with_what_was_committed_after_a_kill() -> None:
    durable = {"innodb-flush-log-at-trx-commit": 1}
    with MariadbServer(settings=durable) as server, temporary_mariadb_database(server) as database:
        execute(database, "CREATE TABLE item (id integer); INSERT INTO item VALUES (1)")
        before, port = dump(database.dsn), server.port
        server.kill()
        server.start()
        assert server.port == port
        assert not diff(before, dump(database.dsn))


@pytest.mark.usefixtures("mariadb_server")
def test_mariadb_says_what_the_program_said_when_it_cannot_start() -> None:
    with pytest.raises(RuntimeError, match="unknown variable 'no-such=1'"):
        MariadbServer(settings={"no-such": 1}).__enter__()


def test_dropping_a_mariadb_database_ends_the_sessions_that_hold_its_locks(mariadb_server: MariadbServer) -> None:
    with temporary_mariadb_database(mariadb_server) as database, database.connect() as session:
        execute(database, _SCHEMA)
        session.query("BEGIN")
        session.query("UPDATE item SET name = 'held'")
        # A server notices a moment later than its client that a connection is closed.
        until(lambda: mariadb_server.sessions(database.name) == 1)
    with mariadb_server.connect() as session, session.cursor() as cursor:
        assert cursor.execute("SHOW DATABASES LIKE %s", [database.name]) == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("UPDATE item SET id = 7 WHERE id = 2", id="row"),
        pytest.param("DELETE FROM item WHERE id = 2", id="missing row"),
        pytest.param("INSERT INTO item (name) VALUES (NULL); DELETE FROM item WHERE name IS NULL", id="position"),
        pytest.param("DO NEXTVAL(counter)", id="sequence's position"),
        pytest.param("ALTER TABLE item ADD COLUMN price integer", id="column"),
        pytest.param("ALTER TABLE item MODIFY id integer AUTO_INCREMENT AFTER name", id="column's place"),
        pytest.param("ALTER TABLE item COMMENT 'things'", id="comment"),
        pytest.param("ALTER TABLE item CONVERT TO CHARACTER SET latin1", id="character set"),
        pytest.param("CREATE INDEX item_both ON item (id, name)", id="index"),
        pytest.param("ALTER TABLE item DROP KEY item_name, ADD UNIQUE KEY item_name (name)", id="unique index"),
        pytest.param("DROP INDEX item_name ON item", id="missing index"),
        pytest.param("ALTER TABLE item ADD CONSTRAINT named CHECK (name <> '')", id="check"),
        pytest.param("CREATE OR REPLACE VIEW named AS SELECT id FROM item", id="view"),
        pytest.param("DROP TRIGGER touched", id="trigger"),
        pytest.param("CREATE OR REPLACE PROCEDURE work() SELECT 2", id="procedure"),
        pytest.param("CREATE FUNCTION one() RETURNS integer RETURN 1", id="function"),
        pytest.param("ALTER EVENT daily DISABLE", id="event"),
        pytest.param("UPDATE django_migrations SET applied = 'tomorrow'", id="applied"),
    ],
)
def test_a_mariadb_dump_shows_every_change(filled: MariadbDatabase, change: str) -> None:
    before = dump(filled.dsn)
    execute(filled, change)
    assert diff(before, dump(filled.dsn))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("CREATE TABLE smooth_migrations_journal (id integer)", id="the product's own"),
        pytest.param(
            "CREATE INDEX a ON item (id, name); DROP INDEX item_name ON item;"
            "CREATE INDEX item_name ON item (name); DROP INDEX a ON item; CREATE INDEX a ON item (id, name);"
            "DROP INDEX a ON item",
            id="order of indexes",
        ),
    ],
)
def test_a_mariadb_dump_is_the_same_for_the_same_content(filled: MariadbDatabase, change: str) -> None:
    before = dump(filled.dsn)
    execute(filled, change)
    assert not diff(before, dump(filled.dsn))


def test_a_mariadb_dump_leaves_out_what_it_is_told_to(filled: MariadbDatabase) -> None:
    options = {"ignore_applied_times": True, "blank": {"item": ["id"]}, "sequences": False}
    before = dump(filled.dsn, **options)  # type: ignore[arg-type]  # one of each
    execute(
        filled,
        """
        UPDATE django_migrations SET applied = 'tomorrow';
        DROP TRIGGER touched;
        UPDATE item SET id = 9 WHERE id = 2;
        CREATE TRIGGER touched BEFORE UPDATE ON item FOR EACH ROW SET NEW.name = 'touched';
        DO NEXTVAL(counter);
        """,
    )
    assert not diff(before, dump(filled.dsn, **options))  # type: ignore[arg-type]  # one of each
