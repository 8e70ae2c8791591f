"""A statement that goes on when its client is gone, as MariaDB lets it: it is ended before anybody looks."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smooth_migrations.lease import LeaseLost, SessionLock
from tests.support.django_connections import connected
from tests.support.dump import diff, dump
from tests.support.histories import execute
from tests.support.leases import acquire, expire, two, until
from tests.support.long_alter import LONG, LONG_SQL, ROWS, alters, let_it_end
from tests.support.mariadb_database import MariadbDatabase
from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

pytestmark = pytest.mark.timeout(180)

_RELEASE = {"demo.0002_note": LONG}


@pytest.fixture
def database(mariadb_databases: NewDatabases) -> MariadbDatabase:
    database = mariadb_databases.new()
    assert isinstance(database, MariadbDatabase)
    return database


@pytest.fixture
def project(database: MariadbDatabase, tmp_path: Path) -> SmallProject:
    """A project whose next release takes long."""
    project = project_of(tmp_path, database, _RELEASE)
    execute(database, ROWS)
    return project


def _killed_while_it_alters(project: SmallProject, database: MariadbDatabase) -> int:
    """Kill a call in the middle of an ALTER TABLE; return the session in which that goes on."""
    with project.start("apply_migrations") as process:
        until(lambda: bool(alters(database)) or process.poll() is not None)
        process.kill()
    (session,) = alters(database)
    return session


def test_what_a_killed_call_has_left_at_work_is_ended_before_it_is_taken_back(
    database: MariadbDatabase, project: SmallProject
) -> None:
    before = dump(database.dsn, sequences=False)
    _killed_while_it_alters(project, database)

    result = project.run("apply_migrations", "demo", "0001")

    assert result.returncode == 0, result.stderr
    assert "was killed here. Taking back what it left:\n" in result.stdout
    let_it_end(database)
    assert not diff(before, dump(database.dsn, sequences=False))


def test_a_session_that_cannot_be_ended_keeps_others_out_by_its_number(
    database: MariadbDatabase, project: SmallProject, tmp_path: Path
) -> None:
    before = dump(database.dsn, sequences=False)
    # Other users' sessions are ended by those alone who have a privilege for that (MariaDB documentation, KILL).
    execute(database, "CREATE OR REPLACE USER narrow@'127.0.0.1' IDENTIFIED BY 'narrow'")
    execute(database, f"GRANT ALL ON {database.name}.* TO narrow@'127.0.0.1'")
    narrow = database.django | {"USER": "narrow", "PASSWORD": "narrow"}
    others = SmallProject(tmp_path / "others", {"default": narrow}, {"demo.0001_item": ITEM, **_RELEASE})
    session = _killed_while_it_alters(project, database)

    refused = others.run("apply_migrations", "demo", "0001")

    assert alters(database) == [session]
    assert refused.returncode == 5
    assert refused.stderr == (
        f"CommandError: session {session} is still at work on the database 'default' for an earlier run, and could not "
        f"be ended (KILL {session}): nothing was run (end it as a user who may, or wait until it has ended)\n"
    )
    execute(database, f"KILL {session}")
    others.succeed("apply_migrations", "demo", "0001")
    assert not diff(before, dump(database.dsn, sequences=False))


@pytest.mark.usefixtures("project")
def test_a_connection_that_is_opened_again_ends_what_goes_on_in_the_one_that_was_lost(
    database: MariadbDatabase,
) -> None:
    before = dump(database.dsn, sequences=False)
    with connected(database.django) as connection, ThreadPoolExecutor() as beside:
        lock = SessionLock(acquire(connection))
        lock.take()
        lost = connection.connection
        with socket.socket(fileno=os.dup(lost.fileno())) as wire:
            statement = beside.submit(lost.query, LONG_SQL)
            until(lambda: bool(alters(database)))
            wire.shutdown(socket.SHUT_RDWR)
        assert statement.exception()
        assert alters(database)
        connection.close()

        connection.ensure_connection()

        assert not alters(database)
        lock.release()
    assert not diff(before, dump(database.dsn, sequences=False))


def test_who_has_lost_the_lease_ends_nobody_s_session(mariadb_databases: NewDatabases) -> None:
    with two(mariadb_databases) as (database, one, other):
        slept = SessionLock(acquire(one))
        slept.take()
        expire(database, mariadb_databases.vendor)
        heir = SessionLock(acquire(other))
        heir.take()
        assert not one.is_usable()
        one.close()

        with pytest.raises(LeaseLost):
            one.ensure_connection()

        assert one.connection is None
        assert other.is_usable()
        slept.release()
        heir.release()
        one.ensure_connection()
