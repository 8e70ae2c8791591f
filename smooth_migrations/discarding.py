"""What is lost where a committed run is taken back: rows and values that were written since."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
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
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED, Field, Q, QuerySet

from smooth_migrations.conversions import converts, shortening
from smooth_migrations.halves import Placed
from smooth_migrations.reversibility import database_parts
from smooth_migrations.splitting import place_backwards
from smooth_migrations.undo.states import states_before, states_of

__all__ = ["Loss", "Risk", "losses_of", "risks"]

_Key = tuple[str, str]
_Field: TypeAlias = "Field[Any, Any]"
# What, in which table, in how many rows.
_Lost = tuple[str, str | None, int | None]


@dataclass(frozen=True, slots=True)
class Loss:
    """What would be lost with one operation.

    Args:
        migration: `app.name`.
        what: in words.
        table: where that is written to; None where it is gone already.
        rows: in how many rows of it; 0 where nothing would be lost as it is now, None where nobody can tell any more.
    """

    migration: str
    what: str
    table: str | None
    rows: int | None

    def __str__(self) -> str:
        if self.rows is None:
            return f"{self.migration}: {self.what}"
        return f"{self.migration}: {self.what} ({self.rows} {'row' if self.rows == 1 else 'rows'} of {self.table})"


@dataclass(frozen=True, slots=True)
class Risk:
    """What an operation may lose.

    Args:
        migration: `app.name`.
        look: yields what it would lose as things are now. Only reads; may be repeated.
    """

    migration: str
    look: Callable[[], Iterable[_Lost]]


def risks(
    connection: BaseDatabaseWrapper, executor: MigrationExecutor, back: Sequence[Migration], state: ProjectState
) -> list[Risk]:
    """Return what may lose something where migrations are unapplied, all of which are applied.

    Args:
        connection: the target's. Of what is in its tables nothing is asked.
        executor: of it, with every migration as recorded.
        back: what is unapplied, the newest first.
        state: after every migration as recorded; models are made of it, and it stays as it is otherwise.
    """
    return [*_risks(connection, executor, back, state)]


def losses_of(found: Iterable[Risk]) -> list[Loss]:
    """Return what is lost, or could be, as things are now. Only reads."""
    return [Loss(risk.migration, what, table, rows) for risk in found for what, table, rows in risk.look()]


def _risks(
    connection: BaseDatabaseWrapper, executor: MigrationExecutor, back: Sequence[Migration], state: ProjectState
) -> Iterator[Risk]:
    now = _Now(connection, state)
    states = states_before(executor, {*back}, renders=False)
    halves = {item.key: item for item in place_backwards(connection, back, executor) if item.split is not None}
    for migration in back:
        app_label, name = migration.app_label, f"{migration.app_label}.{migration.name}"
        between = states_of(migration, states[migration])
        for number, operation in reversed([*enumerate(migration.operations)]):
            half = halves.get((app_label, migration.name, number))
            if half is not None and isinstance(operation, AlterField):
                # Of what it changes only the expand half is taken back.
                yield Risk(name, _looking(operation, app_label, half.states[0], half.states[-1], now))
            elif half is not None and not isinstance(operation, AddField):
                yield Risk(name, partial(_lost_with_half, connection, half))
            else:
                for part in database_parts(operation):
                    yield Risk(name, _looking(part, app_label, between[number], between[number + 1], now))
            now.go_back_over(operation, app_label)


def _lost_with_half(connection: BaseDatabaseWrapper, half: Placed) -> Iterator[_Lost]:
    """Yield what going back over an expand half could not keep: what it would take away is there still."""
    for obstacle in half.split.validate_back(connection, half.states[-1]) if half.split is not None else ():
        yield f"{obstacle.what}, and the rows would be deleted", obstacle.table, obstacle.rows


class _Now:
    """Models and fields of an earlier moment, as they are called now."""

    def __init__(self, connection: BaseDatabaseWrapper, state: ProjectState) -> None:
        self._alias = connection.alias
        self._apps = state.apps
        self._models: dict[_Key, _Key] = {key: key for key in state.models}
        self._fields: dict[tuple[_Key, str], str] = {}

    def go_back_over(self, operation: Operation, app_label: str) -> None:
        if isinstance(operation, RenameModel):
            old, new = (app_label, operation.old_name_lower), (app_label, operation.new_name_lower)
            if new in self._models:
                self._models[old] = self._models.pop(new)
        elif isinstance(operation, RenameField) and (key := self._models.get((app_label, operation.model_name_lower))):
            self._fields[key, operation.old_name] = self.field(key, operation.new_name)
        elif isinstance(operation, CreateModel):
            self._models.pop((app_label, operation.name_lower), None)

    def field(self, key: _Key, name: str) -> str:
        return self._fields.get((key, name), name)

    def rows(self, key: _Key) -> QuerySet[Any] | None:
        """Return the rows of a model, where it is still there."""
        found = self._models.get(key)
        if found is None:
            return None
        model = self._apps.get_model(*found)
        rows: QuerySet[Any] = model._base_manager.using(self._alias)  # noqa: SLF001 - public, for such uses
        return rows

    def current(self, key: _Key, name: str) -> "_Field | None":
        """Return a field of a model, where both are still there."""
        rows, found = self.rows(key), self._models.get(key)
        if rows is None or found is None:
            return None
        called = self.field(found, name)
        fields = [field for field in rows.model._meta.get_fields() if field.name == called]  # noqa: SLF001 - public
        return fields[0] if fields and isinstance(fields[0], Field) else None


def _looking(
    part: Operation, app_label: str, before: ProjectState, after: ProjectState, now: _Now
) -> Callable[[], Iterable[_Lost]]:
    match part:
        case CreateModel():
            return partial(_lost_of_table, now.rows((app_label, part.name_lower)))
        case DeleteModel():
            # How many there were nobody knows any more.
            gone: _Lost = (f"the rows of {part.name} went with that run, and do not come back", None, None)
            return lambda: [gone]
        case AddField() | AlterField() | RemoveField():
            key = (app_label, part.model_name_lower)
            was, is_now = (_field(state, key, part.name) for state in (before, after))
            return partial(_lost_of_field, part, was, is_now, now.rows(key), now.current(key, part.name))
    return tuple


def _lost_of_table(rows: QuerySet[Any] | None) -> Iterator[_Lost]:
    if rows is not None and rows.model._meta.managed:  # noqa: SLF001 - public
        yield "the table would be dropped", rows.model._meta.db_table, rows.count()  # noqa: SLF001 - public


def _lost_of_field(
    part: AddField | AlterField | RemoveField,
    was: "_Field | None",
    is_now: "_Field | None",
    rows: QuerySet[Any] | None,
    field: "_Field | None",
) -> Iterator[_Lost]:
    if isinstance(part, RemoveField):
        if rows is not None and rows.exists():
            yield f"the values of {part.name} went with that run, and do not come back", None, None
    elif rows is None or field is None:
        return  # what a later migration of the run has taken away is told there
    elif getattr(field, "generated", False):
        return  # it has no values of its own
    elif isinstance(part, AddField):
        yield from _added(part, rows, field)
    elif was is not None and is_now is not None:
        yield from _altered(part.name, was, is_now, rows, field)


def _field(state: ProjectState, key: _Key, name: str) -> "_Field | None":
    model = state.models.get(key)
    return model.fields.get(name) if model is not None else None


def _added(part: AddField, rows: QuerySet[Any], field: "_Field") -> Iterator[_Lost]:
    if field.many_to_many:
        through = field.remote_field.through  # type: ignore[union-attr]
        count = through._base_manager.using(rows.db).count()  # noqa: SLF001 - public, for such uses
        yield f"the table of {field.name} would be dropped", through._meta.db_table, count  # noqa: SLF001 - as above
        return
    filled = rows.exclude(**{f"{field.name}__isnull": True})
    for default in _defaults(part.field):
        filled = filled.exclude(**{field.name: default})
    yield f"the values of {field.name} would be lost", rows.model._meta.db_table, filled.count()  # noqa: SLF001


def _altered(name: str, was: "_Field", is_now: "_Field", rows: QuerySet[Any], field: "_Field") -> Iterator[_Lost]:
    table = rows.model._meta.db_table  # noqa: SLF001 - as above
    missing = Q(**{f"{field.name}__isnull": True})
    connection = connections[rows.db]
    if is_now.null and not was.null:
        yield f"{name} could not be empty before, and is", table, rows.filter(missing).count()
    elif converts(connection, is_now, was):
        yield f"the values of {name} would be converted", table, rows.exclude(missing).count()
    elif condition := shortening(connection, is_now, was, column=connection.ops.quote_name(field.column or "")):
        cut = rows.extra(where=[condition.replace("%", "%%")])  # noqa: S610 - of a quoted column
        yield f"the values of {name} would be cut off", table, cut.count()


def _defaults(field: "_Field") -> Iterator[object]:
    """Yield what the run itself wrote into a new column."""
    default = field.get_default() if field.has_default() else NOT_PROVIDED
    for value in (default, getattr(field, "db_default", NOT_PROVIDED)):
        literal = getattr(value, "value", value)
        if literal is not NOT_PROVIDED and literal is not None and not hasattr(literal, "resolve_expression"):
            yield literal
