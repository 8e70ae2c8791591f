"""How much a deploy asks of each database, in statements and sessions: it may become less, and not more unnoticed.

Counts tell of a regression on any machine; times do not.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

_COUNT = 4
_LOGGED = {"log_statement": "all", "log_connections": "on", "log_line_prefix": "%d| "}
# Ten migrations: what is asked for each of them weighs more than what is asked for once.
_RELEASE = {"demo.0001_item": ITEM} | {
    f"demo.{number:04}_note": migration(
        f"migrations.AddField('item', 'note_{number}', models.CharField(max_length=9, default='', db_index=True))",
        after=[("demo", "0001_item" if number == 2 else f"{number - 1:04}_note")],
    )
    for number in range(2, 12)
}


class _Asked(NamedTuple):
    statements: int
    sessions: int


def _asked(server: PostgresServer, many: ManyDatabases, before: int) -> list[_Asked]:
    """Return what was asked of each database since the server's log had so many bytes."""
    lines = (server.directory / "server.log").read_bytes()[before:].decode(errors="replace").splitlines()
    counts: Counter[tuple[str, str]] = Counter()
    for line in lines:
        database, _, text = line.partition("| LOG:  ")
        kind = "session" if text.startswith("connection authorized") else text.partition(" ")[0].rstrip(":")
        counts[database, kind] += 1
    return [
        _Asked(counts[each.name, "statement"] + counts[each.name, "execute"], counts[each.name, "session"])
        for each in many.databases
    ]


def _log_size(server: PostgresServer) -> int:
    return (server.directory / "server.log").stat().st_size


@pytest.mark.parametrize(
    ("options", "most"),
    [
        # Whoever waits for a lock, and whether the server is slow, adds a few.
        pytest.param([], _Asked(130, 6), id="replayed"),
        pytest.param(["--no-replay"], _Asked(185, 6), id="for real"),
    ],
)
def test_a_deploy_asks_no_more_than_it_did(tmp_path: Path, options: list[str], most: _Asked) -> None:
    server = PostgresServer(settings={**THROW_AWAY, **_LOGGED})
    with server, many_databases(tmp_path, [server], _COUNT, _RELEASE) as many:
        plan = many.directory / "deploy.toml"
        # By one worker, so that it is one database that is migrated for real.
        plan.write_text(plan.read_text().replace("parallel = 4", "parallel = 1"))
        before = _log_size(server)

        outcome = many.run("deploy", *options)

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert len(outcome.named("worker.started")) == 1
        first, *others = _asked(server, many, before)
        assert first.statements <= 200
        assert first.sessions <= 7
        for each in others:
            assert each.statements <= most.statements
            assert each.sessions <= most.sessions


def test_a_look_at_what_has_nothing_to_do_asks_two_things(tmp_path: Path) -> None:
    server = PostgresServer(settings={**THROW_AWAY, **_LOGGED})
    with server, many_databases(tmp_path, [server], _COUNT, {"demo.0001_item": ITEM}) as many:
        before = _log_size(server)

        assert many.run("deploy").report["outcome"] == "nothing_to_do"

        speaker, *others = _asked(server, many, before)
        assert speaker.statements <= 25
        assert speaker.sessions == 2
        assert others == [_Asked(2, 1)] * (_COUNT - 1)


def test_a_rollback_asks_no_more_than_it_did(tmp_path: Path) -> None:
    server = PostgresServer(settings={**THROW_AWAY, **_LOGGED})
    with server, many_databases(tmp_path, [server], _COUNT, _RELEASE) as many:
        plan = many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("parallel = 4", "parallel = 1"))
        assert many.run("deploy").exit_code == 0
        before = _log_size(server)

        outcome = many.run("rollback")

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        first, *others = _asked(server, many, before)
        # How long each stands prepared adds renewals of its lease, a session and a statement each.
        assert first.statements <= 210
        assert max(each.statements for each in others) <= 113
        assert min(each.sessions for each in others) == 5
