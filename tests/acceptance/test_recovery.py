"""Every crash point of a deploy: the next command settles what was left, all databases new or all as they were."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from smooth_migrations.protocol.failpoints import COORDINATOR, WORKER
from tests.support.crash_points import (
    BACK,
    FORWARD,
    HALVES,
    RECOVERY,
    STRUCK,
    TAKEN_BACK,
    UNAPPLYING,
    UNDECIDED,
    UNWRITTEN,
)
from tests.support.deploys import LAST, Fleet, copy_of, fleet_on, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import BUILD, ITEM, KIND, NOTE, run_python
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(180)

# Outside a transaction, so that the databases of PostgreSQL are compensated.
_STEPPING = {"demo.0002_note": NOTE.replace("atomic = True", "atomic = False"), "demo.0003_kind": KIND}
_PLAIN = {"demo.0002_note": NOTE, "demo.0003_kind": KIND}
# What is filled stays, so that what was filled must be what was there.
_FILLING = BUILD.replace("operations = [", "operations = [Backfill('Item', {'name': F('name')}, where=Q()),").replace(
    "import os\n", "import os\nfrom django.db.models import F, Q\nfrom smooth_migrations import Backfill\n"
)
_LATE = "migrations.AddField('item', 'late', models.IntegerField(null=True))"
_ADDS = "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))"


def _running(body: str, *, atomic: bool = True) -> dict[str, str]:
    """Return a release that runs code on the server of the last phase, and is done with everything else before."""
    forwards = run_python(f"if editor.connection.alias == 'shard_1':\n        {body}")
    operations = (_ADDS, "migrations.RunPython(forwards, nothing)")
    return {"demo.0002_note": migration(*operations, after=[("demo", "0001_item")], atomic=atomic, functions=forwards)}


# The file stands in the project's directory, in which its worker runs, for as long as the release is to fail.
_STRIKE = "strike"
_IF_STRUCK = f"if os.path.exists({_STRIKE!r}):"
_RENAMES = "apps.get_model('demo', 'item').objects.using(editor.connection.alias).update(name='kites')"
_BROKEN_CODE = f"{_RENAMES}\n        {_IF_STRUCK} raise ValueError('no')"
_LOST_WORKER = f"{_IF_STRUCK}\n            os.unlink({_STRIKE!r})\n            os.kill(os.getpid(), signal.SIGKILL)"
_ELSEWHERE = (
    "from django.db import connections; connections['side'].cursor().execute('CREATE TABLE IF NOT EXISTS x (y)')"
)

_RELEASES = {
    "held": _PLAIN,
    "steps": _STEPPING,
    "prepared": _PLAIN,
    "all prepared": _PLAIN,
    "phases": _PLAIN,
    "ahead": {"demo.0002_note": _FILLING, "demo.0003_kind": KIND},
    # By code that fails outside a transaction.
    "code": _running(_BROKEN_CODE, atomic=False),
    "lost": _running(_LOST_WORKER),
    # Another alias joins the call.
    "joined": _running(_ELSEWHERE),
    # With options that the coordinator's own driver does not know.
    "through workers": _PLAIN,
    # Nothing was there before.
    "empty": _PLAIN,
    "gathered": _PLAIN | {"demo.0004_late": migration(_LATE, after=[("demo", "0003_kind")], atomic=False)},
}
_EMPTY = {"empty", "gathered"}
_HELD_OPEN, _TWO_PHASE = 'atomicity = "held_open"', 'atomicity = "two_phase"'
_SERVERS = {
    "held": _HELD_OPEN,
    "steps": "",
    "prepared": _TWO_PHASE,
    "all prepared": _TWO_PHASE,
    "phases": _TWO_PHASE,
    "ahead": _TWO_PHASE,
    "code": "",
    "lost": _HELD_OPEN,
    "joined": f'{_HELD_OPEN}\nother_aliases = "allow"',
    "through workers": _TWO_PHASE,
    "empty": 'atomicity = "compensated"',
    "gathered": "",
}
_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"'
# Each phase is committed by itself, and taken back when a later one fails.
_BY_PHASE = {"phases": 'commit = "phase"'}
_FAILS = 'gate = ["false"]'


# As many as there is time for at each commit; each of the others is `long`.
_SAMPLE = {("prepared", "journal.decision.after")}
_BACK_SAMPLE = {("held", "rollback.before")}
_ROLLBACK_SAMPLE = {("prepared", "journal.decision.after")}


_SETTLED = {"commit": "committed", "abort": "rolled_back"}
_RECOVERIES = [
    pytest.param(
        kind,
        point,
        then,
        marks=pytest.mark.long,
        id=f"{kind}-{point}-{then}",
    )
    for (kind, point), each in RECOVERY.items()
    for then in each
]


def _cases(points: dict[str, list[str]], sample: set[tuple[str, str]]) -> list[ParameterSet]:
    return [
        pytest.param(kind, point, marks=[] if (kind, point) in sample else [pytest.mark.long], id=f"{kind}-{point}")
        for kind, each in points.items()
        for point in each
    ]


@dataclass(frozen=True)
class _Kind:
    """A fleet before its deploy and after it, and what an undisturbed one makes of its databases."""

    old: Fleet
    deployed: Fleet
    new: dict[str, str]


_Deploys = Callable[[str], _Kind]


@pytest.fixture(scope="module")
def deploys(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Deploys]:
    """Make a kind when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def of_kind(kind: str) -> _Kind:
            directory = tmp_path_factory.mktemp(kind.replace(" ", "-"))
            old = stack.enter_context(_old(kind, directory / "old", pg_server, second_pg_server))
            old.plan(deploy=_deploy(kind), servers=_SERVERS[kind])
            if kind in {"all prepared", "ahead"}:
                old.migrate("kiosk", *(["--fake"] if kind == "ahead" else []))
            deployed = stack.enter_context(_copy(kind, old, directory / "new"))
            outcome = deployed.run("deploy")
            assert outcome.exit_code == 0, outcome.stderr
            deployed.wait_until_alone()
            return _Kind(old, deployed, _of(deployed))

        yield of_kind


