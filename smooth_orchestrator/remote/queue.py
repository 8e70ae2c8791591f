"""The queue: Procrastinate, which hands sessions to machines that have room, and tells which machines live."""

import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any, Final

import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status

from smooth_migrations.protocol.names import shortened
from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.config.values import LONGEST_QUEUE
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.remote.post import GONE_S, Post

__all__ = ["BEAT_S", "TASK", "Job", "Place", "Queue", "opened", "place_of"]

BEAT_S: Final = 3.0
"""How often, in seconds, a machine says that it lives."""

# They tell of each job, each lost connection and each attempt to connect what this program's own lines tell.
_LEVELS: Final = {
    "procrastinate": logging.ERROR,
    "procrastinate.utils": logging.CRITICAL,
    "psycopg.pool": logging.CRITICAL,
}
# After a server's return whoever asks next connects at once, instead of when an ever longer pause has passed.
_POOL: Final[dict[str, Any]] = {"min_size": 1, "max_size": 4, "timeout": 10.0, "reconnect_timeout": 5.0}

TASK: Final = "smooth_orchestrator.session"
"""What a job is called."""

# What is still `doing` with a worker that says nothing, or has been forgotten for that, is done by nobody.
_STATES: Final = """
    SELECT s.id, j.status::text AS status,
           coalesce(w.last_heartbeat > clock_timestamp() - make_interval(secs => $2), false) AS is_alive
    FROM smooth_fleet_session s
    JOIN procrastinate_jobs j ON j.id = s.job_id LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
    WHERE s.id = ANY($1::text[])
"""
# What is left of machines and coordinators that were killed. Another coordinator's session is let be for longer than it
# takes to be given up, for a queue's server that comes back has heard of nobody yet.
_TIDY: Final = """
    WITH living AS (
        SELECT id FROM procrastinate_workers
        WHERE last_heartbeat > clock_timestamp() - make_interval(secs => $1)
    ), machines AS (
        DELETE FROM smooth_fleet_machine WHERE worker_id NOT IN (SELECT id FROM living)
    ), sessions AS (
        DELETE FROM smooth_fleet_session WHERE renewed_at < clock_timestamp() - make_interval(secs => 4 * $1)
        RETURNING id
    )
    DELETE FROM procrastinate_jobs
    WHERE task_name = $2 AND status = 'doing' AND coalesce(worker_id NOT IN (SELECT id FROM living), true)
      AND args->>'session' NOT IN (SELECT id FROM smooth_fleet_session EXCEPT SELECT id FROM sessions)
"""
_WITHDRAW: Final = """
    DELETE FROM procrastinate_jobs WHERE task_name = $1 AND queueing_lock = $2 AND status = 'todo' RETURNING id
"""
_NOTE_JOB: Final = "UPDATE smooth_fleet_session SET job_id = $2 WHERE id = $1"
_ROOM: Final = """
    SELECT coalesce(sum(m.concurrency), 0)::int
    FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id
    WHERE $1 = ANY(m.queues) AND w.last_heartbeat > clock_timestamp() - make_interval(secs => $2)
"""
# What waits in the queue will have a place before anything else.
_PLACES: Final = """
    SELECT coalesce(sum(greatest(0, m.concurrency - (
               SELECT count(*) FROM procrastinate_jobs j WHERE j.worker_id = w.id AND j.status = 'doing'))), 0)::int
           - (SELECT count(*) FROM procrastinate_jobs WHERE queue_name = $1 AND status = 'todo')::int
    FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id
    WHERE $1 = ANY(m.queues) AND w.last_heartbeat > clock_timestamp() - make_interval(secs => $2)
"""
_MACHINES: Final = """
    SELECT m.name AS worker, m.version, m.queues, m.concurrency, w.last_heartbeat AS heard_at,
           coalesce(json_agg(json_build_object(
               'id', j.id, 'project', j.args->>'project', 'run_id', j.args->>'run_id') ORDER BY j.id)
                    FILTER (WHERE j.id IS NOT NULL), '[]')::text AS jobs
    FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id
    LEFT JOIN procrastinate_jobs j ON j.worker_id = w.id AND j.status = 'doing'
    WHERE EXISTS (SELECT FROM unnest(m.queues) AS queue WHERE starts_with(queue, $1) OR queue = ANY($2::text[]))
    GROUP BY m.worker_id, w.id ORDER BY m.name
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the queue is.

    Args:
        url: of its database. Secret.
        name: the queue's.
        job_timeout_s: the longest that one command may take, in seconds.
        projects: of the plan.
    """

    url: str
    name: str
    job_timeout_s: float
    projects: tuple[str, ...] = ()

    def of(self, project: str) -> str:
        """Return the name of the queue of one project: a machine may have some of them alone. Pure."""
        whole = f"{self.name}:{project}"
        return whole if len(whole.encode()) <= LONGEST_QUEUE else shortened(whole, LONGEST_QUEUE)


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of a machine: no secret among it, for a machine knows its own settings.

    Args:
        session: its name.
        project: whose Django is wanted.
        django: the version that it must have.
        code: the digest that its migrations must have.
        run_id: the run that it is for; empty where none is known.
        trace_id: that run's trace; the same.
    """

    session: str
    project: str
    django: str
    code: str
    run_id: str = ""
    trace_id: str = ""


class Queue:
    """The queue of one plan, opened by `opened`."""

    def __init__(self, app: procrastinate.App, place: Place) -> None:
        self.app = app
        self.place = place

    async def defer(self, post: Post, job: Job) -> None:
        """Have a machine take up a session, which has begun.

        Raises:
            WorkerError: the queue cannot be reached.
        """
        queue = self.place.of(job.project)
        task = self.app.configure_task(TASK, queue=queue, queueing_lock=job.session)
        try:
            number = await task.defer_async(**asdict(job))
        except ConnectorException as error:
            raise _unreachable(error) from error
        await post.run(lambda connection: connection.execute(_NOTE_JOB, job.session, number))

    async def dead(self, post: Post, sessions: Sequence[str]) -> frozenset[str]:
        """Return which of these sessions are over, or with a machine that is gone."""
        rows = await post.run(lambda connection: connection.fetch(_STATES, [*sessions], GONE_S))
        ended = {Status.SUCCEEDED.value, Status.FAILED.value, Status.ABORTED.value, Status.CANCELLED.value}
        known = {
            row["id"]: row["status"] in ended or (row["status"] == "doing" and not row["is_alive"]) for row in rows
        }
        return frozenset(session for session in sessions if known.get(session, True))

    async def withdraw(self, post: Post, session: str) -> bool:
        """Take a session out of the queue that nobody has begun; return whether that was so. Idempotent."""
        return await post.run(lambda connection: connection.fetchval(_WITHDRAW, TASK, session)) is not None

    async def tidy(self, post: Post) -> None:
        """Forget machines that are gone, and the jobs they had for coordinators that are too. Idempotent."""
        await post.run(lambda connection: connection.execute(_TIDY, GONE_S, TASK))

    async def machines(self, post: Post) -> list[dict[str, Any]]:
        """Return what is known of each machine that serves any of the queue's projects."""
        prefix, known = f"{self.place.name}:", {self.place.of(name): name for name in self.place.projects}
        rows = await post.run(lambda connection: connection.fetch(_MACHINES, prefix, [*known]))
        return [
            {
                "worker": row["worker"],
                "version": row["version"],
                "projects": [known.get(name, name.removeprefix(prefix)) for name in row["queues"]],
                "concurrency": row["concurrency"],
                "heard_at": f"{row['heard_at'].astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
                "jobs": json.loads(row["jobs"]),
            }
            for row in rows
        ]

    async def room(self, post: Post, project: str) -> int:
        """Return how many sessions of a project all machines together have room for that live."""
        return int(await post.run(lambda connection: connection.fetchval(_ROOM, self.place.of(project), GONE_S)))

    async def places(self, post: Post, project: str) -> int:
        """Return how many more of them would be taken up at once; below 0 where others wait already."""
        return int(await post.run(lambda connection: connection.fetchval(_PLACES, self.place.of(project), GONE_S)))


