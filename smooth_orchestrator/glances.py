"""What the coordinator itself sees of PostgreSQL databases, enough to leave one alone, while workers load their apps.

Two statements a database, over a session that is closed at once. Nothing is kept from one command to the next. What a
glance does not show, or shows to be out of the ordinary, is left to a worker.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio
import asyncpg

from smooth_migrations.protocol import Question
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Glance, Run, TargetRun

__all__ = ["answers_alike", "digest_of", "glance_at_all", "shows_mark"]

_TIMEOUT_S: Final = 10.0
# A server that has no connection left is asked again, by fewer sessions at a time.
_PAUSES_S: Final = (0.1, 0.2, 0.4, 0.8)
# A round trip takes longer than most answers; a statement has to be planned whole, and to answer in time.
_AT_ONCE: Final = 20
_RECORDS: Final = "django_migrations"
_OWN: Final = "smooth_migrations_"
# By the tables in which an earlier run may have left something, which rows say that one has.
_LEFT: Final = {"journal": "true", "lease": "owner <> ''"}
_TABLES: Final = (_RECORDS, *(f"{_OWN}{name}" for name in ("contract", "journal", "lease", "marker")))
# The catalogs are not read here: a session that has just begun has none of them in its memory, and most of its time
# would go into that. What is no table fails in the next statement.
_FACTS: Final = """
    SELECT current_setting('server_version_num')::int AS version,
           current_setting('max_prepared_transactions')::int AS slots,
           NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::bool
               AND coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
               AND NOT EXISTS (SELECT FROM pg_prepared_xact()) AS is_usual,
           has_function_privilege('pg_control_system()', 'EXECUTE') AS may_identify,
           ARRAY(SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL) AS tables
"""
_ROWS: Final = """
    SELECT (SELECT md5(convert_to(coalesce(string_agg(DISTINCT (app || '.' || name) COLLATE "C", E'\\n'), ''), 'UTF8'))
            FROM django_migrations) AS digest,
           {left} AS is_left, {held} AS held, {marked} AS is_marked, {marked_by} AS marked_by, {physical} AS physical
"""
_HELD: Final = """
    (SELECT coalesce(md5(string_agg(concat_ws('/', run_id, app, name, operation, kind, description, payload), E'\\n'
                                    ORDER BY seq)), '') FROM {contract})
