"""Workers as sessions of a machine of a fleet, by a real queue: what every transport promises, and what is more."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import pytest

from smooth_migrations.protocol import Done
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.logs import apart, bind_run
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.remote.machine import Machine
from smooth_orchestrator.remote.post import Post, Side
from smooth_orchestrator.remote.queue import Place, opened
from smooth_orchestrator.remote.transport import QueueTransport
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import OutputLine, WorkerTransport
from smooth_orchestrator.transport.beside import beside
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.scripted_workers import ECHO, OF_A_FLEET, fetch, ignore, project_in, running, scripted
from tests.support.transport_contract import Speaking, TransportContract, at_work

_READER: Final = "greet(); hear()"
_ROOM: Final = "SELECT sum(concurrency)::int FROM smooth_fleet_machine"
_LEFT: Final = """
    SELECT (SELECT count(*) FROM smooth_fleet_session), (SELECT count(*) FROM smooth_fleet_message),
           (SELECT count(*) FROM procrastinate_jobs)
"""


@pytest.fixture
def queue(pg_server: PostgresServer) -> Iterator[PostgresDatabase]:
    """The database of a queue."""
    with temporary_database(pg_server) as database:
        yield database


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_in(tmp_path)


class _Held(Post):
    """A machine's post that keeps one answer back, of whether the coordinators of sessions live.

    Args:
        url: of the queue's database.
        nth: which answer that is of those about the session that is asked about first.
    """

    def __init__(self, url: str, nth: int) -> None:
        super().__init__(url, Side.WORKER)
        self.asked = anyio.Event()
        self.go = anyio.Event()
        self.gone_on = anyio.Event()
        self._first = ""
        self._left = nth

    async def living(self, sessions: Sequence[str]) -> frozenset[str]:
        """Answer, and set `asked` and wait for `go` before the one; `gone_on` tells that there is a later one."""
        found = await super().living(sessions)
        self._first = self._first or sessions[0]
        if self._first in sessions:
            self._left -= 1
            if self._left == 0:
                self.asked.set()
                await self.go.wait()
            elif self._left < 0:
                self.gone_on.set()
        return found


class _Away(Post):
    """A machine's post that gets no more answers of whether coordinators live, once `is_away` is set."""

    is_away = False

    async def living(self, sessions: Sequence[str]) -> frozenset[str]:
        """Answer, or never."""
        if self.is_away:
            await anyio.sleep_forever()
        return await super().living(sessions)


@asynccontextmanager
async def _machine(
    queue: PostgresDatabase,
    projects: Sequence[Project],
    local: WorkerTransport,
    *,
    concurrency: int = 2,
    by: Post | None = None,
    draining: anyio.Event | None = None,
) -> AsyncIterator[Machine]:
    """Have a machine for the length of a context, or until it is to drain."""
    place = _place(queue)
    async with (by or Post(place.url, Side.WORKER)).open() as post, opened(place) as found, beside() as tasks:
        machine = Machine({each.name: each for each in projects}, found, post, concurrency, Masker(), local)
        drains, drained = draining or anyio.Event(), anyio.Event()

        async def serve() -> None:
            await machine.serve(drains)
            drained.set()

        tasks.start(serve)
        try:
            yield machine
        finally:
            drains.set()
            with anyio.fail_after(30, shield=True):
                await drained.wait()


def _script(
    project: Project, script: str, *, start_timeout_s: float = 30.0, stop_timeout_s: float = 10.0
) -> WorkerTransport:
    path = project.path / "worker.py"
    return scripted(path, script, prelude=OF_A_FLEET, start_timeout_s=start_timeout_s, stop_timeout_s=stop_timeout_s)


def _place(queue: PostgresDatabase) -> Place:
    return Place(queue.dsn, "contract", 120.0)


def _coordinator(queue: PostgresDatabase, project: Project, *, start_timeout_s: float = 60.0) -> QueueTransport:
    reader = scripted(project.path / "reader.py", _READER, prelude=OF_A_FLEET)
    return QueueTransport(_place(queue), reader, start_timeout_s=start_timeout_s)


@pytest.fixture
def speaking(queue: PostgresDatabase, project: Project) -> Speaking:
    """Have a machine of a fleet whose workers run a script."""

    @asynccontextmanager
    async def start(
        script: str, *, start_timeout_s: float = 30.0, stop_timeout_s: float = 10.0
    ) -> AsyncIterator[WorkerTransport]:
        local = _script(project, script, start_timeout_s=start_timeout_s, stop_timeout_s=stop_timeout_s)
        async with _machine(queue, [project], local), _coordinator(queue, project).open() as transport:
            yield transport

    return start


class TestQueueTransport(TransportContract):
    """The transport of a fleet."""


async def test_a_worker_is_named_by_its_machine(queue: PostgresDatabase, project: Project) -> None:
    async with (
        _machine(queue, [project], _script(project, ECHO)) as machine,
        _coordinator(queue, project).open() as transport,
        at_work(transport, project) as worker,
    ):
        assert worker.machine == machine.name
        worker.kill()
        assert str(worker.loss) == f"project shop: the worker on {machine.name} was given up"


