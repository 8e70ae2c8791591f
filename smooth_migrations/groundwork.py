"""What statements of contract halves find ready: validated or built before their transaction, while all go on working.

SET NOT NULL, a check and an index read the whole table, under a lock that keeps its writers or everybody waiting. That
can be done before: a constraint is added `NOT VALID` and then validated, an index is built `CONCURRENTLY`, each under a
name of its own. What is left to the transaction is a change of the catalogue (PostgreSQL manual, ALTER TABLE).
It ends with the same schema as without.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.backfill.filling import Filling
from smooth_migrations.errors import sqlstate_of
from smooth_migrations.operations.shadow import found_by
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.session import limited_transaction
from smooth_migrations.undo.ground import GroundPlace, drop_ground, drop_groundwork, ground_found
from smooth_migrations.undo.indexes import Limited
from smooth_migrations.undo.transaction import Limits

if TYPE_CHECKING:
    from smooth_migrations.shadow_columns import ShadowGround

__all__ = ["Ground", "Groundwork", "collected", "grounds_of", "standing_on"]

_NAME: Final = r'"(?:[^"]|"")+"'
_TABLE: Final = rf"(?P<table>(?:{_NAME}\.)?{_NAME})"
_CHECK: Final = re.compile(rf"ALTER TABLE {_TABLE} ADD CONSTRAINT (?P<name>{_NAME}) (?P<rule>CHECK \(.*\))", re.DOTALL)
_UNIQUE: Final = re.compile(
    rf"ALTER TABLE {_TABLE} ADD CONSTRAINT (?P<name>{_NAME}) UNIQUE(?P<nulls> NULLS NOT DISTINCT)? "
    rf"(?P<columns>\({_NAME}(?:, {_NAME})*\))"
)
_INDEX: Final = re.compile(rf"CREATE (?P<kind>(?:UNIQUE )?INDEX) (?P<name>{_NAME}) ON {_TABLE} (?P<rest>.*)", re.DOTALL)
_NOT_NULL: Final = re.compile(rf"ALTER TABLE {_TABLE} ALTER COLUMN (?P<column>{_NAME}) SET NOT NULL")
_FILL: Final = re.compile(
    rf"UPDATE {_TABLE} SET (?P<column>{_NAME}) = .* WHERE (?P=column) IS NULL; SET CONSTRAINTS ALL IMMEDIATE",  # noqa: S608 - a pattern
    re.DOTALL,
)
# What an operation before it may bring or mend, by classes of SQLSTATE (PostgreSQL manual, appendix A): an extension, a
# function, rows that an expression cannot take.
_MAY_PASS: Final = ("0A", "22", "23", "42", "P0")


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
        is_optional: whether what runs before its statement may bring what it needs: it is left out where it fails.
        upon: the column that it is built upon, until a statement gives that its own name.
        needs: what of its table must be there too.
    """

    table: str
    name: str
    making: tuple[str, ...]
    instead: tuple[str, ...]
    fill: Filling | None = None
    is_index: bool = False
    is_optional: bool = False
    upon: str = ""
    needs: tuple[str, ...] = ()

    @property
    def place(self) -> GroundPlace:
        """Where it is."""
        return self.table, self.name

    def is_ready(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether it is there with what it needs, valid, and of the column that it is to be of. Only reads."""
        names = (self.name, *self.needs)
        found = ground_found(connection, [(self.table, name) for name in (*names, self.upon) if name])
        return self.upon not in found and all(name in found and found[name].is_valid for name in names)

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
        try:
            self._lay(connection, limits, limited)
        except DatabaseError as error:
            if not self.is_optional or not (sqlstate_of(error) or "").startswith(_MAY_PASS):
                raise
            drop_groundwork(connection, [self.place], limits, limited)

    def _lay(self, connection: BaseDatabaseWrapper, limits: Limits, limited: Limited) -> None:
        found = ground_found(connection, [self.place]).get(self.name)
        if found is not None and found.is_valid:
            return
        if found is not None and found.index is not None:
            drop_groundwork(connection, [self.place], limits, limited)
        making = self.making[1:] if found is not None and found.index is None else self.making
        for number, statement in enumerate(making, start=1):
            if self.fill is not None and number == len(making):
                self.fill.run()
            within = nullcontext() if self.is_index else limited_transaction(connection, limits)
            with passing("lay"), within, connection.cursor() as cursor:
                cursor.execute(statement)


@dataclass(frozen=True, slots=True)
class Groundwork:
    """All that can be made ready for a plan, or for contract halves.

    Args:
        statements: what statements are to find ready.
        shadows: columns that operations are to find ready, which look for them themselves.
        migrations: that find any of it ready; none are told of contract halves.
    """

    statements: Mapping[str, Ground] = field(default_factory=dict)
    shadows: tuple["ShadowGround", ...] = ()
    migrations: AbstractSet[Migration] = frozenset()

    @property
    def grounds(self) -> tuple["Ground | ShadowGround", ...]:
        """What is to be laid, in order."""
        return (*self.statements.values(), *self.shadows)

    def built(self, connection: BaseDatabaseWrapper) -> AbstractSet[str]:
        """Return the tables, quoted, of which all that statements are to find is ready. Only reads."""
        unready = {ground.table for ground in self.statements.values() if not ground.is_ready(connection)}
        return {ground.table for ground in self.statements.values()} - unready


@contextmanager
def standing_on(connection: BaseDatabaseWrapper, groundwork: Groundwork) -> Iterator[None]:
    """Have statements find what is ready, and drop at the end what nothing has used.

    Args:
        connection: the database's, in the transaction in which these run.
        groundwork: what may be ready.
    """

    def instead(
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        ground = groundwork.statements.get(_text(sql))
        # Looked for when it is needed: code may have dropped it, with its table.
        if ground is None or not ground.is_ready(connection):
            return execute(sql, params, many, context)
        return [execute(statement, None, False, context) for statement in ground.instead]  # noqa: FBT003

    with connection.execute_wrapper(instead):
        yield
    drop_ground(connection, [ground.place for ground in groundwork.grounds])


def collected(
    connection: BaseDatabaseWrapper, app_label: str, operation: Operation, before: ProjectState, after: ProjectState
) -> list[str]:
    """Return the statements of one of Django's own operations. Only reads."""
    with connection.schema_editor(atomic=False, collect_sql=True) as editor:
        operation.database_forwards(app_label, editor, before, after)
    return [_text(statement) for statement in editor.collected_sql]


def _text(sql: object) -> str:
    return str(sql).strip().removesuffix(";")


def grounds_of(statements: Sequence[str], fill: Filling | None = None) -> dict[str, Ground]:
    """Return what an operation's statements are to find ready, by these. Pure.

    Args:
        statements: all of one operation.
        fill: gives NULLs the default of the field that it alters, if it has one.
    """
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
        build = f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} {match['columns']}{match['nulls'] or ''}"
        instead = f"ALTER TABLE {table} ADD CONSTRAINT {match['name']} UNIQUE USING INDEX {name}"
        return Ground(table, name, (build,), (instead,), is_index=True)
    if match := _INDEX.fullmatch(statement):
        table = match["table"]
        build = f"CREATE {match['kind']} CONCURRENTLY {name} ON {table} {match['rest']}"
        instead = f"ALTER INDEX {found_by(table, name)} RENAME TO {match['name']}"
        return Ground(table, name, (build,), (instead,), is_index=True)
    return None


def _checked(table: str, name: str, rule: str) -> tuple[str, str]:
    return (
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {rule} NOT VALID",
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
    )
