"""What a generated history consists of before it is known whether it is possible: kinds and bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.generated import fields, rows, structures
from tests.support.generated.world import APPS, Choices, Context, Operation, World

__all__ = ["KINDS", "Intent", "MigrationIntent", "PlantIntent", "Skeleton", "skeletons"]

Kind = Callable[[World, Choices, Context], Operation | None]

KINDS: Mapping[str, Kind] = {
    kind.__name__: kind
    for kind in (
        fields.create_model,
        rows.insert,
        fields.add_field,
        fields.alter_field,
        fields.remove_field,
        fields.rename_field,
        fields.rename_model,
        fields.delete_model,
        fields.add_relation,
        fields.add_many,
        fields.add_through,
        fields.alter_key,
        structures.add_index,
        structures.remove_index,
        structures.rename_index,
        structures.add_constraint,
        structures.remove_constraint,
        structures.alter_together,
        structures.alter_table,
        structures.alter_options,
        rows.update,
        rows.link,
        rows.raw_table,
        rows.raw_rows,
        rows.raw_index,
        rows.raw_update,
    )
}
# Beside one time each.
_OFTEN = (
    *("create_model", "insert", "insert", "add_field", "alter_field", "alter_field", "add_relation", "add_index"),
    *("add_constraint", "remove_index", "remove_constraint", "rename_field", "rename_model", "remove_field"),
)


@dataclass(frozen=True, slots=True)
class Intent:
    """An operation that is wanted.

    Args:
        kind: a key of `KINDS`.
        data: everything else about it.
    """

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class MigrationIntent:
    """A migration that is wanted.

    Args:
        app: its app.
        atomic: whether it is.
        intents: its operations; those which are not possible are left out.
    """

    app: str
    atomic: bool
    intents: tuple[Intent, ...]


@dataclass(frozen=True, slots=True)
class PlantIntent:
    """Where a failure is wanted: everything is taken modulo what there is.

    Args:
        migration: which of those pending.
        operation: after how many of its operations.
        kind: which of the failures.
    """

    migration: int
    operation: int
    kind: int


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A history that is wanted.

    Args:
        migrations: in the order in which they run.
        applied: how many of them were applied long ago.
        squash: the first of those that a squashed one replaces, and how many; None without.
        plant: the failure.
    """

    migrations: tuple[MigrationIntent, ...]
    applied: int
    squash: tuple[int, int] | None
    plant: PlantIntent


def skeletons() -> st.SearchStrategy[Skeleton]:
    """Return a strategy of histories that are wanted."""
    intents = st.builds(Intent, st.sampled_from((*_OFTEN, *KINDS)), st.binary(min_size=12, max_size=12))
    migrations = st.builds(
        MigrationIntent,
        # Mostly the first, so that one app has many migrations in a row, which can be squashed.
        st.sampled_from((*APPS, *APPS[:1] * 2, APPS[1])),
        st.sampled_from((True, True, True, False)),
        st.lists(intents, min_size=1, max_size=5).map(tuple),
    )
    numbers = st.integers(0, 15)
    return st.builds(
        Skeleton,
        st.lists(migrations, min_size=2, max_size=12).map(tuple),
        # A database that is empty before is one case of many.
        st.sampled_from((*range(1, 16), 0)),
        st.none() | st.tuples(numbers, st.integers(2, 4)),
        st.builds(PlantIntent, numbers, numbers, numbers),
    )
