import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import psycopg
import pytest

from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal import Fenced, Journal, JournalDamaged, JournalUnsureError, RecordKind, open_journal
from smooth_orchestrator.journal.postgres import PostgresJournal
from tests.support.journal_contract import ELSEWHERE, JournalContract, begin
from tests.support.lossy_relay import LossyRelay
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import THROW_AWAY, PostgresServer

NOWHERE = Path("/nonexistent")


@pytest.fixture
async def journal(pg_database: PostgresDatabase) -> AsyncIterator[Journal]:
    async with open_journal(pg_database.dsn, directory=NOWHERE) as opened:
        yield opened


@pytest.fixture
async def other(journal: Journal, pg_database: PostgresDatabase) -> AsyncIterator[Journal]:
    """The same journal, opened again."""
    del journal
    async with open_journal(pg_database.dsn, directory=NOWHERE) as opened:
        yield opened


class TestPostgresJournal(JournalContract):
    """The contract on a server."""


async def test_a_record_is_seen_by_another_session_as_soon_as_append_returns(
    journal: Journal, pg_database: PostgresDatabase
) -> None:
    await journal.append("r1", RecordKind.DECISION, data={"decision": "commit"})

    with pg_database.connect() as other:
        rows = other.execute("SELECT run_id, kind, data FROM smooth_journal").fetchall()
    assert rows == [("r1", "decision", {"decision": "commit"})]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data = '[1'", "Expecting ',' delimiter"),
        ("data = '[1]'", "it is of the type list, and not dict"),
        ("kind = 'unheard'", "this program knows no records of the kind 'unheard'"),
    ],
)
async def test_a_damaged_record_is_named_by_its_place(
    journal: Journal, pg_database: PostgresDatabase, change: str, words: str
) -> None:
    await begin(journal, "r1")
    damaged = await journal.append("r1", RecordKind.DECISION, data={"decision": "commit", "scope": "deploy"})
    with pg_database.connect() as other:
        other.execute("ALTER TABLE smooth_journal DISABLE TRIGGER USER")
        # Such as a restored dump of another program may have it.
        other.execute("ALTER TABLE smooth_journal ALTER data TYPE text")
        other.execute(f"UPDATE smooth_journal SET {change} WHERE seq = {damaged.seq}".encode())

    with pytest.raises(JournalDamaged) as caught:
        await journal.records("r1")
    assert f": record {damaged.seq} is damaged: {words}" in str(caught.value)
    assert str(caught.value).startswith("postgresql://")
    assert [run.run_id for run in await journal.runs("shop")] == ["r1"]


async def test_every_commit_waits_for_the_disk_whatever_the_users_default(pg_database: PostgresDatabase) -> None:
    with pg_database.connect() as other:
        other.execute(f"ALTER DATABASE {pg_database.name} SET synchronous_commit TO off")
    async with open_journal(pg_database.dsn, directory=NOWHERE) as journal:
        with pg_database.connect() as other:
            # Sees the setting from within the appending transaction.
            other.execute("CREATE TABLE seen (setting text)")
            other.execute(
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$"
            )
            other.execute("CREATE TRIGGER note BEFORE INSERT ON smooth_journal FOR EACH ROW EXECUTE FUNCTION note()")
            await journal.append("r1", RecordKind.DECISION)

            assert other.execute("SELECT setting FROM seen").fetchall() == [("on",)]
            assert other.execute("SHOW synchronous_commit").fetchone() == ("off",)


@pytest.mark.parametrize(
    "statement", ["UPDATE smooth_journal SET run_id = 'x'", "DELETE FROM smooth_journal", "TRUNCATE smooth_journal"]
)
async def test_no_record_can_be_changed_or_deleted(
    journal: Journal, pg_database: PostgresDatabase, statement: str
) -> None:
    await journal.append("r1", RecordKind.DECISION)

    with pg_database.connect() as other, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        other.execute(statement.encode())


async def test_journals_opened_at_once_in_an_empty_database_all_succeed(pg_database: PostgresDatabase) -> None:
    async def use(number: int) -> None:
        async with open_journal(pg_database.dsn, directory=NOWHERE) as journal:
            await journal.append(f"r{number}", RecordKind.INTENT)

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(use, number)

    with pg_database.connect() as other:
        assert other.execute("SELECT count(*) FROM smooth_journal").fetchone() == (8,)


