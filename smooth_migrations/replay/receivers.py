"""Django's own receivers of `pre_migrate` and `post_migrate`, which may be left out where they have nothing to do."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from django.apps import AppConfig, apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import signals
from django.db.models.signals import post_migrate, pre_migrate
from django.dispatch import Signal

from smooth_migrations.replay.rendered import Rendered

__all__ = ["digest_of_received", "without_makers", "without_receivers_of", "without_renaming"]

_THERE: Final = """
    SELECT to_regclass('django_content_type') IS NOT NULL AND to_regclass('auth_permission') IS NOT NULL
"""
# Which models and permissions a database knows.
_DIGEST: Final = """
    SELECT md5(coalesce((
        SELECT string_agg(app_label || '.' || model, ',' ORDER BY app_label, model) FROM django_content_type
    ), '') || '/' || coalesce((
        SELECT string_agg(app_label || '.' || model || '.' || codename || '.' || name, ','
                          ORDER BY app_label, model, codename)
        FROM auth_permission JOIN django_content_type AS t ON t.id = content_type_id
    ), ''))
"""
_OF_MODELS: Final[tuple[Any, ...]] = (
    *(signals.pre_init, signals.post_init, signals.pre_save, signals.post_save),
    *(signals.pre_delete, signals.post_delete, signals.m2m_changed),
)
_CONTENT_TYPES: Final = "django.contrib.contenttypes.management"
_OF_THESE: Final = ("django.contrib.contenttypes", "django.contrib.auth")
_MAKERS: Final = ((_CONTENT_TYPES, "create_contenttypes"), ("django.contrib.auth.management", "create_permissions"))


def digest_of_received(connection: BaseDatabaseWrapper) -> str:
    """Return a digest of a PostgreSQL database's content types and permissions, by names; empty without their tables.

    Only reads, and what Django's receivers would read, so that it waits for no other locks.
    """
    if not all(apps.is_installed(app) for app in _OF_THESE):
        return ""
    with connection.cursor() as cursor:
        cursor.execute(_THERE)
        if not (cursor.fetchone() or (False,))[0]:
            return ""
        cursor.execute(_DIGEST)
        return str((cursor.fetchone() or ("",))[0])


@contextmanager
def without_receivers_of(models: Iterable[Rendered]) -> Iterator[None]:
    """Disconnect at a context's end what code has connected in it to these models: they are of one moment."""
    before = {signal: [*signal.receivers] for signal in _OF_MODELS}
    try:
        yield
    finally:
        senders = {id(model) for each in models for model in each.models()}
        for signal, there in before.items():
            # A receiver's key is what tells it from others, and its sender (django.dispatch.Signal.connect).
            gone = [each for each in signal.receivers if each not in there and each[0][1] in senders]
            if gone:
                with signal.lock:
                    signal.receivers = [each for each in signal.receivers if each not in gone]
                    signal.sender_receivers_cache.clear()


@contextmanager
def without_makers() -> Iterator[None]:
    """Leave Django's receivers that make content types and permissions out of `post_migrate`, for a context."""
    with _without(post_migrate, _MAKERS):
        yield


@contextmanager
def without_renaming() -> Iterator[None]:
    """Leave Django's receiver that adds renamings of content types to a plan out of `pre_migrate`, for a context."""
    with _without(pre_migrate, ((_CONTENT_TYPES, "inject_rename_contenttypes_operations"),)):
        yield


@contextmanager
def _without(signal: Signal, names: Iterable[tuple[str, str]]) -> Iterator[None]:
    left_out = [getattr(sys.modules.get(module), name, None) for module, name in names]
    # Disconnecting them, and connecting them again, would change in which order receivers are called.
    live: Callable[[type[AppConfig]], Any] = signal._live_receivers  # noqa: SLF001

    def others(sender: type[AppConfig]) -> Any:  # noqa: ANN401 - Django's
        receivers, in_tasks = live(sender)
        return [each for each in receivers if each not in left_out], in_tasks

    with ExitStack() as stack:
        stack.callback(vars(signal).pop, "_live_receivers")
        vars(signal)["_live_receivers"] = others
        yield