def _deploy(kind: str) -> str:
    return "\n".join([_DEPLOY, _BY_PHASE.get(kind, "")])


@contextmanager
def _old(kind: str, directory: Path, first: PostgresServer, last: PostgresServer) -> Iterator[Fleet]:
    if kind not in _EMPTY:
        with small_fleet(directory, first, last, _RELEASES[kind]) as fleet:
            yield fleet
        return
    with fleet_on(directory, first, last, settings="small_settings", variable="SMALL_DATABASES") as fleet:
        SmallProject(directory / "project", fleet.databases, {"demo.0001_item": ITEM, **_RELEASES[kind]})
        yield fleet


@contextmanager
def _copy(kind: str, fleet: Fleet, directory: Path, *, journal: bool = False) -> Iterator[Fleet]:
    """Copy a fleet, with what is particular to its kind in its settings."""
    with copy_of(fleet, directory, journal=journal) as copied:
        if kind == "joined":
            side = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / "side.sqlite3")}
            copied.databases["side"] = side
        if kind == "through workers":
            for alias in ("default", "shard_1"):
                copied.databases[alias] |= {"OPTIONS": {"keepalives": 1}}
        yield copied


def _of(fleet: Fleet) -> dict[str, str]:
    return fleet.dumps(sequences=False, applied=False)


def _assert_deploys(fleet: Fleet, kind: _Kind) -> None:
    """Assert that a deploy finds nothing left to be settled, and makes everything new."""
    outcome = fleet.run("deploy")
    assert (outcome.exit_code, outcome.named("recover.started")) == (0, []), outcome.stderr
    assert _of(fleet) == kind.new


@pytest.mark.parametrize(("kind", "point"), _cases(FORWARD, _SAMPLE))
def test_a_crash_on_the_way_is_settled(deploys: _Deploys, tmp_path: Path, kind: str, point: str) -> None:
    with _copy(kind, deploys(kind).old, tmp_path / "plan") as fleet:
        before = _of(fleet)
        fleet.kill("deploy", point)

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        is_decided = fleet.decisions()[-1:] == ["commit"]
        assert _of(fleet) == (deploys(kind).new if is_decided else before)
        assert not fleet.prepared()
        _assert_deploys(fleet, deploys(kind))


@pytest.mark.parametrize(("kind", "point"), _cases(BACK, _BACK_SAMPLE))
def test_a_crash_on_the_way_back_is_settled(deploys: _Deploys, tmp_path: Path, kind: str, point: str) -> None:
    with _copy(kind, deploys(kind).old, tmp_path / "plan") as fleet:
        fleet.plan(deploy=_deploy(kind), shards=_FAILS, servers=_SERVERS[kind])
        before = _of(fleet)
        fleet.kill("deploy", point)

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        assert _of(fleet) == before
        fleet.plan(deploy=_deploy(kind), servers=_SERVERS[kind])
        _assert_deploys(fleet, deploys(kind))


@pytest.mark.parametrize(("kind", "point"), _cases(STRUCK, set()))
def test_a_crash_on_the_way_back_from_what_failed_is_settled(
    deploys: _Deploys, tmp_path: Path, kind: str, point: str
) -> None:
    with _copy(kind, deploys(kind).old, tmp_path / "plan") as fleet:
        before = _of(fleet)
        strike = fleet.directory / "project" / _STRIKE
        strike.touch()
        fleet.kill("deploy", point)
        strike.unlink(missing_ok=True)

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        assert _of(fleet) == before
        _assert_deploys(fleet, deploys(kind))


