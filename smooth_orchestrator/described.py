"""What is told of an error, by a report and by a line of the log."""

import traceback
from typing import Any

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.errors import SmoothError

__all__ = ["describe", "error_info"]


def describe(error: BaseException, *, migration: str | None = None) -> ErrorInfo:
    """Return what users are told of an exception; only what this program did not raise on purpose has a traceback.

    Args:
        error: the exception; the members of a group become `causes`.
        migration: `app.name` of the migration at work.
    """
    ours = isinstance(error, SmoothError)
    return ErrorInfo(
        type=error.code if isinstance(error, SmoothError) else type(error).__name__,
        message=str(error) or type(error).__name__,
        sqlstate=_sqlstate(error),
        migration=migration,
        hint=error.hint if isinstance(error, SmoothError) else None,
        traceback=None if ours else "".join(traceback.format_exception(error)),
        causes=tuple(describe(cause) for cause in error.exceptions) if isinstance(error, BaseExceptionGroup) else (),
    )


def error_info(error: BaseException | ErrorInfo) -> dict[str, Any]:
    """Return the `error` of a log line."""
    info = describe(error) if isinstance(error, BaseException) else error
    shown: dict[str, Any] = {
        "type": info.type,
        "message": info.message,
        "sqlstate": info.sqlstate,
        "traceback": info.traceback,
    }
    if info.hint:
        shown["hint"] = info.hint
    where = {"migration": info.migration, "operation": info.operation, "place": info.place}
    shown |= {key: value for key, value in where.items() if value}
    if info.causes:
        shown["causes"] = [error_info(cause) for cause in info.causes]
    return shown


def _sqlstate(error: BaseException | None) -> str | None:
    """Return the SQLSTATE of an error or of what caused it: Django wraps its driver's errors."""
    while error is not None:
        state = getattr(error, "sqlstate", None)
        if isinstance(state, str):
            return state
        error = error.__cause__
    return None
