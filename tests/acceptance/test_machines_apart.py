"""Machines of a fleet that are out of reach for a while: cut off from the queue, or fallen out of their network."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support import namespaces
from tests.support.fault_proxy import FaultProxy
from tests.support.leases import until
from tests.support.machines import FleetOfMachines, Machine, fleet_of_machines
from tests.support.namespaces import Namespace, namespace
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM, NOTE
from tests.support.small_project import migration

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

_COUNT: Final = 6
# It ends when the test lets it.
_WAITS: Final = """
import os
import time


def wait(apps, editor):
    while not os.path.exists(os.environ["SMALL_GO"]):
        time.sleep(0.02)
"""
_RELEASE: Final = {
    "demo.0001_item": ITEM,
    "demo.0002_note": NOTE,
    "demo.0003_wait": migration(
        "migrations.RunPython(wait, migrations.RunPython.noop)", functions=_WAITS, after=[("demo", "0002_note")]
    ),
}
_HEARD: Final = """
    SELECT count(*) FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id, pg_sleep(0.1)
    WHERE m.name = %s AND w.last_heartbeat > clock_timestamp() - interval '4 seconds'
"""


@pytest.fixture
def networks() -> Iterator[Sequence[Namespace]]:
    """Three networks; where this machine has none, their tests are skipped."""
    if reason := namespaces.why_not():
        pytest.skip(reason)
    with ExitStack() as stack:
        yield [stack.enter_context(namespace(number)) for number in range(3)]


@pytest.fixture
def servers(networks: Sequence[Namespace], pg_programs: Path | None) -> Iterator[Sequence[PostgresServer]]:
    """Two servers that these networks reach."""
    settings = {**THROW_AWAY, "listen_addresses": ",".join(["127.0.0.1", *(network.host for network in networks)])}
    with ExitStack() as stack:
        found = [stack.enter_context(PostgresServer(settings=settings, programs=pg_programs)) for _ in range(2)]
        for server in found:
            with (server.data / "pg_hba.conf").open("a") as rules:
                rules.writelines(f"host all all {network.address}/32 trust\n" for network in networks)
            with server.connect() as session:
                session.execute("SELECT pg_reload_conf()")
        yield found


@pytest.fixture
def fleet(
    servers: Sequence[PostgresServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FleetOfMachines]:
    """Six databases whose last migration ends once there is a file `go`."""
    monkeypatch.setenv("SMALL_GO", str(tmp_path / "go"))
    with fleet_of_machines(tmp_path, servers, _COUNT, _RELEASE) as fleet:
        yield fleet


def _start(fleet: FleetOfMachines, network: Namespace) -> Machine:
    return fleet.start("--concurrency", "2", instead={"127.0.0.1": network.host}, under=network.within)


def test_a_machine_that_falls_out_of_its_network_changes_nothing_and_serves_again_once_it_is_back(
    networks: Sequence[Namespace], fleet: FleetOfMachines, tmp_path: Path
) -> None:
    started = [(_start(fleet, network), network) for network in networks]
    machines = {machine.name: (machine, network) for machine, network in started}
    before = fleet.many.dumps(sequences=False)
    with fleet.many.running() as run:
        at_work = [run.wait_for("migration.started", migration="0003_wait")["worker"] for _ in range(4)]
        lost, network = machines[at_work[0]]
        network.pull()
        failed = run.wait_for("worker.failed")
        (tmp_path / "go").touch()
        outcome = run.finish()
    assert failed["worker"] == lost.name
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert fleet.many.new() == _COUNT
    after = fleet.many.dumps()

    network.plug_in()
    others = [machine for machine, _network in machines.values() if machine is not lost]
    _assert_serves_alone(fleet, lost, others, after)
    assert fleet.many.dumps(sequences=False) == before


def test_a_machine_that_is_cut_off_from_the_queue_changes_nothing_and_serves_again_once_it_is_back(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_GO", str(tmp_path / "go"))
    with (
        fleet_of_machines(tmp_path, [pg_server, second_pg_server], _COUNT, _RELEASE) as fleet,
        FaultProxy(pg_server.port) as proxy,
    ):
        before = fleet.many.dumps(sequences=False)
        other = fleet.start("--concurrency", "2")
        cut_off = fleet.start("--concurrency", "2", instead={f":{pg_server.port}/": f":{proxy.port}/"})
        with fleet.many.running() as run:
            for _ in range(4):
                run.wait_for("migration.started", migration="0003_wait")
            proxy.refuse()
            failed = run.wait_for("worker.failed")
            (tmp_path / "go").touch()
            outcome = run.finish()
        assert failed["worker"] == cut_off.name
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        after = fleet.many.dumps()

        proxy.accept()
        _assert_serves_alone(fleet, cut_off, [other], after)
        assert fleet.many.dumps(sequences=False) == before


def _assert_serves_alone(fleet: FleetOfMachines, back: Machine, others: Sequence[Machine], after: list[str]) -> None:
    """Assert that one which is back has changed nothing, and have it take the deploy back by itself."""
    until(lambda: not back.workers() and fleet.rows(_HEARD, back.name) == [(1,)], patience_s=90)
    assert fleet.many.dumps() == after
    assert fleet.many.prepared() == []
    assert [machine.drain() for machine in others] == [0] * len(others)
    taken_back = fleet.many.run("rollback")
    assert taken_back.exit_code == 0, taken_back.stderr
    assert {line["worker"] for line in taken_back.named("migration.unapplied")} == {back.name}
