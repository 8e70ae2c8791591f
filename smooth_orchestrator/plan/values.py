"""The values of a resolved plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smooth_migrations.protocol import DatabaseFacts, OtherAliases
from smooth_orchestrator.config import Atomicity, CommitUnit, OnFailure, Tier

__all__ = [
    "Finalise",
    "Phase",
    "Plan",
    "Project",
    "ProjectFacts",
    "Target",
]


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """What a project's Django says about itself.

    Args:
        databases: each entry of its `settings.DATABASES`.
        has_routers: whether it has DATABASE_ROUTERS.
    """

    databases: tuple[DatabaseFacts, ...]
    has_routers: bool


@dataclass(frozen=True, slots=True)
class Project:
    """A Django project.

    Args:
        name: its key in the plan.
        path: its directory, absolute.
        settings: its settings module.
        python: its own interpreter, absolute and with its symbolic links (they are what makes a virtual environment).
        env: variables to set for it. Secret.
    """

    name: str
    path: Path
    settings: str
    python: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One physical database.

    Args:
        name: as users know it: `primary`, `shards:shard_1`.
        project: its project's name.
        alias: its key in that project's `settings.DATABASES`.
        vendor: `postgresql`, `sqlite`, `mysql`, …
        identity: what makes two names one physical database.
        atomicity: how its changes are held until the decision.
        expand_contract: whether destructive halves wait for `finalise`.
        lock_timeout_ms: the longest wait for one lock.
        bind_default: whether the alias `default` is this database while it is migrated.
        other_aliases: whether a migration may reach other aliases.
        asyncpg: keyword arguments for `asyncpg.connect`, or None where they cannot be translated. Secret.
        is_plain: whether a session that is opened with these, in this role, sees what one of Django's would see.
        role: that Django's sessions assume; empty for the one that logs in.
    """

    name: str
    project: str
    alias: str
    vendor: str
    identity: str
    atomicity: Atomicity
    expand_contract: bool
    lock_timeout_ms: int
    bind_default: bool
    other_aliases: OtherAliases
    asyncpg: Mapping[str, Any] | None = field(default=None, repr=False)
    is_plain: bool = False
    role: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """How its migrations are run, as JSON values; `with_options` takes them."""
        return {
            "expand_contract": self.expand_contract,
            "bind_default": self.bind_default,
            "other_aliases": str(self.other_aliases),
        }

    def with_options(self, options: Mapping[str, Any]) -> "Target":
        """Return it with other options than the plan's; those that are not given stay. Pure."""
        given = {key: value for key, value in options.items() if key in self.options}
        if "other_aliases" in given:
            given["other_aliases"] = OtherAliases(given["other_aliases"])
        return replace(self, **given)

    @property
    def server(self) -> str:
        """Host and port of its server; empty where there is none."""
        # An identity is `postgresql:host:port/name`.
        return self.identity.partition(":")[2].rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Phase:
    """Targets that are migrated together.

    Args:
        name: as in the plan.
        index: its place in the order, from 0.
        targets: in the order of the plan's databases.
        parallel: how many of them are worked on at a time.
        gate: an argv to run afterwards; empty for none.
    """

    name: str
    index: int
    targets: tuple[Target, ...]
    parallel: int
    gate: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finalise:
    """When the contract phase may run.

    Args:
        bake_time_ms: since the deploy's commit.
        gate: an argv that must succeed; empty for none.
        forbid_sessions: globs of application names that must not be connected.
    """

    bake_time_ms: int
    gate: tuple[str, ...] = ()
    forbid_sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A deploy, ready to be run.

    Args:
        name: of the deploy.
        directory: the plan file's, absolute: where gates run and relative paths begin.
        digest: of the meaning, secrets and the journal's place left out; the same on every machine on which the plan
            means the same databases.
        journal: the URL of where decisions are written. Secret.
        atomicity: the deploy's default; a target's own is in the target.
        minimum_atomicity: the weakest tier that will do.
        commit: what one decision covers.
        on_failure: what a failure does to phases before it.
        expand_contract: the deploy's default.
        lock_timeout_ms: the deploy's default.
        lock_retries: how often a transaction is tried again after a lock time-out.
        statement_timeout_ms: the longest single statement.
        max_lock_hold_ms: the longest that strong locks may be held before the decision.
        settle_timeout_ms: how long to go on trying to settle a decided run.
        finalise: when the contract phase may run.
        projects: by name.
        phases: in order.
        servers: how many connections to a server there may be at a time, by host and port.
        is_remote: whether its workers are on other machines, where no transaction stays open for others to end.
    """

    name: str
    directory: Path
    digest: str
    journal: str = field(repr=False)
    atomicity: Atomicity
    minimum_atomicity: Tier
    commit: CommitUnit
    on_failure: OnFailure
    expand_contract: bool
    lock_timeout_ms: int
    lock_retries: int
    statement_timeout_ms: int
    max_lock_hold_ms: int
    settle_timeout_ms: int
    finalise: Finalise
    projects: Mapping[str, Project]
    phases: tuple[Phase, ...]
    servers: Mapping[str, int] = field(default_factory=dict)
    is_remote: bool = False

    @property
    def targets(self) -> tuple[Target, ...]:
        """Return every target, in the order of the phases."""
        return tuple(target for phase in self.phases for target in phase.targets)
