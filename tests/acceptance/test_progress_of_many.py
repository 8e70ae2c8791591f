"""What a person sees at a terminal of a deploy of many real databases: whom it waits for, what failed, how it ended."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg
import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.processes import words_of
from tests.support.runs import SCRIPT
from tests.support.small_migrations import ITEM, NOTE
from tests.support.terminals import terminal, why_no_terminal

_PROGRAM = shlex.quote(SCRIPT)
_BROKEN, _HELD = 15, 40
_REPORT = "smooth-orchestrate report PLAN"
# Two hundred databases on a machine with other things to do.
_PATIENCE_S = 120
_HEAD = ["database", "state", "run", "for", "at"]
_COUNTED = re.compile(r"\d+ [a-z ]+(, \d+ [a-z ]+)*")
_WAITS = "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(why_no_terminal() is not None, reason=str(why_no_terminal())),
    pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)], ids=["80x24", "200x50"]),
]


@pytest.fixture(scope="module", params=[pytest.param(60, id="60"), pytest.param(200, id="200", marks=pytest.mark.long)])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyDatabases]:
    release = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
    server = PostgresServer(max_prepared_transactions=request.param, settings=THROW_AWAY)
    with server, many_databases(tmp_path_factory.mktemp("many"), [server], request.param, release) as found:
        found.plan(deploy='lock_timeout = "5min"')
        yield found


@contextmanager
def _held(database: PostgresDatabase, name: str) -> Iterator[psycopg.Connection]:
    """Hold a lock that its migration waits for, until the transaction of this session ends."""
    with psycopg.connect(database.dsn, application_name=name) as holder:
        holder.execute("SELECT * FROM demo_item")
        yield holder


def _worker_at(database: PostgresDatabase) -> psutil.Process:
    """Return the process whose session waits for a lock there."""
    with database.connect() as session:
        (port,) = session.execute(_WAITS).fetchone() or (0,)
    workers = (each for each in psutil.process_iter() if "smooth_migrations.worker" in words_of(each))
    return next(each for each in workers if port in {end.laddr.port for end in each.net_connections("tcp4")})


def _rows(screen: list[str]) -> list[list[str]]:
    """Return the rows of the table, each as its words; there is one whole table."""
    (head,) = (number for number, line in enumerate(screen) if line.split() == _HEAD)
    return [line.split() for line in screen[head + 1 :] if line.startswith("shards:")]


def _counts(screen: list[str]) -> dict[str, int]:
    """Return how many databases are in each state, as the line above the table says."""
    (line,) = (line for line in screen if _COUNTED.fullmatch(line))
    return {words: int(number) for number, _, words in (part.partition(" ") for part in line.split(", "))}


def _assert_as_before(many: ManyDatabases) -> None:
    assert many.new() == 0
    assert many.prepared() == []


def test_waits_and_a_failure_stand_first_and_ctrl_c_leaves_terminal_and_databases_as_they_were(
    many: ManyDatabases, columns: int, lines: int
) -> None:
    count = len(many.databases)
    with (
        terminal(many.directory, many.environment, columns, lines) as screen,
        _held(many.databases[_BROKEN], "nightly report") as breaker,
        _held(many.databases[_HELD], "psql of Ada") as holder,
    ):
        screen.type(f"clear; {_PROGRAM} deploy.toml")
        told = [
            f"lock of pid {session.info.backend_pid} ({name})"
            for session, name in ((breaker, "nightly report"), (holder, "psql of Ada"))
        ]
        seen = screen.wait_for("deploy of many: migrating, ", *told)
        counted = _counts(seen)
        assert counted["waiting for a lock"] == 2
        assert sum(counted.values()) == count
        assert [row[:3] for row in _rows(seen)[:2]] == [
            [f"shards:shard_{number}", "waiting", "0/1"] for number in (_BROKEN, _HELD)
        ]

        # What is to be stopped after the failure of another does not answer, so that the failure can be looked at.
        stopped = _worker_at(many.databases[_HELD])
        stopped.suspend()
        try:
            breaker.execute("ALTER TABLE demo_item ADD note integer")
            breaker.commit()
            seen = screen.wait_for("deploy of many: stopping, after a failure", "1 failed, 1 waiting for a lock, ")
            assert sum(_counts(seen).values()) == count
            assert [row[:2] for row in _rows(seen)[:2]] == [
                [f"shards:shard_{_BROKEN}", "failed"],
                [f"shards:shard_{_HELD}", "waiting"],
            ]
            screen.press("C-c")
            screen.wait_for("stopping, because of SIGINT")
        finally:
            stopped.resume()
        seen = screen.wait_for_prompt()
        assert _HEAD not in [line.split() for line in seen]
        assert '  column "note" of relation "demo_item" already exists' in seen
        assert "Rolled back: every database is as it was before." in seen
        assert any(re.match(rf"1 failed, \d+ rolled back, \d+ unchanged; `{_REPORT}", line) for line in seen)
        assert screen.is_sane()
        with many.databases[_BROKEN].connect() as session:
            session.execute("ALTER TABLE demo_item DROP note")
        _assert_as_before(many)


@pytest.mark.long
def test_of_as_many_that_were_changed_and_taken_back_the_end_of_each_command_is_a_few_lines(
    many: ManyDatabases, columns: int, lines: int
) -> None:
    count = len(many.databases)
    with terminal(many.directory, many.environment, columns, lines) as screen:
        for command, is_new in (("deploy", True), ("rollback", False)):
            screen.clear()
            screen.type(f"{_PROGRAM} {command} deploy.toml")
            screen.wait_for(f"{command} of many: ")
            told = screen.wait_for_prompt(patience_s=_PATIENCE_S)
            assert [line for line in told if line][1:-1] == [
                f"Done: {count} databases changed.",
                told[2],
                f"{count} committed; `{_REPORT} | less` has all of them",
            ]
            assert told[2].startswith(f"{command} of many, run ")
            assert many.new() == (count if is_new else 0)
            assert many.prepared() == []
        assert screen.is_sane()
