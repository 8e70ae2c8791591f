"""Kills of what runs in halves, at every crash point of deploy, rollback and finalise: all old or all new then."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.support.crash_points import FORWARD, HALVES, UNAPPLYING, UNDECIDED, UNWRITTEN
from tests.support.deploys import Fleet, copy_of, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import KIND
from tests.support.small_project import migration

_NEXT = migration(
    "migrations.RemoveField('item', 'name')",
    "migrations.AddField('item', 'size', models.IntegerField(default=7))",
    "migrations.AddConstraint('item', models.CheckConstraint(condition=models.Q(id__gt=0), name='positive'))",
    "migrations.AddConstraint('item', models.UniqueConstraint(fields=['id'], name='single'))",
    after=[("demo", "0001_item")],
)
_LATER = KIND.replace("0002_note", "0002_next")
_SERVERS = {"held": 'atomicity = "held_open"', "prepared": 'atomicity = "two_phase"'}
_SAMPLE = {("finalise", "prepared", "journal.decision.after")}
_STATES = ("old", "expanded", "contracted")

_Fleets = Callable[[str, str], Fleet]


def _points(command: str) -> Iterator[ParameterSet]:
    own = [point for point in HALVES[command] if not point.startswith("discard.")]
    for kind in _SERVERS:
        # What receives nothing has nothing of that to take back.
        back = [point for point in UNAPPLYING.get(kind, []) if command == "rollback" and "received" not in point]
        # Finalising runs no migration.
        way = [point for point in FORWARD[kind] if command != "finalise" or not point.startswith("apply.")]
        for point in [*own, *way, *back]:
            marks = [] if (command, kind, point) in _SAMPLE else [pytest.mark.long]
            yield pytest.param(command, kind, point, marks=marks, id=f"{command}-{kind}-{point}")


@pytest.fixture(scope="module")
def fleets(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Fleets]:
    """Fleets of each kind before the deploy, after it, and after its finalise; made when they are first asked for."""
    with ExitStack() as stack:

        @cache
        def of(kind: str, state: str) -> Fleet:
            directory = tmp_path_factory.mktemp(f"{kind}-{state}")
            if state == "old":
                release = {"demo.0002_next": _NEXT, "demo.0003_kind": _LATER}
                fleet = stack.enter_context(small_fleet(directory, pg_server, second_pg_server, release))
                fleet.plan(deploy='expand_contract = true\nsettle_timeout = "2s"', servers=_SERVERS[kind])
                plan = fleet.directory / "deploy.toml"
                plan.write_text(f'{plan.read_text()}\n[finalise]\nbake_time = "0s"\n')
            else:
                earlier = of(kind, _STATES[_STATES.index(state) - 1])
                fleet = stack.enter_context(copy_of(earlier, directory, journal=True))
                done = fleet.run("deploy" if state == "expanded" else "finalise")
                assert done.exit_code == 0, done.stderr
            fleet.wait_until_alone()
            return fleet

        yield of


@contextmanager
def _copied(fleets: _Fleets, kind: str, state: str, directory: Path) -> Iterator[Fleet]:
    with copy_of(fleets(kind, state), directory, journal=True) as fleet:
        yield fleet


def _content(fleet: Fleet) -> dict[str, str]:
    return fleet.dumps(sequences=False, applied=False)


def _held_back(fleet: Fleet) -> list[int]:
    return [len(entry["contract_pending"]) for entry in fleet.run("status").report["databases"]]


@pytest.mark.parametrize(
    ("command", "kind", "point"), [case for command in ("deploy", "rollback", "finalise") for case in _points(command)]
)
def test_a_crash_leaves_all_old_or_all_new(
    fleets: _Fleets, tmp_path: Path, command: str, kind: str, point: str
) -> None:
    before, after = {
        "deploy": ("old", "expanded"),
        "rollback": ("expanded", "old"),
        "finalise": ("expanded", "contracted"),
    }[command]
    with _copied(fleets, kind, before, tmp_path / "plan") as fleet:
        ended = len(fleet.decisions())
        fleet.kill(command, point)

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        is_decided = fleet.decisions()[ended:][-1:] == ["commit"]
        state = after if is_decided else before
        assert _content(fleet) == _content(fleets(kind, state))
        assert not fleet.prepared()
        assert {*_held_back(fleet)} == {5 if state == "expanded" else 0}
        if not is_decided:
            done = fleet.run(command)
            assert (done.exit_code, done.named("recover.started")) == (0, []), done.stderr
            assert _content(fleet) == _content(fleets(kind, after))


@pytest.mark.long
@pytest.mark.parametrize("kind", _SERVERS)
@pytest.mark.parametrize("point", [*HALVES["recover"], "lift.after:2", "restore.before", "restore.after"])
def test_a_crash_while_what_was_made_ready_is_dropped_leaves_none(
    fleets: _Fleets, tmp_path: Path, kind: str, point: str
) -> None:
    with _copied(fleets, kind, "expanded", tmp_path / "plan") as fleet:
        # Where the SQLite file is the last resource, its commit is the decision.
        undecided = UNDECIDED if kind == "prepared" else UNWRITTEN
        assert fleet.run("finalise", failpoint=undecided).exit_code == -9
        for process in fleet.processes():
            process.wait(timeout=20)
        killed = fleet.run("recover", failpoint=point)
        assert killed.exit_code == -9 or killed.named("worker.failed"), f"{point} was not reached"
        for process in fleet.processes():
            process.wait(timeout=20)
        fleet.wait_until_alone()

        assert fleet.run("recover").exit_code == 0

        assert _content(fleet) == _content(fleets(kind, "expanded"))
        assert fleet.run("finalise").exit_code == 0
        assert _content(fleet) == _content(fleets(kind, "contracted"))


@pytest.mark.long
@pytest.mark.parametrize("point", [pytest.param("discard.before", marks=pytest.mark.long), "discard.after"])
def test_a_crash_while_rows_are_discarded_loses_none(fleets: _Fleets, tmp_path: Path, point: str) -> None:
    with _copied(fleets, "prepared", "expanded", tmp_path / "plan") as fleet:
        fleet.execute("INSERT INTO demo_item (size, kind) VALUES (9, 'new')")
        before = _content(fleet)
        assert fleet.run("rollback").exit_code == 3
        killed = fleet.run("rollback", "--discard-data", failpoint=point)
        assert killed.exit_code == -9 or killed.named("worker.failed"), f"{point} was not reached"
        for process in fleet.processes():
            process.wait(timeout=20)
        fleet.wait_until_alone()

        assert fleet.run("recover").exit_code == 0

        assert _content(fleet) == before
        assert fleet.run("rollback", "--discard-data").exit_code == 0
        assert _content(fleet) == _content(fleets("prepared", "old"))
