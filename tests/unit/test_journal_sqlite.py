import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal import Fenced, Journal, RecordKind, open_journal
from smooth_orchestrator.journal.sqlite import SqliteJournal
from tests.support.journal_contract import ELSEWHERE, JournalContract, begin

URL = "sqlite:///.smooth/journal.db"
NOBODY = 65534


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(URL, directory=tmp_path) as opened:
        yield opened


@pytest.fixture
async def other(journal: Journal, tmp_path: Path) -> AsyncIterator[Journal]:
    """The same journal, opened again."""
    del journal
    async with open_journal(URL, directory=tmp_path) as opened:
        yield opened


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that everybody may read and only its owner change."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


class TestSqliteJournal(JournalContract):
    """The contract on a file."""


async def test_the_file_and_the_directory_made_for_it_are_the_owners_alone(journal: Journal, tmp_path: Path) -> None:
    await journal.append("r1", RecordKind.INTENT)

    assert stat.S_IMODE((tmp_path / ".smooth").stat().st_mode) == 0o700
    files = list((tmp_path / ".smooth").iterdir())
    assert {file.name for file in files} == {"journal.db", "journal.db-wal", "journal.db-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_record_is_seen_by_another_connection_as_soon_as_append_returns(
    journal: Journal, tmp_path: Path
) -> None:
    await journal.append("r1", RecordKind.DECISION, data={"decision": "commit"})

    with closing(sqlite3.connect(tmp_path / ".smooth/journal.db")) as other:
        assert other.execute("SELECT run_id, kind, data FROM journal").fetchall() == [
            ("r1", "decision", '{"decision": "commit"}')
        ]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_record_outlives_a_process_that_is_killed_after_append_returned(tmp_path: Path) -> None:
    program = f"""
import anyio, os, signal
from pathlib import Path
from smooth_orchestrator.journal import RecordKind, open_journal

async def main():
    async with open_journal({URL!r}, directory=Path({str(tmp_path)!r})) as journal:
        await journal.append("r1", RecordKind.DECISION, data={{"decision": "commit"}})
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""
    killed = await anyio.run_process([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL

    async with open_journal(URL, directory=tmp_path) as journal:
        (record,) = await journal.records("r1")
    assert record.data == {"decision": "commit"}


async def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path / "journal.db")

    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    await journal.aclose()


@pytest.mark.parametrize("statement", ["UPDATE journal SET run_id = 'x'", "DELETE FROM journal"])
async def test_no_record_can_be_changed_or_deleted(journal: Journal, tmp_path: Path, statement: str) -> None:
    await journal.append("r1", RecordKind.DECISION)

    with (
        closing(sqlite3.connect(tmp_path / ".smooth/journal.db")) as other,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        other.execute(statement)


async def test_processes_that_make_the_same_journal_at_once_all_succeed(tmp_path: Path) -> None:
    program = f"""
import anyio
from pathlib import Path
from smooth_orchestrator.journal import RecordKind, open_journal

async def main():
    async with open_journal({URL!r}, directory=Path({str(tmp_path)!r})) as journal:
        for _ in range(5):
            await journal.append("r1", RecordKind.INTENT)

