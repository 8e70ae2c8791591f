"""RenameModel and AlterModelTable: both names lead to one table until the release that knows the old one is gone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AlterModelTable, RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.base import CannotSplit, Explanation, Place, Split
from smooth_migrations.operations.old_names import DropOldNames, KeepOldNames, Renamed, hindrances
from smooth_migrations.operations.old_types import KeepOldType

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["SplitRename"]


class SplitRename(Split):
    """The table is renamed, and a view that takes writes has its old name; later that is dropped.

    Args:
        operation: what renames it.
        tables: that one, and all that have a column named after it, also those that keep their names.
        types: what becomes of the model's content type by its old name.
    """

    kind: ClassVar[str] = "rename_table"

    def __init__(
        self,
        operation: RenameModel | AlterModelTable,
        tables: Sequence[Renamed],
        types: Sequence[KeepOldType] = (),
    ) -> None:
        self._operation = operation
        self.tables = tables
        self._types = types
        self._views = [table for table in tables if table.has_view]
        names = [f"view {table.old}" for table in self._views] or [f"content type {_names(operation)[0].lower()}"]
        self._what = f"drop {', '.join(names)}"

    @classmethod
    def of(cls, operation: RenameModel | AlterModelTable, place: Place) -> Self | None:
        """Return the halves, where any table or content type gets another name.

        Raises:
            CannotSplit: a view cannot stand for the old name.
        """
        before, after = place.schema, place.schema.clone()
        operation.state_forwards(place.app_label, after)
        found = _tables(operation, place.app_label, before, after)
        tables = [table.since(place.kept.get(table.old)) for table in found]
        is_split = any(table.has_view for table in tables)
        for table in tables:
            # A view that is yet to come has to know of this one: what runs as a whole is not remembered.
            _refuse_columns(operation, table, place if is_split else replace(place, later=()), after)
        types = KeepOldType.of(operation, place)
        if not is_split:
            return cls(operation, tables, types) if types and place.connection.features.can_rollback_ddl else None
        if place.connection.vendor != "postgresql":
            raise CannotSplit(f"{operation.describe()}: the release still running knows the old name")
        return cls(operation, tables, types)

    @property
    def is_of_table(self) -> bool:
        """Whether any has a view."""
        return bool(self._views)

    def hindrances(self, connection: BaseDatabaseWrapper) -> Iterator[str]:
        """Yield of which tables a view would allow more than they do, or less."""
        for table in self._views:
            yield from hindrances(connection, table)

    def expand(self) -> Sequence[Operation]:
        """Rename it, and keep its old name beside."""
        views = [KeepOldNames(self._views)] if self._views else []
        return (self._operation, *views, *self._types)

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Drop the old name."""
        del schema, project
        views = [DropOldNames(self._views)] if self._views else []
        return (*views, *(kept.dropped() for kept in self._types))

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        if not self._views:
            same = "it uses the table by the name that it had"
            return Explanation(locks=(), rewrites=False, old_release=same, new_release=same)
        return Explanation(
            locks=tuple(f"ACCESS EXCLUSIVE on {table.old}, for a change of the catalogue" for table in self._views),
            rewrites=False,
            old_release="it reads and writes the table through a view; COPY and TRUNCATE do not work on it",
            new_release="it uses the table by its new name",
        )


def _names(operation: RenameModel | AlterModelTable) -> tuple[str, str]:
    if isinstance(operation, RenameModel):
        return operation.old_name, operation.new_name
    return operation.name, operation.name


def _tables(
    operation: RenameModel | AlterModelTable, app_label: str, before: ProjectState, after: ProjectState
) -> Iterator[Renamed]:
    """Yield a model's table, and those that Django has made for its relations to many, and others' to it."""
    names = _names(operation)
    old, new = before.apps.get_model(app_label, names[0]), after.apps.get_model(app_label, names[1])
    yield Renamed.of(old, new)
    theirs = {_key(relation): relation.field for relation in _of_others(new)}
    others = [(relation.field, theirs[_key(relation)]) for relation in _of_others(old)]
    ours = zip(old._meta.local_many_to_many, new._meta.local_many_to_many, strict=True)  # noqa: SLF001 - public
    for one, other in [*ours, *others]:
        through = _through(one)
        if through._meta.auto_created:  # noqa: SLF001 - public
            yield Renamed.of(through, _through(other))


def _refuse_columns(operation: Operation, table: Renamed, place: Place, after: ProjectState) -> None:
    """Refuse where a table keeps its name, and a column of it gets another one, which no view can have beside.

    A view that stands already follows, and one that will is made with what the columns were called.

    Raises:
        CannotSplit: it names the table and the column.
    """
    changed = [f"{was} to {is_now}" for was, is_now in table.columns if was != is_now]
    if table.has_view or not changed or _has_view(table.old, place, after):
        return
    raise CannotSplit(f"{operation.describe()}: it renames {', '.join(changed)} in {table.old}, which stays")


def _has_view(table: str, place: Place, state: ProjectState) -> bool:
    """Return whether the release before finds a table by a view once all is done that is committed together."""
    if table in place.kept and place.kept[table].has_view:
        return True
    for operation in place.later:
        before, state = state, state.clone()
        operation.state_forwards(place.app_label, state)
        if isinstance(operation, RenameModel | AlterModelTable):
            renamed = _tables(operation, place.app_label, before, state)
            if any(each.has_view and each.old == table for each in renamed):
                return True
    return False


def _of_others(model: "type[Model]") -> Iterator[Any]:
    """Yield the relations to many that other models have to this one."""
    for relation in model._meta.related_objects:  # noqa: SLF001 - public
        if relation.many_to_many and relation.related_model is not model:
            yield relation


def _key(relation: Any) -> tuple[str, str]:  # noqa: ANN401 - Django's stubs have no kind for it
    return relation.related_model._meta.label_lower, relation.field.name  # noqa: SLF001 - public


def _through(field: Any) -> "type[Model]":  # noqa: ANN401 - Django's stubs have no kind for it
    through: type[Model] = field.remote_field.through
    return through
