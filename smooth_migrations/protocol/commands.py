"""What a coordinator asks of a worker."""

from dataclasses import dataclass, field
from typing import ClassVar

from smooth_migrations.protocol.owner import Owner
from smooth_migrations.protocol.values import Back, Before, OtherAliases, Received, Step

__all__ = [
    "Apply",
    "AskCode",
    "Cancel",
    "Command",
    "Commit",
    "Copy",
    "Fetch",
    "Inspect",
    "Lint",
    "Look",
    "Prepare",
    "Rollback",
    "SettlePrepared",
    "Stop",
    "Undo",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Base of what a coordinator asks; `id` comes back in every answer, `database` names the target in logs."""

    type: ClassVar[str]
    id: int
    database: str
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect(Command):
    """Say what would run on this alias and what stands in its way. Changes nothing. Answer: `TargetReport`.

    Args:
        back: what would be taken back, instead of what is pending.
        finalises: the runs whose contract halves would be done, instead of what is pending.
        expands: whether what the release still running could not live with would be held back.
        lock_timeout_ms: longest wait for one lock; None for the server's own.
        statement_timeout_ms: longest single statement; None for the server's own.
    """

    type: ClassVar[str] = "inspect"
    back: Back | None = None
    finalises: tuple[str, ...] | None = None
    expands: bool = False
    bind_default: bool = False
    lock_timeout_ms: int | None = None
    statement_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lint(Command):
    """Look at the project's migration files as they are for this alias. Answer: `Linted` or `Failed`.

    Args:
        since: those that were changed or added since this revision of Git; None for what is pending.
        everything: each of them, as a deploy by itself.
        expands: whether what the release still running could not live with would be held back.
    """

    type: ClassVar[str] = "lint"
    since: str | None = None
    everything: bool = False
    expands: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Command):
    """Say what earlier runs have left in this database; their sessions there are ended. Answer: `Standing` or `Failed`.

    Args:
        deploy: whose runs are asked about.
        runs: which runs' markers are looked for, beside those of runs that have left something else.
        fences: take a turn first, so that who only slept commits nothing any more.
        lost: the turn, by its epoch, in which the first of these runs has lost its worker: whoever has it is that one.
    """

    type: ClassVar[str] = "look"
    deploy: str
    runs: tuple[str, ...] = ()
    fences: bool = False
    lost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch(Command):
    """Run one statement over a connection of its own, beside whatever runs. Answer: `Rows`.

    Args:
        sql: reads, or renews a lease.
    """

    type: ClassVar[str] = "fetch"
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCode(Command):
    """Say which migrations the project's apps have, whatever the alias. Connects to nothing. Answer: `Code`."""

    type: ClassVar[str] = "ask_code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply(Command):
    """Run every pending migration of this alias and hold the result. Answer: `Done` or `Failed`.

    Args:
        back: unapply these, instead of what is pending.
        finalises: do the contract halves of these runs, instead of what is pending.
        expands: hold back what the release still running could not live with.
        deploy: the deploy's name.
        run_id: its run.
        epoch: of the run's last turn on this database, or of the last one that was seen: nobody may have had one since.
            None where the run begins.
        digest: the plan's digest, for the marker.
        compensated: commit after each migration instead of holding one transaction.
        together: to how many of them there is one commit, where nothing was there before.
        may_step: do so too when it turns out that one transaction cannot hold the migrations.
        lock_timeout_ms: longest wait for one lock; None for the server's own.
        lock_retries: how often the whole transaction is tried again after a lock time-out.
        statement_timeout_ms: longest single statement; None for the server's own.
        bind_default: make the alias `default` this target while it is migrated.
        other_aliases: whether a migration may reach other aliases.
        measures: say in the answer which locks were taken and what was rewritten.
        goes_on: keep what an earlier call of the same run has completed, and go on from there.
        is_ahead: only run the migrations that come before the first one which a transaction can hold.
        compares: compare the schema with what it was, where what a killed call left is taken back.
        replays: others are in the same state: do what was done to the first of them, if that can be.
        physical: what its server must call the database, as in `TargetReport`: another one is left alone. Empty where
            that is not to be asked.
    """

    type: ClassVar[str] = "apply"
    deploy: str
    run_id: str
    digest: str
    epoch: int | None = None
    compensated: bool = False
    together: int = 1
    may_step: bool = False
    lock_timeout_ms: int | None = None
    lock_retries: int = 0
    statement_timeout_ms: int | None = None
    bind_default: bool = False
    other_aliases: OtherAliases = OtherAliases.REFUSE
    measures: bool = False
    back: Back | None = None
    finalises: tuple[str, ...] | None = None
    expands: bool = False
    goes_on: bool = False
    is_ahead: bool = False
    compares: bool = True
    replays: bool = False
    physical: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare(Command):
    """Say whether what `Apply` holds is still there, and leave its fate to the decision. Answer: `Done` or `Failed`.

    What an `Undo` holds is only looked for.

    From here on what is committed step by step is not taken back when the coordinator is gone: whoever settles its run
    knows whether it had decided. A `Failed` that is not `restored` may have been prepared all the same.

    Args:
        gid: prepare the transaction under this name (PREPARE TRANSACTION); None leaves it open.
        keeper: who keeps the lease from then on, by the statement that `Done` tells.
    """

    type: ClassVar[str] = "prepare"
    gid: str | None = None
    keeper: Owner | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlePrepared(Command):
    """End a prepared transaction; one that is not there is an error 42704. Answer: `Done` or `Failed`.

    Args:
        gid: its name.
        commits: whether it is committed rather than rolled back.
    """

    type: ClassVar[str] = "settle_prepared"
    gid: str
    commits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit(Command):
    """Make what `Apply` holds permanent; what was prepared is committed already. Answer: `Done` or `Failed`.

    Args:
        run_id: whose lease is given back where a worker that was lost has held it.
    """

    type: ClassVar[str] = "commit"
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback(Command):
    """Undo what `Apply` holds or has committed step by step; nothing held is no error. Answer: `Done` or `Failed`.

    What was prepared is rolled back already.

    Args:
        run_id: whose lease is given back where a worker that was lost has held it.
    """

    type: ClassVar[str] = "rollback"
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo(Command):
    """Take committed steps back, newest first, in a worker that need not have made them. Answer: `Done` or `Failed`.

    Args:
        deploy: the deploy's name.
        run_id: its run.
        steps: in the order in which they happened.
        epoch: of the turn in which they were made, or of the last one that was seen: what somebody else has made since
            under the run's name is left alone.
        before: what the database was like before the run.
        received: what was made beside.
        lock_timeout_ms: longest wait for one lock; None for the server's own.
        lock_retries: how often a step is tried again after a lock time-out.
        statement_timeout_ms: longest single statement; None for the server's own.
        bind_default: make the alias `default` this target meanwhile.
        other_aliases: whether reverse code may reach other aliases.
        compares: compare the schema afterwards with what it was, where that is known.
        discards: lose what was written since, and tell of it; else that is refused, and nothing is changed.
        holds: leave the transaction open, where there is one for all of it, for a `Commit` or a `Rollback`.
        accepts: where the files of the steps are gone, an operator has taken them back by hand: make sure of it as far
            as the records and the schema tell, and forget them. Where the files are there it means nothing.
        stepwise: commit each step by itself. Without it, fail with `NOT_HELD` and change nothing where steps do not go
            back within a transaction that the server could hold.
    """

    type: ClassVar[str] = "undo"
    deploy: str
    run_id: str
    steps: tuple[Step, ...]
    epoch: int
    before: Before = field(default_factory=Before)
    received: Received = field(default_factory=Received)
    lock_timeout_ms: int | None = None
    lock_retries: int = 0
    statement_timeout_ms: int | None = None
    bind_default: bool = False
    other_aliases: OtherAliases = OtherAliases.REFUSE
    compares: bool = True
    discards: bool = False
    holds: bool = False
    accepts: bool = False
    stepwise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Command):
    """Interrupt the command `cancels` if it is at work: it fails and undoes itself. No answer of its own."""

    type: ClassVar[str] = "cancel"
    cancels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Command):
    """Be two workers from now on, where nothing is held. Answer: `Copied`, or `Failed` where that might do harm.

    Three descriptors come with it (SCM_RIGHTS): the other worker's end of its connection, its stdout and its stderr.
    """

    type: ClassVar[str] = "copy"
    database: str = ""
    alias: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Command):
    """End; whatever is still held is rolled back. No answer."""

    type: ClassVar[str] = "stop"
    database: str = ""
    alias: str = ""
