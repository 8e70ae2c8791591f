"""Run a command's coroutine over its plan, and write what came of it: always a report, whatever was raised."""

import io
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

from smooth_orchestrator import logs
from smooth_orchestrator.cli.details import print_details
from smooth_orchestrator.cli.interruption import end_if_interrupted, hear_rotation
from smooth_orchestrator.cli.options import Invocation
from smooth_orchestrator.cli.streams import abandon
from smooth_orchestrator.cli.watchers import Watcher, all_at_work, tell_all, watchers_of
from smooth_orchestrator.documents import read_document
from smooth_orchestrator.embedding import own_process
from smooth_orchestrator.ending import hold_signals_back
from smooth_orchestrator.errors import Interrupted, PlanInvalid, Refused, SmoothError, raised_on_purpose
from smooth_orchestrator.events import EventName
from smooth_orchestrator.render import print_report
from smooth_orchestrator.report import Report, RunError, RunOutcome
from smooth_orchestrator.secrets import Masker, of_environment, of_plan, passwords_of_url
from smooth_orchestrator.settling import told_how_to_settle
from smooth_orchestrator.tables import WRITERS, Table, table_of
from smooth_orchestrator.trust import doubts

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile

__all__ = ["execute", "execute_alone", "report", "write", "write_json", "write_report", "write_table"]

_T = TypeVar("_T")

# Of two with one exit code the last: no error halts a run.
_OUTCOMES: Final = {outcome.exit_code: outcome for outcome in RunOutcome if outcome.exit_code}

_BUG_HINT: Final = "this is a defect of smooth-orchestrate; see with `smooth-orchestrate status` how the databases are"


def report(
    invocation: Invocation, work: Callable[["PlanFile", Masker], Awaitable[Report]], said: Sequence[str] = ()
) -> int:
    """Run the work and write the report it returns.

    Args:
        invocation: the command.
        work: a coroutine function that does it.
        said: options of `recover` that an operator has given; a command to settle what is left repeats them.

    Returns:
        The exit code.
    """

    def show(result: Report, masker: Masker) -> int:
        told = told_how_to_settle(result, invocation.plan, said)
        return _write_asked(told, invocation, masker)

    return execute(invocation, work, show)


def execute(
    invocation: Invocation,
    work: Callable[["PlanFile", Masker], Awaitable[_T]],
    show: Callable[[_T, Masker], int],
) -> int:
    """Read the plan, run the work over it and show its result, or a report of what was raised.

    Args:
        invocation: the command.
        work: a coroutine function that does it.
        show: writes the result to stdout and returns the exit code.

    Returns:
        The exit code.
    """
    attempt = _Attempt(invocation)
    try:
        code = _show(attempt, lambda: attempt.run_over_plan(work), show)
    except Exception as error:  # noqa: BLE001 - reported, with an exit code that says the state is unknown
        failure = told_how_to_settle(attempt.failure(error), invocation.plan)
        code = _write_asked(failure, invocation, attempt.masker)
        attempt.end(failure)
    return code


def execute_alone(
    invocation: Invocation, work: Callable[[Masker], Awaitable[_T]], show: Callable[[_T, Masker], int]
) -> int:
    """Run the work of a command that reads no plan; as `execute` otherwise."""
    attempt = _Attempt(invocation)
    try:
        return _show(attempt, lambda: attempt.run(work), show)
    except Exception as error:  # noqa: BLE001 - reported, as above
        return write_report(attempt.failure(error).masked(attempt.masker), as_json=invocation.as_json)


def _show(attempt: "_Attempt", run: Callable[[], _T], show: Callable[[_T, Masker], int]) -> int:
    try:
        result = run()
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"interrupted by {interrupt}") from interrupt
    finally:
        hold_signals_back()
        attempt.shown.close()
    code = show(result, attempt.masker)
    if isinstance(result, Report):
        attempt.end(result)
    return code


def _write_asked(report: Report, asked: Invocation, masker: Masker) -> int:
    # What was said to this command is no way to repeat another's, and a line with a mask in it is no command.
    is_repeatable = report.command == asked.command and all(masker.text(word) == word for word in asked.words)
    words = asked.words if is_repeatable else ()
    return write_report(report.masked(masker), as_json=asked.as_json, plan=asked.plan, words=words, form=asked.form)


def write_report(
    report: Report,
    *,
    as_json: bool,
    plan: Path | None = None,
    words: Sequence[str] = (),
    form: str | None = None,
) -> int:
    """Write a masked report of a run of a plan to stdout, in one of `WRITERS` if any, and return its exit code.

    Args:
        report: the report.
        as_json: whether it is the machine report.
        plan: the plan's file.
        words: of the command line that has made it, after the command's name.
        form: one of `WRITERS`.
    """
    if as_json:
        write_json(report.to_dict())
    elif form is not None:
        write_table(table_of(report), form)
    else:
        write(lambda stream: _print(report, stream, plan, words))
    return report.exit_code


def write_table(table: Table, form: str) -> None:
    """Write a table to stdout, in one of `WRITERS`."""
    write(lambda stream: print(WRITERS[form](table), file=stream))


