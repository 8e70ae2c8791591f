"""Indexes and constraints that are to be made on the way back, and that are there."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["already_made_left"]

_NAME = r'(?:"((?:[^"]|"")+)"|`((?:[^`]|``)+)`)'
_INDEX = re.compile(rf"\s*CREATE\s+(?P<kind>UNIQUE\s+)?INDEX\s+{_NAME}\s+ON\s+{_NAME}", re.IGNORECASE)
_CONSTRAINT = re.compile(
    rf"\s*ALTER\s+TABLE\s+{_NAME}\s+ADD\s+CONSTRAINT\s+{_NAME}\s+(?P<kind>UNIQUE|CHECK|FOREIGN KEY)\b", re.IGNORECASE
)


def already_made_left(connection: BaseDatabaseWrapper) -> AbstractContextManager[None]:
    """Make no index and no constraint within of which the table has one by that name.

    Django makes the index and the foreign key of a new field when the migration is over, also where an operation has
    said meanwhile that there is to be none (`deferred_sql`); that operation's way back would make them once more. They
    go with the field. Where one of that name is another, the comparison after an undo says so; a `rollback` has none.

    Args:
        connection: where.
    """

    def leave(
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        return None if _is_there(connection, str(sql)) else execute(sql, params, many, context)

    return connection.execute_wrapper(leave)


def _is_there(connection: BaseDatabaseWrapper, sql: str) -> bool:
    if found := _INDEX.match(sql):
        (name, table), kind = _names(found), "unique" if found["kind"] else "index"
    elif found := _CONSTRAINT.match(sql):
        (table, name), kind = _names(found), found["kind"].lower().replace(" ", "_")
    else:
        return False
    with connection.cursor() as cursor:
        # On MariaDB the index of a key has its name, and outlasts it.
        constraints: Mapping[str, Mapping[str, object]] = connection.introspection.get_constraints(cursor, table)
        return bool(constraints.get(name, {}).get(kind))


def _names(found: re.Match[str]) -> tuple[str, str]:
    kind = found.re.groupindex["kind"]
    names = [name for number, name in enumerate(found.groups(), start=1) if number != kind]
    return _unquoted(*names[:2]), _unquoted(*names[2:])


def _unquoted(double: str | None, back: str | None) -> str:
    return double.replace('""', '"') if double else (back or "").replace("``", "`")
