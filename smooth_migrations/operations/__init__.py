"""Operations that break one of two releases which are live at once, and the halves into which each is split.

One member a kind of operation. What is not here runs as a whole when it is deployed.
"""

from django.db.migrations import operations as django
from django.db.migrations.operations.base import Operation

from smooth_migrations.operations.add_field import SplitAddField
from smooth_migrations.operations.alter_field import SplitAlterField
from smooth_migrations.operations.base import CannotSplit, Explanation, Obstacle, Place, Split
from smooth_migrations.operations.constraints import SplitAddConstraint, SplitUniqueTogether
from smooth_migrations.operations.create_model import SplitCreateModel
from smooth_migrations.operations.delete_model import SplitDeleteModel
from smooth_migrations.operations.remove_field import SplitRemoveField
from smooth_migrations.operations.rename_field import SplitRenameField
from smooth_migrations.operations.rename_table import SplitRename
from smooth_migrations.reversibility import database_parts

__all__ = ["CannotSplit", "Explanation", "Obstacle", "Place", "Split", "may_split", "split"]

_MEMBERS: dict[type[Operation], type[Split]] = {
    django.AddField: SplitAddField,
    django.CreateModel: SplitCreateModel,
    django.AlterField: SplitAlterField,
    django.RemoveField: SplitRemoveField,
    django.DeleteModel: SplitDeleteModel,
    django.AddConstraint: SplitAddConstraint,
    django.AlterUniqueTogether: SplitUniqueTogether,
    django.RenameField: SplitRenameField,
    django.RenameModel: SplitRename,
    django.AlterModelTable: SplitRename,
}


def may_split(operation: Operation) -> bool:
    """Return whether an operation is of a kind that is split somewhere, or cannot be. Pure."""
    return any(isinstance(part, (*_MEMBERS, django.AlterOrderWithRespectTo)) for part in database_parts(operation))


def split(operation: Operation, place: Place) -> Split | None:
    """Return the halves of an operation on a table that two releases use; None where both live with the whole of it.

    Args:
        operation: Django's own, or a project's subclass of one.
        place: where it stands.

    Raises:
        CannotSplit: one of them does not, and there are no halves.
    """
    for kind in type(operation).__mro__:
        if kind in _MEMBERS:
            halves = _MEMBERS[kind].of(operation, place)
            if halves is not None and not place.connection.features.can_rollback_ddl:
                # Half of a contract half cannot be taken back, and the other databases with it.
                raise CannotSplit(f"{operation.describe()}: this server commits every change of a table by itself")
            return halves
    if isinstance(operation, django.AlterOrderWithRespectTo):
        _refuse_order(operation, place)
    return None


def _refuse_order(operation: django.AlterOrderWithRespectTo, place: Place) -> None:
    model = place.model(operation.name)
    now = model.options.get("order_with_respect_to") if model is not None else None
    if bool(now) is not bool(operation.order_with_respect_to):
        raise CannotSplit(f"{operation.describe()}: only one of two releases knows the column _order")
