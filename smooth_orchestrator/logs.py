"""Log lines: one JSON object each, or text for a terminal; whatever else would be written becomes such a line too.

Within a program that uses this one as a library nothing is written, and nothing of the process is changed: `apart`.

structlog brings rich with it, which costs a tenth of a second: it is imported when something is first logged.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.console import Stream
from smooth_orchestrator.described import error_info
from smooth_orchestrator.events import EventName
from smooth_orchestrator.log_file import LogFile
from smooth_orchestrator.log_outputs import LogFormat, LogLevel, Output, file_output, stream_output
from smooth_orchestrator.secrets import Masker

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

__all__ = [
    "Labeller",
    "Listener",
    "LogFormat",
    "LogLevel",
    "apart",
    "bind_run",
    "configure",
    "get_logger",
    "hearing",
    "labelling",
    "look_at_file",
    "naming",
    "on_every_line",
    "tracing",
]

Listener = Callable[[Mapping[str, Any]], None]
"""Takes one event, as it would be written: complete and masked. It must not wait for anything."""

Labeller = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes one event as a listener does, and returns further keys of its line."""


_Hears = TypeVar("_Hears", Listener, Labeller)


@dataclass(slots=True)
class _Log:
    """Where events go, and what all of them have.

    Args:
        masker: knows the secrets.
        outputs: what writes them, from which level on.
        level: the least level that is written.
        run: on every event.
        listeners: of `hearing`.
        labellers: of `labelling`.
    """

    masker: Masker = field(default_factory=Masker)
    outputs: list[tuple[Output, LogLevel]] = field(default_factory=list)
    level: LogLevel = LogLevel.INFO
    run: dict[str, str | None] = field(default_factory=lambda: {"run_id": None, "deploy": None})
    listeners: list[Listener] = field(default_factory=list)
    labellers: list[Labeller] = field(default_factory=list)


_files: Final[list[LogFile]] = []

# One process is one run, unless it is another program's. A context variable alone would not reach lines that come from
# other threads or from hooks.
_of_process: Final = _Log()
_apart: Final[ContextVar[_Log | None]] = ContextVar("smooth_orchestrator_log", default=None)


def _log() -> _Log:
    return _apart.get() or _of_process


def bind_run(run_id: str, deploy: str | None) -> None:
    """Put these on every line of this process from now on, whichever task or thread it comes from."""
    _log().run.update(run_id=run_id, deploy=deploy)


@contextmanager
def naming(**keys: str | None) -> Iterator[None]:
    """Put these keys on every line of this task, for the length of a context; one that is None or empty is left out."""
    named = {key: value for key, value in keys.items() if value}
    if not named:
        yield
        return
    import structlog  # noqa: PLC0415 - see the module's docstring

    with structlog.contextvars.bound_contextvars(**named):
        yield


@contextmanager
def tracing(trace_id: str) -> Iterator[None]:
    """Put the trace to which a run belongs on every line, as `bind_run` does, for the length of a context."""
    log = _log()
    # Other threads may log meanwhile.
    log.run = log.run | {"trace_id": trace_id}
    try:
        yield
    finally:
        log.run = {key: value for key, value in log.run.items() if key != "trace_id"}


def on_every_line() -> Mapping[str, str]:
    """Return what is on every line now: the run, its deploy, its trace; what is not known is left out."""
    return {key: value for key, value in _log().run.items() if value}


@contextmanager
def apart(masker: Masker) -> Iterator[None]:
    """Keep what this task and those it starts log to its listeners alone, for the length of a context.

    What others have bound by `structlog.contextvars` is theirs, and joins no line of it.
    """
    import structlog  # noqa: PLC0415 - see the module's docstring

    token = _apart.set(_Log(masker))
    try:
        bound = structlog.contextvars.get_contextvars()
        structlog.contextvars.clear_contextvars()
        try:
            yield
        finally:
            structlog.contextvars.bind_contextvars(**bound)
    finally:
        _apart.reset(token)


@contextmanager
def hearing(listener: Listener) -> Iterator[None]:
    """Call a function with every event of level `info` and above, whatever is written, for the length of a context.

    It is called in the thread that logs, one event at a time. One that raises is told of, and hears no more: no deploy
    fails for those who watch it.
    """
    listeners = _log().listeners
    listeners.append(listener)
    try:
        yield
    finally:
        if listener in listeners:
            listeners.remove(listener)


@contextmanager
def labelling(labeller: Labeller) -> Iterator[None]:
    """Put what a function says of each event on its line, for the length of a context; see `hearing` otherwise.

    It is called in the thread that logs, maybe in several at a time.
    """
    labellers = _log().labellers
    labellers.append(labeller)
    try:
        yield
    finally:
        if labeller in labellers:
            labellers.remove(labeller)


