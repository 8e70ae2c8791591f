"""A journal that is deleted, cut short, on a full disk or otherwise no use: nothing is decided by it or mixed."""

import os
import random
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.crash_points import UNDECIDED
from tests.support.deploys import Fleet
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_database import PostgresDatabase
from tests.support.runs import Outcome
from tests.support.tiers import DEPLOY, TIERS, Releases, decided_by_journal, dumps_of

pytestmark = pytest.mark.timeout(120)


def _crash(fleet: Fleet, point: str) -> None:
    assert fleet.run("deploy", failpoint=point).exit_code == -9
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()


def _journal(fleet: Fleet) -> Path:
    return fleet.directory / ".smooth/journal.db"


def _markers(fleet: Fleet) -> int:
    """Count the databases that the new release's run has moved for good; the first deploy has left a marker too."""
    query = "SELECT count(*) > 1 FROM smooth_migrations_marker"
    with closing(sqlite3.connect(fleet.kiosk)) as kiosk:
        found = [bool(kiosk.execute(query).fetchone()[0])]
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            row = session.execute(query.encode()).fetchone()
            found.append(bool(row and row[0]))
    return sum(found)


def _settle(fleet: Fleet, choice: str) -> Outcome:
    """Run `recover`, and where only an operator can decide, the command of those it prints that says so."""
    outcome = fleet.run("recover")
    if outcome.exit_code != 4:
        return outcome
    assert outcome.report["error"]["type"] == "journal_lost", outcome.stderr
    assert "in_doubt" in outcome.outcomes.values()
    commands = outcome.report["settle_with"]
    assert [command.rpartition(" ")[2] for command in commands] == ["--commit", "--abort"]
    (command,) = (command for command in commands if command.endswith(choice))
    return fleet.run("recover", shlex.split(command)[-1])


# --- cut short ----------------------------------------------------------------------------------------------------

