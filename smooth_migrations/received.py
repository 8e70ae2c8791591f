"""Rows that Django's own receivers of `post_migrate` make, to be taken back with a run: content types, permissions."""

from collections.abc import Iterator

from django.apps.registry import Apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model
from django.db.transaction import atomic

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Received

__all__ = ["dependents", "made_since", "remove_received", "take_received", "take_received_back"]

# In the order in which they are taken away: a permission refers to its content type.
_TABLES = {"permissions": "auth_permission", "content_types": "django_content_type"}
_MODELS = {"permissions": ("auth", "Permission"), "content_types": ("contenttypes", "ContentType")}


def take_received(connection: BaseDatabaseWrapper) -> Received:
    """Return the rows that there are now. Only reads."""
    with connection.cursor() as cursor:
        there = {*connection.introspection.table_names(cursor)}
        found = {}
        for name, table in _TABLES.items():
            if table in there:
                cursor.execute(f"SELECT id FROM {table} ORDER BY id")  # noqa: S608 - a constant name
                found[name] = tuple(int(key) for (key,) in cursor.fetchall())
    return Received(**found)


def made_since(connection: BaseDatabaseWrapper, before: Received) -> Received:
    """Return the rows that there are now and were not before. Only reads."""
    now = take_received(connection)
    return Received(
        content_types=tuple(key for key in now.content_types if key not in {*before.content_types}),
        permissions=tuple(key for key in now.permissions if key not in {*before.permissions}),
    )


def dependents(connection: BaseDatabaseWrapper, apps: Apps, received: Received) -> Iterator[tuple[str, int]]:
    """Yield the tables, and how many of their rows, that would go with such rows: who has been given a permission.

    Args:
        connection: the target's. Only reads.
        apps: of the moment at which they are taken away.
        received: the rows.
    """
    from django.db.models.deletion import Collector  # noqa: PLC0415 - few runs are taken back

    ours = {_TABLES["permissions"], _TABLES["content_types"]}
    for name, keys in _rows(received):
        model = _model(apps, name)
        if model is None:
            continue
        collector = Collector(using=connection.alias)
        collector.collect(model._base_manager.using(connection.alias).filter(pk__in=keys))  # noqa: SLF001
        for related, instances in collector.data.items():
            if related._meta.db_table not in ours:  # noqa: SLF001 - Django's public name for it
                yield related._meta.db_table, len(instances)  # noqa: SLF001 - as above
        for rows in collector.fast_deletes:
            if rows.model._meta.db_table not in ours and (count := rows.count()):  # noqa: SLF001 - as above
                yield rows.model._meta.db_table, count  # noqa: SLF001 - as above


def remove_received(connection: BaseDatabaseWrapper, apps: Apps, received: Received) -> None:
    """Take such rows away, with what depends on them. Safe to repeat.

    Args:
        connection: the target's, in a transaction.
        apps: of the moment.
        received: the rows.
    """
    with passing("remove_received"):
        for name, keys in _rows(received):
            model = _model(apps, name)
            if model is not None:
                model._base_manager.using(connection.alias).filter(pk__in=keys).delete()  # noqa: SLF001


def take_received_back(connection: BaseDatabaseWrapper, received: Received) -> None:
    """Take such rows away where the migrations have been taken back, in one transaction. Safe to repeat.

    Args:
        connection: the target's.
        received: the rows.
    """
    if received.content_types or received.permissions:
        # The one way to this state that Django's own migrate takes.
        executor = MigrationExecutor(connection)
        state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
        with atomic(connection.alias):
            remove_received(connection, state.apps, received)


def _rows(received: Received) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in _MODELS:
        if keys := getattr(received, name):
            yield name, keys


def _model(apps: Apps, name: str) -> type[Model] | None:
    try:
        return apps.get_model(*_MODELS[name])
    except LookupError:
        return None
