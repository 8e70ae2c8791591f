"""Messages by way of a database: each arrives once, in order, whatever becomes of connections and answers."""

from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from smooth_orchestrator.remote import post
from smooth_orchestrator.remote.post import Post, PostError, Side
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio

_SESSION = "a1"
_TEXTS = [f"text {number}" for number in range(60)]
_WRITES = "WITH sent AS"
_READS = "SELECT m.session, m.seq"
_LISTENED_TO = "SELECT count(*) FROM pg_listening_channels()"
_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'smooth-orchestrate %'
"""

# A sequence keeps what it has counted where the transaction is rolled back.
_FAILS_TWICE = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('tries') <= 2 THEN RAISE EXCEPTION 'not now' USING ERRCODE = 'CODE'; END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER fails AFTER INSERT ON smooth_fleet_message FOR EACH STATEMENT EXECUTE FUNCTION fail();
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def queue(pg_server: PostgresServer) -> Iterator[PostgresDatabase]:
    with temporary_database(pg_server) as database:
        yield database


class _Reader:
    """Keeps what arrives, and tells when there are so many."""

    def __init__(self, count: int) -> None:
        self.texts: list[str] = []
        self._count = count
        self._full = anyio.Event()

    def take(self, text: str) -> None:
        self.texts.append(text)
        if len(self.texts) == self._count:
            self._full.set()

    async def wait(self) -> None:
        with anyio.fail_after(30):
            await self._full.wait()


def _through(queue: PostgresDatabase, proxy: FaultProxy) -> str:
    return queue.dsn.replace(f":{queue.server.port}/", f":{proxy.port}/")


@pytest.mark.parametrize("harm", [Harm.REQUEST_LOST, Harm.REPLY_LOST, Harm.HALF_CLOSED, Harm.REQUEST_LATE])
@pytest.mark.parametrize("statement", [_WRITES, _READS])
async def test_each_arrives_once_and_in_order(queue: PostgresDatabase, statement: str, harm: Harm) -> None:
    reader = _Reader(len(_TEXTS))
    with FaultProxy(queue.server.port) as proxy:
        url = _through(queue, proxy)
        async with Post(url, Side.COORDINATOR).open() as ours, Post(url, Side.WORKER).open() as theirs:
            await ours.begin(_SESSION, "shop")
            await ours.join(_SESSION, _Reader(0).take)
            await theirs.join(_SESSION, reader.take)
            for nth in (1, 3):
                proxy.arm(Fault(statement, harm, nth=nth))
            for number, text in enumerate(_TEXTS):
                ours.send(_SESSION, text)
                if number % 7 == 0:
                    await ours.sent(_SESSION)
            await reader.wait()
            await ours.sent(_SESSION)

    assert reader.texts == _TEXTS
    with queue.connect() as session:
        stored = session.execute("SELECT body FROM smooth_fleet_message ORDER BY seq").fetchall()
    assert [text for (text,) in stored] == _TEXTS


async def test_what_a_server_had_committed_and_lost_is_sent_again(queue: PostgresDatabase) -> None:
    reader = _Reader(7)
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        await ours.begin(_SESSION, "shop")
        await ours.join(_SESSION, _Reader(0).take)
        for text in _TEXTS[:5]:
            ours.send(_SESSION, text)
        await ours.sent(_SESSION)
        # As after a crash where commits do not wait for the disk, or with a standby in the server's place.
        with queue.connect() as session:
            session.execute("DELETE FROM smooth_fleet_message WHERE seq > 2")
            session.execute(_CUT)
        for text in _TEXTS[5:7]:
            ours.send(_SESSION, text)
        await theirs.join(_SESSION, reader.take)
        await reader.wait()

    assert reader.texts == _TEXTS[:7]


async def test_what_was_sent_first_tells_which_of_two_has_a_session(queue: PostgresDatabase) -> None:
    async with Post(queue.dsn, Side.WORKER).open() as one, Post(queue.dsn, Side.WORKER).open() as other:
        await one.begin(_SESSION, "shop")
        for post, text in ((one, "mine"), (other, "mine too")):
            await post.join(_SESSION, _Reader(0).take)
            post.send(_SESSION, text)
            await post.sent(_SESSION)

        assert [await post.first(_SESSION) for post in (one, other)] == ["mine", "mine"]
        await one.end(_SESSION)
        assert await one.first(_SESSION) is None


async def test_what_is_sent_before_the_other_side_listens_is_not_lost(queue: PostgresDatabase) -> None:
    reader = _Reader(2)
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        await ours.begin(_SESSION, "shop")
        await ours.join(_SESSION, _Reader(0).take)
        ours.send(_SESSION, "first")
        await ours.sent(_SESSION)
        await theirs.join(_SESSION, reader.take)
        ours.send(_SESSION, "second")
        await reader.wait()

    assert reader.texts == ["first", "second"]


async def test_a_session_that_has_ended_takes_nothing_more(queue: PostgresDatabase) -> None:
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        await ours.begin(_SESSION, "shop")
        await theirs.join(_SESSION, _Reader(0).take)
        assert await theirs.living([_SESSION]) == {_SESSION}
        await ours.end(_SESSION)

        theirs.send(_SESSION, "too late")
        await theirs.sent(_SESSION)

        assert await theirs.living([_SESSION]) == frozenset()
    with queue.connect() as session:
        assert session.execute("SELECT * FROM smooth_fleet_message").fetchall() == []


async def test_a_database_that_stays_away_is_told_of(queue: PostgresDatabase) -> None:
    with FaultProxy(queue.server.port) as proxy:
        async with Post(_through(queue, proxy), Side.COORDINATOR, patience_s=0.5).open() as ours:
            proxy.refuse()
            with pytest.raises(PostError) as caught:
                await ours.begin(_SESSION, "shop")

    assert (caught.value.code, caught.value.exit_code) == ("queue_unreachable", 3)
    assert caught.value.message.startswith("the queue's database: ")


@pytest.mark.parametrize("state", ["40P01", "55P03", "53100", "53200"])
async def test_what_passes_by_itself_keeps_no_message_back(queue: PostgresDatabase, state: str) -> None:
    reader = _Reader(1)
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        await ours.begin(_SESSION, "shop")
        await ours.join(_SESSION, _Reader(0).take)
        await theirs.join(_SESSION, reader.take)
        with queue.connect() as session:
            session.execute(_FAILS_TWICE.replace("'CODE'", f"'{state}'").encode())
        ours.send(_SESSION, "text")
        await reader.wait()

    assert reader.texts == ["text"]
    with queue.connect() as session:
        assert session.execute("SELECT last_value FROM tries").fetchone() == (3,)


async def test_what_waits_in_several_sessions_is_written_by_one_transaction(queue: PostgresDatabase) -> None:
    names = [f"s{number}" for number in range(5)]
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours:
        for name in names:
            await ours.begin(name, "shop")
            await ours.join(name, _Reader(0).take)
        for text in ("first", "second"):
            for name in names:
                ours.send(name, text)
        for name in names:
            await ours.sent(name)

    with queue.connect() as session:
        found = session.execute("SELECT session, seq, body FROM smooth_fleet_message ORDER BY 1, 2").fetchall()
        writers = session.execute("SELECT count(DISTINCT xmin::text) FROM smooth_fleet_message").fetchone()
    assert found == [(name, number, text) for name in names for number, text in ((1, "first"), (2, "second"))]
    assert writers == (1,)


async def test_a_session_that_has_ended_keeps_nothing_from_the_others(queue: PostgresDatabase) -> None:
    reader = _Reader(1)
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        for name in ("over", "goes_on"):
            await ours.begin(name, "shop")
            await theirs.join(name, _Reader(0).take)
        await ours.join("goes_on", reader.take)
        await ours.end("over")

        theirs.send("over", "too late")
        theirs.send("goes_on", "in time")
        await reader.wait()

    assert reader.texts == ["in time"]


async def test_what_nobody_waits_for_goes_along_with_what_comes_next(
    queue: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "_LINGER_S", 3600)
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours:
        for name in (_SESSION, "a2"):
            await ours.begin(name, "shop")
            await ours.join(name, _Reader(0).take)
        ours.send(_SESSION, "first", is_urgent=False)
        # Another statement of the same connection, before which all that does not linger would have been written.
        assert await ours.living(["a2"]) == frozenset({"a2"})
        with queue.connect() as session:
            assert session.execute("SELECT body FROM smooth_fleet_message").fetchall() == []
        ours.send("a2", "second")
        for name in (_SESSION, "a2"):
            await ours.sent(name)

    with queue.connect() as session:
        found = session.execute("SELECT body FROM smooth_fleet_message ORDER BY session").fetchall()
        writers = session.execute("SELECT count(DISTINCT xmin::text) FROM smooth_fleet_message").fetchone()
    assert (found, writers) == ([("first",), ("second",)], (1,))


async def test_what_nobody_waits_for_is_written_by_itself_too(queue: PostgresDatabase) -> None:
    reader = _Reader(1)
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        await ours.begin(_SESSION, "shop")
        await ours.join(_SESSION, reader.take)
        await theirs.join(_SESSION, _Reader(0).take)

        theirs.send(_SESSION, "alone", is_urgent=False)
        await reader.wait()

    assert reader.texts == ["alone"]


async def _listens_to(post: Post, count: int) -> None:
    """Wait until a post listens in so many sessions, which its own connection alone can tell."""
    with anyio.fail_after(10):
        while await post.run(lambda connection: connection.fetchval(_LISTENED_TO)) != count:
            await anyio.lowlevel.checkpoint()


async def test_a_session_that_was_left_is_listened_to_no_more(queue: PostgresDatabase) -> None:
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        for name in ("over", "goes_on", "ended"):
            await ours.begin(name, "shop")
            await theirs.join(name, _Reader(0).take)
        await _listens_to(theirs, 3)

        theirs.leave("over")
        await theirs.end("ended")

        await _listens_to(theirs, 1)


async def test_a_session_that_was_left_and_joined_again_is_listened_to(
    queue: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "_LOOK_S", 3600)
    reader = _Reader(1)
    async with Post(queue.dsn, Side.COORDINATOR).open() as ours, Post(queue.dsn, Side.WORKER).open() as theirs:
        for name in (_SESSION, "over"):
            await ours.begin(name, "shop")
            await ours.join(name, _Reader(0).take)
            await theirs.join(name, _Reader(0).take)
        for name in (_SESSION, "over"):
            theirs.leave(name)
        await theirs.join(_SESSION, reader.take)
        await _listens_to(theirs, 1)

        ours.send(_SESSION, "heard")
        await reader.wait()

    assert reader.texts == ["heard"]
