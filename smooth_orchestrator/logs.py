"""Log lines: one JSON object each, or text for a terminal; whatever else would be written becomes such a line too.

structlog brings rich with it, which costs a tenth of a second: it is imported when the log is set up or first used.
"""

import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.console import Stream, event_text, wants_colour
from smooth_orchestrator.errors import Mistake, PlanInvalid, SmoothError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.secrets import Masker

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = [
    "Listener",
    "LogFormat",
    "LogLevel",
    "bind_run",
    "configure",
    "describe",
    "error_info",
    "get_logger",
    "hearing",
]

Listener = Callable[[Mapping[str, Any]], None]
"""Takes one event, as it would be written: complete and masked. It must not wait for anything."""


class LogFormat(StrEnum):
    """How lines on stderr look; `AUTO` is JSON unless stderr is a terminal."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def number(self) -> int:
        """The level as the standard library counts it."""
        return logging.getLevelNamesMapping()[self.upper()]


_listeners: Final[list[Listener]] = []

# One process is one run. A context variable alone would not reach lines that come from other threads or from hooks.
_run: Final[dict[str, str | None]] = {"run_id": None, "deploy": None}


def bind_run(run_id: str, deploy: str | None) -> None:
    """Put these on every line of this process from now on, whichever task or thread it comes from."""
    _run.update(run_id=run_id, deploy=deploy)


@contextmanager
def hearing(listener: Listener) -> Iterator[None]:
    """Call a function with every event of level `info` and above, whatever is written, for the length of a context.

    It is called in the thread that logs, one event at a time. One that raises is told of, and hears no more: no deploy
    fails for those who watch it.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        if listener in _listeners:
            _listeners.remove(listener)


def get_logger() -> "FilteringBoundLogger":
    """Return the logger: `get_logger().info(EventName.MIGRATION_APPLIED, database=..., duration_ms=...)`.

    A key given None is left out. `error` may be given an exception or an `ErrorInfo`; `exc_info=True` does the same for
    the exception at hand. Keys bound by `structlog.contextvars` join every line of their scope.
    """
    import structlog  # noqa: PLC0415 - see the module's docstring

    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def configure(
    log_format: LogFormat,
    level: LogLevel,
    log_file: Path | None = None,
    *,
    stream: Stream | None = None,
    brief: bool = False,
    masker: Masker,
) -> None:
    """Set up the log of this process, and send everything that others log, warn of or crash with through it.

    Args:
        log_format: how lines on the stream look.
        level: the least level that is written.
        log_file: a file that gets every line too, as JSON; made for its owner alone, and appended to.
        stream: where lines go; stderr unless given.
        brief: whether something else shows there what is below `warning`, and how a migration failed: then lines of
            text have a traceback only where nobody can have expected one.
        masker: knows the secrets; may learn more later.

    Raises:
        PlanInvalid: the log file cannot be opened.
    """
    import structlog  # noqa: PLC0415 - see the module's docstring

    stream = stream or sys.stderr
    least = max(level, LogLevel.WARNING, key=lambda each: each.number) if brief else level
    outputs = [(_stream_output(log_format, stream, brief=brief), least)]
    if log_file:
        outputs.append((_file_output(log_file), level))
    _run.update(run_id=None, deploy=None)
    structlog.contextvars.clear_contextvars()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
            _resolve_error,
            _Finisher(masker),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(level.number, logging.INFO)),
        logger_factory=lambda *_: _Lines(outputs),
        cache_logger_on_first_use=False,
    )
    _route_everything(level)


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


def _resolve_error(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    exc_info = event.pop("exc_info", None)
    if exc_info and "error" not in event:
        event["error"] = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    if isinstance(event.get("error"), BaseException | ErrorInfo):
        event["error"] = error_info(event["error"])
    return event


class _Finisher:
    """The last processor: complete, ordered and masked."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> tuple[tuple[dict[str, Any]], dict[str, Any]]:
        ordered = {key: event.pop(key) for key in ("timestamp", "level", "event")}
        always = {key: event.pop(key, value) for key, value in _run.items()}
        applying = {key: value for key, value in event.items() if value is not None}
        return (self._masker.mask(ordered | always | applying),), {}


class _Output(Protocol):
    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write one event as one whole line."""


class _Lines:
    """What structlog hands finished events to; one line at a time, whichever thread it comes from."""

    # Reentrant: a finaliser that fails while a line is written comes back here through `sys.unraisablehook`.
    _lock: Final = threading.RLock()

    def __init__(self, outputs: list[tuple[_Output, LogLevel]]) -> None:
        self._outputs = outputs

    def emit(self, event: Mapping[str, Any]) -> None:
        """Write the event everywhere, and tell the listeners."""
        with self._lock:
            for listener in tuple(_listeners):
                _tell(listener, event)
            for output, least in self._outputs:
                # A reader that went away or a full disk must not stop a deploy half-way.
                with contextlib.suppress(OSError, ValueError):
                    if LogLevel(event["level"]).number >= least.number:
                        output(event)

    debug = info = warning = error = critical = emit


def _tell(listener: Listener, event: Mapping[str, Any]) -> None:
    try:
        listener(event)
    except Exception as error:  # noqa: BLE001 - see `hearing`
        if listener in _listeners:
            _listeners.remove(listener)
        _log_crash("listener", f"{listener!r} failed, and hears no more", error)


def _stream_output(log_format: LogFormat, stream: Stream, *, brief: bool) -> _Output:
    console = log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and stream.isatty())
    render: Callable[[Mapping[str, Any]], str] = json.dumps
    if console:
        colour = wants_colour(stream)

        def render(event: Mapping[str, Any]) -> str:
            has_traces = not brief or event["level"] == LogLevel.CRITICAL
            return event_text(event, colour=colour, has_traces=has_traces)

    def write(event: Mapping[str, Any]) -> None:
        stream.write(f"{render(event)}\n")
        stream.flush()

    return write


def _file_output(path: Path) -> _Output:
    try:
        # A pipe that nobody reads would keep us waiting before the first word.
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        os.set_blocking(descriptor, True)
    except OSError as error:
        mistake = Mistake("--log-file", f"{path}: {error.strerror}", "name a file that this user may write to")
        raise PlanInvalid([mistake]) from error

    def write(event: Mapping[str, Any]) -> None:
        line = f"{json.dumps(event)}\n".encode()
        while line:
            line = line[os.write(descriptor, line) :]

    return write


class _Route(logging.Handler):
    """Turns the standard library's log records into `log.message` lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit their message are another library's mistake
            message = f"{record.msg} {record.args!r}"
        error = record.exc_info[1] if record.exc_info else None
        # structlog knows these five levels alone; a library may have its own in between.
        level = max(logging.DEBUG, min(record.levelno, logging.CRITICAL) // 10 * 10)
        get_logger().log(level, EventName.LOG_MESSAGE, logger=record.name, message=message, error=error)


def _route_everything(level: LogLevel) -> None:
    logging.root.handlers = [_Route()]
    logging.root.setLevel(level.number)
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda _type, error, _traceback: _log_crash("sys", "uncaught exception", error)
    threading.excepthook = _log_thread_crash
    sys.unraisablehook = lambda args: _log_crash(
        "sys", args.err_msg or f"exception ignored in {type(args.object).__name__}", args.exc_value
    )


def _log_thread_crash(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "a thread"
    _log_crash("threading", f"uncaught exception in {name}", args.exc_value)


def _log_crash(logger: str, message: str, error: BaseException | None) -> None:
    get_logger().critical(EventName.LOG_MESSAGE, logger=logger, message=message, error=error)