async def test_there_is_a_place_until_all_are_taken(queue: PostgresDatabase, project: Project) -> None:
    async with (
        _machine(queue, [project], _script(project, ECHO), concurrency=2),
        _coordinator(queue, project).open() as transport,
        at_work(transport, project),
    ):
        assert (await transport.most(project), await transport.has_place(project)) == (2, True)
        async with at_work(transport, project):
            assert (await transport.most(project), await transport.has_place(project)) == (2, False)


async def test_a_cancelled_run_has_its_workers_stopped_and_heard(queue: PostgresDatabase, project: Project) -> None:
    script = "greet(); say(Done(id=hear().id)); assert isinstance(hear(), Stop); print('rolled back')"
    lines: list[OutputLine] = []
    async with _machine(queue, [project], _script(project, script)):
        with anyio.CancelScope() as scope:
            async with (
                _coordinator(queue, project).open() as transport,
                at_work(transport, project, on_output=lines.append) as worker,
            ):
                assert await worker.call(fetch(1)) == Done(id=1)
                scope.cancel()
                await anyio.sleep_forever()
        assert [line.line for line in lines] == ["rolled back"]
        assert not running(worker.pid)
    with queue.connect() as session:
        assert session.execute(_LEFT).fetchall() == [(0, 0, 0)]


async def test_what_the_body_of_the_connection_raises_comes_out_as_it_was_raised(
    queue: PostgresDatabase, project: Project
) -> None:
    error = LookupError("ours")
    with pytest.raises(LookupError) as caught:
        async with _coordinator(queue, project).open():
            raise error
    assert caught.value is error


async def test_who_finds_no_room_is_told_who_has_it(queue: PostgresDatabase, project: Project) -> None:
    other = replace(project, name="billing")
    with apart(Masker()):
        bind_run("friday", "shop")
        async with (
            _machine(queue, [project, other], _script(project, ECHO), concurrency=1) as machine,
            _coordinator(queue, project, start_timeout_s=1.0).open() as transport,
            at_work(transport, project),
        ):
            async with transport.worker(other, on_output=ignore) as worker:
                with pytest.raises(WorkerError) as caught:
                    await worker.set_up()
            assert caught.value.message == (
                "project billing: no machine of the fleet has taken up work within 1 s:"
                f" {machine.name}, with room for 1, is at shop for the run friday"
            )
            with queue.connect() as session:
                assert session.execute("SELECT args->>'project' FROM procrastinate_jobs").fetchall() == [("shop",)]


async def test_a_worker_that_nobody_has_begun_is_not_waited_for(queue: PostgresDatabase, project: Project) -> None:
    async with (
        _machine(queue, [project], _script(project, ECHO)),
        _coordinator(queue, project).open() as transport,
        at_work(transport, project),
        at_work(transport, project),
    ):
        async with transport.worker(project, on_output=ignore) as third:
            with queue.connect() as session:
                while not session.execute("SELECT FROM procrastinate_jobs WHERE status = 'todo'").fetchall():
                    await anyio.lowlevel.checkpoint()
        assert third.is_lost
        with queue.connect() as session:
            assert session.execute("SELECT count(*) FROM procrastinate_jobs").fetchall() == [(2,)]


async def test_a_session_that_begins_while_others_are_looked_after_goes_on(
    queue: PostgresDatabase, project: Project
) -> None:
    post = _Held(queue.dsn, nth=2)
    async with (
        _machine(queue, [project], _script(project, ECHO), by=post),
        _coordinator(queue, project).open() as transport,
        at_work(transport, project),
    ):
        await post.asked.wait()
        async with at_work(transport, project) as worker:
            post.go.set()
            await post.gone_on.wait()
            with anyio.fail_after(30):
                assert await worker.call(fetch(1)) == Done(id=1)


async def test_a_session_that_a_machine_was_given_before_it_was_told_to_stop_ends(
    queue: PostgresDatabase, project: Project
) -> None:
    post, draining = _Held(queue.dsn, nth=1), anyio.Event()
    async with (
        _machine(queue, [project], _script(project, ECHO), by=post, draining=draining),
        _coordinator(queue, project).open() as transport,
        transport.worker(project, on_output=ignore) as worker,
    ):
        await post.asked.wait()
        draining.set()
        # By its own connection: what it does once it has written that is done by then.
        while await post.run(lambda connection: connection.fetchval(_ROOM)):
            await anyio.lowlevel.checkpoint()
        post.go.set()
        with anyio.fail_after(15):
            loss = await worker.lost()
    assert loss.ending == "was ended by its machine, which is to stop"


async def test_a_machine_that_is_to_stop_waits_no_longer_for_a_queue_that_is_away(
    queue: PostgresDatabase, project: Project
) -> None:
    post = _Away(queue.dsn, Side.WORKER)
    async with _machine(queue, [project], _script(project, ECHO), by=post):
        async with _coordinator(queue, project).open() as transport, at_work(transport, project) as worker:
            post.is_away = True
        assert worker.is_lost
    with queue.connect() as session:
        assert session.execute(_LEFT).fetchall() == [(0, 0, 0)]
