"""From the shape of a plan, and what each project's Django says, to its meaning."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from smooth_migrations.protocol import DatabaseFacts
from smooth_orchestrator.config import DatabaseTable, PhaseTable, PlanFile, Transport
from smooth_orchestrator.errors import PlanInvalid
from smooth_orchestrator.matching import Patterns, assign
from smooth_orchestrator.places import Found
from smooth_orchestrator.plan.values import (
    Finalise,
    Phase,
    Plan,
    Project,
    ProjectFacts,
    Target,
)
from smooth_orchestrator.suggestions import did_you_mean, listed, quoted

__all__ = ["projects_of", "resolve"]

# What opens a session and cannot be told to another process (PostgreSQL manual, 34.15).
_CREDENTIALS = ("PGPASSFILE", "PGSSLCERT", "PGSSLKEY", "PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR")
_EVERYTHING = PhaseTable(name="all", databases=("*",))


def resolve(file: PlanFile, facts: Mapping[str, ProjectFacts]) -> Plan:
    """Return what the plan means.

    Args:
        file: its shape.
        facts: what Django says of each project that a database names.

    Raises:
        PlanInvalid: with every mistake that the shape alone could not show.
    """
    found: list[Found] = []
    members = {key: _members(key, table, facts[table.project], found) for key, table in file.databases.items()}
    targets = {
        target.name: (key, target)
        for key, databases in members.items()
        for target in (_target(file, key, database, facts) for database in databases)
    }
    found.extend(_same_database(targets))
    found.extend(_unknown_servers(file, [target for _key, target in targets.values()]))
    tables = file.phases or (_EVERYTHING,)
    # A table whose alias is mistaken is matched by its name all the same, so that one slip is told once.
    names = {name: key for name, (key, _) in targets.items()}
    names |= {key: key for key, table in file.databases.items() if table.alias is not None}
    assignment = assign(names, [Patterns(table.name, table.databases) for table in tables])
    if file.phases:
        found.extend(assignment.found)
    if found:
        raise PlanInvalid(item.mistake() for item in found)
    phases = tuple(
        Phase(table.name, index, tuple(targets[name][1] for name in names_in), table.parallel, table.gate or ())
        for index, (table, names_in) in enumerate(zip(tables, assignment.phases, strict=True))
    )
    return _plan(file, phases)


def projects_of(file: PlanFile) -> dict[str, Project]:
    """Return the plan's projects by name, so that they can be asked for their facts."""
    return {
        name: Project(
            name=name,
            path=file.directory / table.path,
            settings=table.settings,
            python=None if table.python is None else file.directory / table.python,
            env={key: value.get_secret_value() for key, value in table.env.items()},
        )
        for name, table in file.projects.items()
    }


def _members(key: str, table: DatabaseTable, facts: ProjectFacts, found: list[Found]) -> list[DatabaseFacts]:
    """Return the databases that a table names, noting it when there are none."""
    if table.alias is not None:
        members = [database for database in facts.databases if database.alias == table.alias]
    else:
        glob = table.aliases or ""
        members = [item for item in facts.databases if fnmatchcase(item.alias, glob) and not item.mirror]
    if not members:
        aliases = [database.alias for database in facts.databases if not database.mirror]
        known = f"it has {listed(aliases)}" if aliases else "it has none"
        project = quoted(table.project)
        if table.alias is not None:
            hint = did_you_mean(table.alias, aliases) or known
            found.append(
                Found(("databases", key, "alias"), f"project {project} has no alias {quoted(table.alias)}", hint)
            )
        else:
            message = f"no alias of project {project} matches {quoted(table.aliases or '')}"
            found.append(Found(("databases", key, "aliases"), message, known))
    return members


