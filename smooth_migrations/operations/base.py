"""What every operation that can be split has in common: its two halves, and what they mean for two live releases."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState

from smooth_migrations.errors import SmoothMigrationsError

__all__ = ["AnyField", "CannotSplit", "Explanation", "ModelKey", "NotAtOnce", "Obstacle", "Place", "Split"]

if TYPE_CHECKING:
    from django.db.models import Field, Model, QuerySet

    from smooth_migrations.operations.followed import Followed
    from smooth_migrations.operations.old_names import Renamed

    AnyField: TypeAlias = Field[Any, Any]
else:
    AnyField: TypeAlias = object

ModelKey = tuple[str, str]

_TWO_RELEASES = "set expand_contract = false for this database, or make the change in two releases"


class CannotSplit(SmoothMigrationsError):  # noqa: N818 - named by what is so
    """An operation would break one of two releases that are live at once, and has no halves here."""

    def __init__(self, message: str, *, hint: str = _TWO_RELEASES) -> None:
        super().__init__(message, hint=hint)


class NotAtOnce(CannotSplit):
    """An operation can be done only where something was made ready before its transaction.

    Args:
        message: why, in words.
        table: whose.
        name: what is to be ready.
    """

    def __init__(self, message: str, table: str, name: str) -> None:
        super().__init__(message)
        self.table = table
        self.name = name


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Rows that a contract half cannot take.

    Args:
        what: in words.
        table: whose.
        rows: how many.
        sample: the primary keys of some of them.
        query: what finds all of them.
        found: they themselves, where they can be deleted as such.
    """

    what: str
    table: str
    rows: int
    sample: tuple[Any, ...]
    query: str
    found: "QuerySet[Any] | None" = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        keys = ", ".join(str(key) for key in self.sample)
        rows = "row" if self.rows == 1 else "rows"
        return f"{self.what}: {self.rows} {rows} (such as {keys}); find them by {self.query}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an operation means while two releases are live.

    Args:
        locks: those of its expand half, in words.
        rewrites: whether that writes all rows of a table anew.
        old_release: why the release still running goes on, or what it may trip over.
        new_release: the same of the one that starts.
    """

    locks: tuple[str, ...]
    rewrites: bool
    old_release: str
    new_release: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operation stands.

    Args:
        app_label: of its migration.
        schema: the state of the tables right before it: the project's, with what is still held back.
        connection: the database's. Nothing is asked of it but what it can do.
        added: the fields that no release before has known.
        kept: the tables that the release before calls otherwise, or columns of them, by their names now.
        later: the operations that are committed together with this one, after it.
    """

    app_label: str
    schema: ProjectState
    connection: BaseDatabaseWrapper
    added: AbstractSet[tuple[ModelKey, str]] = frozenset()
    kept: Mapping[str, "Renamed"] = field(default_factory=dict)
    later: Sequence[Operation] = ()

    def model(self, name: str) -> ModelState | None:
        """Return a model of the migration's app."""
        return self.schema.models.get((self.app_label, name.lower()))

    def rendered(self, name: str) -> "type[Model]":
        """Return a model as a class, by which its table and columns are known."""
        return self.schema.apps.get_model(self.app_label, name)


class Split(ABC):
    """An operation that is done in two halves.

    Both are Django operations on the state of the tables, so that going back over the expand half is to run it
    backwards.

    Attributes:
        keys: the foreign keys in which deletes of the release before are followed.
    """

    kind: ClassVar[str]
    keys: "Sequence[Followed]" = ()
    _what: str

    @classmethod
    @abstractmethod
    def of(cls, operation: Any, place: Place) -> Self | None:  # noqa: ANN401 - each takes a kind of its own
        """Return the halves of an operation; None where both releases can live with the whole of it.

        Raises:
            CannotSplit: one of them cannot, and there are no halves.
        """

    @property
    def description(self) -> str:
        """The contract half, in words."""
        return self._what

    @property
    def may_be_whole(self) -> bool:
        """Whether the release still running works with the whole of it as well, but for rows that it deletes."""
        return False

    @property
    def is_of_table(self) -> bool:
        """Whether something of the table is held back, and not what Django notes of the model alone."""
        return True

    @abstractmethod
    def expand(self) -> Sequence[Operation]:
        """Return what is done at the deploy, in order."""

    @abstractmethod
    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Return what is left to be done.

        Args:
            schema: the state of the tables now.
            project: what they are to be.
        """

    def follow(self, key: ModelKey, old_name: str, new_name: str) -> None:
        """Take note that a later operation of the same deploy renames a field.

        Args:
            key: of its model.
            old_name: its name so far.
            new_name: its name from there on.
        """
        del key, old_name, new_name

    @abstractmethod
    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""

    def hindrances(self, connection: BaseDatabaseWrapper) -> Iterator[str]:
        """Yield in words what of this database keeps the expand half from being right. Only reads.

        Args:
            connection: the database's, before that half.
        """
        del connection
        yield from ()

    def unready(self, connection: BaseDatabaseWrapper) -> Iterator[NotAtOnce]:
        """Yield what the expand half needs, in this database, to be made ready before its transaction. Only reads."""
        del connection
        yield from ()

    def validate(
        self, connection: BaseDatabaseWrapper, schema: ProjectState, project: ProjectState
    ) -> Iterator[Obstacle]:
        """Yield the rows that the contract half could not take. Only reads.

        Args:
            connection: the database's.
            schema: the state of the tables now.
            project: what they are to be.
        """
        del connection, schema, project
        yield from ()

    def validate_back(self, connection: BaseDatabaseWrapper, schema: ProjectState) -> Iterator[Obstacle]:
        """Yield the rows that going back over the expand half could not take. Only reads.

        Args:
            connection: the database's.
            schema: the state of the tables after that half.
        """
        del connection, schema
        yield from ()
