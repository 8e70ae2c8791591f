"""RenameField: both names lead to one column until the release that knows the old one is gone."""

from collections.abc import Sequence
from typing import ClassVar

from django.db.migrations.operations import RenameField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.base import CannotSplit, Explanation, Place, Split
from smooth_migrations.operations.old_columns import DropOldColumns, KeepOldColumns
from smooth_migrations.operations.rename_table import SplitRename

__all__ = ["SplitRenameField"]


class SplitRenameField(Split):
    """The column is renamed, and a view of the table's name has its old name too; later that is dropped.

    Args:
        operation: Django's.
        table: whose column it is.
        earlier: what has been renamed there so before, the name before and the name now.
        renamed: what is renamed now.
    """

    kind: ClassVar[str] = "rename_field"

    def __init__(
        self, operation: RenameField, table: str, earlier: Sequence[tuple[str, str]], renamed: tuple[str, str]
    ) -> None:
        self._operation, self._table = operation, table
        self._earlier = (*earlier,)
        before, now = renamed
        followed = tuple((old, now if new == before else new) for old, new in earlier)
        self.kept = (*earlier, renamed) if followed == self._earlier else followed
        self._what = f"drop name {table}.{renamed[0]}"

    @classmethod
    def of(cls, operation: RenameField, place: Place) -> Split | None:  # type: ignore[override]  # or a table's
        """Return the halves, where the column gets another name; those of its table for a relation to many.

        Raises:
            CannotSplit: no view can stand for both names.
        """
        after = place.schema.clone()
        operation.state_forwards(place.app_label, after)
        old = place.rendered(operation.model_name)._meta  # noqa: SLF001 - public
        new = after.apps.get_model(place.app_label, operation.model_name)._meta  # noqa: SLF001 - public
        before, now = old.get_field(operation.old_name), new.get_field(operation.new_name)
        if before.many_to_many:
            return SplitRename.of(operation, place)
        renamed = str(before.column), str(now.column)  # type: ignore[union-attr]  # fields of its own
        if renamed[0] == renamed[1]:
            return None
        if place.connection.vendor != "postgresql":
            raise CannotSplit(f"{operation.describe()}: the release still running knows the old name")
        key = (place.app_label, operation.model_name_lower)
        return cls(operation, old.db_table, place.kept.get(key, ()), renamed)

    def expand(self) -> Sequence[Operation]:
        """Rename it, and keep its old name beside."""
        aside = [DropOldColumns(self._table, self._earlier)] if self._earlier else []
        return (*aside, self._operation, KeepOldColumns(self._table, self.kept))

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Drop the old name, and those that wait with it."""
        del schema, project
        return (DropOldColumns(self._table, self.kept),)

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        return Explanation(
            locks=(f"ACCESS EXCLUSIVE on {self._table}, for a change of the catalogue",),
            rewrites=False,
            old_release="it reads and writes the column by its old name, through a view; COPY and TRUNCATE do not work",
            new_release="the same, by the new name",
        )
