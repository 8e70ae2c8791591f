"""The reference page of the exit codes, made of the outcomes that a run can have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from docs_build.markdown import code, table
from smooth_orchestrator.report import RunOutcome

__all__ = ["page"]


@dataclass(frozen=True, slots=True)
class _Told:
    """What is said of an outcome: what it means, how the databases are, and what to do."""

    meaning: str
    databases: str
    todo: str


_OUTCOMES: Final[Mapping[RunOutcome, _Told]] = {
    RunOutcome.COMMITTED: _Told("done", "as wanted, all of them", "start the new release"),
    RunOutcome.NOTHING_TO_DO: _Told(
        "nothing was pending, the run of that id has committed before, or a command that only looks has found nothing",
        "as they were",
        "go on",
    ),
    RunOutcome.NOT_DUE: _Told(
        "`finalise` came before the bake time was over", "as they were", "call it again; cron does"
    ),
    RunOutcome.ROLLED_BACK: _Told(
        "something failed, or a signal came before the decision, and everything was taken back",
        "as they were before, all of them",
        "keep the old release, read the error in the report, mend it, deploy again",
    ),
    RunOutcome.INVALID: _Told(
        "mistakes in the command line or the plan, all listed",
        "never connected to",
        "mend each at the place that the report names",
    ),
    RunOutcome.REFUSED: _Told(
        "the preflight, a rehearsal, the guard of data or what holds `finalise` back has refused",
        "as they were",
        "do what the hint of each finding says; what holds `finalise` back may pass by itself",
    ),
    RunOutcome.HALTED: _Told(
        'a phase failed after others had committed, under `on_failure = "halt"`',
        "the phases that had committed are new, all else is as it was",
        "`rollback` takes those phases back; `recover` accepts them, and a deploy with another run id goes on",
    ),
    RunOutcome.NEEDS_OPERATOR: _Told(
        "some databases are in doubt, or could not be taken back or settled in `settle_timeout`",
        "stated one by one in the report",
        "run the command that the report ends with; [what each reason means](../how-to/settle-an-interrupted-run.md)",
    ),
    RunOutcome.LOCKED: _Told(
        "another run is at work on the deploy, or on one of the databases",
        "unchanged by this run",
        "wait for the other run, which `status` names, and repeat the command",
    ),
}

_HEAD: Final = """\
# Exit codes

The exit code says how the databases are; `outcome` in the machine report (`--json`) says it more closely. Both are
public: no code gets another meaning. What to do about each, with the commands, is in the
[runbooks](../runbooks/README.md).

"""

_TAIL: Final = """
## Of single commands

| command | exit codes |
|---|---|
| `plan`, `status`, `runs` | 0 whatever they show; 3 where a database or the journal cannot be read |
| `check` | 0, or 3: a deploy would be refused |
| `rehearse` | 0: a deploy would succeed. 3: it would be refused, or a migration fails; every database is as it was |
| `report` | that of the run which it shows |
| `lint` | 0; 1 where it has found errors or warnings; 3 where it cannot read the migrations. No database is looked at |
| `recover` | 0 when everything is settled, whichever way; else 4 |
| `init` | 0, or 2 where no plan was written |
| `manage.py apply_migrations` | the same 0, 1, 3 and 5, of one database ([more](apply_migrations.md)) |

## When it is interrupted

SIGINT, SIGTERM and SIGHUP before the decision take everything back: exit code 1. After it the commits are finished: 0.
SIGKILL leaves no exit code of this program's. What it leaves of the run, the next command settles; so does `recover`.

An exit code that is not in the table comes from elsewhere: 137 is the kernel's or a container's SIGKILL, 127 a shell's
that has not found the program. Call `status` then, or repeat the command: with the same `--run-id` a deploy that has
committed does nothing.
"""


def page() -> str:
    """Return it."""
    rows = (
        [f"**{outcome.exit_code}**", code(outcome), told.meaning, told.databases, told.todo]
        for outcome, told in sorted(_OUTCOMES.items(), key=lambda item: item[0].exit_code)
    )
    return _HEAD + table(["exit code", "outcome", "means", "databases", "what to do"], rows) + _TAIL
