"""The machine report of one call: what `apply_migrations --json` prints, in the shape of a deploy's."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.call import Call
from smooth_migrations.errors import UndoAlsoFailed, UndoFailed, describe
from smooth_migrations.exits import LOCKED, NEEDS_OPERATOR, REFUSED
from smooth_migrations.protocol.failures import ErrorInfo
from smooth_migrations.protocol.values import Step
from smooth_migrations.streams import UNWRITABLE

__all__ = ["exit_code_of", "printed_only", "reporting", "stdout_spared"]

_VERSION: Final = 1
_OUTCOMES: Final = {2: "invalid", REFUSED: "refused", NEEDS_OPERATOR: "needs_operator", LOCKED: "locked"}


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a command that ends with this error."""
    if isinstance(error, UndoAlsoFailed | UndoFailed):
        return NEEDS_OPERATOR
    return error.returncode if isinstance(error, CommandError) else 1


@contextmanager
def stdout_spared(command: BaseCommand) -> Iterator[Callable[[str], None]]:
    """Keep standard output free of everything but what the yielded function writes there.

    What the command and the code of migrations print goes to standard error; where the command writes to the process's
    own standard output, so does what child processes print. What cannot be written, because its reader is gone or a
    disk is full, goes there too: that must not change what the exit code says.

    Args:
        command: whose `stdout` and `stderr` these are.
    """
    free = command.stdout
    elsewhere = _stream(command.stderr)
    command.stdout = OutputWrapper(elsewhere)
    with _descriptor_spared(free) as restored:

        def write(text: str) -> None:
            restored()
            try:
                free.write(text)
                free.flush()
            except UNWRITABLE:
                with suppress(*UNWRITABLE):
                    command.stderr.write(text, lambda line: line)

        try:
            with redirect_stdout(elsewhere):
                yield write
        finally:
            command.stdout = free


@contextmanager
def _descriptor_spared(free: OutputWrapper) -> Iterator[Callable[[], None]]:
    """Point the process's standard output to its standard error until the yielded function is called."""
    stdout = sys.__stdout__
    if stdout is None or _stream(free) is not stdout:
        yield lambda: None
        return
    stdout.flush()
    kept = os.dup(stdout.fileno())
    os.dup2(2, stdout.fileno())

    def restore() -> None:
        with suppress(*UNWRITABLE):
            stdout.flush()
        os.dup2(kept, stdout.fileno())

    try:
        yield restore
    finally:
        restore()
        os.close(kept)


def _stream(wrapper: OutputWrapper) -> Any:  # noqa: ANN401 - anything that can be written to
    return wrapper._out  # noqa: SLF001 - it has no other name


@contextmanager
def reporting(
    call: Call,
    connection: BaseDatabaseWrapper,
    write: Callable[[str], None],
    *,
    undone: Sequence[Step],
    is_rehearsal: bool,
) -> Iterator[None]:
    """Write the report of a call when the block ends, however it does.

    Args:
        call: run within.
        connection: its target's.
        write: prints the report.
        undone: what has been taken back, kept up to date by somebody else.
        is_rehearsal: whether success means to have taken everything back.

    Raises:
        CommandError: in place of an error that would end the program with an exit code of its own.
    """
    started_at, started_s = datetime.now(UTC), time.monotonic()
    error: BaseException | None = None
    try:
        yield
    except Exception as caught:
        error = caught
        raise
    except BaseException as caught:
        # KeyboardInterrupt and SystemExit in a migration; they would choose the exit code.
        error = CommandError(f"{type(caught).__name__}: {caught}".rstrip(": "))
        raise error from caught
    finally:
        body = _report(call, connection, error, undone=undone, is_rehearsal=is_rehearsal)
        times = {
            "started_at": started_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "duration_ms": round((time.monotonic() - started_s) * 1000, 1),
        }
        # In ASCII, which every standard output can print.
        write(json.dumps({**body, **times}))


@contextmanager
def printed_only(stderr: OutputWrapper) -> Iterator[None]:
    """Print an error's traceback, and go on."""
    try:
        yield
    except Exception:  # noqa: BLE001 - printed
        stderr.write(traceback.format_exc(), lambda text: text)


def _report(
    call: Call,
    connection: BaseDatabaseWrapper,
    error: BaseException | None,
    *,
    undone: Sequence[Step],
    is_rehearsal: bool,
) -> dict[str, Any]:
    steps = call.steps
    exit_code = 0 if error is None else exit_code_of(error)
    info = None if error is None else _describe(error, call)
    if error is not None:
        outcome, of_database = _OUTCOMES.get(exit_code, "rolled_back"), _failed(exit_code, call)
    elif is_rehearsal or not steps:
        outcome, of_database = "nothing_to_do", "rolled_back" if undone else "unchanged"
    else:
        outcome = of_database = "committed"
    shown = _error(info)
    return {
        "version": _VERSION,
        "command": "apply_migrations",
        "deploy": None,
        "run_id": call.options.call_id,
        "outcome": outcome,
        "exit_code": exit_code,
        "rehearsed": is_rehearsal and error is None,
        "databases": [
            {
                "database": connection.alias,
                "project": None,
                "alias": connection.alias,
                "vendor": connection.vendor,
                "phase": None,
                "tier": _tier(call, connection),
                "outcome": of_database,
                "applied": [str(step) for step in steps if not step.backwards],
                "unapplied": [str(step) for step in (*undone, *(step for step in steps if step.backwards))],
                "contract_pending": [],
                "lock_hold_ms": round(call.locked_ms, 1),
                "error": shown,
            }
        ],
        "error": shown,
        "errors": [_error(cause) for cause in (info.causes if info else ())],
    }


def _tier(call: Call, connection: BaseDatabaseWrapper) -> str:
    """Return `held_open` where a ROLLBACK takes the whole call back, else `compensated`."""
    holds = connection.features.can_rollback_ddl and not call.is_compensated and not call.permanent.is_early
    return "held_open" if holds else "compensated"


def _failed(exit_code: int, call: Call) -> str:
    if exit_code == NEEDS_OPERATOR:
        return "in_doubt"
    return "unchanged" if exit_code in {REFUSED, LOCKED} and not call.at_work else "failed"


def _describe(error: BaseException, call: Call) -> ErrorInfo:
    # What a CommandError was raised from says more: who holds the lease, what the server said.
    cause = error.__cause__ if isinstance(error, CommandError) and error.__cause__ else error
    return describe(cause, migration=str(call.at_work) if call.at_work else None)


def _error(info: ErrorInfo | None) -> dict[str, Any] | None:
    if info is None:
        return None
    shown = {key: getattr(info, key) for key in ("type", "message", "sqlstate", "migration", "hint")}
    return shown | ({"detail": info.detail} if info.detail else {})