_POINTS = {
    "two_phase": ("journal.decision.before", "journal.decision.after", "journal.committed.after"),
    "held_open": ("journal.decision.after", "journal.committed.after"),
    "compensated": ("journal.decision.before", "journal.committed.after"),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("tier", "point", "kept"),
    [
        pytest.param(*case, id="-".join(map(str, case)))
        for tier, points in _POINTS.items()
        for case in [(tier, point, kept) for point in points for kept in range(15)]
    ],
)
def test_a_journal_that_lost_its_last_records_decides_no_worse_than_none(
    releases: Releases, tmp_path: Path, tier: str, point: str, kept: int
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet:
        if tier == "two_phase":
            decided_by_journal(fleet)
        before = dumps_of(fleet)
        _crash(fleet, point)
        kept_kinds = _keep(fleet, kept)
        is_decided = fleet.decisions() == ["commit"]
        has_moved = _markers(fleet) > 0
        is_clear = bool(kept_kinds) or has_moved or not (fleet.prepared() or tier == "compensated")

        recovered = _settle(fleet, "--commit" if kept % 2 else "--abort")

        assert recovered.exit_code == 0, recovered.stderr
        assert not fleet.prepared()
        found = dumps_of(fleet)
        if is_decided or has_moved:
            # Without a record, markers alone do not tell of a run: the next deploy brings up the rest.
            assert found == releases.after(tier) or (not kept_kinds and recovered.report["outcome"] == "nothing_to_do")
        elif is_clear:
            assert found == before
        else:
            assert found == (releases.after(tier) if kept % 2 else before)
        assert fleet.run("deploy").exit_code == 0
        assert dumps_of(fleet) == releases.after(tier)


def _keep(fleet: Fleet, count: int) -> list[str]:
    """Forget all but the first records of a journal, and return their kinds."""
    with closing(sqlite3.connect(_journal(fleet))) as journal, journal:
        journal.execute("DROP TRIGGER journal_is_not_deleted_from")
        journal.execute("DELETE FROM journal WHERE seq NOT IN (SELECT seq FROM journal ORDER BY seq LIMIT ?)", [count])
        return [kind for (kind,) in journal.execute("SELECT kind FROM journal ORDER BY seq")]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.long
def test_a_journal_cut_at_any_byte_is_read_up_to_there_or_refused_with_a_way_out(
    releases: Releases, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with releases.copy("two_phase", tmp_path / "plan") as fleet:
        if seed % 2:
            decided_by_journal(fleet)
        before = dumps_of(fleet)
        _crash(fleet, ("journal.decision.before", "journal.decision.after", "journal.committed.after")[seed % 3])
        has_moved = _markers(fleet) > 0
        file = chance.choice([path for path in _journal(fleet).parent.iterdir() if path.suffix != ".db-shm"])
        os.truncate(file, chance.randrange(file.stat().st_size))
        gids = fleet.prepared()

        recovered = fleet.run("recover")

        if recovered.exit_code == 3:
            assert fleet.prepared() == gids
            assert "move it away and run `smooth-orchestrate recover`" in recovered.report["error"]["hint"]
            shutil.move(_journal(fleet).parent, tmp_path / "away")
        recovered = _settle(fleet, "--abort")
        assert recovered.exit_code == 0, recovered.stderr
        assert not fleet.prepared()
        assert dumps_of(fleet) in (
            [releases.after("two_phase")] if has_moved else [before, releases.after("two_phase")]
        )
        assert fleet.run("deploy").exit_code == 0
        assert dumps_of(fleet) == releases.after("two_phase")


# --- lost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["--commit", "--abort"])
@pytest.mark.long
def test_of_a_lost_journal_and_committed_steps_an_operator_decides(
    releases: Releases, tmp_path: Path, choice: str
) -> None:
    with releases.copy("compensated", tmp_path / "plan") as fleet:
        before = dumps_of(fleet)
        _crash(fleet, UNDECIDED)
        shutil.rmtree(_journal(fleet).parent)
        refused = fleet.run("deploy")
        assert (refused.exit_code, refused.report["error"]["type"]) == (4, "journal_lost")
        assert "whose committed steps await a decision on primary, shards:shard_1" in refused.report["error"]["message"]

        assert _settle(fleet, choice).exit_code == 0

        # What the run had held open is gone with it, and shows nothing.
        after = releases.after("compensated") | {"kiosk": before["kiosk"]}
        assert dumps_of(fleet) == (after if choice == "--commit" else before)
        assert fleet.run("deploy").exit_code == 0
        assert dumps_of(fleet) == releases.after("compensated")


@pytest.mark.long
def test_a_journal_deleted_before_the_decision_decides_nothing(releases: Releases, tmp_path: Path) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet:
        fleet.plan(deploy=DEPLOY, servers=TIERS["two_phase"].servers, shards='gate = ["rm", "-r", ".smooth"]')
        before = dumps_of(fleet)

        outcome = fleet.run("deploy")

        assert (outcome.exit_code, outcome.report["error"]["type"]) == (1, "journal_error"), outcome.stderr
        assert "No such file or directory" in outcome.report["error"]["message"]
        assert not fleet.prepared()
        assert dumps_of(fleet) == before
        fleet.plan(deploy=DEPLOY, servers=TIERS["two_phase"].servers)
        assert fleet.run("deploy").exit_code == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE smooth_journal",
        "ALTER DATABASE {name} SET default_transaction_read_only TO on",
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
    ],
    ids=["table-dropped", "read-only", "closed"],
)
@pytest.mark.long
def test_a_journal_on_a_server_that_is_no_use_any_more_decides_nothing(
    releases: Releases, pg_database: PostgresDatabase, tmp_path: Path, statement: str
) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, FaultProxy(pg_database.server.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{pg_database.name}"
        fleet.plan(deploy=f'{DEPLOY}\njournal = "{url}"', servers=TIERS["two_phase"].servers)
        before = dumps_of(fleet)

        def spoil() -> None:
            with pg_database.server.connect() as session, pg_database.connect() as inside:
                (inside if "TABLE" in statement else session).execute(statement.format(name=pg_database.name).encode())

        # Settings of a database are those of later sessions.
        proxy.arm(Fault(r"INSERT INTO smooth_journal \(.*preparing", Harm.REQUEST_LOST, meanwhile=spoil))
        outcome = fleet.run("deploy")

        assert outcome.exit_code == 1, outcome.stderr
        assert outcome.report["error"]["type"] == "journal_unsure"
        assert not fleet.prepared()
        assert dumps_of(fleet) == before
        with pg_database.server.connect() as session:
            session.execute(f"ALTER DATABASE {pg_database.name} ALLOW_CONNECTIONS true".encode())


@pytest.mark.long
def test_a_decision_without_an_answer_is_in_doubt_also_where_the_journal_then_refuses_to_connect(
    releases: Releases, pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, FaultProxy(pg_database.server.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{pg_database.name}"
        fleet.plan(deploy=f'{DEPLOY}\njournal = "{url}"', servers=TIERS["two_phase"].servers)
        decided_by_journal(fleet)

        def allow(value: str) -> None:
            with pg_database.server.connect() as session:
                session.execute(f"ALTER DATABASE {pg_database.name} ALLOW_CONNECTIONS {value}".encode())

        fault = Fault("^COMMIT", Harm.REPLY_LOST, meanwhile=lambda: allow("false"))
        decision = r"INSERT INTO smooth_journal \(.*decision.*commit"
        proxy.arm(Fault(decision, Harm.DELAYED, meanwhile=lambda: proxy.arm(fault)))
        outcome = fleet.run("deploy")
        allow("true")

        assert (outcome.exit_code, outcome.report["error"]["type"]) == (4, "journal_unsure"), outcome.stderr
        assert len(fleet.prepared()) == 2
        fleet.run_printed(outcome)
        assert dumps_of(fleet) == releases.after("two_phase")


# --- full, read-only, newer -----------------------------------------------------------------------------------------


@contextmanager
def _small_disk(directory: Path, size_kb: int) -> Iterator[None]:
    directory.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@pytest.mark.long
@_needs_root
@pytest.mark.parametrize("size_kb", [120, *(pytest.param(size, marks=pytest.mark.long) for size in range(32, 240, 8))])
def test_a_journal_on_a_full_disk_decides_nothing(releases: Releases, tmp_path: Path, size_kb: int) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, _small_disk(_journal(fleet).parent, size_kb):
        before = dumps_of(fleet)

        outcome = fleet.run("deploy")

        is_new = outcome.exit_code == 0
        if not is_new:
            assert outcome.exit_code in {1, 3}, outcome.stderr
            assert outcome.report["error"]["hint"] == "make room on its disk"
        assert not fleet.prepared()
        assert dumps_of(fleet) == (releases.after("two_phase") if is_new else before)
        subprocess.run(["mount", "-o", "remount,size=9m", _journal(fleet).parent], check=True)
        recovered = fleet.run("recover")
        assert recovered.exit_code == 0, recovered.stderr
        assert dumps_of(fleet) == (releases.after("two_phase") if is_new else before)
        assert fleet.run("deploy").exit_code == 0
        assert dumps_of(fleet) == releases.after("two_phase")


@pytest.mark.parametrize("size_kb", range(8, 200, 12))
@pytest.mark.long
def test_files_that_may_not_grow_leave_all_databases_old_or_all_new(
    releases: Releases, tmp_path: Path, size_kb: int
) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet:
        before = dumps_of(fleet)

        outcome = fleet.run("deploy", under=["prlimit", f"--fsize={size_kb * 1024}"])

        assert outcome.exit_code in {0, 1, 3, 4}, outcome.stderr
        recovered = fleet.run("recover")
        assert recovered.exit_code == 0, recovered.stderr
        assert not fleet.prepared()
        assert dumps_of(fleet) in (before, releases.after("two_phase"))
        if outcome.exit_code in {1, 3}:
            assert dumps_of(fleet) == before
        assert fleet.run("deploy").exit_code == 0
        assert dumps_of(fleet) == releases.after("two_phase")


@_needs_root
@pytest.mark.long
def test_a_journal_that_can_only_be_read_is_refused_before_anything_is_changed(
    releases: Releases, tmp_path: Path
) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, _small_disk(_journal(fleet).parent, 9000):
        _crash(fleet, "journal.decision.after")
        gids = fleet.prepared()
        subprocess.run(["mount", "-o", "remount,ro", _journal(fleet).parent], check=True)
        for command in ("deploy", "recover"):
            refused = fleet.run(command)
            assert refused.exit_code == 3, refused.stderr
            assert "may write to" in refused.report["error"]["hint"]
            assert fleet.prepared() == gids
        subprocess.run(["mount", "-o", "remount,rw", _journal(fleet).parent], check=True)
        assert fleet.run("recover").exit_code == 0
        assert dumps_of(fleet) == releases.after("two_phase")


@pytest.mark.long
def test_a_journal_of_a_newer_version_settles_nothing(releases: Releases, tmp_path: Path) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet:
        _crash(fleet, "journal.decision.after")
        gids = fleet.prepared()
        with closing(sqlite3.connect(_journal(fleet))) as journal:
            (version,) = journal.execute("PRAGMA user_version").fetchone()
            journal.execute("PRAGMA user_version = 99")
        for command in ("deploy", "recover"):
            refused = fleet.run(command)
            assert refused.exit_code == 3, refused.stderr
            assert "use the smooth-orchestrator that wrote it" in refused.report["error"]["hint"]
            assert fleet.prepared() == gids
        with closing(sqlite3.connect(_journal(fleet))) as journal:
            journal.execute(f"PRAGMA user_version = {version}")
        assert fleet.run("recover").exit_code == 0
        assert dumps_of(fleet) == releases.after("two_phase")
