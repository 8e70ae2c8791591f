"""Who uses a field: the line of the user's code, or Django itself on its own account.

Frames are looked at only where something deprecated is used, or something new is left empty. No other code pays for it.
"""

import asyncio
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from asgiref.sync import SyncToAsync

__all__ = ["ACCESS", "LOADING", "OWN", "RAW", "RELATED", "caller", "is_on_behalf_of", "place_of"]

OWN: Final = frozenset(
    {
        # Takes references out of rows, and rows with what they refer to.
        "django.db.models.deletion",
        # Makes tables of applications without migrations, with all that they have.
        "django.db.backends.base.schema",
        # Writes rows down whole.
        "django.core.management.commands.dumpdata",
        # Look at every field, whoever named it: these are to find nothing in one that is deprecated.
        "django.db.models.base.Model.clean_fields",
        "django.db.models.base.Model._get_field_expression_map",
        "django.db.models.base.Model._perform_unique_checks",
        "django.db.models.constraints.UniqueConstraint.validate",
        "django.contrib.postgres.constraints.ExclusionConstraint.validate",
        # Puts whatever else a statement of the user's returns under the name of its column.
        "django.db.models.query.RawModelIterable.__iter__",
    }
)
"""Modules and functions of Django that touch a deprecated field without being told to."""

ACCESS: Final = OWN | {"django.db.models.base.Model.refresh_from_db"}
"""The same of an instance's attributes; which fields are to be refreshed is for the user to name, in a query."""

RAW: Final = frozenset({"django.db.models.query.RawQuerySet.resolve_model_init_order"})
"""What asks which columns of a statement of the user's are values of the model's fields."""

RELATED: Final = frozenset({"django.db.models.fields.related_descriptors", "django.db.models.query.QuerySet.query"})
"""The managers of related rows, and the filter that they leave to the query's first use."""

LOADING: Final = frozenset({"django.core.serializers.base", "django.db.models.deletion"})
"""What writes rows as another release left them, or takes references out of rows that go."""

# Of the standard library only what calls back: an application may be named as a module of it is, such as `profile`.
_SKIPPED: Final = frozenset(
    {
        *("django", "smooth_migrations", "asgiref"),
        *("asyncio", "concurrent", "contextlib", "copy", "functools", "inspect", "threading"),
    }
)


def caller() -> FrameType | None:
    """Return the innermost frame of code that is neither Django's nor this package's, also across `sync_to_async`."""
    here = sys._getframe(1)  # noqa: SLF001 - CPython's, as `warnings` uses it
    return next((frame for frame in _frames(here) if _is_users(frame)), None) or _awaiting()


def place_of(frame: FrameType | None) -> str | None:
    """Return `file:line` of a frame."""
    return frame and f"{frame.f_code.co_filename}:{frame.f_lineno}"


def is_on_behalf_of(names: frozenset[str]) -> bool:
    """Tell whether one of these modules or functions stands between this call and the user's code."""
    for frame in _frames(sys._getframe(1)):  # noqa: SLF001 - CPython's, as `warnings` uses it
        if _is_users(frame):
            return False
        module = _module(frame)
        if module in names or f"{module}.{frame.f_code.co_qualname}" in names:
            return True
    return False


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_users(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] not in _SKIPPED


def _awaiting() -> FrameType | None:
    """Return the frame of the coroutine that waits for this thread.

    A thread of `sync_to_async` has nothing of the user's on its stack. asgiref gives it a list that the waiting
    coroutine holds as well, and by that the coroutine is known (asgiref, `SyncToAsync.thread_handler`): it is still
    running in its own thread, or has come to wait meanwhile, in this order.
    """
    loop = getattr(SyncToAsync.threadlocal, "main_event_loop", None)
    ours = getattr(SyncToAsync.threadlocal, "task_context", None)
    if loop is None or ours is None:
        return None
    running = [[*_frames(frame)] for frame in sys._current_frames().values()]  # noqa: SLF001 - documented
    waiting = [[*_awaits(task.get_coro())][::-1] for task in asyncio.all_tasks(loop)]
    for frames in (*running, *waiting):
        if any(frame.f_locals.get("task_context") is ours for frame in frames if _module(frame) == "asgiref.sync"):
            found = next((frame for frame in frames if _is_users(frame)), None)
            if found:
                return found
    return None


def _awaits(coroutine: Any) -> Iterator[FrameType]:  # noqa: ANN401 - whatever is awaited, to the end
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await
