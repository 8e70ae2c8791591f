"""What CREATE and DROP INDEX CONCURRENTLY leave behind when they are broken off."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import RunSQL
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.reversibility import database_parts

__all__ = ["Limited", "drop_concurrently", "drop_invalid_indexes", "existing_indexes", "settle_indexes"]

Limited = Callable[[str], AbstractContextManager[None]]
"""Ends what is run within when that waits for too long, for what is said in words."""

_BUILT_BY_SQL = re.compile(
    r'\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>"(?:[^"]|"")+"|\w+)',
    re.IGNORECASE,
)
_INDEXES = """
    SELECT c.relname, c.oid::regclass::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname = ANY(%s) AND pg_table_is_visible(c.oid)
"""


def existing_indexes(connection: BaseDatabaseWrapper, operation: Operation) -> tuple[str, ...]:
    """Return which of the indexes that an operation builds or drops concurrently are there. Only reads."""
    names = [name for _model, name in _concurrent(connection, operation)]
    return tuple(name for name, _qualified, is_valid in _found(connection, names) if is_valid)


def drop_invalid_indexes(connection: BaseDatabaseWrapper, operation: Operation, limited: Limited) -> tuple[str, ...]:
    """Drop the invalid indexes under whose names an operation builds some concurrently, and return their names.

    Such a one was left by a build that broke off, often that of the same migration, and would keep it from succeeding,
    or with IF NOT EXISTS from building anything. Waits for transactions that use the table; takes SHARE UPDATE
    EXCLUSIVE on it. Safe to repeat.

    Args:
        connection: the target's, in autocommit.
        operation: any other than a concurrent one on an index is left alone.
        limited: ends a statement that waits for too long.
    """
    names = [name for _model, name in _concurrent(connection, operation)]
    invalid = [(name, qualified) for name, qualified, is_valid in _found(connection, names) if not is_valid]
    for _name, qualified in invalid:
        drop_concurrently(connection, qualified, limited)
    return tuple(name for name, _qualified in invalid)


def settle_indexes(
    connection: BaseDatabaseWrapper,
    operation: Operation,
    app_label: str,
    before: ProjectState,
    existed: Collection[str],
    limited: Limited,
) -> None:
    """Make the indexes of a broken concurrent operation be there or not, as they were before it. Safe to repeat.

    An index whose concurrent build fails stays, marked invalid (PostgreSQL manual, CREATE INDEX). Waits for
    transactions that use the table; takes SHARE UPDATE EXCLUSIVE on it.

    Args:
        connection: the target's, in autocommit.
        operation: any other than a concurrent one on an index is left alone.
        app_label: of its migration.
        before: the project's state before it.
        existed: what `existing_indexes` said before it.
        limited: ends a statement that waits for too long.
    """
    for model_name, name in _concurrent(connection, operation):
        found = list(_found(connection, [name]))
        if name in existed and any(is_valid for _name, _qualified, is_valid in found):
            continue
        for _name, qualified, _is_valid in found:
            drop_concurrently(connection, qualified, limited)
        if name in existed and model_name:
            indexes = before.models[app_label, model_name.lower()].options["indexes"]
            index = next(index for index in indexes if index.name == name)
            with connection.schema_editor(atomic=False) as editor:
                model = before.apps.get_model(app_label, model_name)
                editor.add_index(model, index, concurrently=True)  # type: ignore[call-arg]  # PostgreSQL's has it


def drop_concurrently(connection: BaseDatabaseWrapper, qualified: str, limited: Limited) -> None:
    """Drop an index in autocommit, where it is there.

    Args:
        connection: the target's.
        qualified: what it is called.
        limited: ends what waits for too long. The drop waits for whoever uses the table, however long that is, and no
            SET LOCAL can limit what runs in no transaction.
    """
    waits_for = f"the index {qualified} could not be dropped: it has waited for transactions that use its table"
    with limited(waits_for), connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {qualified}")


def _concurrent(connection: BaseDatabaseWrapper, operation: Operation) -> Iterator[tuple[str, str]]:
    """Yield the model and the name of each index; without a model where only the SQL says that it is built."""
    if connection.vendor != "postgresql":
        return
    # Here, since it needs psycopg, which a project on another server may lack.
    from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently  # noqa: PLC0415

    for part in database_parts(operation):
        if isinstance(part, AddIndexConcurrently):
            yield part.model_name, part.index.name
        elif isinstance(part, RemoveIndexConcurrently):
            yield part.model_name, part.name
        elif isinstance(part, RunSQL):
            yield from (("", _folded(found["name"])) for found in _BUILT_BY_SQL.finditer(str(part.sql)))


def _folded(name: str) -> str:
    """Return an identifier as the server keeps it (PostgreSQL manual, 4.1.1)."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _found(connection: BaseDatabaseWrapper, names: list[str]) -> Iterator[tuple[str, str, bool]]:
    if not names:
        return
    with connection.cursor() as cursor:
        cursor.execute(_INDEXES, [names])
        yield from cursor.fetchall()
