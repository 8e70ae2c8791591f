"""What rows have in a field that a migration removes for good before the call's end, so that it comes back with it.

Where a table had rows before the call, removing one of its fields is refused. But code of the same call may have put
rows there meanwhile: the field could not be made again beside them without their values.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import Irreversible

__all__ = ["Removed", "are_gone", "give_back_values", "removed_given_back", "removed_kept"]

if TYPE_CHECKING:
    _Field = models.Field[Any, Any]

Removed: TypeAlias = Mapping[str, Any]
"""What one field had in each row, as JSON can hold it."""

_Edit: TypeAlias = Callable[[Any, type[models.Model], "_Field"], None]


@contextmanager
def removed_kept(connection: BaseDatabaseWrapper, keep: Callable[[Removed], None], *, refuses: bool) -> Iterator[None]:
    """Keep the values of each field that is removed within. Only reads, a table at a time.

    Args:
        connection: the target's.
        keep: called with them before the field is gone, if there are rows.
        refuses: whether a field is not to be removed that could not be made again without values which cannot be kept.

    Raises:
        Irreversible: it is not; raised by the operation that would remove it.
    """

    def removing(remove: _Edit) -> _Edit:
        def remove_field(editor: Any, model: type[models.Model], field: "_Field") -> None:  # noqa: ANN401 - of any vendor
            column = _column_of(connection, field)
            if column is not None:
                from smooth_migrations.undo.rows.column import UnknownError, take_column  # noqa: PLC0415 - few remove any

                try:
                    removed = take_column(connection, model._meta.db_table, column)  # noqa: SLF001 - Django's public name
                except UnknownError as error:
                    if refuses and _needs_values(connection, editor, field):
                        raise _refusal(model, field, error) from error
                    removed = None
                if removed:
                    keep(removed)
            remove(editor, model, field)

        return remove_field

    with _edited(connection, "remove_field", removing):
        yield


@contextmanager
def removed_given_back(connection: BaseDatabaseWrapper, removed: Sequence[Removed]) -> Iterator[None]:
    """Let each field that is made again within have the values that were kept of it.

    It is made so that it may be empty, filled, and then made what it is. Takes the locks that making it takes.

    Args:
        connection: the target's.
        removed: in the order in which they were kept.
    """
    left = [*removed]

    def adding(add: _Edit) -> _Edit:
        def add_field(editor: Any, model: type[models.Model], field: "_Field") -> None:  # noqa: ANN401 - of any vendor
            column, table = _column_of(connection, field), model._meta.db_table  # noqa: SLF001 - as above
            kept = next((one for one in reversed(left) if (one["table"], one["column"]) == (table, column)), None)
            if kept is None:
                add(editor, model, field)
                return
            left.remove(kept)
            loose = copy.copy(field)
            loose.null = loose.null or not field.primary_key
            add(editor, model, loose)
            give_back_values(connection, [kept])
            if loose.null is not field.null:
                editor.alter_field(model, loose, field)

        return add_field

    with _edited(connection, "add_field", adding):
        yield


def give_back_values(connection: BaseDatabaseWrapper, removed: Iterable[Removed]) -> None:
    """Give rows the values that were kept, in columns that are there. Takes row locks alone; safe to repeat.

    Args:
        connection: the target's.
        removed: what was kept.
    """
    for kept in removed:
        if _is_there(connection, kept):
            from smooth_migrations.undo.rows.column import write_column  # noqa: PLC0415 - as above

            write_column(connection, kept)


def are_gone(connection: BaseDatabaseWrapper, removed: Sequence[Removed]) -> bool:
    """Return whether there were such columns, and none of them is there any more. Only reads."""
    return bool(removed) and not any(_is_there(connection, kept) for kept in removed)


def _is_there(connection: BaseDatabaseWrapper, kept: Removed) -> bool:
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, kept["table"])
    return any(column.name == kept["column"] for column in columns)


@contextmanager
def _edited(connection: BaseDatabaseWrapper, name: str, change: Callable[[_Edit], _Edit]) -> Iterator[None]:
    """Let the schema editors that a connection makes within have another method of that name."""
    own: Any = connection.SchemaEditorClass
    had = "SchemaEditorClass" in connection.__dict__
    connection.__dict__["SchemaEditorClass"] = type(own.__name__, (own,), {name: change(getattr(own, name))})
    try:
        yield
    finally:
        connection.__dict__.pop("SchemaEditorClass")
        if had:
            connection.__dict__["SchemaEditorClass"] = own


def _column_of(connection: BaseDatabaseWrapper, field: "_Field") -> str | None:
    """Return the column that a field writes; None where it has none of its own, or the server computes it."""
    is_stored = field.db_parameters(connection=connection)["type"] is not None and not getattr(
        field, "generated", False
    )
    return field.column if is_stored else None


def _needs_values(connection: BaseDatabaseWrapper, editor: Any, field: "_Field") -> bool:  # noqa: ANN401 - of any vendor
    """Return whether a field cannot be made beside rows without saying what they have in it."""
    if field.null or isinstance(field, models.AutoField):
        return False
    # MySQL takes a zero, or what else is nothing, for whatever was not said.
    is_given = editor.effective_default(field) is not None or connection.vendor == "mysql"
    return bool(field.unique or not is_given)


def _refusal(model: type[models.Model], field: "_Field", error: Exception) -> Irreversible:
    name = f"{model._meta.label}.{field.name}"  # noqa: SLF001 - as above
    return Irreversible(
        f"{name} was not removed: rows were put there in the same call, and their values could not come back ({error})",
        hint="--allow-irreversible removes it all the same; or apply what is before it by a call of its own",
    )
