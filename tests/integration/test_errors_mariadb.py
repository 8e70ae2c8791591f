"""What MariaDB says when a lock is not to be had, and what only looks like it."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import is_lock_failure
from tests.support.django_connections import connected
from tests.support.histories import execute
from tests.support.mariadb_database import MariadbDatabase

_DEADLOCK = 1213
_LONG = "SELECT SUM(a.seq * b.seq) FROM seq_1_to_100000 a, seq_1_to_100000 b"


@pytest.fixture
def sessions(mariadb_database: MariadbDatabase) -> Iterator[list[BaseDatabaseWrapper]]:
    """Two of Django's sessions, to a database with a table `item` of two rows; neither commits by itself."""
    execute(
        mariadb_database, "CREATE TABLE item (id integer PRIMARY KEY, name text); INSERT INTO item (id) VALUES (1), (2)"
    )
    with ExitStack() as stack:
        both = [stack.enter_context(connected(mariadb_database.django)) for _ in range(2)]
        for session in both:
            session.inc_thread_sharing()
            session.set_autocommit(False)
        yield both


def _run(session: BaseDatabaseWrapper, *statements: str) -> None:
    with session.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.mark.parametrize(
    ("hold", "want"),
    [
        pytest.param(
            "UPDATE item SET name = 'held' WHERE id = 1",
            ["SET innodb_lock_wait_timeout = 0", "UPDATE item SET name = 'wanted' WHERE id = 1"],
            id="row",
        ),
        pytest.param(
            "SELECT * FROM item", ["SET lock_wait_timeout = 0", "ALTER TABLE item ADD COLUMN price integer"], id="table"
        ),
    ],
)
def test_a_lock_that_is_not_to_be_had_may_be_tried_again(
    sessions: list[BaseDatabaseWrapper], hold: str, want: list[str]
) -> None:
    _run(sessions[0], hold)

    with pytest.raises(OperationalError) as caught:
        _run(sessions[1], *want)

    assert is_lock_failure(caught.value)
    assert caught.value.__cause__ is not None
    assert is_lock_failure(caught.value.__cause__)


def test_a_deadlock_may_be_tried_again(sessions: list[BaseDatabaseWrapper]) -> None:
    for number, session in enumerate(sessions, start=1):
        _run(session, f"UPDATE item SET name = 'first' WHERE id = {number}")
    raised: list[DatabaseError] = []

    def cross(number: int) -> None:
        try:
            _run(sessions[number - 1], f"UPDATE item SET name = 'second' WHERE id = {3 - number}")
        except DatabaseError as error:
            raised.append(error)

    crossing = [threading.Thread(target=cross, args=[number]) for number in (1, 2)]
    for thread in crossing:
        thread.start()
    for thread in crossing:
        thread.join()

    assert [error.args[0] for error in raised] == [_DEADLOCK]
    assert is_lock_failure(raised[0])


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        pytest.param("SELECT * FROM nowhere", ProgrammingError, id="no table"),
        pytest.param("INSERT INTO item (id) VALUES (1)", IntegrityError, id="duplicate"),
        pytest.param(
            f"SET STATEMENT max_statement_time = 0.01 FOR {_LONG}",
            OperationalError,
            id="statement time-out",
        ),
    ],
)
def test_another_failure_is_not_tried_again(
    sessions: list[BaseDatabaseWrapper], statement: str, kind: type[DatabaseError]
) -> None:
    with pytest.raises(kind) as caught:
        _run(sessions[0], statement)

    assert not is_lock_failure(caught.value)
