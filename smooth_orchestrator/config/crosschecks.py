"""What one table of a plan must hold true of another, and of the files it names.

The checks read the document as it was written, so that a wrong type in one place does not keep a mistake in another
from being told.
"""

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

from smooth_orchestrator.errors import BadValue
from smooth_orchestrator.matching import Patterns, assign
from smooth_orchestrator.places import Found, Location
from smooth_orchestrator.references import expand
from smooth_orchestrator.suggestions import did_you_mean, quoted

__all__ = ["cross_mistakes"]

_Table = Mapping[str, Any]


def cross_mistakes(document: _Table, directory: Path, environ: Mapping[str, str]) -> Iterator[Found]:
    """Yield what is wrong between the tables of a document, and with the paths in it.

    Args:
        document: as TOML gave it.
        directory: what its paths are relative to.
        environ: where `${NAME}` is looked up.
    """
    projects, databases = _tables(document, "projects"), _tables(document, "databases")
    for name, project in projects.items():
        yield from _path_mistakes(("projects", name), project, directory)
    for name, database in databases.items():
        yield from _database_mistakes(("databases", name), database, document.get("projects"))
    yield from _same_alias(databases)
    yield from _phase_mistakes(document, databases)
    yield from _fleet_mistakes(document, environ)


def _tables(document: _Table, key: str) -> dict[str, _Table]:
    """Return those entries of a table of tables that are tables."""
    tables = document.get(key)
    return (
        {name: table for name, table in tables.items() if isinstance(table, dict)} if isinstance(tables, dict) else {}
    )


def _path_mistakes(location: Location, project: _Table, directory: Path) -> Iterator[Found]:
    path, python = project.get("path"), project.get("python")
    if _is_written(path):
        mode = _mode(directory / path)
        if mode is None:
            yield Found((*location, "path"), f"{quoted(path)} does not exist", f"looked in {directory}")
        elif not stat.S_ISDIR(mode):
            yield Found((*location, "path"), f"{quoted(path)} is not a directory")
    if _is_written(python):
        mode = _mode(directory / python)
        if mode is None:
            yield Found((*location, "python"), f"{quoted(python)} does not exist", f"looked in {directory}")
        elif not stat.S_ISREG(mode) or not os.access(directory / python, os.X_OK):
            yield Found((*location, "python"), f"{quoted(python)} is not an executable file")


def _is_written(path: object) -> TypeGuard[str]:
    return isinstance(path, str) and path != "" and "\0" not in path


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name that this system cannot encode
        return None


def _database_mistakes(location: Location, database: _Table, projects: object) -> Iterator[Found]:
    if "alias" in database and "aliases" in database:
        yield Found(location, "has both alias and aliases", "alias names one database, aliases is a glob over several")
    elif "alias" not in database and "aliases" not in database:
        yield Found(location, "needs alias or aliases", 'such as alias = "default"')
    project = database.get("project")
    if isinstance(project, str) and isinstance(projects, dict) and project not in projects:
        yield Found((*location, "project"), f"there is no project {quoted(project)}", did_you_mean(project, projects))


def _same_alias(databases: Mapping[str, _Table]) -> Iterator[Found]:
    owners: dict[tuple[str, str], str] = {}
    for name, database in databases.items():
        project, alias = database.get("project"), database.get("alias")
        if isinstance(project, str) and isinstance(alias, str):
            owner = owners.setdefault((project, alias), name)
            if owner != name:
                message = f"alias {quoted(alias)} of project {quoted(project)} is {quoted(owner)} already"
                yield Found(("databases", name, "alias"), message)


def _phase_mistakes(document: _Table, databases: Mapping[str, _Table]) -> Iterator[Found]:
    phases, deploy = document.get("phases"), document.get("deploy")
    if not isinstance(phases, list) or not phases:
        return
    names = [phase.get("name") if isinstance(phase, dict) else None for phase in phases]
    for index, name in enumerate(names):
        if isinstance(name, str) and name in names[:index]:
            yield Found(("phases", index, "name"), f"{quoted(name)} is the name of phases[{names.index(name)}] already")
        if name == "deploy" and isinstance(deploy, dict) and deploy.get("commit") == "phase":
            message = 'with commit = "phase" no phase can be called "deploy": so is a decision about all of them'
            yield Found(("phases", index, "name"), message, "choose another name")
    patterns = [_patterns(phase) for phase in phases]
    complete = [phase for phase in patterns if phase is not None]
    if len(complete) == len(patterns) and databases:
        # Which databases a glob over aliases means is known once Django has been asked.
        known = {name: name for name, database in databases.items() if _is_single(database)}
        yield from assign(known, complete, unknown=databases.keys() - known.keys()).found


def _patterns(phase: object) -> Patterns | None:
    """Return what a phase lists, or None where it is not well-formed enough to be matched."""
    databases = phase.get("databases") if isinstance(phase, dict) else None
    if not isinstance(databases, list) or not databases or not all(isinstance(item, str) for item in databases):
        return None
    return Patterns(str(phase.get("name")) if isinstance(phase, dict) else "", databases)


def _is_single(database: _Table) -> bool:
    return isinstance(database.get("alias"), str) and "aliases" not in database


def _fleet_mistakes(document: _Table, environ: Mapping[str, str]) -> Iterator[Found]:
    """Yield what workers on other machines lack."""
    fleet, deploy = document.get("fleet"), document.get("deploy")
    if not isinstance(fleet, dict) or fleet.get("transport") != "procrastinate":
        return
    if "queue_url" not in fleet:
        yield Found(("fleet", "queue_url"), "is missing", 'such as "postgresql://smooth@queue-host/smooth"')
    journal = deploy.get("journal", "") if isinstance(deploy, dict) else ""
    if not _is_on_postgresql(str(journal), environ):
        message = 'with transport = "procrastinate" the journal must be on a PostgreSQL server'
        yield Found(("deploy", "journal"), message, 'such as "postgresql://smooth@queue-host/smooth"')
    if find_spec("procrastinate") is None:
        message = '"procrastinate" needs a package that is not installed here'
        yield Found(("fleet", "transport"), message, f"{sys.executable} -m pip install 'smooth-orchestrator[fleet]'")


def _is_on_postgresql(journal: str, environ: Mapping[str, str]) -> bool:
    try:
        return expand(journal, environ).startswith("postgresql:")
    except BadValue:
        return True  # a name that is not set, say, is told of by itself
