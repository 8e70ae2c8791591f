"""What of contract halves can be made ready before their transaction: constraints, indexes, columns of other types."""

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AddConstraint, AlterField, AlterUniqueTogether
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.backfill import Backfill
from smooth_migrations.backfill.filling import Filling
from smooth_migrations.groundwork import Ground, Groundwork, collected, grounds_of
from smooth_migrations.locks.tables import models_of
from smooth_migrations.operations.fields import default_of, table_of
from smooth_migrations.operations.retyped import RetypeField
from smooth_migrations.shadow_columns import ShadowGround

__all__ = ["contract_groundwork"]

_NAME: Final = r'"(?:[^"]|"")+"'
_TABLE: Final = rf"(?:{_NAME}\.)?{_NAME}"
# What is built upon must not change before in the same transaction, and Django drops what it finds by its columns.
_SPOILS: Final = re.compile(
    rf"DROP INDEX .*|ALTER TABLE {_TABLE} .*\b(?:TYPE|RENAME|(?:ADD|DROP) COLUMN|DROP CONSTRAINT)\b.*", re.DOTALL
)
# The server builds no index concurrently there (PostgreSQL manual, CREATE INDEX).
_PARTITIONED: Final = """
    SELECT t.name FROM unnest(%s::text[]) AS t(name) JOIN pg_class ON oid = to_regclass(t.name) WHERE relkind = 'p'
"""
# Of these themselves it is known that all that they do goes through the schema editor, which can collect it.
_COLLECTED: Final = (AddConstraint, AlterField, AlterUniqueTogether, RetypeField)


def contract_groundwork(
    connection: BaseDatabaseWrapper,
    steps: Iterable[tuple[str, Operation, ProjectState, ProjectState]],
    *,
    is_laid: bool = False,
) -> Groundwork:
    """Return it. Only reads; nothing but on PostgreSQL.

    Args:
        connection: the database's.
        steps: operations in their order, each with its app and the states of the tables before and after it.
        is_laid: whether that was done, as far as it could be: then all is told that may be there.
    """
    found: dict[str, Ground] = {}
    shadows: list[ShadowGround] = []
    spoiled: set[str] = set()
    for app_label, operation, before, after in steps if connection.vendor == "postgresql" else ():
        if type(operation) in _COLLECTED:
            statements = collected(connection, app_label, operation, before, after)
            fill = _fill(connection, app_label, operation, before) if isinstance(operation, AlterField) else None
            found |= grounds_of(statements, fill)
            if any(_SPOILS.fullmatch(statement) for statement in statements):
                name = models_of(operation)[0]
                spoiled.add(connection.ops.quote_name(table_of(before, (app_label, name))))
        if isinstance(operation, RetypeField) and (is_laid or operation.may_swap(app_label, connection, before, after)):
            shadow = operation.shadow(app_label, connection, before, after)
            table, key = connection.ops.quote_name(shadow.table), (app_label, operation.model_name_lower)
            shadows.append(ShadowGround(shadow, table, key, operation.name, before))
    partitioned = _partitioned(connection, [ground.table for ground in found.values() if ground.is_index])
    statements_of = {
        statement: ground
        for statement, ground in found.items()
        if ground.table not in spoiled and not (ground.is_index and ground.table in partitioned)
    }
    return Groundwork(statements_of, tuple(shadows))


def _partitioned(connection: BaseDatabaseWrapper, tables: Sequence[str]) -> AbstractSet[str]:
    if not tables:
        return frozenset()
    with connection.cursor() as cursor:
        cursor.execute(_PARTITIONED, [[*tables]])
        return frozenset(name for (name,) in cursor.fetchall())


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
