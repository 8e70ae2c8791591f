"""AddConstraint and AlterUniqueTogether: the release still running may write what a constraint would refuse."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AddConstraint, AlterUniqueTogether
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import CheckConstraint, UniqueConstraint

from smooth_migrations.operations.base import Explanation, Obstacle, Place, Split
from smooth_migrations.operations.fields import table_of
from smooth_migrations.operations.obstacles import duplicates, violations

__all__ = ["SplitAddConstraint", "SplitUniqueTogether"]

_BOTH = Explanation(
    locks=(), rewrites=False, old_release="nothing changes for it", new_release="it keeps to it by itself until then"
)


class SplitAddConstraint(Split):
    """The constraint comes when nobody is left who does not know of it."""

    kind: ClassVar[str] = "add_constraint"

    def __init__(self, operation: AddConstraint, place: Place) -> None:
        self._operation = operation
        self._key = (place.app_label, operation.model_name_lower)
        self._what = f"add constraint {operation.constraint.name} to {table_of(place.schema, self._key)}"

    @classmethod
    def of(cls, operation: AddConstraint, place: Place) -> Self | None:
        """Return the halves."""
        return cls(operation, place) if place.model(operation.model_name) is not None else None

    def expand(self) -> Sequence[Operation]:
        """Do nothing."""
        return ()

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Add it."""
        name = self._operation.constraint.name
        return (self._operation,) if name in _names(project, self._key) - _names(schema, self._key) else ()

    def validate(
        self, connection: BaseDatabaseWrapper, schema: ProjectState, project: ProjectState
    ) -> Iterator[Obstacle]:
        """Yield duplicates, or rows that a check refuses; other constraints are tried unseen."""
        if not self.contract(schema, project):
            return
        model, constraint = schema.apps.get_model(*self._key), self._operation.constraint
        if isinstance(constraint, UniqueConstraint) and constraint.fields:
            yield from duplicates(connection, model, constraint.fields, constraint.condition)
        elif isinstance(constraint, CheckConstraint):
            condition = getattr(constraint, "condition", None) or constraint.check
            yield from violations(connection, model, condition, f"the constraint {constraint.name} is violated")

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        return _BOTH


class SplitUniqueTogether(Split):
    """What is no longer unique is so at once, and what is to be unique later."""

    kind: ClassVar[str] = "alter_unique_together"

    def __init__(self, operation: AlterUniqueTogether, place: Place, kept: set[tuple[str, ...]]) -> None:
        self._operation = operation
        self._key = (place.app_label, operation.name_lower)
        self._now = _together(place.schema, self._key)
        self._kept = kept
        new = sorted(", ".join(names) for names in _sets(operation.unique_together) - kept)
        self._what = f"make {'; '.join(new)} unique in {table_of(place.schema, self._key)}"

    @classmethod
    def of(cls, operation: AlterUniqueTogether, place: Place) -> Self | None:
        """Return the halves, where something is to be unique that is not so now."""
        now, wanted = _together(place.schema, (place.app_label, operation.name_lower)), _sets(operation.unique_together)
        return cls(operation, place, now & wanted) if wanted - now else None

    def expand(self) -> Sequence[Operation]:
        """Let go what need not be unique any more."""
        return (AlterUniqueTogether(self._operation.name, self._kept),) if self._kept != self._now else ()

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Make unique what the project says."""
        wanted = _together(project, self._key)
        if self._key not in project.models or wanted == _together(schema, self._key):
            return ()
        return (AlterUniqueTogether(self._operation.name, wanted),)

    def validate(
        self, connection: BaseDatabaseWrapper, schema: ProjectState, project: ProjectState
    ) -> Iterator[Obstacle]:
        """Yield duplicates."""
        for names in sorted(_together(project, self._key) - _together(schema, self._key)):
            yield from duplicates(connection, schema.apps.get_model(*self._key), names)

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        return _BOTH


def _names(state: ProjectState, key: tuple[str, str]) -> set[str]:
    model = state.models.get(key)
    return {constraint.name for constraint in model.options.get("constraints", ())} if model is not None else set()


def _together(state: ProjectState, key: tuple[str, str]) -> set[tuple[str, ...]]:
    model = state.models.get(key)
    return _sets(model.options.get("unique_together")) if model is not None else set()


def _sets(value: Any) -> set[tuple[str, ...]]:  # noqa: ANN401 - as Django normalises it
    return {tuple(names) for names in value or ()}
