"""`init`: ask a project's settings for its databases, and write the plan."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smooth_orchestrator.config import PlanFile, load
from smooth_orchestrator.errors import Mistake, PlanInvalid
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.initial.discovery import find_project
from smooth_orchestrator.initial.entries import Entry, LeftOut, choose
from smooth_orchestrator.initial.text import plan_text
from smooth_orchestrator.plan import ProjectFacts, resolve
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.signals import hearing_signals
from smooth_orchestrator.transport import LocalTransport

__all__ = ["Initialised", "initialise"]


@dataclass(frozen=True, slots=True)
class Initialised:
    """A plan that was written.

    Args:
        output: its file.
        file: its shape.
        databases: how many it names.
        entries: its tables of databases.
        left_out: aliases that it does not name.
    """

    output: Path
    file: PlanFile
    databases: int
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]


async def initialise(
    path: Path, output: Path, *, settings: str | None, masker: Masker, environ: Mapping[str, str]
) -> Initialised:
    """Write a plan for the project in a directory. Connects to no database, and overwrites nothing.

    Args:
        path: the project's directory.
        output: the file to be written.
        settings: its settings module; found unless given.
        masker: learns the secrets that the settings tell.
        environ: where the plan's `${NAME}` would be looked up.

    Raises:
        PlanInvalid: there is such a file already, or it cannot be written; or there is no project, or none with a
            database that could be deployed to.
        WorkerError: the project's settings cannot be read.
    """
    directory = _directory_of(output)
    project = find_project(_absolute(path), settings)
    async with hearing_signals(), Fleet(LocalTransport(), masker) as fleet:
        await fleet.ask({project.name: project})
        facts = await fleet.set_up()
    told = facts[project.name]
    entries, left_out = choose(told.databases)
    if not entries:
        reasons = "; ".join(f"{each.alias}: {each.reason}" for each in left_out)
        message = f"the settings {project.settings} name no database that could be deployed to ({reasons or 'none'})"
        raise PlanInvalid([Mistake(str(path), message, "see its DATABASES")])
    text = plan_text(project, entries, left_out, has_routers=told.has_routers, directory=directory)
    file, databases = _write(output, text, facts, environ)
    return Initialised(output, file, databases, tuple(entries), tuple(left_out))


def _absolute(path: Path) -> Path:
    # As it was given, unless that goes upwards again: from a symbolic link that leads elsewhere than its text says.
    return path.resolve() if ".." in path.parts else path.absolute()


def _directory_of(output: Path) -> Path:
    """Return where a plan is to be written, before anything is asked of the project that may take long.

    Raises:
        PlanInvalid: it is there already, or cannot be written there.
    """
    try:
        if os.path.lexists(output):
            raise _exists(output)
        directory = output.parent.resolve(strict=True)
        if not directory.is_dir():
            raise _unwritable(output, "its directory is no directory")
    except OSError as error:
        raise _unwritable(output, error.strerror or str(error)) from None
    except (ValueError, RuntimeError) as error:  # a NUL; symbolic links in a circle
        raise _unwritable(output, str(error)) from None
    return directory


def _write(
    output: Path, text: str, facts: Mapping[str, ProjectFacts], environ: Mapping[str, str]
) -> tuple[PlanFile, int]:
    """Write the plan and read it back, as every command will; it is not left behind where it is no plan.

    Raises:
        PlanInvalid: another process was faster, it cannot be written, or it is no plan.
    """
    try:
        # Not even through a symbolic link that leads nowhere yet.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise _exists(output) from None
    except OSError as error:
        raise _unwritable(output, error.strerror or str(error)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
        read = load(output, environ)
        return read, len(resolve(read, facts).targets)
    except BaseException as error:
        output.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(output, error.strerror or str(error)) from None
        raise


def _exists(output: Path) -> PlanInvalid:
    hint = "nothing is overwritten: name another file with --output, or move this one away"
    return PlanInvalid([Mistake(str(output), "is there already", hint)])


def _unwritable(output: Path, reason: str) -> PlanInvalid:
    return PlanInvalid([Mistake(str(output), f"cannot be written: {reason}", "name another file with --output")])
