from collections.abc import Iterator
from io import StringIO

import pytest
from rich.cells import cell_len

from smooth_orchestrator.events import EventName
from smooth_orchestrator.progress.heard import Heard
from smooth_orchestrator.progress.table import frame_of
from smooth_orchestrator.progress.told import State
from tests.support.clock import Clock

STEP = {"app": "orders", "migration": "0007_total", "direction": "forwards"}
HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[2J\x1b]0;owned\x07",
    "x" * 5000,
    "[bold]markup",
    "データベース" * 20,
    "a\nb\tc",
    "\u202eabc",
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heard(clock: Clock) -> Heard:
    return Heard("deploy", clock)


def _tell(heard: Heard, event: EventName, **keys: object) -> None:
    heard({"event": event, "deploy": "shop", "run_id": "r1", **keys})


def _begin(heard: Heard, *names: str) -> None:
    _tell(heard, EventName.DEPLOY_STARTED, databases=[*names], phases=["canary", "fleet"])


def _state(heard: Heard, name: str) -> State:
    return next(each.state for each in heard.told().databases if each.name == name)


def _frame(heard: Heard, width: int = 100, height: int = 30) -> list[str]:
    return [line.rstrip() for line in frame_of(heard.told(), StringIO(), width, height)]


def test_a_database_goes_from_state_to_state_as_it_is_told(heard: Heard) -> None:
    _begin(heard, "primary", "idle")
    _tell(heard, EventName.PREFLIGHT_PASSED, databases=["primary", "idle"], idle=["idle"])
    blocker = {"pid": 7, "application_name": "psql", "query_age_ms": 1.0}
    error = {"type": "LockNotAvailable", "message": "timed out", "sqlstate": "55P03", "traceback": None}
    seen = [_state(heard, "primary")]
    for event, keys in (
        (EventName.MIGRATION_STARTED, STEP),
        (EventName.LOCK_WAITING, {"blockers": [blocker]}),
        (EventName.LOCK_WAITED, {"waited_ms": 3.0}),
        (EventName.LOCK_RETRY, {"attempt": 1, "delay_ms": 50.0, "error": error}),
        (EventName.MIGRATION_STARTED, STEP),
        (EventName.MIGRATION_APPLIED, STEP | {"duration_ms": 1.0}),
        (EventName.DATABASE_PREPARED, {}),
        (EventName.DATABASE_COMMITTED, {}),
    ):
        _tell(heard, event, database="primary", **keys)
        seen.append(_state(heard, "primary"))

    assert [*map(str, seen)] == [
        "to come",
        "at work",
        "waiting",
        "at work",
        "retrying",
        "at work",
        "at work",
        "ready",
        "committed",
    ]
    assert _state(heard, "idle") is State.IDLE


def test_what_is_done_again_each_migration_by_itself_has_not_failed(heard: Heard) -> None:
    error = {"type": "UnsafeNewEnumValueUsage", "message": "unsafe use", "sqlstate": "55P04", "traceback": None}
    _begin(heard, "primary")
    _tell(heard, EventName.MIGRATION_STARTED, database="primary", **STEP)
    _tell(heard, EventName.MIGRATION_FAILED, database="primary", **STEP, duration_ms=1.0, error=error)
    seen = [(_state(heard, "primary"), heard.told().doing)]
    for tier in ("compensated", "held_open"):
        _tell(heard, EventName.TIER_CHANGED, database="primary", tier=tier, error=error)
        seen.append((_state(heard, "primary"), heard.told().doing))

    again = (State.RETRYING, "migrating")
    assert seen == [(State.FAILED, "stopping, after a failure"), again, again]


def test_a_command_that_tells_of_no_database_is_said_to_look_once_it_has_a_worker(heard: Heard) -> None:
    assert heard.told().doing == "starting"
    _tell(heard, EventName.WORKER_STARTED, project="shop", pid=7)
    assert heard.told().doing == "looking"
    _tell(heard, EventName.PHASE_STARTED, phase="canary")
    _tell(heard, EventName.WORKER_STARTED, project="shop", pid=8)
    assert heard.told().doing == "migrating"


def test_what_is_taken_back_is_counted_down_and_a_failure_stays_one(heard: Heard) -> None:
    _begin(heard, "one", "two")
    for name in ("one", "two"):
        _tell(heard, EventName.MIGRATION_STARTED, database=name, **STEP, pending=2)
        _tell(heard, EventName.MIGRATION_APPLIED, database=name, **STEP, duration_ms=1.0)
    _tell(heard, EventName.MIGRATION_FAILED, database="two", **STEP, error={"message": "a row is in the way"})
    _tell(heard, EventName.DEPLOY_DECIDED, decision="abort")
    for name in ("one", "two"):
        _tell(heard, EventName.MIGRATION_UNAPPLIED, database=name, **STEP, duration_ms=1.0)
        _tell(heard, EventName.DATABASE_ROLLED_BACK, database=name)

    one, two = heard.told().databases
    assert (one.state, one.moved, two.state, two.moved) == (State.ROLLED_BACK, 0, State.FAILED, 0)
    assert two.note == "a row is in the way"


