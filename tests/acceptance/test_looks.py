"""Looks at databases that do not answer: named, bounded in time, and never called up to date."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE

pytestmark = pytest.mark.timeout(120)

# For root no directory is closed, unless it lacks this.
_DROPPED = "-dac_override,-dac_read_search"
_WITHOUT_PRIVILEGES = ["env"] if os.geteuid() else ["setpriv", f"--bounding-set={_DROPPED}", f"--inh-caps={_DROPPED}"]


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """Databases with a migration to come."""
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        yield fleet


@pytest.mark.parametrize(
    ("command", "key"), [("plan", "migrations"), pytest.param("status", "pending", marks=pytest.mark.long)]
)
def test_a_database_that_is_away_is_not_called_up_to_date(fleet: Fleet, command: str, key: str) -> None:
    fleet.databases["shard_1"]["PORT"] = "1"
    outcome = fleet.run(command)
    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    assert [error["place"] for error in outcome.report["errors"]] == [LAST]
    primary, kiosk, last = outcome.report["databases"]
    assert (len(primary[key]), len(kiosk[key]), last[key]) == (1, 1, None)
    assert (primary["tier"], last["tier"]) == ("two_phase", None)


@pytest.mark.long
def test_a_journal_that_cannot_be_read_is_found_by_a_check(fleet: Fleet) -> None:
    (fleet.directory / ".smooth/journal.db").write_text("no journal " * 400)

    checked = fleet.run("check")

    assert (checked.exit_code, checked.report["outcome"]) == (3, "refused"), checked.stderr
    (finding,) = checked.report["errors"]
    assert (finding["place"], "journal.db" in finding["message"]) == ("deploy.journal", True)


def test_a_journal_that_could_not_be_begun_is_found_by_a_check_which_makes_nothing(fleet: Fleet) -> None:
    fleet.plan(deploy='expand_contract = false\njournal = "sqlite:///closed/.smooth/journal.db"')
    closed = fleet.directory / "closed"
    closed.mkdir(mode=0o555)

    checked = fleet.run("check", under=_WITHOUT_PRIVILEGES)
    refused = fleet.run("deploy", under=_WITHOUT_PRIVILEGES)

    assert [(each.exit_code, each.report["outcome"]) for each in (checked, refused)] == [(3, "refused")] * 2
    (finding,) = checked.report["errors"]
    assert (finding["place"], finding["message"]) == ("deploy.journal", f"{closed}: this user may make nothing in it")
    assert [*closed.iterdir()] == []
    closed.chmod(0o755)
    assert fleet.run("check", under=_WITHOUT_PRIVILEGES).exit_code == 0
    assert [*closed.iterdir()] == []


@pytest.mark.long
def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(fleet: Fleet) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fleet.databases["shard_1"]["PORT"] = str(silent.getsockname()[1])
        outcome = fleet.run("check")
    assert outcome.exit_code == 3, outcome.stderr
    assert [error["place"] for error in outcome.report["errors"]] == [LAST]


@pytest.mark.long
def test_a_lock_on_the_record_of_migrations_is_not_waited_for_without_end(fleet: Fleet) -> None:
    before = fleet.dumps()
    with fleet.last.connect() as session, session.transaction():
        session.execute("LOCK TABLE django_migrations IN ACCESS EXCLUSIVE MODE")
        outcome = fleet.run("check")
    assert outcome.exit_code == 3, outcome.stderr
    ((place, message),) = [(error["place"], error["message"]) for error in outcome.report["errors"]]
    assert place == LAST
    assert "lock timeout" in message
    assert fleet.dumps() == before


def test_a_report_says_that_a_newer_run_has_not_ended(fleet: Fleet) -> None:
    assert fleet.run("deploy", "--run-id", "sunday", failpoint="decide.before").exit_code == -signal.SIGKILL

    shown = fleet.run("report")

    assert (shown.exit_code, shown.report["outcome"], shown.report["run_id"] == "sunday") == (0, "committed", False)
    [warning] = shown.named("log.message")
    assert (warning["level"], warning["message"].partition(":")[0]) == (
        "warning",
        "the deploy sunday is newer, and has not ended",
    )
    assert fleet.run("recover").exit_code == 0
    settled = fleet.run("report")
    assert (settled.report["run_id"], settled.named("log.message")) == ("sunday", [])


_OTHER, _FOREIGN, _BESIDE = "smooth:friday:till:7", "payroll's \n42", "smooth:monday:desk:1"

_TOLD = """\
primary  two_phase
  pending: demo.0002_note
  last run: sunday
  at work, or cut off: sunday; `smooth-orchestrate recover PLAN` settles what was cut off
  in doubt: {mine}, prepared N s ago by postgres; {other}, prepared N s ago by postgres{unknown}
  prepared by another program, and left alone: payroll's \\n42 in {name}, N s ago by postgres
  prepared in another database of its server: {beside}, N s ago by postgres

