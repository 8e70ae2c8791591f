"""Take fingerprints of a test's databases, and compare them."""

from textwrap import dedent

from smooth_migrations.fingerprint import Fingerprint, take
from tests.support.django_connections import connected
from tests.support.histories import Database, execute

__all__ = ["assert_there_and_back", "fingerprint_of"]


def fingerprint_of(database: Database) -> Fingerprint:
    """Take a fingerprint through a connection of its own."""
    with connected(database.django) as connection:
        return take(connection)


def assert_there_and_back(database: Database, change: str, inverse: str, expected: str) -> None:
    """Make a change, assert what differs, undo it, and assert that nothing differs any more.

    Args:
        database: where.
        change: SQL.
        inverse: SQL that takes it back.
        expected: the differences, a line each, indented as one likes.
    """
    before = fingerprint_of(database)
    execute(database, change)
    assert "\n".join(before.differences(fingerprint_of(database))) == dedent(expected).strip()
    execute(database, inverse)
    assert before.differences(fingerprint_of(database)) == ()