anyio.run(main)
"""
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(anyio.run_process, [sys.executable, "-c", program])

    async with open_journal(URL, directory=tmp_path) as journal:
        assert len(await journal.records("r1")) == 20


async def test_a_relative_file_is_relative_to_the_directory_and_an_absolute_one_is_not(tmp_path: Path) -> None:
    async with open_journal("sqlite:///a%20b.db", directory=tmp_path / "plans"):
        assert (tmp_path / "plans/a b.db").is_file()
    async with open_journal(f"sqlite:///{tmp_path}/absolute?#.db", directory=tmp_path / "plans"):
        assert (tmp_path / "absolute?#.db").is_file()


async def test_a_journal_opened_again_keeps_its_records(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_journal(URL, directory=tmp_path) as journal:
            await journal.append("r1", RecordKind.INTENT)

    async with open_journal(URL, directory=tmp_path) as journal:
        assert len(await journal.records("r1")) == 2


async def test_a_lease_without_a_heartbeat_expires(journal: Journal, other: Journal, tmp_path: Path) -> None:
    await journal.acquire("shop", ELSEWHERE)
    with closing(sqlite3.connect(tmp_path / ".smooth/journal.db")) as session, session:
        session.execute("UPDATE lease SET expires_at = ?", [datetime.now(UTC).isoformat(timespec="microseconds")])

    await other.acquire("shop", Owner.here("r2"))

    with pytest.raises(Fenced):
        await journal.append("r1", RecordKind.INTENT)


async def test_a_journal_of_the_first_format_is_carried_on(tmp_path: Path) -> None:
    async with open_journal(URL, directory=tmp_path) as journal:
        await begin(journal, "r1")
    with closing(sqlite3.connect(tmp_path / ".smooth/journal.db")) as session:
        session.executescript("DROP TABLE lease; PRAGMA user_version = 1")

    async with open_journal(URL, directory=tmp_path) as journal:
        await journal.acquire("shop", Owner.here("r2"))
        assert [run.run_id for run in await journal.runs("shop")] == ["r1"]


async def test_a_journal_of_a_newer_version_is_refused_with_a_way_out(tmp_path: Path) -> None:
    async with open_journal(URL, directory=tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / ".smooth/journal.db")) as other:
        other.execute("PRAGMA user_version = 99")

    error = await _refusal(URL, tmp_path)
    assert "format 99" in error.message
    assert "use the smooth-orchestrator that wrote it" in str(error.hint)


async def test_somebody_elses_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as other:
        other.execute("CREATE TABLE orders (id INTEGER)")
    before = (tmp_path / "app.db").read_bytes()

    error = await _refusal("sqlite:///app.db", tmp_path)

    assert error.message == f"{tmp_path / 'app.db'}: this is not a journal"
    assert (tmp_path / "app.db").read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("not a database, but long enough to be read as one\n" * 100)

    error = await _refusal("sqlite:///journal.db", tmp_path)
    assert error.message == f"{tmp_path / 'journal.db'}: file is not a database"
    assert error.hint


async def test_a_file_damaged_within_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal("sqlite:///journal.db", directory=tmp_path) as journal:
        for _ in range(50):
            await journal.append("r1", RecordKind.STEP, data={"text": "x" * 500})
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))

    with pytest.raises(JournalError, match="malformed") as caught:
        async with open_journal("sqlite:///journal.db", directory=tmp_path) as journal:
            await journal.records("r1")
    assert str(path) in caught.value.message
    assert "recover" in str(caught.value.hint)


async def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()

    error = await _refusal("sqlite:///journal.db", tmp_path)
    assert error.message == f"{tmp_path / 'journal.db'}: this is a directory"


async def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".smooth").write_text("")

    error = await _refusal(URL, tmp_path)
    assert str(tmp_path / ".smooth") in error.message


@pytest.mark.usefixtures("unprivileged")
async def test_a_directory_that_cannot_be_written_to_is_refused(outside: Path) -> None:
    error = await _refusal(URL, outside)

    assert error.message == f"{outside / '.smooth'}: Permission denied"
    assert "may write" in str(error.hint)


@pytest.mark.parametrize("makes_file", [True, False])
@pytest.mark.usefixtures("closed_directory", "unprivileged")
async def test_a_directory_that_may_not_be_entered_is_refused_also_by_who_only_reads(
    outside: Path, *, makes_file: bool
) -> None:
    error = await _refusal(URL, outside, makes_file=makes_file)

    assert error.message == f"{outside / '.smooth/journal.db'}: Permission denied"
    assert "may write" in str(error.hint)


@pytest.mark.usefixtures("read_only_journal", "unprivileged")
async def test_a_file_that_cannot_be_written_to_is_refused_before_anything_is_journalled(outside: Path) -> None:
    error = await _refusal("sqlite:///journal.db", outside)

    assert error.message.startswith(str(outside / "journal.db"))
    assert "may write" in str(error.hint)


@pytest.mark.parametrize("url", ["mysql://host/db", "journal.db", "", "sqlite://", "sqlite:///", "sqlite://journal.db"])
async def test_an_address_of_no_known_kind_is_refused_with_examples(tmp_path: Path, url: str) -> None:
    error = await _refusal(url, tmp_path)

    assert "sqlite:///relative/file" in str(error.hint)


@pytest.fixture
def closed_directory(outside: Path) -> None:
    (outside / ".smooth").mkdir(mode=0)


@pytest.fixture
async def read_only_journal(outside: Path) -> None:
    async with open_journal("sqlite:///journal.db", directory=outside):
        pass
    (outside / "journal.db").chmod(0o444)


@pytest.fixture
def unprivileged(outside: Path) -> Iterator[None]:
    """Act as a user who may not write there: root by becoming nobody, anybody else by the directory's mode."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        yield
        os.seteuid(0)
    else:
        outside.chmod(0o555)
        yield
        outside.chmod(0o755)


async def _refusal(url: str, directory: Path, *, makes_file: bool = True) -> JournalError:
    with pytest.raises(JournalError) as caught:
        async with open_journal(url, directory=directory, makes_file=makes_file):
            pass
    assert caught.value.exit_code == 3
    return caught.value
