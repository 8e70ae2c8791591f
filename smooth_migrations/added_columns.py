"""New columns of large tables, with their indexes, made ready before the transaction that gives them their names.

A column is a change of the catalogue, but its index reads the whole table, and the lock that the column took is held
meanwhile and until the last database is done. So both are made ahead, the column under a name of our own, and the index
`CONCURRENTLY`; what is left to the transaction is to give them their names.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AddField
from django.db.migrations.state import ProjectState

from smooth_migrations.groundwork import Ground, collected, grounds_of
from smooth_migrations.locks.tables import table_of
from smooth_migrations.operations import CannotSplit, Place
from smooth_migrations.operations.add_field import SplitAddField
from smooth_migrations.operations.shadow import added, has_many_rows, rows_of
from smooth_migrations.touched import is_here

__all__ = ["column_grounds"]

_LONGEST: Final = 63
_NAME: Final = r'"(?:[^"]|"")+"'
_COLUMN: Final = re.compile(
    rf"ALTER TABLE (?P<table>(?:{_NAME}\.)?(?P<own>{_NAME})) ADD COLUMN (?P<column>{_NAME}) (?P<rest>.*?)"
    rf"(?P<checks>(?:; SET CONSTRAINTS (?:{_NAME}\.)?{_NAME} IMMEDIATE)?)",
    re.DOTALL,
)
# What was made ready on it once is still looked for.
_THERE: Final = """
    SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = oid AND attname LIKE 'smooth!_%%' ESCAPE '!')
    FROM pg_class WHERE oid = to_regclass(%s)
"""
_KEY: Final = re.compile(rf"(?P<rest>.*) CONSTRAINT (?P<key>{_NAME}) (?P<refers>REFERENCES .*)", re.DOTALL)
_DEFAULT: Final = re.compile(r"\bDEFAULT\b")
# The server names after the column what these make, or makes an index of its own.
_NAMED: Final = re.compile(r"\b(?:CHECK|UNIQUE|PRIMARY|GENERATED|EXCLUDE)\b", re.IGNORECASE)


def column_grounds(
    connection: BaseDatabaseWrapper, app_label: str, operation: AddField, state: ProjectState
) -> dict[str, Ground]:
    """Return what a new column's statements are to find ready; nothing where it has no index, or few rows. Only reads.

    Args:
        connection: the database's.
        app_label: of the migration.
        operation: what adds it, to a table that is there.
        state: that of the tables before it.
    """
    table = connection.ops.quote_name(table_of(state.models[app_label, operation.model_name_lower]))
    if operation.field.many_to_many or not _is_large(connection, table):
        return {}
    place = Place(app_label, state, connection)
    if not is_here(operation, place):
        return {}
    try:
        split = SplitAddField.of(operation, place)
    except CannotSplit:
        return {}
    first = operation if split is None else split.expand()[0]
    after = state.clone()
    first.state_forwards(app_label, after)
    statements = collected(connection, app_label, first, state, after)
    # What is another one each time, such as the moment, would not be found.
    if not statements or collected(connection, app_label, first, state, after) != statements:
        return {}
    return _grounds(statements)


def _grounds(statements: Sequence[str]) -> dict[str, Ground]:
    """Return what the statements of one operation are to find ready: all of it, or nothing. Pure."""
    match = _COLUMN.fullmatch(statements[0])
    if match is None or _NAMED.search(match["rest"]) or match["column"] in match["rest"]:
        return {}
    table, column, name = match["table"], match["column"], _own_name(statements[0])
    key = _KEY.fullmatch(match["rest"])
    definition = _defined(match, key["rest"] if key else match["rest"])
    indexes = {
        statement: replace(index, making=(index.making[0].replace(column, name),), upon=name, is_optional=True)
        for statement, index in grounds_of(statements[1:]).items()
        if statement.startswith("CREATE INDEX ")
    }
    others = {*statements[1:]} - {*indexes, f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT"}
    if definition is None or others or not indexes:
        return {}
    making = f"ALTER TABLE {table} ADD COLUMN {name} {definition}"
    instead = f"ALTER TABLE {table} RENAME COLUMN {name} TO {column}"
    ground = Ground(table, name, (making,), (instead,), is_optional=True)
    if key is None:
        return {statements[0]: ground, **indexes}
    # Django checks at once from there on: the server alters no table of which a check is to be done.
    checks = tuple(match["checks"].split("; ")[1:])
    if _DEFAULT.search(key["rest"]):
        # Rows refer to one from the first moment on, which the release still running may delete: that is followed only
        # when the transaction has made what follows it.
        keyed = f"ALTER TABLE {table} ADD CONSTRAINT {key['key']} FOREIGN KEY ({column}) {key['refers']}"
        return {statements[0]: replace(ground, instead=(instead, keyed, *checks)), **indexes}
    # What refers to rows finds them by an index, or each delete of such a row reads the whole table.
    own = _own_name(statements[0], "key")
    rule = f"FOREIGN KEY ({name}) {key['refers']}"
    named = f"ALTER TABLE {table} RENAME CONSTRAINT {own} TO {key['key']}"
    return {
        statements[0]: replace(ground, instead=(instead, named, *checks), needs=(own,)),
        **indexes,
        own: Ground(table, own, added(table, own, rule), (), is_optional=True),
    }


def _defined(match: re.Match[str], definition: str) -> str | None:
    """Return what a column is, so that all of it is named as if it had its own name; None where it cannot be. Pure."""
    if "NOT NULL" not in definition:
        return definition
    own = f"{match['own'][1:-1]}_{match['column'][1:-1]}_not_null"
    if len(own.encode()) > _LONGEST or not definition.endswith(" NOT NULL"):
        return None
    # As a server of version 18 names it, after the column; one before that has no names for it.
    return f'{definition.removesuffix("NOT NULL")}CONSTRAINT "{own}" NOT NULL'


def _own_name(*parts: str) -> str:
    return f"smooth_{sha256(' '.join(parts).encode()).hexdigest()[:24]}"


def _is_large(connection: BaseDatabaseWrapper, table: str) -> bool:
    """Return whether a table has many rows, or had when something was made ready on it. Only reads."""
    there = rows_of(connection, _THERE, table)
    return bool(there) and (there == [(True,)] or has_many_rows(connection, table))