async def test_a_user_without_the_right_to_create_can_use_a_journal_that_is_there(
    journal: Journal, pg_database: PostgresDatabase
) -> None:
    role = f"clerk_{pg_database.name}"
    with pg_database.connect() as other:
        other.execute(f"CREATE ROLE {role} LOGIN")
        other.execute(f"GRANT SELECT, INSERT ON smooth_journal, smooth_journal_meta TO {role}")
        other.execute(f"GRANT USAGE ON SEQUENCE smooth_journal_seq_seq TO {role}")
        try:
            async with open_journal(_address(pg_database, user=role), directory=NOWHERE) as clerks:
                await clerks.append("r1", RecordKind.INTENT)
        finally:
            other.execute(f"DROP OWNED BY {role}")
            other.execute(f"DROP ROLE {role}")

    assert len(await journal.records("r1")) == 1


async def test_a_lease_without_a_heartbeat_expires_by_the_servers_clock(
    journal: Journal, other: Journal, pg_database: PostgresDatabase
) -> None:
    await journal.acquire("shop", ELSEWHERE)
    with pg_database.connect() as session:
        session.execute("UPDATE smooth_journal_lease SET expires_at = clock_timestamp()")

    await other.acquire("shop", Owner.here("r2"))

    with pytest.raises(Fenced):
        await journal.append("r1", RecordKind.INTENT)


async def test_a_journal_of_the_first_format_is_carried_on(pg_database: PostgresDatabase) -> None:
    async with open_journal(pg_database.dsn, directory=NOWHERE) as journal:
        await begin(journal, "r1")
    with pg_database.connect() as session:
        session.execute("DROP TABLE smooth_journal_lease; UPDATE smooth_journal_meta SET version = 1")

    async with open_journal(pg_database.dsn, directory=NOWHERE) as journal:
        await journal.acquire("shop", Owner.here("r2"))
        assert [run.run_id for run in await journal.runs("shop")] == ["r1"]


async def test_a_journal_of_a_newer_version_is_refused_with_a_way_out(pg_database: PostgresDatabase) -> None:
    async with open_journal(pg_database.dsn, directory=NOWHERE):
        pass
    with pg_database.connect() as other:
        other.execute("UPDATE smooth_journal_meta SET version = 99")

    error = await _refusal(pg_database.dsn)
    assert "format 99" in error.message
    assert "use the smooth-orchestrator that wrote it" in str(error.hint)


async def test_a_journal_that_nobody_can_read_is_refused_with_a_way_out(
    journal: Journal, pg_database: PostgresDatabase
) -> None:
    await journal.aclose()
    with pg_database.connect() as other:
        other.execute("DELETE FROM smooth_journal_meta")

    with pytest.raises(JournalError, match="smooth_journal_meta is empty") as raised:
        await PostgresJournal.open(pg_database.dsn)
    assert raised.value.hint is not None


async def test_who_only_looks_makes_no_tables(pg_database: PostgresDatabase) -> None:
    async with open_journal(pg_database.dsn, directory=NOWHERE, makes_file=False) as journal:
        assert await journal.runs("shop") == ()

    with pg_database.connect() as other:
        assert other.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'smooth%'").fetchone() == (0,)


async def test_records_that_come_at_once_share_transactions_and_keep_their_order(
    journal: Journal, pg_database: PostgresDatabase
) -> None:
    await journal.acquire("shop", Owner.here("r1"))
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(partial(journal.append, "r1", RecordKind.INTENT, database=f"db_{number}"))

    with pg_database.connect() as other:
        names = other.execute("SELECT database FROM smooth_journal ORDER BY seq").fetchall()
        writers = other.execute("SELECT count(DISTINCT xmin::text) FROM smooth_journal").fetchone()
    assert names == [(f"db_{number}",) for number in range(100)]
    assert writers == (1,)


async def test_a_session_ended_by_the_server_is_opened_again(journal: Journal, pg_database: PostgresDatabase) -> None:
    await journal.append("r1", RecordKind.INTENT)
    _end_sessions(pg_database)
    await journal.append("r1", RecordKind.DECISION)
    _end_sessions(pg_database)

    assert [record.kind for record in await journal.records("r1")] == [RecordKind.INTENT, RecordKind.DECISION]