def get_logger() -> "FilteringBoundLogger":
    """Return the logger: `get_logger().info(EventName.MIGRATION_APPLIED, database=..., duration_ms=...)`.

    A key given None is left out. `error` may be given an exception or an `ErrorInfo`; `exc_info=True` does the same for
    the exception at hand. Keys bound by `structlog.contextvars` join every line of their scope.
    """
    import structlog  # noqa: PLC0415 - see the module's docstring

    # Its own, whatever the process has configured structlog to do.
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _LINES,
        processors=_processors(),
        wrapper_class=structlog.make_filtering_bound_logger(min(_log().level.number, logging.INFO)),
        cache_logger_on_first_use=False,
    )
    return logger


@cache
def _processors() -> "list[Processor]":
    import structlog  # noqa: PLC0415 - see the module's docstring

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
        _resolve_error,
        _finish,
    ]


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
        log_file: a file that gets every line too, as JSON; made for its owner alone, appended to, and opened anew once
            it was moved or removed.
        stream: where lines go; stderr unless given.
        brief: whether something else shows there what is below `warning`, and how a migration failed: then lines of
            text have a traceback only where nobody can have expected one.
        masker: knows the secrets; may learn more later.

    Raises:
        PlanInvalid: the log file cannot be opened; the log stays as it was.
    """
    stream = stream or sys.stderr
    files = [LogFile(log_file)] if log_file else []  # before the old one is let go of: it may fail
    replaced, _files[:] = [*_files], files
    least = max(level, LogLevel.WARNING, key=lambda each: each.number) if brief else level
    _of_process.outputs = [
        (stream_output(log_format, stream, brief=brief), least),
        *((file_output(each), level) for each in files),
    ]
    for each in replaced:
        each.close()
    _of_process.masker, _of_process.level = masker, level
    _of_process.run.update(run_id=None, deploy=None)
    if (bound := sys.modules.get("structlog.contextvars")) is not None:
        bound.clear_contextvars()
    _route_everything(level)


def look_at_file(_number: int = 0, _frame: object = None) -> None:
    """Have the next line look whether the log file was moved; fit to be the handler of a signal."""
    for each in _files:
        each.look_again()


def _resolve_error(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    exc_info = event.pop("exc_info", None)
    if exc_info and "error" not in event:
        event["error"] = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    if isinstance(event.get("error"), BaseException | ErrorInfo):
        event["error"] = error_info(event["error"])
    return event


def _finish(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[dict[str, Any]], dict[str, Any]]:
    """Make an event complete, ordered and masked; the last of the processors."""
    log = _log()
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    always = {key: event.pop(key, value) for key, value in log.run.items()}
    applying = {key: value for key, value in event.items() if value is not None}
    return (log.masker.mask(ordered | always | applying),), {}


class _Lines:
    """What structlog hands finished events to; one line at a time, whichever thread it comes from."""

    # Reentrant: a finaliser that fails while a line is written comes back here through `sys.unraisablehook`.
    _lock: Final = threading.RLock()

    def emit(self, event: Mapping[str, Any]) -> None:
        """Write the event everywhere, and tell the listeners."""
        log = _log()
        # One that waits for an import does not keep others from the log, such as the thread that imports.
        for labeller in tuple(log.labellers):
            event = {**event, **_labels(labeller, log.labellers, event)}
        with self._lock:
            for listener in tuple(log.listeners):
                _tell(listener, log.listeners, event)
            for output, least in log.outputs:
                # A reader that went away or a full disk must not stop a deploy half-way.
                with contextlib.suppress(OSError, ValueError):
                    if LogLevel(event["level"]).number >= least.number:
                        output(event)

    debug = info = warning = error = critical = emit


_LINES: Final = _Lines()


def _labels(labeller: Labeller, labellers: list[Labeller], event: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return labeller(event)
    except Exception as error:  # noqa: BLE001 - see `hearing`
        _dismiss(labellers, labeller, error)
        return {}


def _tell(listener: Listener, listeners: list[Listener], event: Mapping[str, Any]) -> None:
    try:
        listener(event)
    except Exception as error:  # noqa: BLE001 - see `hearing`
        _dismiss(listeners, listener, error)


def _dismiss(all_of_them: list[_Hears], one: _Hears, error: Exception) -> None:
    if one in all_of_them:
        all_of_them.remove(one)
    _log_crash("listener", f"{one!r} failed, and hears no more", error)


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
