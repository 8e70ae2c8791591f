"""A journal whose server is restarted while a run writes to it: each moment ends with all databases old, or all new."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_server import PostgresServer
from tests.support.tiers import DEPLOY, TIERS, Releases, decided_by_journal, dumps_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

Mode = Literal["fast", "immediate"]
_MOMENTS: Final = ("run_started", "intent", "held", "preparing", "decision", "committed", "run_finished")
_DECIDED: Final = {"committed", "run_finished"}


@pytest.fixture(scope="module")
def journal_server() -> Iterator[PostgresServer]:
    """A server for journals alone."""
    with PostgresServer() as server:
        yield server


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("moment", _MOMENTS)
def test_all_databases_are_old_or_all_are_new(
    releases: Releases, journal_server: PostgresServer, tmp_path: Path, moment: str, mode: Mode
) -> None:
    name = f"journal_{moment}_{mode}"
    journal_server.create_database(name)
    with releases.copy("two_phase", tmp_path / "plan") as fleet, FaultProxy(journal_server.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"
        fleet.plan(deploy=f'{DEPLOY}\njournal = "{url}"', servers=TIERS["two_phase"].servers)
        decided_by_journal(fleet)
        before, after = dumps_of(fleet), releases.after("two_phase")

        statement = rf"INSERT INTO smooth_journal \(.*{moment}"
        fault = proxy.arm(Fault(statement, Harm.DELAYED, meanwhile=lambda: journal_server.restart(mode)))
        outcome = fleet.run("deploy")

        fault.wait()
        # A journal that answers again in time loses the run nothing; else it may be in doubt, and is settled here.
        assert outcome.exit_code in ({0} if moment in _DECIDED else {0, 1, 4}), outcome.stderr
        recovered = fleet.run("recover")
        assert (recovered.exit_code, fleet.prepared()) == (0, []), recovered.stderr
        assert dumps_of(fleet) in {0: [after], 1: [before], 4: [before, after]}[outcome.exit_code]
        assert fleet.run("deploy").exit_code == 0
        assert dumps_of(fleet) == after