"""
_NEWEST: Final = "(SELECT run_id FROM {marker} WHERE deploy = $2 ORDER BY moved_at DESC LIMIT 1)"
_MARK: Final = "SELECT EXISTS (SELECT FROM smooth_migrations_marker WHERE deploy = $1 AND run_id = $2)"
_PHYSICAL: Final = (
    "(SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database WHERE datname = current_database())"
)


def digest_of(applied: Iterable[str]) -> str:
    """Return the digest of recorded migrations, `app.name` each, as a glance tells it. Pure."""
    return hashlib.md5("\n".join(sorted({*applied})).encode(), usedforsecurity=False).hexdigest()


async def glance_at_all(run: Run, fleet: Fleet) -> None:
    """Look at each database that shows the coordinator what it shows Django. Reads only, and raises for no server.

    Args:
        run: whose targets note what was seen.
        fleet: limits the sessions on each server.
    """
    away: set[str] = set()

    async def look(item: TargetRun) -> None:
        limiter = fleet.room_on(item.target)
        for pause_s in (*_PAUSES_S, None):
            async with limiter:
                if item.target.server in away:
                    return
                allowed = limiter.total_tokens
                try:
                    item.glance = await _glance(run, item, away)
                except asyncpg.TooManyConnectionsError:
                    # Of those that were refused together the first makes it fewer for all.
                    limiter.total_tokens = min(limiter.total_tokens, max(1, allowed // 2))
                else:
                    return
            if pause_s is not None:
                await anyio.sleep(pause_s)

    async with anyio.create_task_group() as group:
        for item in run.targets:
            if item.target.is_plain:
                group.start_soon(look, item)


async def answers_alike(item: TargetRun, fleet: Fleet, questions: Sequence[Question]) -> bool:
    """Return whether a database gives the same answers as another one did. Reads only; no answer is another one.

    Args:
        item: the database, one that shows the coordinator what it shows Django.
        fleet: limits the sessions on its server.
        questions: with the other one's answers.
    """
    try:
        async with fleet.room_on(item.target), _session(item) as connection, connection.transaction(readonly=True):
            # As a worker does, nobody's lock is waited for any longer.
            await connection.execute(f"SET LOCAL lock_timeout = {item.target.lock_timeout_ms or 0}")
            for begin in range(0, len(questions), _AT_ONCE):
                asked = questions[begin : begin + _AT_ONCE]
                query = f"SELECT ARRAY[{', '.join(f'({each.query})' for each in asked)}]"
                if await connection.fetchval(query) != [each.answer for each in asked]:
                    return False
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False
    return True


async def shows_mark(item: TargetRun, fleet: Fleet, deploy: str, run_id: str) -> bool:
    """Return whether a database is seen to have been moved by a run; where it is not, a worker can tell. Reads only.

    Args:
        item: the database.
        fleet: limits the sessions on its server.
        deploy: the run's.
        run_id: the run.
    """
    if not item.target.is_plain:
        return False
    try:
        async with fleet.room_on(item.target), _session(item) as connection:
            return bool(await connection.fetchval(_MARK, deploy, run_id))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False


@asynccontextmanager
async def _session(item: TargetRun) -> AsyncIterator[asyncpg.Connection]:
    options = {**(item.target.asyncpg or {})}
    if item.target.role:
        options["server_settings"] = {**options.get("server_settings", {}), "role": item.target.role}
    connection = await asyncpg.connect(
        # Without names nothing stays in a session that a pooler gives to somebody else.
        **options,
        timeout=_TIMEOUT_S,
        command_timeout=_TIMEOUT_S,
        statement_cache_size=0,
    )
    try:
        yield connection
    finally:
        connection.terminate()


async def _glance(run: Run, item: TargetRun, away: set[str]) -> Glance | None:
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(_session(item))
        except asyncpg.TooManyConnectionsError:
            raise
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            away.add(item.target.server)
            return None
        try:
            return await _seen(connection, run, item)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return None


async def _seen(connection: asyncpg.Connection, run: Run, item: TargetRun) -> Glance | None:
    (facts,) = await connection.fetch(_FACTS, _TABLES)
    if _RECORDS not in facts["tables"]:
        # A fleet's machines may have another one by that name, whatever is in it.
        if run.plan.is_remote and facts["may_identify"]:
            item.physical = await connection.fetchval(f"SELECT {_PHYSICAL}")
        return None
    own = {name.removeprefix(_OWN): name for name in facts["tables"]}
    left = [f"EXISTS (SELECT FROM {own[name]} WHERE {rows})" for name, rows in _LEFT.items() if name in own]
    marked = f"EXISTS (SELECT FROM {own['marker']} WHERE run_id = $1)" if "marker" in own else "$1::text IS NULL"
    sql = _ROWS.format(
        left=" OR ".join(left) or "false",
        held=_HELD.format(contract=own["contract"]) if "contract" in own else "''",
        marked=marked,
        marked_by=_NEWEST.format(marker=own["marker"]) if "marker" in own else "left($2::text, 0)",
        physical=_PHYSICAL if facts["may_identify"] else "''",
    )
    (rows,) = await connection.fetch(sql, run.run_id, run.plan.name)
    item.physical = rows["physical"]
    return Glance(
        version=facts["version"],
        slots=facts["slots"],
        digest=rows["digest"],
        physical=rows["physical"],
        held=rows["held"],
        is_settled=facts["is_usual"] and not rows["is_left"],
        is_marked=rows["is_marked"],
        marked_by=rows["marked_by"] or "",
    )
