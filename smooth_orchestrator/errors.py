"""What can go wrong, as users and their pipelines see it: a stable code, an exit code, a message and a hint."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

__all__ = [
    "BadValue",
    "Interrupted",
    "JournalError",
    "Locked",
    "Mistake",
    "NotInPlan",
    "PlanInvalid",
    "Refused",
    "RunIdTaken",
    "SettlingInterrupted",
    "SmoothError",
    "WorkerError",
    "raised_on_purpose",
]

_NEEDS_OPERATOR: Final = 4


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend.

    Args:
        place: where it stands: `phases[1].databases[0]`, a database's name, a file.
        message: what is wrong, in the user's words.
        hint: what to do about it.
    """

    place: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        line = f"{self.place}: {self.message}"
        return f"{line} ({self.hint})" if self.hint else line


class BadValue(ValueError):  # noqa: N818 - the name says it
    """A written value that cannot stand; whoever knows its place makes a `Mistake` of it.

    Args:
        message: what is wrong; never the value itself where it may be secret.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SmoothError(Exception):
    """Root of every error that this program raises on purpose.

    Args:
        message: one sentence for the user.
        hint: what to do about it.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Interrupted(SmoothError):  # noqa: N818 - the name says it
    """A signal ended the command before it had begun to change anything."""

    code = "Interrupted"


class SettlingInterrupted(SmoothError):  # noqa: N818 - the name says it
    """A signal ended the command while it settled an earlier run, of which some databases may be settled already."""

    code = "Interrupted"
    exit_code = 4


class PlanInvalid(SmoothError):  # noqa: N818 - the name says it
    """The plan cannot be obeyed; nothing has been connected to."""

    code = "plan_invalid"
    exit_code = 2

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class Refused(SmoothError):  # noqa: N818 - the name says it
    """The deploy was refused before it changed anything.

    Args:
        message: what refused it.
        findings: each thing that stands in the way, its place being a database's name.
        hint: what to do about it.
    """

    code = "refused"
    exit_code = 3

    def __init__(self, message: str, *, findings: Iterable[Mistake] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.findings = tuple(findings)


class RunIdTaken(Refused):
    """The run id that was given is that of a run which this one would hide."""

    code = "run_id_taken"


class Locked(SmoothError):  # noqa: N818 - the name says it
    """Another run holds the lease."""

    code = "locked"
    exit_code = 5


class NotInPlan(SmoothError):  # noqa: N818 - the name says it
    """What has been left in a database is to be settled with another plan."""

    code = "not_in_plan"
    exit_code = 4


class JournalError(SmoothError):
    """The journal cannot be opened, read or written."""

    code = "journal_error"
    exit_code = 3


class WorkerError(SmoothError):
    """A worker could not be started, or does not answer as a worker does."""

    code = "worker_error"
    exit_code = 3


def raised_on_purpose(error: Exception) -> tuple[SmoothError, ...]:
    """Return the errors of this program that an exception is, or that a group holds, the gravest first.

    Returns:
        Nothing where anything else is among them, which nobody has raised on purpose.
    """
    raised = [*_leaves(error)]
    ours = [leaf for leaf in raised if isinstance(leaf, SmoothError)]
    if len(ours) < len(raised):
        return ()
    # Only then does the exit code promise no more than is so.
    return tuple(sorted(ours, key=lambda leaf: leaf.exit_code != _NEEDS_OPERATOR))


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield what a group holds, however deep; an error that is no group is its own."""
    if isinstance(error, ExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error