def test_a_few_databases_stand_in_the_plans_order_with_what_they_are_at(heard: Heard, clock: Clock) -> None:
    _begin(heard, "primary", "shard")
    _tell(heard, EventName.PHASE_STARTED, phase="canary", databases=["primary"])
    _tell(heard, EventName.MIGRATION_STARTED, database="shard", **STEP, pending=3)
    _tell(heard, EventName.OUTPUT_CAPTURED, database="shard", stream="stdout", line="filled 10,000 rows")
    clock.now_s += 67

    assert _frame(heard) == [
        "deploy of shop: migrating, 1:07 min  run r1",
        "phases: canary at work, fleet to come",
        "1 at work, 1 to come",
        "",
        "database  state    run  for       at",
        "primary   to come",
        "shard     at work  0/3  1:07 min  orders.0007_total: filled 10,000 rows",
    ]


def test_a_phase_in_which_something_failed_is_not_said_to_be_done(heard: Heard) -> None:
    _begin(heard, "primary", "shard")
    for phase, outcome in (("canary", "committed"), ("fleet", "rolled_back")):
        _tell(heard, EventName.PHASE_STARTED, phase=phase, databases=["primary"])
        _tell(heard, EventName.PHASE_FINISHED, phase=phase, outcome=outcome, duration_ms=3.0)

    assert _frame(heard)[1] == "phases: canary done, fleet stopped"


def test_of_many_databases_the_urgent_ones_are_shown_slowest_first_and_all_are_counted(
    heard: Heard, clock: Clock
) -> None:
    names = [f"shard_{number}" for number in range(1000)]
    _begin(heard, *names)
    for name in reversed(names[:100]):
        clock.now_s += 1
        _tell(heard, EventName.MIGRATION_STARTED, database=name, **STEP)
    _tell(heard, EventName.LOCK_WAITING, database="shard_3", blockers=[])
    _tell(heard, EventName.MIGRATION_FAILED, database="shard_5", **STEP, error={"message": "no"})

    frame = _frame(heard, height=12)
    assert frame[2] == "1 failed, 1 waiting for a lock, 98 at work, 900 to come"
    assert [line.split()[0] for line in frame[5:-1]] == ["shard_5", "shard_3", "shard_99", "shard_98", "shard_97"]
    assert frame[-1] == "and 95 more like the last"


def _sizes() -> Iterator[tuple[int, int]]:
    for width in (1, 2, 7, 20, 40, 80, 300):
        for height in (1, 2, 3, 5, 6, 8, 24, 60):
            yield width, height


def test_a_picture_fits_every_window_whatever_the_names(heard: Heard) -> None:
    _begin(heard, *HOSTILE)
    for name in HOSTILE:
        _tell(heard, EventName.PHASE_STARTED, phase=name, databases=[name])
        _tell(heard, EventName.GATE_STARTED, phase=name, argv=HOSTILE)
        _tell(heard, EventName.MIGRATION_STARTED, database=name, app=name, migration=name, direction="forwards")
        _tell(heard, EventName.OUTPUT_CAPTURED, database=name, stream="stdout", line=name)

    for width, height in _sizes():
        frame = frame_of(heard.told(), StringIO(), width, height)
        assert len(frame) <= height - 1
        assert all(cell_len(line) < max(width, 2) and line.isprintable() for line in frame), frame


def test_what_machines_of_a_fleet_are_at_has_a_line_of_its_own(heard: Heard, clock: Clock) -> None:
    _begin(heard, *(f"shard_{number}" for number in range(4)))
    for number, worker in enumerate(("web-1:7", "web-2:8", "web-2:8")):
        _tell(heard, EventName.MIGRATION_STARTED, database=f"shard_{number}", **STEP, pending=2, worker=worker)
        _tell(heard, EventName.MIGRATION_APPLIED, database=f"shard_{number}", **STEP, duration_ms=1.0, worker=worker)
    _tell(heard, EventName.DATABASE_PREPARED, database="shard_1")
    error = {"message": "the worker on web-1:7 has ended"}
    _tell(heard, EventName.DATABASE_BEGUN_ANEW, database="shard_0", error=error, kept=0, worker="web-1:7")
    clock.now_s += 3

    frame = _frame(heard)
    assert frame[2:4] == ["machines: web-2:8 1 of 2 at work", "1 retrying, 1 at work, 1 ready, 1 to come"]
    assert frame[6] == "shard_0   retrying  0/2  3 s  begun anew: the worker on web-1:7 has ended: orders.0007_total"
    assert _frame(heard, width=30)[2] == "machines: 1, 1 of 2 at work"
    assert len(_frame(heard, height=8)) <= 7
