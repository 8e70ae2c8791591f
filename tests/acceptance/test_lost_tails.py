"""Journals that have lost their last records, or all of them: what was settled stays one and the same everywhere."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.fault_proxy import Fault, Harm
from tests.support.leases import until
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family
from tests.support.runs import Outcome
from tests.support.small_migrations import KIND, NOTE
from tests.support.tiers import decided_by_journal, proxied

pytestmark = pytest.mark.timeout(180)

_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"'
_BY_PHASE = f'{_DEPLOY}\ncommit = "phase"'
_OUTSIDE = NOTE.replace("atomic = True", "atomic = False")
_BEGUN = "SELECT max(seq) FROM journal WHERE kind = 'run_started'"


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> tuple[PostgresServer, PostgresServer]:
    return pg_server, second_pg_server


@contextmanager
def _fleet(
    directory: Path, servers: tuple[PostgresServer, PostgresServer], *, deploy: str = _DEPLOY
) -> Iterator[Fleet]:
    with small_fleet(directory, *servers, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        fleet.plan(deploy=deploy, servers='atomicity = "two_phase"')
        yield fleet


def _of(fleet: Fleet) -> dict[str, str]:
    return fleet.dumps(sequences=False, applied=False)


def _new(fleet: Fleet) -> set[str]:
    return {name for name, text in _of(fleet).items() if "0003_kind" in text}


def _wait(fleet: Fleet) -> None:
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()


def _kill(fleet: Fleet, point: str, command: str = "deploy", *options: str) -> None:
    killed = fleet.run(command, *options, failpoint=point)
    assert killed.exit_code == -9, f"{point} was not reached: {killed.stderr}"
    _wait(fleet)


def _assert_needless(outcome: Outcome, name: str) -> None:
    """Assert that a report and its log tell of one database that it was accepted and that nothing waited for that."""
    message = f"--accept {name} was not needed: no run waits for that database to be moved by hand"
    (told,) = outcome.report["errors"]
    assert (told["type"], told["database"], told["message"]) == ("needless_accept", name, message)
    assert "status PLAN" in told["hint"]
    (warned,) = (line for line in outcome.named("log.message") if line["message"] == message)
    assert (warned["level"], warned["database"]) == ("warning", name)


def _cut(fleet: Fleet, first: str) -> None:
    """Have the journal lose its records from one on, which a query gives."""
    with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
        journal.execute("DROP TRIGGER journal_is_not_deleted_from")
        assert journal.execute(f"DELETE FROM journal WHERE seq >= ({first})").rowcount


@pytest.mark.long
@pytest.mark.parametrize("choice", ["--commit", pytest.param("--abort", marks=pytest.mark.long)])
def test_a_phase_of_which_nobody_knows_what_it_moved_is_not_called_taken_back(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, choice: str
) -> None:
    with _fleet(tmp_path, servers, deploy=_BY_PHASE) as fleet:
        _kill(fleet, "journal.phase_started.before:2")
        _cut(fleet, f"SELECT min(seq) FROM journal WHERE kind = 'held' AND seq > ({_BEGUN})")

        for _attempt in range(2):
            asked = fleet.run("recover")
            assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
            assert asked.outcomes == {"primary": "in_doubt", "kiosk": "in_doubt", LAST: "unchanged"}
            assert "has lost what the run" in asked.report["error"]["message"]
            assert "moved on kiosk, primary" in asked.report["error"]["message"]
            assert [command.rpartition(" ")[2] for command in asked.report["settle_with"]] == ["--commit", "--abort"]
        assert _new(fleet) == {"primary", "kiosk"}

        settled = fleet.run("recover", choice)

        if choice == "--commit":
            assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
            assert _new(fleet) == {"primary", "kiosk", LAST}
        else:
            assert (settled.exit_code, settled.outcomes["primary"]) == (4, "in_doubt"), settled.stderr
            assert settled.report["error"]["message"].endswith("is committed, and nobody knows what was moved there")
            assert _new(fleet) == {"primary", "kiosk"}


@pytest.mark.long
def test_a_phase_that_was_moved_back_by_hand_is_settled_when_its_operator_says_so(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, deploy=_BY_PHASE) as fleet:
        before = _of(fleet)
        _kill(fleet, "journal.phase_started.before:2")
        _cut(fleet, f"SELECT min(seq) FROM journal WHERE kind = 'held' AND seq > ({_BEGUN})")
        asked = fleet.run("recover", "--abort")
        command = "smooth-orchestrate recover deploy.toml"
        assert asked.report["settle_with"] == [f"{command} --abort --accept kiosk --accept primary"], asked.stderr
        told = fleet.run("report").report["settle_with"]
        assert (asked.exit_code, told) == (4, [f"{command} --accept kiosk --accept primary"])
        for alias in ("default", "kiosk"):
            fleet.migrate(alias, "demo", "0001")

        misspelt = fleet.run("recover", "--accept", "kiosc")
        assert (misspelt.exit_code, misspelt.report["error"]["hint"]) == (3, 'did you mean "kiosk"?')
        one = fleet.run("recover", "--accept", "kiosk", "--accept", LAST)
        assert (one.exit_code, one.outcomes["kiosk"], one.outcomes["primary"]) == (4, "rolled_back", "in_doubt")
        _assert_needless(one, LAST)
        (left,) = (each["error"] for each in one.report["databases"] if each["error"])
        assert left["hint"].endswith("; then smooth-orchestrate recover PLAN --accept primary")

        settled = fleet.run("recover", "--accept", "primary")

        assert (settled.exit_code, settled.report["outcome"]) == (0, "rolled_back"), settled.stderr
        assert settled.report["errors"] == []
        assert _of(fleet) == before
        again = fleet.run("recover", "--accept", "primary")
        assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do"), again.stderr
        _assert_needless(again, "primary")
        deployed = fleet.deploy()
        assert (deployed.exit_code, _new(fleet)) == (0, {"primary", "kiosk", LAST}), deployed.stderr


def test_a_rollback_with_nothing_but_its_beginning_is_settled_by_the_marks_it_has_left(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers) as fleet:
        decided_by_journal(fleet)
        before = _of(fleet)
        assert fleet.deploy().exit_code == 0
        with proxied(fleet) as (first, _last), fleet.running(command="rollback") as run:

            def meanwhile() -> None:
                until(lambda: not fleet.last.server.prepared(fleet.last.name))
                kill_family(run.process.pid)

            first.arm(Fault("^COMMIT PREPARED", Harm.REQUEST_LOST, meanwhile=meanwhile)).wait()
            run.process.wait()
        fleet.databases |= {"default": fleet.first.django, "shard_1": fleet.last.django}
        _wait(fleet)
        (gid,) = fleet.prepared()
        assert ":primary:" in gid
        _cut(fleet, f"({_BEGUN}) + 1")

        settled = fleet.run("recover")

        assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
        assert not fleet.prepared()
        assert _of(fleet) == before


@pytest.mark.long
def test_what_an_operator_has_said_of_a_lost_journal_stays_said_when_its_recovery_is_killed(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers) as fleet:
        decided_by_journal(fleet)
        before = _of(fleet)
        _kill(fleet, "journal.decision.before")
        shutil.rmtree(fleet.directory / ".smooth")
        _kill(fleet, "rollback_prepared.after", "recover", "--abort")

        refused = fleet.run("recover", "--commit")

        assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
        assert "is to be settled by abort, as was decided" in refused.report["error"]["message"]
        settled = fleet.run("recover")
        assert (settled.exit_code, settled.report["outcome"]) == (0, "rolled_back"), settled.stderr
        assert fleet.decisions() == ["abort"]
        assert _of(fleet) == before


def _committed_on_kiosk_alone(fleet: Fleet) -> None:
    """Leave a journal lost and a run decided, of which the last database has let go of what it held."""
    plan = fleet.directory / "deploy.toml"
    head, found, tail = plan.read_text().rpartition('atomicity = "two_phase"')
    assert found
    plan.write_text(f'{head}atomicity = "held_open"{tail}')
    _kill(fleet, "journal.decision.after")
    with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal:
        query = "SELECT run_id, data FROM journal WHERE kind = 'run_started' ORDER BY seq DESC"
        run_id, data = journal.execute(query).fetchone()
    # As a kill between two commits leaves it.
    fleet.migrate("kiosk")
    with closing(sqlite3.connect(fleet.kiosk)) as kiosk, kiosk:
        mark = "INSERT INTO smooth_migrations_marker (deploy, run_id, database_name, epoch, digest) "
        mark += "VALUES ('small', ?, 'kiosk', 2, ?)"
        kiosk.execute(mark, [run_id, json.loads(data)["digest"]])
    shutil.rmtree(fleet.directory / ".smooth")


@pytest.mark.long
def test_what_was_away_when_a_run_without_its_journal_was_settled_is_settled_when_it_is_back(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers) as fleet:
        _committed_on_kiosk_alone(fleet)
        with fleet.last.away():
            for _attempt in range(2):
                away = fleet.run("recover")
                assert (away.exit_code, away.outcomes[LAST]) == (4, "in_doubt"), away.stderr
                assert not fleet.first.server.prepared(fleet.first.name)

        assert fleet.run_printed(away).report["outcome"] == "committed"
        assert _new(fleet) == {"primary", "kiosk", LAST}
        refused = fleet.run("rollback")
        assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
        assert refused.report["error"]["message"].endswith("without its journal: nobody knows what it moved")


@pytest.mark.long
def test_what_an_operator_commits_without_a_journal_is_called_committed(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers) as fleet:
        assert fleet.deploy().exit_code == 0
        plan = fleet.directory / "deploy.toml"
        head, _found, tail = plan.read_text().rpartition('atomicity = "two_phase"')
        plan.write_text(f'{head}atomicity = "held_open"{tail}')
        _kill(fleet, "journal.decision.after", "rollback")
        shutil.rmtree(fleet.directory / ".smooth")

        settled = fleet.run("recover", "--commit")

        assert settled.outcomes == {"primary": "committed", "kiosk": "unchanged", LAST: "unchanged"}
        assert _new(fleet) == {"kiosk", LAST}
        (told,) = settled.report["errors"]
        assert told["type"] == "no_trace"
        assert told["hint"].endswith("unless it was a rollback that was cut off")


@pytest.mark.long
def test_what_an_operator_commits_without_a_journal_is_the_release_that_was_interrupted(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": _OUTSIDE}) as fleet:
        fleet.plan(deploy=_DEPLOY)
        _kill(fleet, "decide.before")
        shutil.rmtree(fleet.directory / ".smooth")
        newer = fleet.directory / "project/demo/migrations/0003_kind.py"
        newer.write_text(KIND)

        refused = fleet.run("recover", "--commit")

        assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
        assert refused.report["error"]["message"].endswith(
            "cannot be committed: demo.0003_kind would run too, and not of this run"
        )
        assert _new(fleet) == set()
        newer.unlink()
        settled = fleet.run("recover", "--commit")
        assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
        assert settled.outcomes == {"primary": "committed", "kiosk": "unchanged", LAST: "committed"}
        assert {name for name, text in _of(fleet).items() if "0002_note" in text} == {"primary", LAST}


@pytest.mark.long
@pytest.mark.parametrize("lost", ["committed", "prepared"])
def test_a_run_of_which_the_journal_has_lost_a_part_is_taken_back_nowhere(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, lost: str
) -> None:
    with _fleet(tmp_path, servers) as fleet:
        decided_by_journal(fleet)
        _kill(fleet, "commit_prepared.after")
        # Nobody knows which of them was the first to be committed.
        is_last = bool(fleet.last.server.prepared(fleet.last.name)) is (lost == "prepared")
        name = LAST if is_last else "primary"
        _cut(fleet, f"SELECT min(seq) FROM journal WHERE kind = 'held' AND database = '{name}' AND seq > ({_BEGUN})")
        settled = fleet.run("recover")
        assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
        new = _of(fleet)

        refused = fleet.run("rollback")

        assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
        assert re.search(f"has lost what the run .* moved on .*{name}", refused.report["error"]["message"])
        assert _of(fleet) == new


@pytest.mark.long
@pytest.mark.parametrize("point", ["commit.before", "journal.decision.before"])
def test_a_rollback_without_its_journal_is_finished_as_one(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, point: str
) -> None:
    with _fleet(tmp_path, servers) as fleet:
        decided_by_journal(fleet)
        before = _of(fleet)
        assert fleet.deploy().exit_code == 0
        # A worker is killed when it is to commit, or the coordinator before it has decided.
        assert fleet.run("rollback", failpoint=point).exit_code in {4, -9}
        _wait(fleet)
        shutil.rmtree(fleet.directory / ".smooth")

        settled = fleet.run("recover")
        if point == "journal.decision.before":
            assert (settled.exit_code, settled.report["error"]["type"]) == (4, "journal_lost"), settled.stderr
            settled = fleet.run("recover", "--commit")

        assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
        assert _of(fleet) == before
