"""Code and SQL of a migration that go back within one transaction, with the operations around them."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import AddIndex, RemoveIndex, RunPython, RunSQL
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.reversibility import database_parts
from smooth_migrations.undo.named import Named

__all__ = ["drop_hollow_indexes", "fit_to_go_back"]

_DROP = re.compile(r"\bDROP\s+(INDEX|TRIGGER|VIEW)\s+(?!IF\s+EXISTS\b)", re.IGNORECASE)
_CONCURRENTLY = re.compile(r"\b((?:CREATE(?:\s+UNIQUE)?|DROP)\s+INDEX)\s+CONCURRENTLY\b", re.IGNORECASE)
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"')
_TEXT = re.compile(r"'(?:[^']|'')*'")
_ON_EXPRESSIONS = """
    SELECT DISTINCT m.name, m.tbl_name, substr(m.sql, instr(m.sql, '(')) FROM sqlite_master m
    JOIN pragma_index_xinfo(m.name) i ON i.key AND i.cid = -2 WHERE m.type = 'index' AND m.sql IS NOT NULL
"""
_COLUMNS = "SELECT lower(name) FROM pragma_table_xinfo(%s)"


@contextmanager
def fit_to_go_back(connection: BaseDatabaseWrapper, operations: Iterable[Operation]) -> Iterator[None]:
    """Let operations go back together that would not by themselves.

    On PostgreSQL, rows that reverse code has changed keep their table from being altered by what goes back after it
    (55006), as long as their foreign keys are still to be checked: they are checked at once, where they hold. An index
    that was built concurrently goes as any other one, which a transaction can hold. On SQLite
    an index or a trigger may be gone, which reverse SQL is to drop: whatever made the table anew has lost it. What is
    wrong with the tables then is mended by comparing them with what they were.

    Args:
        connection: where.
        operations: of one migration.
    """
    parts = [part for operation in operations for part in database_parts(operation)]
    with ExitStack() as stack:
        for part in parts:
            if connection.vendor == "postgresql" and isinstance(part, RunPython | RunSQL):
                stack.enter_context(_replaced(part, "database_backwards", _checking(part)))
            elif connection.vendor == "postgresql" and isinstance(part, AddIndex | RemoveIndex):
                stack.enter_context(_replaced(part, "database_backwards", _within(part)))
            elif connection.vendor == "sqlite" and isinstance(part, RunSQL):
                tolerant = _rewritten(part.reverse_sql, _DROP, r"DROP \1 IF EXISTS ")
                stack.enter_context(_replaced(part, "reverse_sql", tolerant))
        yield


def drop_hollow_indexes(connection: BaseDatabaseWrapper, named: Named) -> None:
    """Drop the indexes of SQLite that are on the name of a column which is not there; elsewhere do nothing.

    Django makes the index of a new column when its migration ends, by the name that the column began with: where the
    same migration has renamed it, SQLite takes the name for a text (its manual, "Quirks", 8), and refuses from then on
    to rename or drop any column of any table. To be called before something goes back of which the tables are compared
    afterwards, since one that was there all along is made again by that. Safe to repeat.

    Args:
        connection: where.
        named: the tables that are compared; those of the dropped are added.
    """
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        for name, table, terms in cursor.execute(_ON_EXPRESSIONS).fetchall():
            columns = {column for (column,) in cursor.execute(_COLUMNS, [table]).fetchall()}
            quoted = _IDENTIFIER.findall(_TEXT.sub("", terms))
            if not {identifier.replace('""', '"').lower() for identifier in quoted} <= columns:
                named.add(table)
                cursor.execute(f"DROP INDEX {connection.ops.quote_name(name)}")


@contextmanager
def _replaced(operation: Operation, name: str, value: object) -> Iterator[None]:
    had, before = name in operation.__dict__, operation.__dict__.get(name)
    operation.__dict__[name] = value
    try:
        yield
    finally:
        if had:
            operation.__dict__[name] = before
        else:
            operation.__dict__.pop(name)


def _within(operation: AddIndex | RemoveIndex) -> Callable[..., None]:
    run = operation.database_backwards
    plain = AddIndex if isinstance(operation, AddIndex) else RemoveIndex

    def backwards(
        app_label: str, editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        if editor.connection.in_atomic_block and _is_concurrent(operation):
            plain.database_backwards(operation, app_label, editor, from_state, to_state)
        else:
            run(app_label, editor, from_state, to_state)

    return backwards


def _is_concurrent(operation: Operation) -> bool:
    from django.contrib.postgres.operations import NotInTransactionMixin  # noqa: PLC0415 - needs psycopg

    return isinstance(operation, NotInTransactionMixin)


def _checking(operation: RunPython | RunSQL) -> Callable[..., None]:
    run = operation.database_backwards

    def backwards(
        app_label: str, editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        if not editor.connection.in_atomic_block:
            run(app_label, editor, from_state, to_state)
            return
        with ExitStack() as stack:
            if isinstance(operation, RunSQL):
                plain = _rewritten(operation.reverse_sql, _CONCURRENTLY, r"\1")
                stack.enter_context(_replaced(operation, "reverse_sql", plain))
            run(app_label, editor, from_state, to_state)
        _check_now(editor.connection)

    return backwards


def _check_now(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT smooth_check")
        try:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        except IntegrityError:
            # What goes back next may make it good.
            cursor.execute("ROLLBACK TO SAVEPOINT smooth_check")
        cursor.execute("RELEASE SAVEPOINT smooth_check")


def _rewritten(sql: Any, found: re.Pattern[str], by: str) -> Any:  # noqa: ANN401 - as RunSQL takes it
    if isinstance(sql, str):
        return found.sub(by, sql)
    if isinstance(sql, list):
        return [_rewritten(each, found, by) for each in sql]
    if isinstance(sql, tuple) and sql:
        return (_rewritten(sql[0], found, by), *sql[1:])
    return sql
