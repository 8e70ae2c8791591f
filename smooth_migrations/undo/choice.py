"""Which undo each migration of a plan has, told before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

from smooth_migrations.reversibility import committed_early

__all__ = ["Choice", "Way", "choose"]


class Way(StrEnum):
    """How something is undone, as people are told it."""

    TRANSACTION = "whole-call transaction, by ROLLBACK"
    JOURNAL = "operation journal, newest first by reverse operations"
    EMPTY = "empty database, by dropping everything again"


@dataclass(frozen=True, slots=True)
class Choice:
    """An undo, and the migrations that have it.

    Args:
        way: how.
        migrations: `app.name`, in the order in which they run.
    """

    way: Way
    migrations: tuple[str, ...]


def choose(
    plan: Sequence[tuple[Migration, bool]], connection: BaseDatabaseWrapper, *, is_empty: bool, compensated: bool
) -> list[Choice]:
    """Return the undo of each migration of a plan, in the order in which they run.

    What runs after the last migration that no transaction holds is held until the end of the call. What runs up to
    there is committed before, and noted in the journal; in a database that was empty, dropping everything undoes that.

    Args:
        plan: (migration, backwards) in order.
        connection: the target's.
        is_empty: whether the database holds nothing yet.
        compensated: whether each migration is committed by itself.
    """
    names = [str(migration) for migration, _backwards in plan]
    early = len(committed_early(plan, connection, compensated=compensated))
    ways = [(Way.EMPTY if is_empty else Way.JOURNAL, names[:early]), (Way.TRANSACTION, names[early:])]
    return [Choice(way, tuple(migrations)) for way, migrations in ways if migrations]
