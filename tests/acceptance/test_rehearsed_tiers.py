"""Rehearsals say how a deploy would go: what no server prepares, what one transaction cannot hold; none commits."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import NOTE, failing

pytestmark = pytest.mark.timeout(240)

_ON_SERVERS = "editor.connection.vendor == 'sqlite' or"
_NOTIFIES = failing(f"{_ON_SERVERS} editor.execute('NOTIFY shop')")
_ADDS = failing(f"{_ON_SERVERS} editor.execute(\"ALTER TYPE mood ADD VALUE 'glad'\")").replace("0002_note", "0001_item")
_USES = failing(f"{_ON_SERVERS} editor.execute(\"INSERT INTO moods VALUES ('glad')\")").replace("'kind'", "'size'")
_OTHERS_SEE = """\
if editor.connection.vendor == 'sqlite':
        return
    other = editor.connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM information_schema.columns WHERE column_name = 'note'")
            assert cursor.fetchone() == (0,), 'others see what is rehearsed'
    finally:
        other.close()"""


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        yield fleet


def _write(fleet: Fleet, name: str, source: str) -> None:
    (fleet.directory / f"project/demo/migrations/{name}.py").write_text(source)


def _of_server(outcome: Outcome, key: str) -> set[object]:
    return {each[key] for each in outcome.report["databases"] if each["database"] != "kiosk"}


def _states(outcome: Outcome) -> set[str]:
    return {each["error"]["sqlstate"] for each in outcome.report["databases"] if each["error"]}


def test_what_cannot_be_prepared_is_refused_by_a_rehearsal_as_a_deploy_of_two_phase_fails(fleet: Fleet) -> None:
    _write(fleet, "0003_kind", _NOTIFIES)
    fleet.plan(servers='atomicity = "two_phase"')
    before = fleet.dumps(sequences=False)

    rehearsed, deployed = fleet.run("rehearse"), fleet.deploy()

    assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (3, "refused"), rehearsed.stderr
    assert rehearsed.outcomes == {"primary": "failed", "kiosk": "rolled_back", LAST: "failed"}
    assert _states(rehearsed) == {"0A000"}
    assert (deployed.exit_code, deployed.report["error"]["sqlstate"]) == (1, "0A000"), deployed.stderr
    assert fleet.dumps(sequences=False) == before
    assert not fleet.prepared()


@pytest.mark.long
def test_what_cannot_be_prepared_is_rehearsed_in_the_tier_that_a_deploy_takes_instead(fleet: Fleet) -> None:
    _write(fleet, "0003_kind", _NOTIFIES)
    before = fleet.dumps(sequences=False)

    rehearsed = fleet.run("rehearse")

    assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (0, "nothing_to_do"), rehearsed.stderr
    assert {line["database"] for line in rehearsed.named("tier.changed")} == {"primary", LAST}
    assert (_of_server(rehearsed, "tier"), _of_server(rehearsed, "rehearsed")) == ({"held_open"}, {True})
    assert fleet.dumps(sequences=False) == before
    deployed = fleet.deploy()
    assert deployed.exit_code == 0, deployed.stderr
    assert _of_server(deployed, "tier") == {"held_open"}


@pytest.mark.long
@pytest.mark.parametrize("minimum", ["compensated", pytest.param("held_open", marks=pytest.mark.long)])
def test_what_one_transaction_cannot_hold_is_told_as_a_deploy_would_go_about_it(fleet: Fleet, minimum: str) -> None:
    fleet.plan(deploy=f'expand_contract = false\nminimum_atomicity = "{minimum}"')
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            session.execute("CREATE TYPE mood AS ENUM ('fine'); CREATE TABLE moods (mood mood)")
    _write(fleet, "0002_note", _ADDS)
    _write(fleet, "0003_uses", _USES)
    before = fleet.dumps(sequences=False)

    rehearsed = fleet.run("rehearse")

    assert fleet.dumps(sequences=False) == before
    deployed = fleet.deploy()
    if minimum == "compensated":
        assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (0, "nothing_to_do"), rehearsed.stderr
        assert set(rehearsed.outcomes.values()) == {"rolled_back"}
        assert (_of_server(rehearsed, "tier"), _of_server(rehearsed, "rehearsed")) == ({"compensated"}, {False})
        (reason,) = _of_server(rehearsed, "reason")
        assert str(reason).startswith("demo.0003_uses: unsafe use of new value")
        assert str(reason).endswith("a deploy runs each migration in a transaction of its own, which is not rehearsed")
        assert deployed.exit_code == 0, deployed.stderr
        assert _of_server(deployed, "tier") == {"compensated"}
    else:
        assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (3, "refused"), rehearsed.stderr
        assert _states(rehearsed) == {"55P04"}
        assert (deployed.exit_code, deployed.report["error"]["sqlstate"]) == (1, "55P04"), deployed.stderr
        assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_nothing_is_committed_by_a_rehearsal_of_what_a_deploy_commits_step_by_step(fleet: Fleet) -> None:
    _write(fleet, "0003_kind", failing(_OTHERS_SEE))
    fleet.plan(servers='atomicity = "compensated"')
    before = fleet.dumps(sequences=False)

    rehearsed = fleet.run("rehearse")

    assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (0, "nothing_to_do"), rehearsed.stderr
    assert (_of_server(rehearsed, "tier"), _of_server(rehearsed, "rehearsed")) == ({"compensated"}, {True})
    assert fleet.dumps(sequences=False) == before


@pytest.mark.parametrize("journal", ["kept", pytest.param("lost", marks=pytest.mark.long)])
def test_what_a_killed_rehearsal_has_prepared_is_rolled_back_by_the_next_command(fleet: Fleet, journal: str) -> None:
    fleet.plan(servers='atomicity = "two_phase"')
    before = fleet.dumps(sequences=False)
    assert fleet.run("rehearse", failpoint="rollback_prepared.before").exit_code == -signal.SIGKILL
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()
    assert fleet.prepared()
    if journal == "lost":
        shutil.rmtree(fleet.directory / ".smooth")
        assert fleet.run("recover", "--commit").exit_code == 3
        assert fleet.prepared()

    recovered = fleet.run("recover")

    assert (recovered.exit_code, recovered.report["outcome"]) == (0, "rolled_back"), recovered.stderr
    assert not fleet.prepared()
    assert fleet.dumps(sequences=False) == before
    assert fleet.deploy().exit_code == 0


@pytest.mark.long
def test_a_killed_rehearsal_is_never_committed_not_even_where_a_server_is_away(fleet: Fleet) -> None:
    fleet.plan(deploy='expand_contract = false\nsettle_timeout = "1s"', servers='atomicity = "two_phase"')
    before = fleet.dumps(sequences=False)
    assert fleet.run("rehearse", failpoint="rollback_prepared.before").exit_code == -signal.SIGKILL
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()
    # Nobody knows which of them was the first to be rolled back.
    alias = "default" if fleet.last.server.prepared(fleet.last.name) else "shard_1"
    server = fleet.databases[alias]
    left = len(fleet.prepared())
    fleet.databases[alias] = {**server, "PORT": "1"}

    refused, waits = fleet.run("recover", "--commit"), fleet.run("recover")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert waits.exit_code == 4, waits.stderr
    assert len(fleet.prepared()) == left - 1
    fleet.databases[alias] = server
    recovered = fleet.run_printed(waits)
    assert recovered.report["outcome"] == "rolled_back", recovered.stderr
    assert not fleet.prepared()
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_a_worker_that_is_lost_with_what_it_has_prepared_leaves_nothing_of_a_rehearsal(fleet: Fleet) -> None:
    fleet.plan(servers='atomicity = "two_phase"')
    before = fleet.dumps(sequences=False)

    rehearsed = fleet.run("rehearse", failpoint="prepare.after")

    assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (3, "refused"), rehearsed.stderr
    assert not fleet.prepared()
    assert fleet.dumps(sequences=False) == before
