"""What a call's session waits for on its server, and how far it has come with an index; asked by another session."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["LOOKS", "Blocker", "Look", "Progress", "Session"]

_QUERY_LENGTH: Final = 80
# By its name, since behind a pooler of transactions the number of a session is not that of a server's process. A
# prepared transaction has no process (pg_blocking_pids: 0).
_OURS = "w.application_name = %s AND w.datname = current_database()"
_POSTGRESQL_BLOCKERS = f"""
    SELECT DISTINCT blocker.pid, coalesce(a.application_name, ''),
           CASE WHEN blocker.pid = 0 THEN 'prepared transaction' ELSE coalesce(a.state, '') END,
           coalesce(extract(epoch FROM clock_timestamp() - a.query_start), 0)::float8,
           coalesce(left(a.query, {_QUERY_LENGTH}), '')
    FROM pg_stat_activity w
    CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS blocker(pid)
    LEFT JOIN pg_stat_activity a ON a.pid = blocker.pid
    WHERE {_OURS} AND w.wait_event_type = 'Lock' ORDER BY 1
"""  # noqa: S608 - constants
# Its phases count different things (PostgreSQL manual, "CREATE INDEX Progress Reporting").
_POSTGRESQL_PROGRESS = f"""
    SELECT coalesce(i.relname, ''), p.phase,
           CASE WHEN lockers_total > 0 AND phase LIKE 'waiting%%' THEN lockers_done::float8 / lockers_total
                WHEN tuples_total > 0 THEN tuples_done::float8 / tuples_total
                WHEN blocks_total > 0 THEN blocks_done::float8 / blocks_total END * 100
    FROM pg_stat_activity w JOIN pg_stat_progress_create_index p ON p.pid = w.pid
    LEFT JOIN pg_class i ON i.oid = p.index_relid
    WHERE {_OURS}
"""  # noqa: S608 - constants
# A lock on rows is InnoDB's. One on a table's definition is the server's, which says who has it only where the plugin
# metadata_lock_info is installed; elsewhere it is one of the sessions with a transaction open.
_MYSQL_STATE = "SELECT state FROM information_schema.processlist WHERE id = %s"
_MYSQL_WAITS_FOR_TABLE = "metadata lock"
_MYSQL_ROWS = """
    SELECT blocking.trx_mysql_thread_id FROM information_schema.innodb_lock_waits w
    JOIN information_schema.innodb_trx waiting ON waiting.trx_id = w.requesting_trx_id
    JOIN information_schema.innodb_trx blocking ON blocking.trx_id = w.blocking_trx_id
    WHERE waiting.trx_mysql_thread_id = %s
"""
_MYSQL_HAS_PLUGIN = """
    SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'METADATA_LOCK_INFO' AND plugin_status = 'ACTIVE'
"""
_MYSQL_TABLES = "SELECT thread_id FROM information_schema.metadata_lock_info WHERE table_schema = DATABASE()"
_MYSQL_OPEN = """
    SELECT p.id FROM information_schema.processlist p
    LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id
    WHERE t.trx_id IS NOT NULL OR (p.command = 'Query' AND p.db = DATABASE())
"""
_MYSQL_BLOCKERS = f"""
    SELECT DISTINCT id, concat(user, '@', host), lower(command), time, coalesce(left(info, {_QUERY_LENGTH}), '')
    FROM information_schema.processlist WHERE id IN ({{who}}) AND id NOT IN (%s, CONNECTION_ID()) ORDER BY id
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that has what another one waits for, or may have it.

    Args:
        pid: the session's number on its server; 0 for a prepared transaction.
        application: what it calls itself; on MySQL and MariaDB its user and host.
        state: what it does, in the server's words.
        query_age_s: since when it runs its statement, or has run its last one.
        query: the first 80 characters of that.
    """

    pid: int
    application: str
    state: str
    query_age_s: float
    query: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the building of an index has come.

    Args:
        index: its name, where the server says.
        phase: in the server's words.
        percent: of this phase; None where nothing is counted.
    """

    index: str
    phase: str
    percent: float | None


@dataclass(frozen=True, slots=True)
class Session:
    """How a session is found on its server.

    Args:
        name: its `application_name`.
        number: the one that MySQL and MariaDB gave it.
    """

    name: str
    number: int | None


class Look(Protocol):
    """What one kind of server can be asked, through a session other than the one that it is about. Only reads."""

    def blockers(self, connection: BaseDatabaseWrapper, session: Session) -> tuple[Blocker, ...]:
        """Return who has what the session waits for; nobody where it waits for no lock."""

    def progress(self, connection: BaseDatabaseWrapper, session: Session) -> Progress | None:
        """Return how far the session has come with building an index, where the server tells."""


class _PostgreSQL:
    def blockers(self, connection: BaseDatabaseWrapper, session: Session) -> tuple[Blocker, ...]:
        with connection.cursor() as cursor:
            cursor.execute(_POSTGRESQL_BLOCKERS, [session.name])
            return tuple(Blocker(*row) for row in cursor.fetchall())

    def progress(self, connection: BaseDatabaseWrapper, session: Session) -> Progress | None:
        with connection.cursor() as cursor:
            cursor.execute(_POSTGRESQL_PROGRESS, [session.name])
            row = cursor.fetchone()
        return Progress(*row) if row else None


class _MySQL:
    def blockers(self, connection: BaseDatabaseWrapper, session: Session) -> tuple[Blocker, ...]:
        with connection.cursor() as cursor:
            cursor.execute(_MYSQL_STATE, [session.number])
            (state,) = cursor.fetchone() or ("",)
            if _MYSQL_WAITS_FOR_TABLE in str(state):
                cursor.execute(_MYSQL_HAS_PLUGIN)
                who, params = (_MYSQL_TABLES if cursor.fetchone() else _MYSQL_OPEN), []
            else:
                who, params = _MYSQL_ROWS, [session.number]
            cursor.execute(_MYSQL_BLOCKERS.format(who=who), [*params, session.number])
            return tuple(
                Blocker(pid, str(who), str(state), float(age_s), str(query))
                for pid, who, state, age_s, query in cursor.fetchall()
            )

    def progress(self, connection: BaseDatabaseWrapper, session: Session) -> Progress | None:
        del connection, session
        return None


LOOKS: Final[Mapping[str, Look]] = {"postgresql": _PostgreSQL(), "mysql": _MySQL()}
"""By vendor."""
