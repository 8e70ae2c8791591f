"""What exists at one point of a generated history: enough of it to know which operations are possible next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from tests.support.histories import Vendor

__all__ = ["APPS", "Choices", "Column", "Context", "Model", "Operation", "Relation", "World"]

T = TypeVar("T")

APPS = ("north", "south", "west")
"""The apps of a generated history; not all of them need to have a migration."""


class Relation(StrEnum):
    """What a column is other than a value."""

    FOREIGN_KEY = "ForeignKey"
    ONE_TO_ONE = "OneToOneField"
    MANY = "ManyToManyField"


class Choices:
    """Decisions read off bytes, so that shorter and smaller bytes are simpler histories.

    Args:
        data: one byte a decision; after its end each decision is the simplest.
    """

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def below(self, limit: int) -> int:
        """Choose a number from 0 to `limit` - 1."""
        return next(self._data, 0) % limit

    def of(self, options: Sequence[T]) -> T:
        """Choose one of these, of which the first is the simplest."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """Choose yes that often."""
        return next(self._data, 0) > 255 - 256 * percent // 100


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a migration.

    Args:
        source: what stands in its list of operations.
        functions: what must stand before the migration's class.
        moves_rows: whether it writes rows, after which PostgreSQL alters no table in the same transaction.
        alone: whether it must not be in a transaction.
    """

    source: str
    functions: str = ""
    moves_rows: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """Where in a history an operation stands.

    Args:
        app: of its migration.
        vendor: of the database.
        atomic: whether its migration is.
        free: whether it may be one that has no way back: it was applied long ago, or one transaction covers it.
        applied: whether it was applied long ago.
    """

    app: str
    vendor: Vendor
    atomic: bool
    free: bool
    applied: bool


@dataclass(eq=False, slots=True)
class Column:
    """A field of a model.

    Args:
        name: its name.
        kind: one of the kinds of `columns`, or a `Relation`.
        target: what a relation refers to.
        through: the model of a many-to-many relation, where it has one of its own.
        distinct: whether no two rows have the same value.
        has_nulls: whether a row has none.
        links: which rows a many-to-many relation connects.
    """

    name: str
    kind: str
    null: bool = False
    unique: bool = False
    db_index: bool = False
    default: bool = False
    db_default: bool = False
    db_constraint: bool = True
    choices: bool = False
    target: "Model | None" = None
    through: "Model | None" = None
    distinct: bool = True
    has_nulls: bool = False
    links: set[tuple[str, str]] = field(default_factory=set)

    @property
    def is_value(self) -> bool:
        """Whether it refers to nothing."""
        return self.target is None

    @property
    def is_concrete(self) -> bool:
        """Whether its model's table has a column for it."""
        return self.kind != Relation.MANY


@dataclass(eq=False, slots=True)
class Model:
    """A model.

    Args:
        app: its app.
        name: its name.
        key: the type of its primary key.
        columns: the others, by name.
        indexes: names of fields, by the index's name.
        constraints: likewise.
        together: what is unique together.
        rows: the primary keys of its rows, as source.
        hidden_rows: how many further rows it has.
        bases: the model that it inherits from, where it has one.
    """

    app: str
    name: str
    key: str = "BigAutoField"
    table: str | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    indexes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constraints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    together: tuple[str, ...] = ()
    rows: list[str] = field(default_factory=list)
    hidden_rows: int = 0

    @property
    def path(self) -> str:
        """How others refer to it."""
        return f"{self.app}.{self.name}"

    @property
    def table_name(self) -> str:
        """Its table's name in the database."""
        return self.table or f"{self.app}_{self.name.lower()}"

    @property
    def count(self) -> int:
        """How many rows it has."""
        return len(self.rows) + self.hidden_rows

    def concrete(self) -> list[Column]:
        """Return what its table has a column for."""
        return [column for column in self.columns.values() if column.is_concrete]

    def bound(self) -> set[str]:
        """Return the names that an index or a constraint mentions."""
        return {name for names in (*self.indexes.values(), *self.constraints.values(), self.together) for name in names}


class World:
    """Every model of every app, and names and numbers that were never used before."""

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.raw_tables: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, of: str = "value") -> int:
        """Return a number that was never returned before for the same thing."""
        self._numbers[of] = self._numbers.get(of, 0) + 1
        return self._numbers[of]

    def of_app(self, app: str) -> list[Model]:
        """Return an app's models."""
        return [model for model in self.models if model.app == app]

    def referring(self, target: Model) -> Iterator[tuple[Model, Column]]:
        """Return the relations that refer to a model, or go through it."""
        for model in self.models:
            for column in model.columns.values():
                if target in (column.target, column.through):
                    yield model, column

    def is_through(self, model: Model) -> bool:
        """Tell whether a many-to-many relation needs a model's foreign keys."""
        return any(column.through is model for _owner, column in self.referring(model))
