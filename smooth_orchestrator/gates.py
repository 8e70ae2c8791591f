"""Commands of the user's that a phase must pass: an argv, never a shell."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

import anyio

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator import leash
from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Phase, Plan
from smooth_orchestrator.run import Run
from smooth_orchestrator.suggestions import quoted
from smooth_orchestrator.transport.output import LONGEST_LINE, LineSplitter

__all__ = ["missing_gates", "pass_gate"]

# The most that a pipe holds, unless an administrator raises it.
_PIPE_SIZE = 1024 * 1024


async def pass_gate(run: Run, phase: Phase) -> ErrorInfo | None:
    """Run a phase's gate and return why it did not pass, or None.

    It sees SMOOTH_RUN_ID, SMOOTH_DEPLOY and SMOOTH_PHASE, and has `statement_timeout` to answer. A run that stops
    meanwhile ends it.
    """
    argv = list(phase.gate)
    log = get_logger()
    log.info(EventName.GATE_STARTED, argv=argv, phase=phase.name)
    started_s = time.monotonic()
    env = os.environ | {"SMOOTH_RUN_ID": run.run_id, "SMOOTH_DEPLOY": run.plan.name, "SMOOTH_PHASE": phase.name}
    code: int | None = None
    reason = f"had no answer within {run.plan.statement_timeout_ms / 1000:g} s"

    def told(line: str) -> None:
        log.info(EventName.OUTPUT_CAPTURED, stream="stdout", line=line, phase=phase.name)

    async with anyio.create_task_group() as group:

        async def end_with_run() -> None:
            await run.stopping.wait()
            group.cancel_scope.cancel()

        group.start_soon(end_with_run)
        with anyio.move_on_after(run.plan.statement_timeout_ms / 1000):
            try:
                code = await _run(argv, run.plan.directory, env, on_line=told)
                reason = f"ended with exit code {code}"
            except OSError as error:
                reason = f"could not be started: {error.strerror}"
        group.cancel_scope.cancel()

    duration_ms = round((time.monotonic() - started_s) * 1000, 1)
    if code == 0:
        log.info(EventName.GATE_PASSED, argv=argv, phase=phase.name, duration_ms=duration_ms)
        return None
    if code is None and run.stopping.is_set():
        reason = "was ended because the run stops"
    failure = ErrorInfo("gate_failed", f"the gate of phase {phase.name!r}, {argv[0]}, {reason}")
    log.error(
        EventName.GATE_FAILED, argv=argv, phase=phase.name, duration_ms=duration_ms, exit_code=code, error=failure
    )
    return failure


def missing_gates(plan: Plan, phases: Sequence[Phase] | None = None) -> Iterator[Mistake]:
    """Yield the gates that nothing could start, which would otherwise be known only when all locks are held.

    Args:
        plan: in whose directory they run.
        phases: whose gates; the plan's own unless given.
    """
    for phase in plan.phases if phases is None else phases:
        if not phase.gate:
            continue
        command = phase.gate[0]
        # With a slash it is relative to the directory that the gate runs in, and otherwise looked for on PATH.
        if shutil.which(str(plan.directory / command) if "/" in command else command) is None:
            hint = f"looked in {plan.directory}" if "/" in command else "looked in every directory of PATH"
            yield Mistake(f"phases[{phase.index}].gate[0]", f"{quoted(command)} is no command that can be run", hint)


async def _run(argv: Sequence[str], directory: Path, env: Mapping[str, str], on_line: Callable[[str], None]) -> int:
    """Run a command to its end; whatever it has started ends with it, with this task, and with this process.

    Its lines are told as they come: what one that hangs said last is what its owner asks for. Its output is over when
    it has ended, whoever else still has a hand on it.
    """
    lines = LineSplitter(LONGEST_LINE)

    def take(chunk: bytes) -> None:
        for line in lines.feed(chunk):
            on_line(_text(line))

    async def listen() -> None:
        while True:
            await anyio.wait_readable(output)
            if not (chunk := output.read(_PIPE_SIZE)):
                return
            take(chunk)

    # A pipe of our own: asyncio does not tell of the end of a process while somebody may write to one of its pipes.
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    with FileIO(reading) as output, ours:
        for end in (reading, ours.fileno()):
            os.set_blocking(end, False)
        with FileIO(writing, "w"), theirs, anyio.CancelScope(shield=True):  # a process once started must be known
            process = await anyio.open_process(
                [sys.executable, "-I", "-S", leash.__file__, str(theirs.fileno()), *argv],
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                await process.wait()
                tasks.cancel_scope.cancel()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                code = await process.wait()
            take(output.read(_PIPE_SIZE) or b"")  # all that there is: nothing, where somebody else may write yet
            if rest := lines.rest():
                on_line(_text(rest))
        with suppress(BlockingIOError):
            if refusal := ours.recv(16):
                raise OSError(int(refusal), os.strerror(int(refusal)))
    return code


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip()