kiosk  held_open
  pending: demo.0002_note
  last run: sunday
  at work, or cut off: sunday; `smooth-orchestrate recover PLAN` settles what was cut off

{last}  two_phase
  pending: demo.0002_note
  last run: sunday
  at work, or cut off: sunday; `smooth-orchestrate recover PLAN` settles what was cut off
  in doubt: {ours}, prepared N s ago by postgres
"""


def _prepare(database: PostgresDatabase, gid: str, table: str) -> None:
    with database.connect() as session:
        session.execute("BEGIN")
        session.execute(sql.SQL("CREATE TABLE {} (x int)").format(sql.Identifier(table)))
        session.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))


@pytest.mark.long
def test_status_shows_whatever_stands_prepared_whoever_prepared_it(fleet: Fleet) -> None:
    fleet.plan(deploy='expand_contract = false\nsettle_timeout = "2s"', servers='atomicity = "two_phase"')
    assert fleet.run("deploy", "--run-id", "sunday", failpoint="decide.before").exit_code == -signal.SIGKILL
    _prepare(fleet.first, _OTHER, "till")
    _prepare(fleet.first, _FOREIGN, "payroll")
    with temporary_database(fleet.first.server) as beside:
        _prepare(beside, _BESIDE, "desk")
        (ours,) = fleet.last.server.prepared(fleet.last.name)
        (mine,) = {*fleet.first.server.prepared(fleet.first.name)} - {_OTHER, _FOREIGN}

        outcome = fleet.run("status")
        text = fleet.told("status")

        assert outcome.exit_code == 0, outcome.stderr
        primary, kiosk, last = outcome.report["databases"]
        assert re.fullmatch(r"smooth:sunday:primary:\d+", mine)
        unknown = ", by a run that this deploy's journal does not know"
        assert [_ageless(line) for line in primary["in_doubt"]] == [
            f"{mine}, prepared N s ago by postgres",
            f"{_OTHER}, prepared N s ago by postgres{unknown}",
        ]
        assert [_ageless(line) for line in last["in_doubt"]] == [f"{ours}, prepared N s ago by postgres"]
        name, shard = fleet.first.name, fleet.last.name
        assert _parts(primary["prepared"]) == [
            (mine, name, "postgres", "this_deploy"),
            (_OTHER, name, "postgres", "another_deploy"),
            (_FOREIGN, name, "postgres", "another_program"),
        ]
        assert _parts(primary["prepared_elsewhere"]) == [(_BESIDE, beside.name, "postgres", "another_deploy")]
        assert _parts(last["prepared"]) == [(ours, shard, "postgres", "this_deploy")]
        nothing: dict[str, list[object]] = {"in_doubt": [], "prepared": [], "prepared_elsewhere": []}
        assert {key: kiosk[key] for key in nothing} == nothing
        assert last["prepared_elsewhere"] == []
        told = _ageless(text.partition("\n\n")[2].partition("\n\n")[2])
        assert told == _TOLD.format(
            mine=mine,
            ours=ours,
            other=_OTHER,
            unknown=unknown,
            name=name,
            beside=f"{_BESIDE} in {beside.name}",
            last=LAST,
        )
        with fleet.first.connect() as session:
            session.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(_OTHER)))
        assert fleet.run("recover").exit_code == 0
        assert fleet.run("deploy").exit_code == 0
        assert fleet.prepared() == [_FOREIGN]
        assert beside.server.prepared(beside.name) == [_BESIDE]


def _ageless(text: str) -> str:
    return re.sub(r"\b\d+ s ago", "N s ago", text)


def _parts(prepared: list[dict[str, object]]) -> list[tuple[object, ...]]:
    assert all(type(each["age_s"]) is int and each["age_s"] >= 0 for each in prepared)
    return [(each["gid"], each["database"], each["owner"], each["whose"]) for each in prepared]
