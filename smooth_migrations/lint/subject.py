"""What a rule is shown: a migration, operation by operation, as it would be deployed."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState

from smooth_migrations.classification import Effects
from smooth_migrations.lint.source import Source
from smooth_migrations.operations import CannotSplit, Split
from smooth_migrations.reversibility import database_parts
from smooth_migrations.rewrites import rewrites
from smooth_migrations.touched import model_of

__all__ = ["Step", "Subject"]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Args:
        app_label: of its migration.
        operation: as it is in the file.
        line: where.
        before: the project's state before it.
        existing: the models whose tables the release still running uses, by the names that they have here.
        split: its halves, where it has some.
        refusal: why it has none, where it would break one of two releases.
        effects: what it does where it runs as a whole.
        lost: what of it has no way back once it is committed, in words.
        connection: of the database that it is for. Nothing is asked of it but what it can do.
    """

    app_label: str
    operation: Operation
    line: int
    before: ProjectState
    existing: AbstractSet[tuple[str, str]]
    split: Split | None
    refusal: CannotSplit | None
    effects: Effects
    lost: tuple[str, ...]
    connection: BaseDatabaseWrapper

    @property
    def expand(self) -> Sequence[Operation]:
        """What of it is done at the deploy."""
        return (self.operation,) if self.split is None else self.split.expand()

    @property
    def locks(self) -> tuple[str, ...]:
        """What that locks of what was there before, in words."""
        return self.effects.locks if self.split is None else self.split.explain().locks

    @property
    def rewrites(self) -> Iterator[str]:
        """What of it writes all rows of a table anew, then or later, in words."""
        if self.split is not None and self.split.explain().rewrites:
            yield f"{self.operation.describe()}: every row is filled for the release still running"
        yield from self.remakes

    @property
    def remakes(self) -> Iterator[str]:
        """What of that is done while nobody else reads or writes the table, in words."""
        for part in self.parts:
            if (model := self.model(part)) is not None:
                yield from (f"{part.describe()}: {why}" for why in rewrites(part, model, self.connection))

    @property
    def parts(self) -> Iterator[Operation]:
        """What of it is done to the database."""
        return database_parts(self.operation)

    def model(self, part: Operation) -> ModelState | None:
        """Return the model that a part changes, where its table was there before."""
        key = (self.app_label, model_of(part) or "")
        return self.before.models.get(key) if key in self.existing else None


@dataclass(frozen=True, slots=True)
class Subject:
    """One migration.

    Args:
        migration: it.
        source: its file.
        vendor: of the database that it is for.
        expands: whether what the release still running cannot live with is held back.
        steps: its operations, in order.
    """

    migration: Migration
    source: Source
    vendor: str
    expands: bool
    steps: tuple[Step, ...]

    @property
    def parts(self) -> Iterator[tuple[Step, Operation]]:
        """What it does to the database, with the operation that does it."""
        return ((step, part) for step in self.steps for part in step.parts)