def write_json(document: object) -> None:
    """Write one JSON document to stdout."""
    write(lambda stream: print(json.dumps(document, indent=2), file=stream))


def write(printing: Callable[[TextIO], None]) -> None:
    """Print to stdout; a reader that went away or a full disk must not change what the exit code says."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a plan may hold letters that the terminal's encoding lacks
    try:
        printing(sys.stdout)
        sys.stdout.flush()
    except (OSError, SystemExit):  # rich makes the latter of a broken pipe
        abandon(sys.stdout)


def _print(report: Report, stream: TextIO, plan: Path | None, words: Sequence[str]) -> None:
    print_report(report, stream, plan, words)
    print_details(report, stream)


@dataclass(slots=True)
class _Attempt:
    """One command at work; knows what a failure's report has to say."""

    invocation: Invocation
    masker: Masker = field(default_factory=Masker)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_s: float = field(default_factory=time.monotonic)
    deploy: str | None = None
    watchers: Sequence[Watcher] = ()
    shown: ExitStack = field(default_factory=ExitStack)

    def run_over_plan(self, work: Callable[["PlanFile", Masker], Awaitable[_T]]) -> _T:
        """Read the plan and run the work over it."""
        asked = self.invocation
        self._begin()
        for doubt in doubts(asked.plan):
            logs.get_logger().warning(EventName.LOG_MESSAGE, logger="plan", message=doubt)
        document = read_document(asked.plan)
        from smooth_orchestrator.config import understand  # noqa: PLC0415 - pydantic, for a document alone

        file = understand(document, asked.plan, os.environ)
        for secret in of_plan(file, os.environ):
            self.masker.add(secret)
        self.deploy = file.deploy.name
        logs.bind_run(asked.run_id, self.deploy)
        with own_process(self.masker), all_at_work(self.watchers):
            return _finished(work, file, self.masker)

    def run(self, work: Callable[[Masker], Awaitable[_T]]) -> _T:
        """Run work that needs no plan."""
        self._begin()
        for secret in of_environment(os.environ):
            self.masker.add(secret)
        return _finished(work, self.masker)

    def _begin(self) -> None:
        asked = self.invocation
        self._open_log()
        if asked.log_file is not None:
            hear_rotation(logs.look_at_file)
        logs.bind_run(asked.run_id, None)
        for secret in passwords_of_url(asked.pushgateway or ""):
            self.masker.add(secret)
        self.watchers = watchers_of(asked)

    def end(self, report: Report) -> None:
        """Tell those who watch how it went, once the report is written; what becomes of that changes nothing."""
        tell_all(self.watchers, report.masked(self.masker))

    def _open_log(self) -> None:
        """Set up the log, beside a picture of what it tells where a person may look at it."""
        asked = self.invocation
        form, level = logs.LogFormat(asked.log_format), logs.LogLevel(asked.log_level)
        stream, brief = None, False
        if form is not logs.LogFormat.JSON and not asked.hides_progress and sys.stderr.isatty():
            from smooth_orchestrator.progress import can_show, showing  # noqa: PLC0415 - rich, for a terminal alone

            if can_show(sys.stderr):
                stream = self.shown.enter_context(showing(asked.command, sys.stderr))
                brief = form is logs.LogFormat.AUTO
        logs.configure(form, level, asked.log_file, stream=stream, brief=brief, masker=self.masker)

    def failure(self, error: Exception) -> Report:
        """Return the report of a command that raised; what was not raised on purpose is logged with its traceback."""
        ours = raised_on_purpose(error)
        if not ours:
            logs.get_logger().critical(
                EventName.LOG_MESSAGE, logger=__name__, message="an unexpected error ended the command", error=error
            )
            unexpected = RunError(type(error).__name__, str(error) or type(error).__name__, hint=_BUG_HINT)
            return self._report(RunOutcome.NEEDS_OPERATOR, error=unexpected)
        worst, *others = ours
        if isinstance(worst, PlanInvalid):
            return self._report(RunOutcome.INVALID, errors=worst.mistakes)
        findings = worst.findings if isinstance(worst, Refused) else ()
        return self._report(
            _OUTCOMES[worst.exit_code],
            error=_run_error(worst),
            errors=(*findings, *(_run_error(other) for other in others)),
        )

    def _report(self, outcome: RunOutcome, **errors: Any) -> Report:  # noqa: ANN401 - `error` and `errors` of `Report`
        return Report(
            command=self.invocation.command,
            deploy=self.deploy,
            run_id=self.invocation.run_id,
            outcome=outcome,
            started_at=self.started_at,
            duration_ms=round((time.monotonic() - self.started_s) * 1000, 3),
            **errors,
        )


def _finished(work: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
    import anyio  # noqa: PLC0415 - not for `--help`

    end_if_interrupted()
    return anyio.run(work, *arguments, backend="asyncio")


def _run_error(error: SmoothError) -> RunError:
    return RunError(error.code, error.message, hint=error.hint)
