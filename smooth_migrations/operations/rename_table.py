"""RenameModel, AlterModelTable, RenameField of a relation to many: two names of a table until one release is gone."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.db.migrations.operations import AlterModelTable, RenameField, RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.base import CannotSplit, Explanation, ModelKey, Place, Split
from smooth_migrations.operations.old_columns import DropOldColumns, KeepOldColumns
from smooth_migrations.operations.old_names import DropOldNames, KeepOldNames, Renamed

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["SplitRename"]


class SplitRename(Split):
    """The table is renamed, and a view that takes writes has its old name; later that is dropped.

    Args:
        operation: Django's.
        tables: those that are renamed.
        relations: to many, whose tables keep their names, with those tables: a column of each is renamed.
    """

    kind: ClassVar[str] = "rename_table"

    def __init__(
        self,
        operation: RenameField | RenameModel | AlterModelTable,
        tables: Sequence[Renamed],
        relations: Sequence[tuple[Any, Renamed]],
    ) -> None:
        self._operation = operation
        self._tables = tables
        self._columns = tuple((table.old, table.changed) for _field, table in relations)
        self.names = _names(operation)
        self.relations = frozenset(_owner(field) for field, _table in relations)
        names = [f"view {', '.join(table.old for table in tables)}"] if tables else []
        names += [f"name {table}.{old}" for table, changed in self._columns for old, _new in changed]
        self._what = f"drop {', '.join(names)}"

    @classmethod
    def of(cls, operation: RenameField | RenameModel | AlterModelTable, place: Place) -> Self | None:
        """Return the halves, where any table gets another name.

        Raises:
            CannotSplit: a view cannot stand for the old name.
        """
        after = place.schema.clone()
        operation.state_forwards(place.app_label, after)
        old_name, new_name = _names(operation)
        old, new = place.rendered(old_name), after.apps.get_model(place.app_label, new_name)
        tables = [table for table in _tables(old, new) if table.old != table.new]
        relations = [*_columns(old, new)]
        if not tables and not relations:
            return None
        if place.connection.vendor != "postgresql":
            raise CannotSplit(f"{operation.describe()}: the release still running knows the old name")
        return cls(operation, tables, relations)

    def expand(self) -> Sequence[Operation]:
        """Rename it, and keep its old name beside."""
        columns = (KeepOldColumns(*each) for each in self._columns)
        return (self._operation, *([KeepOldNames(self._tables)] if self._tables else ()), *columns)

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Drop the old name."""
        del schema, project
        columns = (DropOldColumns(*each) for each in self._columns)
        return (*([DropOldNames(self._tables)] if self._tables else ()), *columns)

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        return Explanation(
            locks=tuple(
                f"ACCESS EXCLUSIVE on {table}, for a change of the catalogue"
                for table in (*(each.old for each in self._tables), *(name for name, _changed in self._columns))
            ),
            rewrites=False,
            old_release="it reads and writes the table through a view; COPY and TRUNCATE do not work on it",
            new_release="it uses the table by its new name",
        )


def _names(operation: RenameField | RenameModel | AlterModelTable) -> tuple[str, str]:
    if isinstance(operation, RenameModel):
        return operation.old_name, operation.new_name
    name = operation.model_name if isinstance(operation, RenameField) else operation.name
    return name, name


def _tables(old: "type[Model]", new: "type[Model]") -> Iterator[Renamed]:
    """Yield a model's table, and those that Django has made for its relations to many."""
    yield Renamed.of(old, new)
    pairs = zip(old._meta.local_many_to_many, new._meta.local_many_to_many, strict=True)  # noqa: SLF001 - public
    for before, after in pairs:
        one, other = _through(before), _through(after)
        if one._meta.auto_created:  # noqa: SLF001 - public
            yield Renamed.of(one, other)


def _columns(old: "type[Model]", new: "type[Model]") -> Iterator[tuple[Any, Renamed]]:
    """Yield the relations to many whose table keeps its name, and a column of it gets another one; with that table."""
    theirs = {_key(relation): relation.field for relation in _of_others(new)}
    kept = [(relation.field, theirs[_key(relation)]) for relation in _of_others(old)]
    ours = zip(old._meta.local_many_to_many, new._meta.local_many_to_many, strict=True)  # noqa: SLF001 - public
    for before, after in [*kept, *ours]:
        one, other = _through(before), _through(after)
        if not one._meta.auto_created:  # noqa: SLF001 - public
            continue
        table = Renamed.of(one, other)
        if table.old == table.new and table.changed:
            yield after, table


def _of_others(model: "type[Model]") -> Iterator[Any]:
    """Yield the relations to many that other models have to this one."""
    for relation in model._meta.related_objects:  # noqa: SLF001 - public
        if relation.many_to_many and relation.related_model is not model:
            yield relation


def _owner(field: Any) -> tuple[ModelKey, str]:  # noqa: ANN401 - Django's stubs have no kind for it
    meta = field.model._meta  # noqa: SLF001 - public
    return (meta.app_label, meta.model_name), field.name


def _key(relation: Any) -> tuple[str, str]:  # noqa: ANN401 - Django's stubs have no kind for it
    return relation.related_model._meta.label_lower, relation.field.name  # noqa: SLF001 - public


def _through(field: Any) -> "type[Model]":  # noqa: ANN401 - Django's stubs have no kind for it
    through: type[Model] = field.remote_field.through
    return through
