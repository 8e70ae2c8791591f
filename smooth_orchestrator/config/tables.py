"""The shape of a plan: its tables and keys, their types, defaults and descriptions (which are the reference)."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from smooth_migrations.protocol import OtherAliases
from smooth_orchestrator.config.values import (
    Choice,
    DatabaseName,
    DeployName,
    EnvName,
    EnvValue,
    JournalUrl,
    ModuleName,
    PhaseName,
    PlanVersion,
    QueueName,
    QueueUrl,
    Surroundings,
    Text,
)
from smooth_orchestrator.durations import Duration, Pause, ServerDuration, parse_duration
from smooth_orchestrator.errors import BadValue

__all__ = [
    "Atomicity",
    "CommitUnit",
    "DatabaseTable",
    "DeployTable",
    "FinaliseTable",
    "FleetTable",
    "OnFailure",
    "PhaseTable",
    "PlanFile",
    "ProjectTable",
    "ServerTable",
    "Tier",
    "Transport",
]


class Tier(StrEnum):
    """How a database's changes are held until the decision; the strongest first."""

    TWO_PHASE = "two_phase"
    HELD_OPEN = "held_open"
    COMPENSATED = "compensated"


class Atomicity(StrEnum):
    """A tier, or the best that each database can do."""

    AUTO = "auto"
    TWO_PHASE = "two_phase"
    HELD_OPEN = "held_open"
    COMPENSATED = "compensated"


class CommitUnit(StrEnum):
    """What one decision covers."""

    DEPLOY = "deploy"
    PHASE = "phase"


class OnFailure(StrEnum):
    """What a failure does to what came before it."""

    ROLLBACK = "rollback"
    HALT = "halt"


class Transport(StrEnum):
    """How workers are reached."""

    LOCAL = "local"
    PROCRASTINATE = "procrastinate"


_Sized = TypeVar("_Sized", tuple[str, ...], dict[str, Any])


def _not_empty(value: _Sized) -> _Sized:
    if not value:
        raise BadValue("must not be empty")
    return value


# Strictness is for values: an array arrives as a list.
_LAX = Field(strict=False)
_Texts = Annotated[tuple[Text, ...], _LAX, AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1})]
_Filled = (AfterValidator(_not_empty), Field(json_schema_extra={"minProperties": 1}))


def _duration(default: str, description: str) -> Any:  # noqa: ANN401 - as pydantic's own Field
    """Return a field whose default is milliseconds in Python and a duration in the JSON Schema."""
    return Field(default=parse_duration(default), description=description, json_schema_extra={"default": default})


class _Table(BaseModel):
    # Without the input in its errors, pydantic cannot repeat a secret.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class DeployTable(_Table):
    """What holds for the whole deploy."""

    name: DeployName = Field(description="Names the deploy in logs, journal and leases: small letters, digits and -.")
    journal: JournalUrl = Field(
        default=SecretStr("sqlite:///.smooth/journal.db"),
        description="Where decisions are written before they take effect: `sqlite:///` and a file, relative to the "
        "plan file (`sqlite:////` when absolute), or `postgresql://user@host/database`. `${NAME}` is read from the "
        "environment; a password written here is refused.",
        json_schema_extra={"default": "sqlite:///.smooth/journal.db"},
    )
    atomicity: Annotated[Atomicity, Choice()] = Field(
        default=Atomicity.AUTO,
        description="How changes are held until the decision; `auto` is the best each database can do.",
    )
    minimum_atomicity: Annotated[Tier, Choice()] = Field(
        default=Tier.COMPENSATED, description="The deploy is refused when a database cannot reach this tier."
    )
    commit: Annotated[CommitUnit, Choice()] = Field(
        default=CommitUnit.DEPLOY,
        description="`deploy`: one decision for all phases. `phase`: each phase commits by itself, and a later failure "
        "takes the earlier phases back.",
    )
    on_failure: Annotated[OnFailure, Choice()] = Field(
        default=OnFailure.ROLLBACK,
        description='`rollback`: a failure takes everything back. `halt`: with `commit = "phase"`, phases that have '
        "committed stay.",
    )
    expand_contract: bool = Field(
        default=True, description="Hold back what would break the release still running, for `finalise`."
    )
    lock_timeout: ServerDuration = _duration(
        "2s", "The longest wait for one lock before the transaction is tried again."
    )
    lock_retries: int = Field(
        default=10, ge=0, le=1000, description="How often a transaction is tried again after that."
    )
    statement_timeout: ServerDuration = _duration("15min", "The longest single statement.")
    max_lock_hold: Duration = _duration(
        "30s", "Give up before the decision when strong locks on tables that existed before were held longer."
    )
    settle_timeout: Pause = _duration(
        "60s",
        "How long a decided run is tried to be settled, and a fleet's machines are waited for, before exit code 4.",
    )