def _target(file: PlanFile, key: str, database: DatabaseFacts, facts: Mapping[str, ProjectFacts]) -> Target:
    table, deploy = file.databases[key], file.deploy
    is_open = not _has_credentials_of_its_own(file, table.project)
    return Target(
        name=key if table.alias is not None else f"{key}:{database.alias}",
        project=table.project,
        alias=database.alias,
        vendor=database.vendor,
        identity=database.identity,
        atomicity=table.atomicity or deploy.atomicity,
        expand_contract=deploy.expand_contract if table.expand_contract is None else table.expand_contract,
        lock_timeout_ms=table.lock_timeout or deploy.lock_timeout,
        bind_default=not facts[table.project].has_routers if table.bind_default is None else table.bind_default,
        other_aliases=table.other_aliases,
        asyncpg=database.asyncpg if is_open else None,
        is_plain=database.is_plain and is_open,
        role=database.role,
    )


def _has_credentials_of_its_own(file: PlanFile, project: str) -> bool:
    """Return whether a project's workers open sessions by files that this process does not use."""
    env = file.projects[project].env
    return any(name in env and env[name].get_secret_value() != os.environ.get(name) for name in _CREDENTIALS)


def _same_database(targets: Mapping[str, tuple[str, Target]]) -> list[Found]:
    first: dict[str, str] = {}
    found: list[Found] = []
    for name, (key, target) in targets.items():
        owner = first.setdefault(target.identity, name)
        if owner != name:
            message = f"{quoted(name)} is the same physical database as {quoted(owner)}"
            found.append(Found(("databases", key), message, "one database stands in a plan once"))
    return found


def _unknown_servers(file: PlanFile, targets: Sequence[Target]) -> Iterator[Found]:
    servers = sorted({target.server for target in targets if target.vendor == "postgresql"})
    for name in file.servers:
        if name not in servers:
            hint = did_you_mean(name, servers) or f"they are on {listed(servers) if servers else 'no server'}"
            yield Found(("servers", name), "no PostgreSQL database of the plan is on this server", hint)


def _plan(file: PlanFile, phases: tuple[Phase, ...]) -> Plan:
    deploy, finalise = file.deploy, file.finalise
    return Plan(
        name=deploy.name,
        directory=file.directory,
        digest=_digest(file, phases),
        journal=deploy.journal.get_secret_value(),
        atomicity=deploy.atomicity,
        minimum_atomicity=deploy.minimum_atomicity,
        commit=deploy.commit,
        on_failure=deploy.on_failure,
        expand_contract=deploy.expand_contract,
        lock_timeout_ms=deploy.lock_timeout,
        lock_retries=deploy.lock_retries,
        statement_timeout_ms=deploy.statement_timeout,
        max_lock_hold_ms=deploy.max_lock_hold,
        settle_timeout_ms=deploy.settle_timeout,
        finalise=Finalise(finalise.bake_time, finalise.gate or (), finalise.forbid_sessions),
        projects=projects_of(file),
        phases=phases,
        servers={name: table.max_connections for name, table in file.servers.items()},
        is_remote=file.fleet.transport is Transport.PROCRASTINATE,
    )


def _digest(file: PlanFile, phases: tuple[Phase, ...]) -> str:
    """Return the SHA-256 of the meaning: paths as they are written, files below the plan's directory relative to it."""
    here = f"{file.directory}{os.sep}"
    meaning = {
        "deploy": file.deploy.model_dump(mode="json", exclude={"journal"}),
        "finalise": file.finalise.model_dump(mode="json"),
        "projects": {name: [table.path, table.settings] for name, table in file.projects.items()},
        "phases": [
            {
                "name": phase.name,
                "parallel": phase.parallel,
                "gate": phase.gate,
                "targets": [
                    {
                        "name": target.name,
                        "project": target.project,
                        "alias": target.alias,
                        "vendor": target.vendor,
                        "identity": target.identity.replace(here, ""),
                        "atomicity": target.atomicity,
                        "expand_contract": target.expand_contract,
                        "lock_timeout_ms": target.lock_timeout_ms,
                        "bind_default": target.bind_default,
                        "other_aliases": target.other_aliases,
                    }
                    for target in phase.targets
                ],
            }
            for phase in phases
        ],
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
