"""Deletes of the release still running, followed in tables and columns that it does not know.

Its `on_delete` is Django's own: the release that knows a foreign key deletes what refers to a row, or sets it to NULL,
before it deletes that. The release before does not, and the key would refuse its DELETE. A trigger does it instead.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import CASCADE, SET_NULL

from smooth_migrations.locks.modes import Locks, Mode
from smooth_migrations.operations.base import CannotSplit

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["FollowDeletes", "Followed", "StopFollowing", "followed"]

_FUNCTION = "smooth_follow_delete"
# As its owner, as the server's own ON DELETE is: the release before has no privileges on what is new. What the trigger
# names may be gone or renamed when it is called.
_MAKE = f"""
    CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $smooth$
    DECLARE
        child regclass := to_regclass(TG_ARGV[0]);
    BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = child AND attname = TG_ARGV[1] AND NOT attisdropped) THEN
            EXECUTE format(
                CASE TG_ARGV[3] WHEN 'delete' THEN 'DELETE FROM %1$s WHERE %2$I = ($1).%3$I'
                ELSE 'UPDATE %1$s SET %2$I = NULL WHERE %2$I = ($1).%3$I' END,
                child, TG_ARGV[1], TG_ARGV[2]
            ) USING OLD;
        END IF;
        RETURN OLD;
    END
    $smooth$
"""  # noqa: S608 - constant, and quoted by the server
_USED = "SELECT count(*) FROM pg_trigger WHERE tgfoid = to_regproc(%s)"
_OURS = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgfoid = to_regproc(%s) AND tgname = %s"
_QUALIFIED = """
    SELECT format('%%I.%%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = %s::regclass
"""


@dataclass(frozen=True, slots=True)
class Followed:
    """A foreign key that the release still running does not know.

    Args:
        table: that it is in.
        column: of it.
        parent: the table that it refers to.
        parent_column: of that.
        deletes: whether the rows that refer to a deleted one are deleted; else they refer to nothing from then on.
    """

    table: str
    column: str
    parent: str
    parent_column: str
    deletes: bool

    @property
    def trigger(self) -> str:
        """What its trigger is called."""
        return f"smooth_{sha256(f'{self.table}.{self.column}'.encode()).hexdigest()[:16]}"


def followed(model: "type[Model]", names: Iterable[str]) -> list[Followed]:
    """Return the foreign keys of some fields of a model, and of its tables of relations to many, that are followed.

    Not so PROTECT and RESTRICT, whose point is that the DELETE is refused; DO_NOTHING; SET and SET_DEFAULT, whose value
    the database does not know; and what it follows by itself.
    """
    fields = [model._meta.get_field(name) for name in names]  # noqa: SLF001 - public
    return [key for field in fields for key in _keys(field)]


def _keys(field: Any) -> Iterator[Followed]:  # noqa: ANN401 - Django's stubs have no kind for it
    if field.many_to_many:
        through = field.remote_field.through
        for part in through._meta.local_fields if through._meta.auto_created else ():  # noqa: SLF001 - public
            yield from _keys(part)
    elif field.remote_field is not None and getattr(field, "db_constraint", False):
        action = field.remote_field.on_delete
        if action in (CASCADE, SET_NULL):
            try:
                target = field.target_field
            except FieldDoesNotExist as error:
                # Django changes what a field refers to by name in the operation's own field, too.
                raise CannotSplit(f"{field} refers to a field that the same deploy renames: {error}") from error
            parent = target.model._meta.db_table  # noqa: SLF001 - public
            yield Followed(field.model._meta.db_table, field.column, parent, target.column, action is CASCADE)  # noqa: SLF001


class FollowDeletes(Operation):
    """Follow deletes of the release before; going back stops that."""

    reversible = True

    def __init__(self, keys: Sequence[Followed]) -> None:
        self._keys = keys

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing: Django's models know no triggers."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Make a trigger on each table that is referred to. Takes SHARE ROW EXCLUSIVE on it, as the key itself does."""
        del app_label, from_state, to_state
        schema_editor.execute(_MAKE, params=None)
        for key in self._keys:
            _make_trigger(schema_editor, key)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the triggers, and the function when nobody uses it. Takes ACCESS EXCLUSIVE on the tables."""
        del app_label, from_state, to_state
        for key in self._keys:
            _drop_trigger(schema_editor, key)
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(_USED, [_FUNCTION])
            [(used,)] = cursor.fetchall()
        if not used:
            schema_editor.execute(f"DROP FUNCTION IF EXISTS {_FUNCTION}()")

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes. Pure."""
        return dict.fromkeys(_parents(self._keys), Mode.ACCESS_EXCLUSIVE if backwards else Mode.SHARE_ROW_EXCLUSIVE)

    def describe(self) -> str:
        """Return what is done, in words."""
        return f"Follow deletes from {', '.join(_parents(self._keys))}"


class StopFollowing(FollowDeletes):
    """Follow deletes no more: every release that is left knows the keys."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the triggers, and the function when nobody uses it. Takes ACCESS EXCLUSIVE on the tables."""
        super().database_backwards(app_label, schema_editor, from_state, to_state)

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes. Pure."""
        return super().locks(backwards=not backwards)

    def describe(self) -> str:
        """Return what is done, in words."""
        return f"Follow deletes from {', '.join(_parents(self._keys))} no more"


def _parents(keys: Iterable[Followed]) -> list[str]:
    return sorted({key.parent for key in keys})


def _make_trigger(editor: BaseDatabaseSchemaEditor, key: Followed) -> None:
    # The same deploy may have made the key before, and removed it.
    _drop_trigger(editor, key)
    quote = editor.quote_name
    with editor.connection.cursor() as cursor:
        cursor.execute(_QUALIFIED, [quote(key.table)])
        [(table,)] = cursor.fetchall()
    given = (table, key.column, key.parent_column, "delete" if key.deletes else "null")
    arguments = ", ".join("'{}'".format(text.replace("'", "''")) for text in given)
    editor.execute(
        f"CREATE TRIGGER {quote(key.trigger)} BEFORE DELETE ON {quote(key.parent)} FOR EACH ROW "
        f"EXECUTE FUNCTION {_FUNCTION}({arguments})",
        params=None,
    )


def _drop_trigger(editor: BaseDatabaseSchemaEditor, key: Followed) -> None:
    """Drop a key's trigger, on whatever its table is called by now; one of somebody else's stays."""
    with editor.connection.cursor() as cursor:
        cursor.execute(_OURS, [_FUNCTION, key.trigger])
        tables = [table for (table,) in cursor.fetchall()]
    for table in tables:
        editor.execute(f"DROP TRIGGER {editor.quote_name(key.trigger)} ON {table}", params=None)
