"""From the first COMMIT PREPARED to the last, nothing is done but to commit: the sessions for it are there before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.leases import until
from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

_COUNT: Final = 6
_LOGGED: Final = {"log_statement": "all", "log_connections": "on", "log_line_prefix": "%d| "}
_RELEASE: Final = {"demo.0001_item": ITEM} | {
    "demo.0002_note": migration(
        "migrations.AddField('item', 'note', models.CharField(max_length=9, default=''))", after=[("demo", "0001_item")]
    )
}
# A session in which nothing has been asked yet.
_STANDING_BY: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE datname LIKE %s AND backend_type = 'client backend' AND state = 'idle' AND query = ''
"""


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server that tells of statements and sessions."""
    with PostgresServer(settings={**THROW_AWAY, **_LOGGED}, programs=pg_programs) as server:
        yield server


@pytest.fixture
def many(server: PostgresServer, tmp_path: Path) -> Iterator[ManyDatabases]:
    """Databases of it, each with a migration pending."""
    with many_databases(tmp_path, [server], _COUNT, _RELEASE) as many:
        yield many


def _told(server: PostgresServer, many: ManyDatabases) -> list[str]:
    """Return, in order, `session`, `prepare` and `commit` for each that the server tells of in these databases."""
    signs = {"connection authorized": "session", ": PREPARE TRANSACTION": "prepare", ": COMMIT PREPARED": "commit"}
    names = {each.name for each in many.databases}
    lines = (server.directory / "server.log").read_text(errors="replace").splitlines()
    told = [line.partition("| LOG:  ") for line in lines]
    return [kind for name, _, text in told if name in names for sign, kind in signs.items() if sign in text]


def test_the_sessions_are_there_before_the_decision(server: PostgresServer, many: ManyDatabases) -> None:
    outcome = many.run("deploy")

    assert (outcome.exit_code, many.new()) == (0, _COUNT), outcome.stderr
    told = _told(server, many)
    first = told.index("commit")
    assert told[first : first + _COUNT] == ["commit"] * _COUNT
    assert told[:first].count("prepare") == _COUNT


def test_none_is_there_where_the_plan_counts_them(server: PostgresServer, many: ManyDatabases) -> None:
    plan = many.directory / "deploy.toml"
    plan.write_text(f'{plan.read_text()}\n[servers."localhost:{server.port}"]\nmax_connections = 20\n')

    outcome = many.run("deploy")

    assert (outcome.exit_code, many.new()) == (0, _COUNT), outcome.stderr
    told = _told(server, many)
    last = len(told) - told[::-1].index("prepare")
    assert told[last : last + 2 * _COUNT].count("session") == _COUNT
    assert told[last:].count("commit") == _COUNT


def _authorized(server: PostgresServer, database: str) -> int:
    """Return how many sessions the server has let into a database."""
    lines = (server.directory / "server.log").read_text(errors="replace").splitlines()
    return sum(line.startswith(f"{database}| ") and "connection authorized" in line for line in lines)


@pytest.mark.parametrize("is_lost", [False, pytest.param(True, marks=pytest.mark.long)])
def test_they_renew_the_leases_meanwhile(server: PostgresServer, many: ManyDatabases, *, is_lost: bool) -> None:
    opened: list[int] = []

    def see_a_renewal() -> None:
        names = f"{many.databases[0].name[:-2]}%"
        with server.connect() as session:
            until(lambda: session.execute(_STANDING_BY, [names]).fetchone() is not None)
            (pid,) = session.execute(_STANDING_BY, [names]).fetchone() or (0,)
            (name,) = session.execute("SELECT datname FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() or ("",)
            (database,) = (each for each in many.databases if each.name == name)
            with database.connect() as beside:

                def expires() -> object:
                    return beside.execute("SELECT expires_at FROM smooth_migrations_lease").fetchone()

                if is_lost:
                    session.execute("SELECT pg_terminate_backend(%s)", [pid])
                sessions, before = _authorized(server, name), expires()
                until(lambda: expires() != before)
                opened.append(_authorized(server, name) - sessions)

    with FaultProxy(server.port) as proxy:
        many.reach_through(proxy.port)
        fault = proxy.arm(Fault("^PREPARE", Harm.DELAYED, nth=_COUNT, meanwhile=see_a_renewal))
        outcome = many.run("deploy")
        fault.wait()

    assert (outcome.exit_code, many.new()) == (0, _COUNT), outcome.stderr
    assert opened == [int(is_lost)]


def test_one_that_is_lost_is_opened_again(server: PostgresServer, many: ManyDatabases) -> None:
    stood: list[int] = []

    def end_those_that_stand_by() -> None:
        with server.connect() as session:

            def standing() -> list[int]:
                found = session.execute(_STANDING_BY, [f"{many.databases[0].name[:-2]}%"])
                return [pid for (pid,) in found.fetchall()]

            until(lambda: len(standing()) == _COUNT - 1)
            for pid in standing():
                session.execute("SELECT pg_terminate_backend(%s)", [pid])
                stood.append(pid)
            until(lambda: not standing())

    with FaultProxy(server.port) as proxy:
        many.reach_through(proxy.port)
        fault = proxy.arm(Fault("^PREPARE", Harm.DELAYED, nth=_COUNT, meanwhile=end_those_that_stand_by))
        outcome = many.run("deploy")
        fault.wait()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert len(stood) == _COUNT - 1
    assert many.new() == _COUNT
    assert not many.prepared()