async def test_a_record_whose_answer_was_lost_is_written_once(pg_database: PostgresDatabase) -> None:
    async with LossyRelay(pg_database.server.port) as relay:
        journal = await PostgresJournal.open(_address(pg_database, port=relay.port))
        relay.lose_answer_to(b"COMMIT")
        record = await journal.append("r1", RecordKind.DECISION, data={"decision": "commit"})
        await journal.aclose()

    assert relay.lost == 1
    with pg_database.connect() as other:
        assert other.execute("SELECT seq FROM smooth_journal").fetchall() == [(record.seq,)]


async def test_a_record_whose_server_stays_away_is_unsure_and_asks_for_an_operator(
    pg_database: PostgresDatabase,
) -> None:
    async with LossyRelay(pg_database.server.port) as relay:
        journal = await PostgresJournal.open(_address(pg_database, port=relay.port), patience_s=0.3)
        relay.lose_answer_to(b"COMMIT", stay_away=True)
        with pytest.raises(JournalUnsureError, match="cannot be told") as caught:
            await journal.append("r1", RecordKind.DECISION)
        await journal.aclose()

    assert caught.value.exit_code == 4


async def test_a_server_that_is_away_before_a_record_was_sent_is_no_doubt(pg_database: PostgresDatabase) -> None:
    async with LossyRelay(pg_database.server.port) as relay:
        journal = await PostgresJournal.open(_address(pg_database, port=relay.port), patience_s=0.3)
        await journal.append("r1", RecordKind.INTENT)
        relay.lose_answer_to(b"smooth_journal WHERE run_id", stay_away=True)
        with pytest.raises(JournalError):
            await journal.records("r1")
        with pytest.raises(JournalError) as caught:
            await journal.append("r1", RecordKind.DECISION)
        await journal.aclose()

    assert caught.value.exit_code == 3


async def test_an_unreachable_server_is_named_without_the_password(closed_port: int) -> None:
    error = await _refusal(f"postgresql://user:hunter2-secret@127.0.0.1:{closed_port}/db?password=other-secret")

    assert error.message.startswith(f"postgresql://user@127.0.0.1:{closed_port}/db: ")
    assert "secret" not in f"{error.message} {error.hint}"
    assert "see that the server is up" in str(error.hint)


async def test_a_missing_database_is_an_error_in_the_servers_words(pg_database: PostgresDatabase) -> None:
    error = await _refusal(urlsplit(pg_database.dsn)._replace(path="/no_such_database").geturl())

    assert 'database "no_such_database" does not exist' in error.message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host:port/db",
        "postgresql://127.0.0.1:99999/db",
        "postgresql://h/db?sslmode=perhaps",
        "postgres://[::1/db",
    ],
)
async def test_an_address_that_cannot_be_read_is_refused(url: str) -> None:
    assert (await _refusal(url)).exit_code == 3


async def test_a_password_may_come_from_the_environment(
    scram_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", scram_server.password or "")

    async with open_journal(f"postgresql://postgres@127.0.0.1:{scram_server.port}", directory=NOWHERE) as journal:
        assert await journal.records("r1") == ()


async def test_a_wrong_password_is_an_error_that_does_not_repeat_it(scram_server: PostgresServer) -> None:
    error = await _refusal(scram_server.dsn(password=f"hunter2-{uuid4()}-secret"))

    assert "password authentication failed" in error.message
    assert "secret" not in f"{error.message} {error.hint}"


@pytest.fixture(scope="module")
def scram_server() -> Iterator[PostgresServer]:
    with PostgresServer(auth="scram", settings=THROW_AWAY) as server:
        yield server


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken but not listened on, so that nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def _address(database: PostgresDatabase, **changes: object) -> str:
    parts = urlsplit(database.dsn)
    user, port = changes.get("user", parts.username), changes.get("port", parts.port)
    return f"postgresql://{user}@127.0.0.1:{port}/{database.name}"


def _end_sessions(database: PostgresDatabase) -> None:
    with database.connect() as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'smooth-orchestrate journal'"
        )


async def _refusal(url: str) -> JournalError:
    with pytest.raises(JournalError) as caught:
        async with open_journal(url, directory=NOWHERE):
            pass
    return caught.value
