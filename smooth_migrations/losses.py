"""What could not be taken back, found before anything runs.

Inside one transaction everything can. Only migrations that must be committed before the decision are looked at.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import truncate_name
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations import (
    AddField,
    AlterField,
    CreateModel,
    DeleteModel,
    RemoveField,
    RenameField,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.halves import is_split
from smooth_migrations.reversibility import database_parts
from smooth_migrations.undo.states import states_before, states_of

__all__ = ["Tables", "converts", "irreversible_operations", "irreversible_steps"]

if TYPE_CHECKING:
    from django.db.models import Field

    _Field = Field[Any, Any]

_FAMILIES = {
    "integer": {
        *("AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField"),
        *("PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField"),
    },
    "text": {"CharField", "TextField", "SlugField", "URLField", "EmailField", "FilePathField"},
    "relation": {"ForeignKey", "OneToOneField"},
}
_Key = tuple[str, str]


class Tables:
    """Which table of now belongs to a model of another moment: what is renamed meanwhile is followed.

    Args:
        connection: where they are. Only reads.
        state: the project's state now.
    """

    def __init__(self, connection: BaseDatabaseWrapper, state: ProjectState) -> None:
        self._connection = connection
        self._names = {key: _table_of(connection, state, key) for key in state.models}
        self._added: set[tuple[_Key, str]] = set()

    def follow(self, operation: Operation, app_label: str, state: ProjectState, *, backwards: bool = False) -> None:
        """Go past an operation.

        Args:
            operation: which.
            app_label: of its migration.
            state: the project's state at its end, or at its beginning where it goes backwards.
            backwards: whether it does.
        """
        for part in _state_parts(operation):
            if isinstance(part, RenameModel):
                ends = (app_label, part.old_name_lower), (app_label, part.new_name_lower)
                old, new = reversed(ends) if backwards else ends
                if old in self._names:
                    self._names[new] = self._names.pop(old)
            elif isinstance(part, CreateModel | DeleteModel):
                key = (app_label, part.name_lower)
                if key in state.models:
                    # Perhaps of a table that was there already, as where the state alone is changed.
                    self._names[key] = _table_of(self._connection, state, key)
                else:
                    self._names.pop(key, None)
        if not backwards:
            self._note_added(operation, app_label)

    def _note_added(self, operation: Operation, app_label: str) -> None:
        for part in database_parts(operation):
            if isinstance(part, AddField):
                self._added.add(((app_label, part.model_name_lower), part.name_lower))
            elif isinstance(part, RemoveField):
                self._added.discard(((app_label, part.model_name_lower), part.name_lower))
            elif isinstance(part, RenameField | RenameModel):
                self._added.clear()

    def have_added(self, key: _Key, name: str) -> bool:
        """Return whether the same plan has added a field: it had no values that would have to come back."""
        return (key, name.lower()) in self._added

    def have_rows(self, key: _Key) -> bool:
        """Return whether a model of the moment has rows now; one that cannot be looked at may have some."""
        table = self._names.get(key)
        if table is None:
            return True
        try:
            with self._connection.cursor() as cursor:
                if table not in self._connection.introspection.table_names(cursor):
                    return False
                cursor.execute(f"SELECT 1 FROM {self._connection.ops.quote_name(table)} LIMIT 1")  # noqa: S608 - quoted
                return cursor.fetchone() is not None
        except DatabaseError:
            return True


def irreversible_steps(
    connection: BaseDatabaseWrapper, plan: Sequence[tuple[Migration, bool]], early: Sequence[Migration]
) -> Iterator[tuple[Migration, str]]:
    """Describe what a plan does that could not be taken back, with the migration that does it.

    Args:
        connection: the target's. Only reads.
        plan: (migration, backwards) in order, all in one direction.
        early: those that become permanent before the call is over.
    """
    executor = MigrationExecutor(connection)
    # The one way to it that Django's own migrate takes.
    state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
    tables = Tables(connection, state)
    is_backwards = bool(plan) and plan[0][1]
    states = states_before(executor, {*early}) if is_backwards else {}
    for migration in early:
        if is_backwards:
            found = _lost_backwards(migration, states[migration], tables)
        else:
            found = irreversible_operations(migration, state, tables)
        yield from ((migration, text) for text in found)


def irreversible_operations(migration: Migration, state: ProjectState, tables: Tables) -> Iterator[str]:
    """Describe the operations of one migration whose reverse would fail or lose something.

    Args:
        migration: what would run forwards.
        state: the project's state before it; it is moved past the migration.
        tables: as they are then; moved past it too.
    """
    app_label = migration.app_label
    for operation in migration.operations:
        for part in () if is_split(operation) else database_parts(operation):
            reason = _reason(part, app_label, state, tables)
            if reason:
                yield f"{operation.describe()} ({reason})"
        operation.state_forwards(app_label, state)
        tables.follow(operation, app_label, state)


def _lost_backwards(migration: Migration, state: ProjectState, tables: Tables) -> Iterator[str]:
    """Describe what is lost where a migration is unapplied, and applied again by an undo."""
    app_label = migration.app_label
    states = states_of(migration, state)
    for number, operation in reversed([*enumerate(migration.operations)]):
        before, after = states[number], states[number + 1]
        for part in database_parts(operation):
            reason = _reason_backwards(part, app_label, before, after, tables)
            if reason:
                yield f"{operation.describe()}, taken back ({reason})"
        tables.follow(operation, app_label, before, backwards=True)


def _state_parts(operation: Operation) -> Iterator[Operation]:
    if isinstance(operation, SeparateDatabaseAndState):
        for part in operation.state_operations:
            yield from _state_parts(part)
    else:
        yield operation


def _reason(operation: Operation, app_label: str, state: ProjectState, tables: Tables) -> str | None:
    if not operation.reversible:
        return "it has no reverse code"
    if isinstance(operation, RemoveField):
        key, what = (app_label, operation.model_name_lower), f"the values of {operation.name} would be lost"
    elif isinstance(operation, DeleteModel):
        key, what = (app_label, operation.name_lower), "its rows would be lost"
    elif isinstance(operation, AlterField):
        key, what = (app_label, operation.model_name_lower), _converted(operation.name)
        old = _field(state, key, operation.name)
        if not converts(old, operation.field):
            return None
        if tables.have_added(key, operation.name) and not _changes_family(old, operation.field):
            return None
    else:
        return None
    return what if tables.have_rows(key) else None


def _reason_backwards(
    operation: Operation, app_label: str, before: ProjectState, after: ProjectState, tables: Tables
) -> str | None:
    if isinstance(operation, AddField):
        key, what = (app_label, operation.model_name_lower), f"the values of {operation.name} would be lost"
    elif isinstance(operation, CreateModel):
        key, what = (app_label, operation.name_lower), "its rows would be lost"
    elif isinstance(operation, AlterField):
        key, what = (app_label, operation.model_name_lower), _converted(operation.name)
        if not converts(_field(after, key, operation.name), _field(before, key, operation.name)):
            return None
    else:
        return None
    return what if tables.have_rows(key) else None


def _converted(name: str) -> str:
    return f"the values that {name} had would not come back"


def _field(state: ProjectState, key: _Key, name: str) -> "_Field | None":
    model = state.models.get(key)
    return model.fields.get(name) if model is not None else None


def converts(old: "_Field | None", new: "_Field | None") -> bool:
    """Return whether values change with the field: NULL to a default, or from one type to another."""
    if old is None or new is None or old.many_to_many or new.many_to_many:
        return False
    return bool(old.null and not new.null) or _changes_family(old, new)


def _changes_family(old: "_Field | None", new: "_Field | None") -> bool:
    if old is None or new is None:
        return False
    return _family(old.get_internal_type()) != _family(new.get_internal_type())


def _family(internal_type: str) -> str:
    """Return what the types have in common that a value goes between unchanged, and back."""
    return next((name for name, types in _FAMILIES.items() if internal_type in types), internal_type)


def _table_of(connection: BaseDatabaseWrapper, state: ProjectState, key: _Key) -> str:
    name = str(state.models[key].options.get("db_table") or "{}_{}".format(*key))
    return truncate_name(name, connection.ops.max_name_length())
