"""RenameModel and AlterModelTable: both names lead to one table until the release that knows the old one is gone."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AlterModelTable, RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.base import CannotSplit, Explanation, Place, Split
from smooth_migrations.operations.old_names import DropOldNames, KeepOldNames, Renamed, obstacles

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["SplitRename"]


class SplitRename(Split):
    """The table is renamed, and a view that takes writes has its old name; later that is dropped."""

    kind: ClassVar[str] = "rename_table"

    def __init__(self, operation: RenameModel | AlterModelTable, tables: Sequence[Renamed]) -> None:
        self._operation = operation
        self._tables = tables
        self._what = f"drop view {', '.join(table.old for table in tables)}"

    @classmethod
    def of(cls, operation: RenameModel | AlterModelTable, place: Place) -> Self | None:
        """Return the halves, where any table gets another name.

        Raises:
            CannotSplit: a view cannot stand for the old name.
        """
        after = place.schema.clone()
        operation.state_forwards(place.app_label, after)
        old_name, new_name = _names(operation)
        old, new = place.rendered(old_name), after.apps.get_model(place.app_label, new_name)
        _refuse_columns(operation, old, new)
        tables = [table for table in _tables(old, new) if table.old != table.new]
        if not tables:
            return None
        if place.connection.vendor != "postgresql":
            raise CannotSplit(f"{operation.describe()}: the release still running knows the old name")
        return cls(operation, tables)

    def refuse(self, connection: BaseDatabaseWrapper) -> None:
        """Refuse tables of which a view would allow more than they do, or less."""
        for table in self._tables:
            for reason in obstacles(connection, table):
                raise CannotSplit(f"{self._operation.describe()}: {reason}")

    def expand(self) -> Sequence[Operation]:
        """Rename it, and keep its old name beside."""
        return (self._operation, KeepOldNames(self._tables))

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Drop the old name."""
        del schema, project
        return (DropOldNames(self._tables),)

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        return Explanation(
            locks=tuple(f"ACCESS EXCLUSIVE on {table.old}, for a change of the catalogue" for table in self._tables),
            rewrites=False,
            old_release="it reads and writes the table through a view; COPY and TRUNCATE do not work on it",
            new_release="it uses the table by its new name",
        )


def _names(operation: RenameModel | AlterModelTable) -> tuple[str, str]:
    if isinstance(operation, RenameModel):
        return operation.old_name, operation.new_name
    return operation.name, operation.name


def _tables(old: "type[Model]", new: "type[Model]") -> Iterator[Renamed]:
    """Yield a model's table, and those that Django has made for its relations to many."""
    yield Renamed.of(old, new)
    pairs = zip(old._meta.local_many_to_many, new._meta.local_many_to_many, strict=True)  # noqa: SLF001 - public
    for before, after in pairs:
        one, other = _through(before), _through(after)
        if one._meta.auto_created:  # noqa: SLF001 - public
            yield Renamed.of(one, other)


def _refuse_columns(operation: Operation, old: "type[Model]", new: "type[Model]") -> None:
    """Refuse where a table keeps its name, and a column of it gets another one, which no view can have beside.

    Raises:
        CannotSplit: it names the table and the column.
    """
    theirs = {_key(relation): relation.field for relation in _of_others(new)}
    kept = [(relation.field, theirs[_key(relation)]) for relation in _of_others(old)]
    ours = zip(old._meta.local_many_to_many, new._meta.local_many_to_many, strict=True)  # noqa: SLF001 - public
    for before, after in [*kept, *ours]:
        one, other = _through(before), _through(after)
        if not one._meta.auto_created:  # noqa: SLF001 - public
            continue
        table = Renamed.of(one, other)
        changed = [f"{was} to {is_now}" for was, is_now in table.columns if was != is_now]
        if table.old == table.new and changed:
            raise CannotSplit(f"{operation.describe()}: it renames {', '.join(changed)} in {table.old}, which stays")


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
