"""AddField: the release still running inserts rows without the column, and deletes what it refers to.

Where the column is NOT NULL the database keeps a default; deletes are followed in it.

PostgreSQL adds a column with a constant default without writing rows anew (PostgreSQL manual, ALTER TABLE, notes).
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AddField, AlterField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED, DateField, DateTimeField
from django.db.models.functions import Cast, Now
from django.utils import timezone

from smooth_migrations.operations.base import AnyField, CannotSplit, Explanation, ModelKey, Obstacle, Place, Split
from smooth_migrations.operations.fields import clone, column_of, default_of, field_of, is_alike
from smooth_migrations.operations.followed import FollowDeletes, Followed, StopFollowing, followed
from smooth_migrations.operations.obstacles import unfilled

__all__ = ["SplitAddField"]

_CLOCKS = (timezone.now, dt.datetime.now, dt.date.today)


class SplitAddField(Split):
    """The column comes with a default of the database's, or nullable where there is none; that ends later."""

    kind: ClassVar[str] = "add_field"

    def __init__(self, operation: AddField, place: Place, held: AnyField, keys: Sequence[Followed]) -> None:
        self._operation = operation
        self.keys = keys
        self._key = (place.app_label, operation.model_name_lower)
        self._name = operation.name
        self._held = held
        self._what = "; ".join(self._halves(place))

    def _halves(self, place: Place) -> Iterator[str]:
        if not self._held.many_to_many and not is_alike(self._held, self._operation.field):
            after = place.schema.clone()
            self.expand()[0].state_forwards(place.app_label, after)
            column = column_of(after, self._key, self._name)
            yield f"set {column} NOT NULL" if self._held.null else f"drop the default of {column}"
        if self.keys:
            parents = sorted({key.parent for key in self.keys})
            yield f"stop following deletes from {', '.join(parents)} in {self.keys[0].table}"

    @classmethod
    def of(cls, operation: AddField, place: Place) -> Self | None:
        """Return the halves, of a column that only a program would fill, or that refers to what may be deleted."""
        model, field = place.model(operation.model_name), operation.field
        if model is not None and operation.name in model.fields:
            raise CannotSplit(
                f"{operation.model_name}.{operation.name} is still the column of a field that has been removed",
                hint="finalise first, or give the new field another name",
            )
        held = _held(field, place)
        keys = _followed(operation, place)
        return None if held is None and not keys else cls(operation, place, held or field, keys)

    @property
    def may_be_whole(self) -> bool:
        """Whether it is split for the sake of deletes alone."""
        return self._held is self._operation.field

    def expand(self) -> Sequence[Operation]:
        """Add the column so that a row may come without it."""
        operation = self._operation
        added = AddField(operation.model_name, operation.name, self._held, preserve_default=operation.preserve_default)
        return (added, FollowDeletes(self.keys)) if self.keys else (added,)

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Make the column what the project says."""
        followed = (StopFollowing(self.keys),) if self.keys else ()
        now, field = field_of(schema, self._key, self._name), field_of(project, self._key, self._name)
        if now is None or field is None or now.many_to_many or is_alike(now, field):
            return followed
        return (*followed, AlterField(self._operation.model_name, self._name, self._filled(field)))

    def _filled(self, field: AnyField) -> AnyField:
        # A default that was given to the migration alone still fills what is NULL.
        asked = self._operation.field
        if self._operation.preserve_default or not asked.has_default() or field.has_default():
            return field
        return clone(field, default=asked.default)

    def follow(self, key: ModelKey, old_name: str, new_name: str) -> None:
        """Find the field by its new name from here on."""
        if (key, old_name) == (self._key, self._name):
            self._name = new_name

    def validate(
        self, connection: BaseDatabaseWrapper, schema: ProjectState, project: ProjectState
    ) -> Iterator[Obstacle]:
        """Yield the rows without a value, where no default fills them."""
        now, field = field_of(schema, self._key, self._name), field_of(project, self._key, self._name)
        if now is not None and field is not None and now.null and not field.null:
            yield from unfilled(connection, schema.apps.get_model(*self._key), self._name, self._filled(field))

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        inserts = "it inserts rows without the column, and the database gives its default"
        deletes = "what refers to rows that it deletes goes with them, or refers to nothing"
        told = [*([] if self.may_be_whole else [inserts]), *([deletes] if self.keys else [])]
        parents = sorted({key.parent for key in self.keys})
        return Explanation(
            locks=(
                f"ACCESS EXCLUSIVE on {self._key[0]}.{self._key[1]}, for a change of the catalogue",
                *(f"SHARE ROW EXCLUSIVE on {table}, for a change of the catalogue" for table in parents),
            ),
            rewrites=False,
            old_release="; ".join(told),
            new_release="it writes the column",
        )


def _held(field: AnyField, place: Place) -> AnyField | None:
    """Return the field as the release before can live with it; None where that is as it is."""
    if field.many_to_many or field.null or getattr(field, "generated", False):
        return None
    if getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED:
        return None
    default = None if field.unique else _database_default(field, place)
    return clone(field, null=True) if default is None else clone(field, db_default=default)


def _followed(operation: AddField, place: Place) -> list[Followed]:
    if place.connection.vendor != "postgresql" or operation.field.remote_field is None:
        return []
    after = place.schema.clone()
    operation.state_forwards(place.app_label, after)
    return followed(after.apps.get_model(place.app_label, operation.model_name), [operation.name])


def _database_default(field: AnyField, place: Place) -> object:
    """Return what the database is to write where nobody does; None where that is not known."""
    if isinstance(field, DateField) and (field.auto_now or field.auto_now_add or field.default in _CLOCKS):
        # A row of tomorrow's is not of the day of the deploy.
        return Now() if isinstance(field, DateTimeField) else Cast(Now(), DateField())
    # The value that Django's own AddField gives to the rows that are there.
    return default_of(field, place.connection)