class FinaliseTable(_Table):
    """When the contract phase may run."""

    bake_time: Pause = _duration("24h", "How long after the deploy's commit `finalise` is due.")
    gate: _Texts | None = Field(default=None, description="A command, never a shell; anything but exit code 0 refuses.")
    forbid_sessions: Annotated[tuple[Text, ...], _LAX] = Field(
        default=(), description="Globs: refuse while a session with such an application_name is connected."
    )


class ProjectTable(_Table):
    """A Django project whose migrations are run."""

    path: Text = Field(
        description="The project's directory, relative to the plan file: on sys.path and the working directory."
    )
    settings: ModuleName = Field(description="Its settings module.")
    python: Text | None = Field(
        default=None,
        description="Its own interpreter, relative to the plan file; smooth-orchestrator must be installed there too. "
        "Without it: the interpreter that runs this program.",
    )
    env: dict[EnvName, EnvValue] = Field(
        default={},
        description="Environment variables for it. `${NAME}` is read from the environment of the command, `$${` is a "
        "plain `${`.",
    )


class DatabaseTable(_Table):
    """One database of a project, or a glob over several."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["alias"]}, {"required": ["aliases"]}]},
    )

    project: Text = Field(description="The name of its project.")
    alias: Text | None = Field(default=None, description="Its key in settings.DATABASES; this or `aliases`.")
    aliases: Text | None = Field(
        default=None,
        description="A glob over settings.DATABASES: each match is a database named after this table and its alias, "
        "as in `shards:shard_1`. Mirrors are left out.",
    )
    atomicity: Annotated[Atomicity, Choice()] | None = Field(
        default=None, description="How its changes are held until the decision, instead of the deploy's."
    )
    expand_contract: bool | None = Field(
        default=None, description="Whether what would break the release still running is held back here, likewise."
    )
    lock_timeout: ServerDuration | None = Field(
        default=None, description="The longest wait for one lock here, instead of the deploy's."
    )
    bind_default: bool | None = Field(
        default=None,
        description='While this database is migrated, the alias "default" is this database. When left out: true if the '
        "project has no DATABASE_ROUTERS.",
    )
    other_aliases: Annotated[OtherAliases, Choice()] = Field(
        default=OtherAliases.REFUSE,
        description="What becomes of a query in a migration that reaches another alias: `refuse` makes it an error "
        "that names the migration.",
    )


class PhaseTable(_Table):
    """Databases that are migrated together, after those of the phases before."""

    name: PhaseName = Field(description="Names the phase in logs and reports.")
    databases: _Texts = Field(description="Names of databases, or globs of names.")
    parallel: int = Field(default=4, ge=1, le=1000, description="How many of them are worked on at a time.")
    gate: _Texts | None = Field(
        default=None,
        description="A command, never a shell, run after this phase's migrations; anything but exit code 0 fails the "
        "deploy.",
    )


class FleetTable(_Table):
    """Workers on other machines."""

    transport: Annotated[Transport, Choice()] = Field(
        default=Transport.LOCAL,
        description="`local`: processes on this machine. `procrastinate`: `smooth-orchestrate worker PLAN` on others.",
    )
    queue_url: QueueUrl | None = Field(
        default=None,
        description="The PostgreSQL database that holds the queue; it may be the journal's. `${NAME}` is replaced.",
    )
    queue: QueueName | None = Field(
        default=None,
        description="The queue's name, of at most 40 bytes. When left out: the deploy's name, -migrations.",
    )
    job_timeout: Duration = _duration(
        "30min",
        "The longest that one command may take on a machine, such as all migrations of one database; and how long a "
        "machine that is to stop finishes what is at hand.",
    )


class ServerTable(_Table):
    """What a server is to be spared."""

    max_connections: int = Field(
        ge=3,
        description="How many connections to it this program opens at a time; what is held open keeps one until the "
        "decision.",
    )


class PlanFile(_Table):
    """What to migrate, in which order, and how carefully."""

    version: PlanVersion = Field(description="The version of this format: 1.")
    deploy: DeployTable
    finalise: FinaliseTable = Field(default_factory=FinaliseTable)
    projects: Annotated[dict[DatabaseName, ProjectTable], *_Filled] = Field(description="Django projects by name.")
    databases: Annotated[dict[DatabaseName, DatabaseTable], *_Filled] = Field(description="Databases by name.")
    phases: Annotated[tuple[PhaseTable, ...], _LAX] = Field(
        default=(), description='In order. When left out: one phase named "all" with every database.'
    )
    servers: dict[Text, ServerTable] = Field(
        default_factory=dict, description='PostgreSQL servers by host and port, such as "db1:5432".'
    )
    fleet: FleetTable = Field(default_factory=FleetTable)

    _directory: Path = PrivateAttr(default_factory=Path)

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401 - pydantic's signature
        """Remember what relative paths are relative to."""
        if isinstance(context, Surroundings):
            self._directory = context.directory

    @property
    def directory(self) -> Path:
        """Return the plan file's directory, which its relative paths are relative to."""
        return self._directory
