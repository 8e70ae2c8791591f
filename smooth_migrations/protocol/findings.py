"""What is found of a project and its databases before anything runs."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DatabaseFacts", "HeldLock", "Measured", "MigrationFinding", "PendingMigration", "Question", "Rewritten"]


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """One entry of `settings.DATABASES`, as found without connecting.

    Args:
        alias: its key.
        vendor: `postgresql`, `sqlite`, `mysql`, …
        identity: what makes two entries one physical database: host, port and name, or a file's real path.
        mirror: whether it is a test mirror of another alias.
        asyncpg: keyword arguments for `asyncpg.connect`, or None where they cannot be translated. Secret.
        is_plain: whether a session that is opened with these, in this role, sees what one of Django's would see.
        role: that Django's sessions assume; empty for the one that logs in.
        refusal: why what was done through its backend could not be undone; empty where it can.
    """

    alias: str
    vendor: str
    identity: str
    mirror: bool = False
    asyncpg: dict[str, Any] | None = field(default=None, repr=False)
    is_plain: bool = False
    role: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class PendingMigration:
    """One migration that would run.

    Args:
        migration: `app.name`.
        atomic: whether it may run inside a transaction.
        operations: one description each.
        destructive: descriptions of the operations that take something from the release still running.
        unsafe: descriptions of operations that the running release may trip over, without losing data.
        irreversible: descriptions of the operations that have no way back.
        locks: the strongest lock by operation that matters, in words.
        expand: what is done of it at the deploy; None where all of it is.
        contract: what of it is held back.
        online: whether it needs no transaction because it keeps nobody waiting and changes nothing for anybody.
        readied: whether constraints, indexes or columns can be made ready for it before its transaction.
        only_readied: why it cannot run without that, if it cannot.
    """

    migration: str
    atomic: bool
    operations: tuple[str, ...] = ()
    destructive: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()
    irreversible: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    expand: tuple[str, ...] | None = None
    contract: tuple[str, ...] = ()
    online: bool = False
    readied: bool = False
    only_readied: str = ""


@dataclass(frozen=True, slots=True)
class MigrationFinding:
    """Something wrong with a project's migrations or its database, found before anything ran.

    Args:
        code: stable: `conflict`, `missing_file`, `inconsistent_history`, `unreachable`, `unwritable`, ….
        message: in words, naming the place.
        hint: what to do about it.
        sqlstate: the server's SQLSTATE, where there is one.
    """

    code: str
    message: str
    hint: str | None = None
    sqlstate: str | None = None


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock on something that existed before, as `pg_locks` shows it.

    Args:
        relation: its name, with its schema where it is not in the search path.
        mode: such as `AccessExclusiveLock`.
        held_ms: for how long, from the beginning of the statement that took it.
    """

    relation: str
    mode: str
    held_ms: float


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A table whose rows were all written anew.

    Args:
        table: its name.
        size_bytes: how large it was before, with its indexes left out.
    """

    table: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen of a transaction while it ran.

    Args:
        duration_ms: how long.
        locks: those that keep somebody waiting, the strongest mode of each relation last.
        rewritten: tables that existed before.
        advanced: sequences whose positions a rollback does not put back.
    """

    duration_ms: float
    locks: tuple[HeldLock, ...] = ()
    rewritten: tuple[Rewritten, ...] = ()
    advanced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Something that was asked of a database of PostgreSQL.

    Args:
        query: in SQL; it only reads, and finds one value.
        answer: that value, which is a digest.
    """

    query: str
    answer: str
