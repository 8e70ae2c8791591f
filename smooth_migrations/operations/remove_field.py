"""RemoveField: the column stays with its values until the release that reads it is gone."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AlterField, RemoveField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED

from smooth_migrations.operations.base import AnyField, CannotSplit, Explanation, Obstacle, Place, Split
from smooth_migrations.operations.fields import clone, column_of, field_of, has_column, is_alike
from smooth_migrations.operations.obstacles import dangling, duplicates, unfilled

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["SplitRemoveField"]


class SplitRemoveField(Split):
    """The column may be NULL and repeat itself, so that the new release need not know of it; later it is dropped."""

    kind: ClassVar[str] = "remove_field"

    def __init__(self, operation: RemoveField, place: Place, held: AnyField | None) -> None:
        self._operation = operation
        self._key = (place.app_label, operation.model_name_lower)
        self._held = held
        self._field = field = field_of(place.schema, self._key, operation.name)
        if field is not None and field.many_to_many:
            relations = place.rendered(operation.model_name)._meta.many_to_many  # noqa: SLF001 - public
            [table] = [relation.m2m_db_table() for relation in relations if relation.name == operation.name]
            self._what = f"drop table {table}"
        else:
            self._what = f"drop column {column_of(place.schema, self._key, operation.name)}"

    @classmethod
    def of(cls, operation: RemoveField, place: Place) -> Self | None:
        """Return the halves.

        Raises:
            CannotSplit: it is the primary key.
        """
        model = place.model(operation.model_name)
        field = model.fields.get(operation.name) if model is not None else None
        if field is None:
            return None
        if field.primary_key:
            raise CannotSplit(f"{operation.describe()} removes the primary key")
        if field.many_to_many and not _has_own_table(field):
            return None
        held = _relaxed(field)
        return cls(operation, place, None if held is None or is_alike(field, held) else held)

    def expand(self) -> Sequence[Operation]:
        """Relax what would keep the new release from inserting and deleting."""
        if self._held is None:
            return ()
        return (AlterField(self._operation.model_name, self._operation.name, self._held),)

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Drop it."""
        del project
        if field_of(schema, self._key, self._operation.name) is None:
            return ()
        return (RemoveField(self._operation.model_name, self._operation.name),)

    def validate_back(self, connection: BaseDatabaseWrapper, schema: ProjectState) -> Iterator[Obstacle]:
        """Yield the rows without a value that nothing fills, and those that refer to what is not there any more."""
        name, model = self._operation.name, schema.apps.get_model(*self._key)
        if self._held is None or self._field is None:
            return
        if self._field.many_to_many:
            yield from _dangling_links(connection, model, name)
            return
        if self._held.null and not self._field.null:
            yield from unfilled(connection, model, name, self._field)
        if self._field.unique and not self._held.unique:
            yield from duplicates(connection, model, (name,))
        if self._field.remote_field is not None:
            yield from dangling(connection, model, (name,))

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        table = f"{self._key[0]}.{self._key[1]}"
        return Explanation(
            locks=(f"ACCESS EXCLUSIVE on {table}, for a change of the catalogue",) if self._held is not None else (),
            rewrites=False,
            old_release="it reads and writes the column as before; rows of the new release have NULL there",
            new_release="it does not know the column, and need not fill it",
        )


def _relaxed(field: AnyField) -> AnyField | None:
    """Return the field without what would stop a release that does not know it."""
    if not has_column(field):
        return clone(field, db_constraint=False) if _has_own_table(field) else None
    has_default = getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    changed: dict[str, object] = {}
    if not field.null and not has_default:
        changed["null"] = True
    if field.unique and has_default:
        # Of NULL there may be many, of a default only one.
        changed["unique"] = False
    if field.remote_field is not None and getattr(field, "db_constraint", False):
        changed["db_constraint"] = False
    return clone(field, **changed)


def _has_own_table(field: AnyField) -> bool:
    return bool(field.many_to_many) and getattr(field.remote_field, "through", None) is None


def _dangling_links(connection: BaseDatabaseWrapper, model: "type[Model]", name: str) -> Iterator[Obstacle]:
    relation: Any = model._meta.get_field(name)  # noqa: SLF001 - public
    yield from dangling(
        connection, relation.remote_field.through, (relation.m2m_field_name(), relation.m2m_reverse_field_name())
    )
