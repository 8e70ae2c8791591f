"""What statements of contract halves find ready: validated or built before their transaction, while all go on working.

SET NOT NULL, a check and an index read the whole table, under a lock that keeps its writers or everybody waiting. That
can be done before: a constraint is added `NOT VALID` and then validated, an index is built `CONCURRENTLY`, each under a
name of its own. What is left to the transaction is a change of the catalogue (PostgreSQL manual, ALTER TABLE).
It ends with the same schema as without.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AddConstraint, AlterField, AlterUniqueTogether
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.backfill import Backfill
from smooth_migrations.backfill.filling import Filling
from smooth_migrations.locks.tables import models_of
from smooth_migrations.operations.fields import default_of, table_of
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.session import limited_transaction
from smooth_migrations.undo.ground import GroundPlace, drop_ground, drop_groundwork, ground_found
from smooth_migrations.undo.indexes import Limited
from smooth_migrations.undo.transaction import Limits

__all__ = ["Ground", "groundwork", "standing_on"]

_NAME: Final = r'"(?:[^"]|"")+"'
_TABLE: Final = rf"(?P<table>(?:{_NAME}\.)?{_NAME})"
_CHECK: Final = re.compile(rf"ALTER TABLE {_TABLE} ADD CONSTRAINT (?P<name>{_NAME}) (?P<rule>CHECK \(.*\))", re.DOTALL)
_UNIQUE: Final = re.compile(
    rf"ALTER TABLE {_TABLE} ADD CONSTRAINT (?P<name>{_NAME}) UNIQUE (?P<columns>\({_NAME}(?:, {_NAME})*\))"
)
_INDEX: Final = re.compile(rf"CREATE (?P<kind>(?:UNIQUE )?INDEX) (?P<name>{_NAME}) ON {_TABLE} (?P<rest>.*)", re.DOTALL)
_NOT_NULL: Final = re.compile(rf"ALTER TABLE {_TABLE} ALTER COLUMN (?P<column>{_NAME}) SET NOT NULL")
_FILL: Final = re.compile(
    rf"UPDATE {_TABLE} SET (?P<column>{_NAME}) = .* WHERE (?P=column) IS NULL; SET CONSTRAINTS ALL IMMEDIATE",  # noqa: S608 - a pattern
    re.DOTALL,
)
# What is built upon must not change before in the same transaction, and Django drops what it finds by its columns.
_SPOILS: Final = re.compile(
    rf"DROP INDEX .*|ALTER TABLE {_TABLE} .*\b(?:TYPE|RENAME|(?:ADD|DROP) COLUMN|DROP CONSTRAINT)\b.*", re.DOTALL
)
# Of these themselves it is known that all that they do goes through the schema editor, which can collect it.
_COLLECTED: Final = (AddConstraint, AlterField, AlterUniqueTogether)


@dataclass(frozen=True, slots=True)
class Ground:
    """A constraint or an index that a statement of a contract half is to find ready.

    Args:
        table: whose, quoted.
        name: its own, which the statement's is another than.
        making: what makes it, in autocommit, and keeps nobody waiting for longer than a change of the catalogue takes.
        instead: what is left of the statement when it is there, in the transaction.
        fill: gives NULLs the field's default, once no new ones can come.
        is_index: whether it is one, and is built outside a transaction.
    """

    table: str
    name: str
    making: tuple[str, ...]
    instead: tuple[str, ...]
    fill: Filling | None = None
    is_index: bool = False

    @property
    def place(self) -> GroundPlace:
        """Where it is."""
        return self.table, self.name

    def lay(self, connection: BaseDatabaseWrapper, limits: Limits, limited: Limited) -> None:
        """Make it. Safe to repeat, also after a crash.

        Takes ACCESS EXCLUSIVE for a change of the catalogue, and SHARE UPDATE EXCLUSIVE while it reads the table; an
        index waits for transactions that use the table, for as long as these take.

        Args:
            connection: the database's, in autocommit.
            limits: time-outs of each statement in a transaction.
            limited: ends what else waits for too long.

        Raises:
            DatabaseError: rows are in the way, or a lock.
        """
        is_valid, index = ground_found(connection, [self.place]).get(self.name, (None, None))
        if is_valid:
            return
        if is_valid is False and index is not None:
            drop_groundwork(connection, [self.place], limits, limited)
        making = self.making[1:] if is_valid is False and index is None else self.making
        for number, statement in enumerate(making, start=1):
            if self.fill is not None and number == len(making):
                self.fill.run()
            within = nullcontext() if self.is_index else limited_transaction(connection, limits)
            with passing("lay"), within, connection.cursor() as cursor:
                cursor.execute(statement)


def groundwork(
    connection: BaseDatabaseWrapper, steps: Iterable[tuple[str, Operation, ProjectState, ProjectState]]
) -> dict[str, Ground]:
    """Return what can be made ready, by the statements that find it so. Only reads; nothing but on PostgreSQL.

    Args:
        connection: the database's.
        steps: operations in their order, each with its app and the states of the tables before and after it.
    """
    found: dict[str, Ground] = {}
    spoiled: set[str] = set()
    for app_label, operation, before, after in steps if connection.vendor == "postgresql" else ():
        if type(operation) in _COLLECTED:
            statements = _collected(connection, app_label, operation, before, after)
            fill = _fill(connection, app_label, operation, before) if isinstance(operation, AlterField) else None
            found |= _grounds(statements, fill)
            if any(_SPOILS.fullmatch(statement) for statement in statements):
                name = models_of(operation)[0]
                spoiled.add(connection.ops.quote_name(table_of(before, (app_label, name))))
    return {statement: ground for statement, ground in found.items() if ground.table not in spoiled}


@contextmanager
def standing_on(connection: BaseDatabaseWrapper, grounds: Mapping[str, Ground]) -> Iterator[None]:
    """Have statements find what is ready, and drop at the end what none of them has used.

    Args:
        connection: the database's, in the transaction in which the contract halves are done.
        grounds: what may be ready, by statements.
    """
    places = [ground.place for ground in grounds.values()]
    ready = {name for name, (is_valid, _index) in ground_found(connection, places).items() if is_valid}

    def instead(
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        ground = grounds.get(_text(sql))
        if ground is None or ground.name not in ready:
            return execute(sql, params, many, context)
        return [execute(statement, None, False, context) for statement in ground.instead]  # noqa: FBT003

    with connection.execute_wrapper(instead):
        yield
    drop_ground(connection, places)


def _collected(
    connection: BaseDatabaseWrapper, app_label: str, operation: Operation, before: ProjectState, after: ProjectState
) -> list[str]:
    with connection.schema_editor(atomic=False, collect_sql=True) as editor:
        operation.database_forwards(app_label, editor, before, after)
    return [_text(statement) for statement in editor.collected_sql]


def _text(sql: object) -> str:
    return str(sql).strip().removesuffix(";")


def _fill(
    connection: BaseDatabaseWrapper, app_label: str, operation: AlterField, before: ProjectState
) -> Filling | None:
    value = default_of(operation.field, connection)
    if value is None:
        return None
    model = before.apps.get_model(app_label, operation.model_name)
    if not model._meta.get_field(operation.name).null:  # noqa: SLF001 - public
        return None
    return Filling(Backfill(f"{app_label}.{operation.model_name}", {operation.name: value}), model, connection)


def _grounds(statements: Sequence[str], fill: Filling | None) -> dict[str, Ground]:
    """Return what an operation's statements are to find ready. Pure."""
    fills = {(match["table"], match["column"]): each for each in statements if (match := _FILL.fullmatch(each))}
    found: dict[str, Ground] = {}
    for statement in statements:
        ground, match = _ground(statement), _NOT_NULL.fullmatch(statement)
        filled = fills.get((match["table"], match["column"])) if match else None
        if ground is not None and filled is None:
            found[statement] = ground
        elif ground is not None and filled is not None and fill is not None:
            found[statement] = replace(ground, fill=fill)
            found[filled] = replace(ground, fill=fill, instead=())
    return found


