"""Scripts of the pure model, played by the installed program on two servers and a file.

The same seed draws the same script; what the model is certain of, whatever the order of its steps, must come out here.
"""

import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from smooth_orchestrator.config import Tier
from tests.support.deploys import Fleet, copy_of, small_fleet
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.scripts import Cut, Played, Script, play
from tests.support.small_migrations import KIND, NOTE
from tests.support.tiers import DEPLOY, dumps_of, proxied

pytestmark = pytest.mark.timeout(240)

_SEEDS = range(210)
_ORDERS = 12
_ALIASES = ("default", "kiosk", "shard_*")
_STATEMENTS = {
    "prepare": "^SELECT 1$",
    "commit": "^COMMIT$",
    "commit_prepared": "^COMMIT PREPARED",
    "rollback_prepared": "^ROLLBACK PREPARED",
}


def _script(seed: int) -> Script:
    return Script.drawn(random.Random(seed), servers=True)


def _expected(script: Script) -> list[Played]:
    """Return what becomes of a script in several orders, by one worker and by two."""
    chance = random.Random(repr(script))
    orders = [script.order, *(tuple(chance.randint(0, 11) for _n in range(9)) for _order in range(_ORDERS))]
    return [play(replace(script, order=order, workers=workers)) for order in orders for workers in (1, 2)]


@dataclass(frozen=True)
class _Fleets:
    """Fleets before a release, by whether the file is up to date already, and the databases after it."""

    old: dict[bool, Fleet]
    new: dict[str, str]


@pytest.fixture(scope="module")
def fleets(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Fleets]:
    directory, release = tmp_path_factory.mktemp("scripts"), {"demo.0002_note": NOTE, "demo.0003_kind": KIND}
    with ExitStack() as stack:
        old = stack.enter_context(small_fleet(directory / "old", pg_server, second_pg_server, release))
        idle = stack.enter_context(copy_of(old, directory / "idle"))
        idle.migrate("kiosk")
        with copy_of(old, directory / "new") as deployed:
            assert deployed.run("deploy").exit_code == 0
            deployed.wait_until_alone()
            new = dumps_of(deployed)
        yield _Fleets({False: old, True: idle}, new)


class _Replay:
    """A script on a fleet of its own."""

    def __init__(self, script: Script, fleet: Fleet) -> None:
        self._script = script
        self._fleet = fleet
        self.asked = False

    def plan(self, *, fails: bool) -> None:
        """Write the plan that a script means."""
        script = self._script
        deploy = f'{DEPLOY}\ncommit = "{"phase" if script.by_phase else "deploy"}"'
        self._fleet.plan(deploy=deploy, shards='gate = ["false"]' if fails else "")
        plan = self._fleet.directory / "deploy.toml"
        text = plan.read_text()
        for alias, tier in zip(_ALIASES, script.tiers, strict=True):
            line = f'{"aliases" if "*" in alias else "alias"} = "{alias}"\n'
            assert text.count(line) == 1
            text = text.replace(line, f'{line}atomicity = "{tier}"\n' if tier else line)
        plan.write_text(text)

    def strike(self) -> None:
        """Deploy, and recover as often as the recovery is struck."""
        script = self._script
        for number, point in enumerate(script.kills):
            self._fleet.run("recover" if number else "deploy", failpoint=point)
            if script.loses_journal == number:
                shutil.rmtree(self._fleet.directory / ".smooth", ignore_errors=True)
            if script.order[0] % 2:
                self._wait_until_gone()

    def settle(self) -> None:
        """Recover without a strike; where nobody can tell, the operator does."""
        settled = self._recover()
        if settled.exit_code == 4:
            assert settled.report["error"]["type"] == "journal_lost", settled.stderr
            self.asked = True
            settled = self._recover(f"--{self._script.choice}")
        assert settled.exit_code == 0, settled.stderr
        self._wait_until_gone()

    def _recover(self, *options: str) -> Outcome:
        outcome = self._fleet.run("recover", *options)
        if outcome.exit_code == 5:
            # A worker that has lost its coordinator was still taking back what it had done.
            self._wait_until_gone()
            outcome = self._fleet.run("recover", *options)
        return outcome

    def _wait_until_gone(self) -> None:
        for process in self._fleet.processes():
            process.wait(timeout=20)
        self._fleet.wait_until_alone()


def _arm(script: Script, cut: Cut, proxy: FaultProxy) -> None:
    """Have a statement's request, or its reply, lost."""
    harm = Harm.REPLY_LOST if cut.is_executed else Harm.REQUEST_LOST
    is_prepared = script.tiers[cut.database] is Tier.TWO_PHASE
    statements = _STATEMENTS | ({"prepare": "^PREPARE TRANSACTION"} if is_prepared else {})
    fault = Fault(statements[cut.statement], harm)
    if cut.statement == "commit":
        # Others are of no account here: the one after the barrier.
        proxy.arm(Fault(statements["prepare"], Harm.DELAYED, meanwhile=lambda: proxy.arm(fault)))
    else:
        proxy.arm(fault)


def _play_on_servers(script: Script, fleets: _Fleets, directory: Path) -> None:
    expected = _expected(script)
    with ExitStack() as stack:
        fleet = stack.enter_context(copy_of(fleets.old[script.tiers[1] is None], directory))
        proxies = stack.enter_context(proxied(fleet)) if script.cut else ()
        if script.cut is not None:
            _arm(script, script.cut, proxies[script.cut.database // 2])
        replay = _Replay(script, fleet)
        replay.plan(fails=script.fails)
        before = dumps_of(fleet)

        replay.strike()
        replay.settle()

        after = dumps_of(fleet)
        assert not fleet.prepared()
        assert not fleet.processes()
        are_new = {name: dump == fleets.new[name] for name, dump in after.items() if before[name] != fleets.new[name]}
        assert after == {name: fleets.new[name] if are_new.get(name) else before[name] for name in before}
        became = are_new["primary"] if len({*are_new.values()}) == 1 else None
        assert became in {played.is_new for played in expected} | _either(expected)
        assert replay.asked in {played.asked for played in expected}
        for proxy in proxies:
            proxy.disarm()
        replay.plan(fails=False)
        again = fleet.run("deploy")
        assert again.exit_code == 0, again.stderr
        assert dumps_of(fleet) == fleets.new


def _either(expected: list[Played]) -> set[bool]:
    """Return what is as good where the model does not say it of all databases."""
    return {True, False} if any(played.is_new is None for played in expected) else set()


@pytest.mark.long
@pytest.mark.parametrize("seed", _SEEDS)
def test_servers_end_as_the_model_does(fleets: _Fleets, tmp_path: Path, seed: int) -> None:
    script = _script(seed)
    try:
        _play_on_servers(script, fleets, tmp_path / "plan")
    except BaseException as error:
        error.add_note(f"in {script!r}")
        raise


def test_the_scripts_are_two_hundred() -> None:
    assert len({_script(seed) for seed in _SEEDS}) >= 200
