"""Fleets whose runs are cut off, and settled by another command than their own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.deploys import Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome

__all__ = ["BY_PHASE", "DEPLOY", "TWO_PHASE", "fleet_with", "kill_at", "schemas_of", "settle"]

DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"'
BY_PHASE = f'{DEPLOY}\ncommit = "phase"'
TWO_PHASE = 'atomicity = "two_phase"'


@contextmanager
def fleet_with(
    directory: Path, servers: tuple[PostgresServer, PostgresServer], release: Mapping[str, str], *, deploy: str
) -> Iterator[Fleet]:
    """Have a release ready in a fleet of which the SQLite file is the last resource."""
    with small_fleet(directory, *servers, release) as fleet:
        fleet.plan(deploy=deploy, servers=TWO_PHASE)
        yield fleet


def schemas_of(fleet: Fleet) -> dict[str, str]:
    """Return a dump of each database, without how far sequences have come and when migrations were applied."""
    return fleet.dumps(sequences=False, applied=False)


def kill_at(fleet: Fleet, point: str, command: str = "deploy", *options: str) -> None:
    """Run a command that kills itself at a crash point, and wait until nothing of it is left."""
    killed = fleet.run(command, *options, failpoint=point)
    assert killed.exit_code == -9, f"{point} was not reached: {killed.stderr}"
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()


def settle(fleet: Fleet) -> Outcome:
    """Have `recover` settle what was left, all of it, and return how."""
    recovered = fleet.run("recover")
    assert recovered.exit_code == 0, recovered.stderr
    assert not fleet.prepared()
    return recovered
