"""RenameField: a second column has the old name, and is kept equal until the release that knows it is gone."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import RenameField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import NOT_PROVIDED, CompositePrimaryKey

from smooth_migrations.operations.base import CannotSplit, Explanation, ModelKey, NotAtOnce, Obstacle, Place, Split
from smooth_migrations.operations.old_columns import (
    DropOldColumn,
    OldColumn,
    RenameBeside,
    crowded,
    differing,
    hindrances,
)

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["SplitRenameField"]


class SplitRenameField(Split):
    """The column is renamed, and a second one has its old name and is kept equal; later that is dropped.

    Args:
        operation: the rename.
        key: of its model.
        column: what it renames.
        targets: the fields that a foreign key has its type from.
    """

    kind: ClassVar[str] = "rename_field"

    def __init__(
        self, operation: RenameField, key: ModelKey, column: OldColumn, targets: frozenset[tuple[ModelKey, str]]
    ) -> None:
        self._operation = operation
        self.key = key
        self.names = frozenset({operation.old_name, operation.new_name})
        self.column = column
        self.targets = targets
        self._what = f"drop column {column.table}.{column.old}"

    @classmethod
    def of(cls, operation: RenameField, place: Place) -> Self | None:
        """Return the halves, where a column gets another name.

        Raises:
            CannotSplit: a second column cannot stand for the old name.
        """
        model = place.model(operation.model_name)
        if model is None or operation.old_name not in model.fields:
            return None
        after = place.schema.clone()
        operation.state_forwards(place.app_label, after)
        old = place.rendered(operation.model_name)
        new = after.apps.get_model(place.app_label, operation.model_name)
        was, is_now = (_kept_in(*end) for end in ((old, operation.old_name), (new, operation.new_name)))
        if was == is_now:
            return None
        for reason in _reasons(model, operation.old_name, place):
            raise CannotSplit(f"{operation.describe()}: {reason}")
        key = (place.app_label, operation.model_name_lower)
        column = OldColumn(old._meta.db_table, was, is_now)  # noqa: SLF001 - public
        return cls(operation, key, column, frozenset(_targets(old._meta.get_field(operation.old_name))))  # noqa: SLF001

    def expand(self) -> Sequence[Operation]:
        """Rename it, and keep the old name beside."""
        return (RenameBeside(self._operation, self.column),)

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Drop the old name."""
        del schema, project
        return (DropOldColumn(self.column),)

    def hindrances(self, connection: BaseDatabaseWrapper) -> Iterator[str]:
        """Yield what else the table has that the second column would not be right with."""
        yield from hindrances(connection, self.column)

    def unready(self, connection: BaseDatabaseWrapper) -> Iterator[NotAtOnce]:
        """Yield whether the table is too large for a second column that is not there yet."""
        for reason in crowded(connection, self.column):
            message = f"{self._operation.describe()}: {reason}"
            yield NotAtOnce(message, connection.ops.quote_name(self.column.table), self.column.shadow.name)

    def validate(
        self, connection: BaseDatabaseWrapper, schema: ProjectState, project: ProjectState
    ) -> Iterator[Obstacle]:
        """Yield the rows in which the two columns differ."""
        del project
        meta: Any = schema.apps.get_model(*self.key)._meta  # noqa: SLF001 - public
        yield from differing(connection, self.column, [field.column for field in meta.pk_fields])

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        return Explanation(
            locks=(f"ACCESS EXCLUSIVE on {self.column.table}, with all its rows where no deploy fills them ahead",),
            rewrites=True,
            old_release=f"it reads and writes {self.column.old}, which a trigger keeps equal",
            new_release="it uses the column by its new name",
        )


def _kept_in(model: "type[Model]", name: str) -> str:
    """Return a field's column, or the table of a relation to many."""
    field: Any = model._meta.get_field(name)  # noqa: SLF001 - public
    if field.many_to_many:
        return str(field.m2m_db_table())
    return str(field.column)


def _reasons(model: ModelState, name: str, place: Place) -> Iterator[str]:
    """Yield in words why both releases could not go on."""
    field: Any = model.fields[name]
    if place.connection.vendor != "postgresql":
        yield "the release still running knows the old name"
    if field.many_to_many:
        yield "its table gets another name, and the release still running knows the old one"
    if field.primary_key or name in _of_composite_key(model):
        yield "it is of the primary key"
    if any(getattr(each, "generated", False) for each in model.fields.values()):
        yield "a column of its table is generated"
    if field.null and getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED:
        yield "NULL could not be told from its default in the database"


def _of_composite_key(model: ModelState) -> Iterator[str]:
    for field in model.fields.values():
        if isinstance(field, CompositePrimaryKey):
            yield from field.field_names


def _targets(field: Any) -> Iterator[tuple[ModelKey, str]]:  # noqa: ANN401 - Django's stubs have no kind for it
    while field.remote_field is not None:
        field = field.target_field
        meta = field.model._meta  # noqa: SLF001 - public
        yield (meta.app_label, meta.model_name), field.name