def place_of(file: PlanFile) -> Place:
    """Return where the queue of a plan with a fleet is. Pure."""
    fleet = file.fleet
    url = fleet.queue_url.get_secret_value() if fleet.queue_url else ""
    name = fleet.queue or f"{file.deploy.name}-migrations"
    return Place(url, name, fleet.job_timeout / 1000, tuple(file.projects))


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Queue]:
    """Open the queue for the length of a context, and make its tables where there are none.

    Raises:
        WorkerError: its database cannot be reached.
    """
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=place.url, **_POOL))
    try:
        async with app.open_async():
            if not await app.check_connection_async():
                await _make_tables(place.url, app.schema_manager.get_schema())
            yield Queue(app, place)
    except (ConnectorException, psycopg.Error) as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> WorkerError:
    # Procrastinate's own errors all say the same, and have the driver's as their cause.
    cause = error.__cause__ or error
    words = getattr(getattr(cause, "diag", None), "message_primary", None) or " ".join(str(cause).split())
    return WorkerError(f"the queue: {words}", hint="see `queue_url` in the plan")


async def _make_tables(url: str, schema: str) -> None:
    """Make the queue's tables, which two programs that begin at once must not do together."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(7340921067)")
        found = await (await connection.execute("SELECT to_regclass('procrastinate_jobs') IS NULL")).fetchone()
        if found == (True,):
            await connection.execute(schema.encode())
