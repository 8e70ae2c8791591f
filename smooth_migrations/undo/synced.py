"""Tables that `--run-syncdb` makes, of apps without migrations: no step of a call, and to be undone with it."""

from collections.abc import Container, Iterator

from django.apps import apps
from django.db import router
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["tables_of_apps", "tables_to_sync"]


def tables_to_sync(connection: BaseDatabaseWrapper, app_labels: Container[str]) -> frozenset[str]:
    """Return the tables that there are not yet and that Django's `sync_apps` will make. Only reads.

    Args:
        connection: the target's.
        app_labels: of apps without migrations.
    """
    with connection.cursor() as cursor:
        found = connection.introspection.table_names(cursor)
    return frozenset(tables_of_apps(connection, app_labels)) - frozenset(found)


def tables_of_apps(connection: BaseDatabaseWrapper, app_labels: Container[str]) -> Iterator[str]:
    """Return the tables that the models of some apps have here."""
    for config in apps.get_app_configs():
        if config.models_module is None or config.label not in app_labels:
            continue
        for model in router.get_migratable_models(config, connection.alias, include_auto_created=True):
            if model._meta.can_migrate(connection):  # noqa: SLF001 - documented
                yield model._meta.db_table  # noqa: SLF001
