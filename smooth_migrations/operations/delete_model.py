"""DeleteModel: the table stays with its rows until the release that uses it is gone."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AlterField, DeleteModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.base import Explanation, Obstacle, Place, Split
from smooth_migrations.operations.fields import clone, table_of
from smooth_migrations.operations.obstacles import dangling

__all__ = ["SplitDeleteModel"]


class SplitDeleteModel(Split):
    """Its foreign keys are let go, so that the new release may delete what its rows refer to; later it is dropped."""

    kind: ClassVar[str] = "delete_model"

    def __init__(self, operation: DeleteModel, place: Place) -> None:
        self._operation = operation
        self._key = (place.app_label, operation.name_lower)
        self._fields = dict(place.schema.models[self._key].fields)
        self._what = f"drop table {table_of(place.schema, self._key)}"

    @classmethod
    def of(cls, operation: DeleteModel, place: Place) -> Self | None:
        """Return the halves."""
        return cls(operation, place) if place.model(operation.name) is not None else None

    def expand(self) -> Sequence[AlterField]:
        """Let its foreign keys go, and those of its own many-to-many tables."""
        return tuple(
            AlterField(self._operation.name, name, clone(field, db_constraint=False))
            for name, field in self._fields.items()
            if field.remote_field is not None
            and getattr(field.remote_field, "through", None) is None
            and getattr(field, "db_constraint", getattr(field.remote_field, "db_constraint", False))
        )

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Drop it, with its many-to-many tables."""
        del project
        return (DeleteModel(self._operation.name),) if self._key in schema.models else ()

    def validate_back(self, connection: BaseDatabaseWrapper, schema: ProjectState) -> Iterator[Obstacle]:
        """Yield the rows of which the new release has deleted what they refer to."""
        model = schema.apps.get_model(*self._key)
        for part in self.expand():
            relation: Any = model._meta.get_field(part.name)  # noqa: SLF001 - public
            if relation.many_to_many:
                names = (relation.m2m_field_name(), relation.m2m_reverse_field_name())
                yield from dangling(connection, relation.remote_field.through, names)
            else:
                yield from dangling(connection, model, (part.name,))

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        relations = [name for name, field in self._fields.items() if field.remote_field is not None]
        return Explanation(
            locks=(f"ACCESS EXCLUSIVE on {self._key[0]}.{self._key[1]}, for a change of the catalogue",)
            if relations
            else (),
            rewrites=False,
            old_release="it uses the table as before",
            new_release="it does not know the table, and may delete what its rows refer to",
        )