@pytest.mark.parametrize(
    ("kind", "point"), [*_cases(TAKEN_BACK, _ROLLBACK_SAMPLE), *_cases(UNAPPLYING, _ROLLBACK_SAMPLE)]
)
def test_a_crash_of_a_rollback_is_settled(deploys: _Deploys, tmp_path: Path, kind: str, point: str) -> None:
    with _copy(kind, deploys(kind).deployed, tmp_path / "plan", journal=True) as fleet:
        fleet.kill("rollback", point)

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        old = _of(deploys(kind).old)
        is_decided = fleet.decisions()[-1:] == ["commit"] and len(fleet.decisions()) > 1
        assert _of(fleet) == (old if is_decided else deploys(kind).new)
        assert not fleet.prepared()
        assert fleet.run("rollback").exit_code == (3 if is_decided else 0)
        assert _of(fleet) == old


@pytest.mark.parametrize(("kind", "point", "then"), _RECOVERIES)
def test_a_crash_of_the_recovery_is_settled_by_the_next(
    deploys: _Deploys, tmp_path: Path, kind: str, point: str, then: str
) -> None:
    with _copy(kind, deploys(kind).old, tmp_path / "plan") as fleet:
        before = _of(fleet)
        fleet.kill("deploy", point)
        fleet.kill("recover", then)

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        assert not fleet.prepared()
        assert _of(fleet) == (before if point in {UNDECIDED, UNWRITTEN} else deploys(kind).new)
        assert fleet.run("deploy").exit_code == 0
        assert _of(fleet) == deploys(kind).new


@pytest.mark.long
def test_the_next_deploy_settles_a_decided_run_by_itself(deploys: _Deploys, tmp_path: Path) -> None:
    with copy_of(deploys("held").old, tmp_path / "plan") as fleet:
        fleet.kill("deploy", "journal.decision.after")

        outcome = fleet.run("deploy")

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "nothing_to_do"), outcome.stderr
        (settled,) = outcome.named("recover.settled")
        assert (settled["decision"], settled["outcome"]) == ("commit", "committed")
        assert _of(fleet) == deploys("held").new


@pytest.mark.long
def test_of_a_lost_journal_a_marker_proves_the_decision(deploys: _Deploys, tmp_path: Path) -> None:
    with copy_of(deploys("prepared").old, tmp_path / "plan") as fleet:
        fleet.kill("deploy", "journal.committed.before")
        shutil.rmtree(fleet.directory / ".smooth")

        outcome = fleet.run("deploy")

        assert outcome.exit_code == 0, outcome.stderr
        assert _of(fleet) == deploys("prepared").new


@pytest.mark.long
@pytest.mark.parametrize("choice", ["commit", "abort"])
def test_of_a_lost_journal_and_prepared_transactions_an_operator_decides(
    deploys: _Deploys, tmp_path: Path, choice: str
) -> None:
    with copy_of(deploys("prepared").old, tmp_path / "plan") as fleet:
        before = _of(fleet)
        fleet.kill("deploy", "decide.before")
        shutil.rmtree(fleet.directory / ".smooth")
        doubts = [entry["in_doubt"] for entry in fleet.run("status").report["databases"]]
        assert [len(each) for each in doubts] == [1, 0, 1]
        assert re.fullmatch(
            r"smooth:[^:]+:primary:\d+, prepared \d+ s ago by postgres, by a run that .* does not know", doubts[0][0]
        )

        for command in ("deploy", "recover"):
            undecided = fleet.run(command)
            assert (undecided.exit_code, undecided.report["outcome"]) == (4, "needs_operator"), undecided.stderr
            assert undecided.report["error"]["type"] == "journal_lost"
            assert f"transactions stand prepared on primary, {LAST}" in undecided.report["error"]["message"]

        settled = fleet.run("recover", f"--{choice}")

        assert (settled.exit_code, settled.report["outcome"]) == (0, _SETTLED[choice]), settled.stderr
        assert not fleet.prepared()
        # Nobody knows whether the run was to move the database that holds nothing prepared.
        after = deploys("prepared").new if choice == "commit" else before
        assert _of(fleet) == {"primary": after["primary"], LAST: after[LAST], "kiosk": before["kiosk"]}
        assert settled.outcomes["kiosk"] == "unchanged"
        told = [each["message"] for each in settled.report["errors"]]
        run_id = doubts[0][0].split(":")[1]
        untold = f"nothing of the run {run_id} is left on kiosk: left as they are"
        assert told == ([untold] if choice == "commit" else [])
        _assert_deploys(fleet, deploys("prepared"))


@pytest.mark.long
def test_what_was_decided_is_not_overruled(deploys: _Deploys, tmp_path: Path) -> None:
    with copy_of(deploys("prepared").old, tmp_path / "plan") as fleet:
        fleet.kill("deploy", "journal.decision.after")

        refused = fleet.run("recover", "--abort")

        assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
        assert "is to be settled by commit, as was decided" in refused.report["error"]["message"]
        assert fleet.run("recover", "--commit").exit_code == 0
        assert _of(fleet) == deploys("prepared").new


def test_every_point_is_visited() -> None:
    # Those of halves are visited in test_finalise_kills.
    kinds = (FORWARD, BACK, STRUCK, UNAPPLYING, RECOVERY, HALVES)
    visited = {point.partition(":")[0] for points in kinds for each in points.values() for point in each}
    assert visited == {*COORDINATOR, *WORKER}
