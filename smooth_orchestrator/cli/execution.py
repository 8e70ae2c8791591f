"""Run a command's coroutine over its plan, and write what came of it: always a report, whatever was raised."""

import io
import json
import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

from smooth_orchestrator import logs
from smooth_orchestrator.cli.details import print_details
from smooth_orchestrator.cli.interruption import end_if_interrupted
from smooth_orchestrator.cli.options import Invocation
from smooth_orchestrator.cli.streams import abandon
from smooth_orchestrator.errors import Interrupted, NotInPlan, PlanInvalid, Refused, SmoothError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.render import print_report
from smooth_orchestrator.report import NO_TRACE, SCHEMA_DIFFERS, UNDECIDED, WOULD_DISCARD, Report, RunError, RunOutcome
from smooth_orchestrator.secrets import Masker, of_environment, parts, passwords_of_url

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile

__all__ = ["execute", "report", "told_how_to_settle", "write", "write_json", "write_report"]

_T = TypeVar("_T")

# Of two with one exit code the last: no error halts a run.
_OUTCOMES: Final = {outcome.exit_code: outcome for outcome in RunOutcome if outcome.exit_code}

# Which option of `recover` an error of this type asks an operator for.
_SETTLING: Final = {"--discard-data": WOULD_DISCARD, "--no-fingerprint": SCHEMA_DIFFERS}

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
        told = told_how_to_settle(result, invocation, said)
        return write_report(told.masked(masker), as_json=invocation.as_json)

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
    from smooth_orchestrator import signals  # noqa: PLC0415 - needs anyio, and `--help` does not

    attempt = _Attempt(invocation)
    try:
        try:
            result = attempt.run(work)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(f"interrupted by {interrupt}") from interrupt
        finally:
            signals.hold_signals_back()
        return show(result, attempt.masker)
    except Exception as error:  # noqa: BLE001 - reported, with an exit code that says the state is unknown
        failure = told_how_to_settle(attempt.failure(error), invocation)
        return write_report(failure.masked(attempt.masker), as_json=invocation.as_json)


def told_how_to_settle(report: Report, invocation: Invocation, said: Sequence[str] = ()) -> Report:
    """Return a report that names the command, for this very plan, with which an operator settles what is in doubt."""
    if report.outcome is not RunOutcome.NEEDS_OPERATOR:
        return report
    command = f"smooth-orchestrate recover {shlex.quote(str(invocation.plan))}"
    # Each database tells its own, whatever was the first cause.
    errors = (report.error, *report.errors, *(each.error for each in report.databases))
    types = {error.type for error in errors if isinstance(error, RunError)}
    options = dict.fromkeys([*said, *(option for option, wanting in _SETTLING.items() if wanting in types)])
    choices: tuple[str | None, ...] = ("--commit", "--abort") if UNDECIDED in types else (None,)
    if NO_TRACE in types:
        choices = ("--commit",)
    if NotInPlan.code in types:
        # What does not tell an operator's choices is settled by no command for this plan.
        choices = report.settle_with
    return replace(report, settle_with=tuple(" ".join(filter(None, (command, choice, *options))) for choice in choices))


def write_report(report: Report, *, as_json: bool) -> int:
    """Write a masked report to stdout and return its exit code."""
    if as_json:
        write_json(report.to_dict())
    else:
        write(lambda stream: _print(report, stream))
    return report.exit_code


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


def _print(report: Report, stream: TextIO) -> None:
    print_report(report, stream)
    print_details(report, stream)


@dataclass(slots=True)
class _Attempt:
    """One command at work; knows what a failure's report has to say."""

    invocation: Invocation
    masker: Masker = field(default_factory=Masker)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_s: float = field(default_factory=time.monotonic)
    deploy: str | None = None

    def run(self, work: Callable[["PlanFile", Masker], Awaitable[_T]]) -> _T:
        import anyio  # noqa: PLC0415 - not for `--help`

        from smooth_orchestrator.config import doubts, load  # noqa: PLC0415 - the same

        asked = self.invocation
        logs.configure(
            logs.LogFormat(asked.log_format), logs.LogLevel(asked.log_level), asked.log_file, masker=self.masker
        )
        logs.bind_run(asked.run_id, None)
        for doubt in doubts(asked.plan):
            logs.get_logger().warning(EventName.LOG_MESSAGE, logger="plan", message=doubt)
        file = load(asked.plan, os.environ)
        for secret in _secrets(file):
            self.masker.add(secret)
        self.deploy = file.deploy.name
        logs.bind_run(asked.run_id, self.deploy)
        end_if_interrupted()
        return anyio.run(work, file, self.masker, backend="asyncio")

    def failure(self, error: Exception) -> Report:
        """Return the report of a command that raised; what was not raised on purpose is logged with its traceback."""
        raised = [*_leaves(error)]
        ours = [leaf for leaf in raised if isinstance(leaf, SmoothError)]
        if len(ours) < len(raised):
            logs.get_logger().critical(
                EventName.LOG_MESSAGE, logger=__name__, message="an unexpected error ended the command", error=error
            )
            unexpected = RunError(type(error).__name__, str(error) or type(error).__name__, hint=_BUG_HINT)
            return self._report(RunOutcome.NEEDS_OPERATOR, error=unexpected)
        # The gravest decides: only then does the exit code promise no more than is so.
        worst, *others = sorted(ours, key=lambda leaf: leaf.exit_code != RunOutcome.NEEDS_OPERATOR.exit_code)
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


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield what a group holds, however deep; an error that is no group is its own."""
    if isinstance(error, ExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _run_error(error: SmoothError) -> RunError:
    return RunError(error.code, error.message, hint=error.hint)


def _secrets(file: "PlanFile") -> Iterator[str]:
    for project in file.projects.values():
        for value in project.env.values():
            yield from parts(value.get_secret_value())
    yield from of_environment(os.environ)
    for url in (file.deploy.journal, file.fleet.queue_url):
        if url is not None:
            yield from passwords_of_url(url.get_secret_value())
