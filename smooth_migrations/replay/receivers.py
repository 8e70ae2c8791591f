"""Django's own receivers of `post_migrate`, which need not be called where the rows that they would make are there."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate

__all__ = ["digest_of_received", "without_own"]

# Which models and permissions a database knows. None where it lacks a table for them.
_THERE: Final = """
    SELECT to_regclass('django_content_type') IS NOT NULL AND to_regclass('auth_permission') IS NOT NULL
"""
_DIGEST: Final = """
    SELECT md5(coalesce((
        SELECT string_agg(app_label || '.' || model, ',' ORDER BY app_label, model) FROM django_content_type
    ), '') || '/' || coalesce((
        SELECT string_agg(app_label || '.' || model || '.' || codename || '.' || name, ','
                          ORDER BY app_label, model, codename)
        FROM auth_permission JOIN django_content_type AS t ON t.id = content_type_id
    ), ''))
"""
_OWN: Final = {
    "django.contrib.contenttypes.management": "create_contenttypes",
    "django.contrib.auth.management": "create_permissions",
}


def digest_of_received(connection: BaseDatabaseWrapper) -> str:
    """Return a digest of a PostgreSQL database's content types and permissions, by names; empty without their tables.

    Only reads.
    """
    with connection.cursor() as cursor:
        cursor.execute(_THERE)
        if not (cursor.fetchone() or (False,))[0]:
            return ""
        cursor.execute(_DIGEST)
        return str((cursor.fetchone() or ("",))[0])


@contextmanager
def without_own() -> Iterator[None]:
    """Leave Django's receivers that make content types and permissions out of `post_migrate`, for a context."""
    own = [getattr(sys.modules.get(module), name, None) for module, name in _OWN.items()]
    # Disconnecting them, and connecting them again, would change in which order receivers are called.
    live: Callable[[type[AppConfig]], Any] = post_migrate._live_receivers  # noqa: SLF001

    def others(sender: type[AppConfig]) -> Any:  # noqa: ANN401 - Django's
        receivers, in_tasks = live(sender)
        return [each for each in receivers if each not in own], in_tasks

    vars(post_migrate)["_live_receivers"] = others
    try:
        yield
    finally:
        del vars(post_migrate)["_live_receivers"]