def _ground(statement: str) -> Ground | None:
    """Return what a statement is to find ready, if it can. Pure."""
    name = f"smooth_{hashlib.sha256(statement.encode()).hexdigest()[:24]}"
    if match := _NOT_NULL.fullmatch(statement):
        table = match["table"]
        making = _checked(table, name, f"CHECK ({match['column']} IS NOT NULL)")
        # The server does not look at the rows of a column of which such a check is valid.
        return Ground(table, name, making, (statement, f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
    if match := _CHECK.fullmatch(statement):
        table = match["table"]
        instead = f"ALTER TABLE {table} RENAME CONSTRAINT {name} TO {match['name']}"
        return Ground(table, name, _checked(table, name, match["rule"]), (instead,))
    if match := _UNIQUE.fullmatch(statement):
        table = match["table"]
        build = f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} {match['columns']}"
        instead = f"ALTER TABLE {table} ADD CONSTRAINT {match['name']} UNIQUE USING INDEX {name}"
        return Ground(table, name, (build,), (instead,), is_index=True)
    if match := _INDEX.fullmatch(statement):
        table = match["table"]
        build = f"CREATE {match['kind']} CONCURRENTLY {name} ON {table} {match['rest']}"
        # It is in its table's schema.
        own = "".join((*table.rpartition('".')[:2], name))
        instead = f"ALTER INDEX {own} RENAME TO {match['name']}"
        return Ground(table, name, (build,), (instead,), is_index=True)
    return None


def _checked(table: str, name: str, rule: str) -> tuple[str, str]:
    return (
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {rule} NOT VALID",
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
    )
