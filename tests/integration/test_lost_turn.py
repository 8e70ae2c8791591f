"""What a lost worker has left at work in a database, while its lease has not expired yet."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import psycopg
import pytest

from smooth_migrations.lease import Owner
from smooth_migrations.protocol import Done, Event, Look, Standing, Step, Undo
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport import LocalTransport, Worker
from tests.support.django_connections import connected
from tests.support.leases import acquire
from tests.support.next_release import project_of
from tests.support.postgres_database import PostgresDatabase
from tests.support.scripted_workers import ignore, project_in

_RUN: Final = "20260101T000000-abc"
_ELSEWHERE: Final = Owner(_RUN, "web-9", 4711, "another machine", "1")
_SESSIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"


@pytest.mark.parametrize(
    ("since", "is_lost"), [(0, True), (-1, False), (None, False)], ids=["its own", "an earlier one", "unknown"]
)
def test_who_has_had_no_turn_after_a_lost_worker_is_no_stranger(
    pg_database: PostgresDatabase, tmp_path: Path, since: int | None, *, is_lost: bool
) -> None:
    project_of(tmp_path, pg_database)
    name = f"smooth:{_RUN}:default"
    with connected(pg_database.django) as connection:
        lease = acquire(connection, _ELSEWHERE)
    with psycopg.connect(pg_database.dsn, application_name=name) as session:
        session.execute("CREATE TABLE half_done (id int)")
        lost = None if since is None else lease.epoch + since

        standing = anyio.run(_look, tmp_path / "project", pg_database, lost)

        assert (standing.holder is None) is is_lost
        assert standing.epoch == lease.epoch
        with pg_database.connect() as other:
            assert other.execute(_SESSIONS, [name]).fetchone() == (0 if is_lost else 1,)
        if is_lost:
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")


async def _look(directory: Path, database: PostgresDatabase, lost: int | None) -> Standing:
    async with _at_work(directory, database) as worker:
        command = Look(id=worker.next_id(), database="shop", alias="default", deploy="shop", runs=(_RUN,), lost=lost)
        answer = await worker.call(command)
    assert isinstance(answer, Standing)
    return answer


async def _undo(directory: Path, database: PostgresDatabase, epoch: int) -> Event:
    async with _at_work(directory, database) as worker:
        command = Undo(
            id=worker.next_id(),
            database="shop",
            alias="default",
            deploy="shop",
            run_id=_RUN,
            steps=(Step("demo", "0001_item"),),
            epoch=epoch,
            discards=True,
        )
        return await worker.call(command)


@asynccontextmanager
async def _at_work(directory: Path, database: PostgresDatabase) -> AsyncIterator[Worker]:
    """Have a worker of the project for the length of a context."""
    databases = json.dumps({"default": database.django})
    environment = {**project_in(directory).env, "SMALL_DATABASES": databases}
    project = Project("one", directory, "small_settings", env=environment)
    async with LocalTransport().worker(project, on_output=ignore) as worker:
        await worker.set_up()
        yield worker


def test_what_a_lost_worker_has_committed_goes_back_once_its_turn_has_expired(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project_of(tmp_path, pg_database)
    with connected(pg_database.django) as connection:
        lease = acquire(connection, _ELSEWHERE, ttl_s=2.0)

    answer = anyio.run(_undo, tmp_path / "project", pg_database, lease.epoch)

    assert isinstance(answer, Done), answer
    with pg_database.connect() as session:
        assert session.execute("SELECT to_regclass('demo_item')").fetchone() == (None,)
