"""What `configs/fleet` starts deploys on real servers, and its files are what their own programs take."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from smooth_orchestrator.config import load
from tests.support.leases import until
from tests.support.machines import Machine
from tests.support.piped_shop import Shop
from tests.support.postgres_database import temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.runs import SCRIPT

_CONFIGS: Final = Path(__file__).parents[2] / "configs"
_FLEET: Final = _CONFIGS / "fleet"
_UNIT: Final = "smooth-worker.service"
_WORKERS, _JOB = "kubernetes-workers.yaml", "kubernetes-deploy.yaml"
_ENROLLED: Final = "SELECT coalesce(array_agg(concurrency), '{}') FROM smooth_fleet_machine"


@pytest.fixture
def shop(tmp_path: Path, pg_server: PostgresServer) -> Iterator[Shop]:
    """The shop at release 1 in its files and in no database, and the plan of a fleet."""
    shutil.copy(_FLEET / "deploy.toml", tmp_path)
    with ExitStack() as stack:
        first, last, queue = (stack.enter_context(temporary_database(pg_server)) for _ in range(3))
        shop = Shop(tmp_path, {"default": first, "shard_1": last}, queue)
        shop.release(1)
        yield shop


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _yaml(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(_text(_FLEET / name))
    return document


def _pod(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = _yaml(name)["spec"]["template"]["spec"]
    return pod


def _started(unit: Path) -> list[str]:
    [command] = re.findall("^ExecStart=(.*)$", _text(unit), re.MULTILINE)
    return shlex.split(command.replace("%i", "v2"))


def _by_systemd() -> tuple[list[str], list[str]]:
    return _started(_FLEET / _UNIT), _started(_CONFIGS / "systemd/smooth-deploy@.service")


def _by_kubernetes() -> tuple[list[str], list[str]]:
    [worker], [coordinator] = (_pod(name)["containers"] for name in (_WORKERS, _JOB))
    return [*worker["command"], *worker["args"]], [*coordinator["command"], *coordinator["args"]]


def _by_compose() -> tuple[list[str], list[str]]:
    services = _yaml("compose.yaml")["services"]
    worker, coordinator = (services[name] for name in ("worker", "coordinator"))
    return [*worker["entrypoint"], *worker["command"]], [*coordinator["entrypoint"], *coordinator["command"]]


def _enrolled(shop: Shop) -> list[int]:
    """Return how many sessions each machine that is there takes at a time."""
    with shop.journal.connect() as session:
        if session.execute("SELECT to_regclass('smooth_fleet_machine') IS NULL").fetchone() == (True,):
            return []
        [(found,)] = session.execute(_ENROLLED)
    return [*found]


@pytest.mark.parametrize(
    "shown", [_by_kubernetes, *(pytest.param(each, marks=pytest.mark.long) for each in (_by_systemd, _by_compose))]
)
def test_two_machines_deploy_as_a_coordinator_asks_and_end_when_they_are_told_to(
    shop: Shop, shown: Callable[[], tuple[list[str], list[str]]]
) -> None:
    words, deploy = (
        [word.replace("/srv/shop/.venv/bin/smooth-orchestrate", SCRIPT) for word in each] for each in shown()
    )
    words, deploy = ([word.replace("/srv/shop", str(shop.directory)) for word in each] for each in (words, deploy))
    further = {"SMOOTH_QUEUE": shop.journal.dsn}
    with ExitStack() as stack:
        machines = [_machine(shop, words, further, number, stack) for number in (1, 2)]
        until(lambda: len(_enrolled(shop)) == len(machines))
        assert [str(most) for most in _enrolled(shop)] == [words[words.index("--concurrency") + 1]] * len(machines)

        done = shop.run(shlex.join(deploy), ["sh", "-e"], further)

        assert (done.exit_code, ": committed" in done.stdout) == (0, True), done.stdout + done.stderr
        assert all(shop.migrations())
        assert [machine.drain() for machine in machines] == [0, 0]
        assert _enrolled(shop) == []


def _machine(shop: Shop, words: list[str], further: Mapping[str, str], number: int, stack: ExitStack) -> Machine:
    """Start a machine, which is lost with the stack."""
    directory = shop.directory / f"machine_{number}"
    directory.mkdir()
    with (directory / "machine.log").open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=directory,
            env=os.environ | shop.environment | dict(further),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    machine = Machine(process, directory)
    stack.callback(machine.lose)
    return machine


def test_a_machine_that_is_to_stop_has_the_time_that_the_plan_gives_it(tmp_path: Path) -> None:
    shutil.copy(_FLEET / "deploy.toml", tmp_path)
    (tmp_path / "shop").mkdir()
    url = "postgresql://smooth@queue.example.com/smooth"
    secrets = {"SMOOTH_JOURNAL": url, "SMOOTH_QUEUE": url, "SHOP_DATABASES": "{}"}
    timeout_s = load(tmp_path / "deploy.toml", secrets).fleet.job_timeout / 1000
    [stop] = re.findall("^TimeoutStopSec=(.*)s$", _text(_FLEET / _UNIT), re.MULTILINE)
    grace = _yaml("compose.yaml")["services"]["worker"]["stop_grace_period"]
    given = [float(stop), _pod(_WORKERS)["terminationGracePeriodSeconds"], float(grace.removesuffix("s"))]
    assert [seconds for seconds in given if seconds < timeout_s + 30] == []
    assert re.search("^KillSignal=SIGTERM\nKillMode=mixed$", _text(_FLEET / _UNIT), re.MULTILINE)


def test_machine_and_coordinator_are_of_one_image_and_have_the_same_environment() -> None:
    [worker], [coordinator] = (_pod(name)["containers"] for name in (_WORKERS, _JOB))
    services = _yaml("compose.yaml")["services"]
    for one, other, keys in (
        (worker, coordinator, ("image", "envFrom")),
        (services["worker"], services["coordinator"], ("image", "environment")),
    ):
        assert [one[key] for key in keys] == [other[key] for key in keys]
    named = set(re.findall(r"\$\{(\w+)\}", _text(_FLEET / "deploy.toml")))
    assert services["worker"]["environment"].keys() == named
    # None of the release before is there beside the new ones.
    assert _yaml(_WORKERS)["spec"]["strategy"]["type"] == "Recreate"
    spec = _yaml(_JOB)["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")


_ANALYZE: Final = shutil.which("systemd-analyze")


@pytest.mark.skipif(_ANALYZE is None, reason="systemd-analyze is not installed (Debian: systemd)")
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / _UNIT
    text = _text(_FLEET / _UNIT).replace("/srv/shop/.venv/bin/smooth-orchestrate", SCRIPT)
    unit.write_text(text.replace("/etc/shop", str(tmp_path)))
    (tmp_path / "environment").touch()
    done = subprocess.run(
        [str(_ANALYZE), "verify", "--man=no", unit],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize(
    ("manifest", "resource"), [(_WORKERS, "deployment/shop-migrations"), (_JOB, "job/shop-deploy-v2")]
)
def test_a_manifest_obeys_the_schema_of_kubernetes(version: str, manifest: str, resource: str) -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, str(_FLEET / manifest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"INFO {_FLEET / manifest} passed for resource {resource} against version {version}\n"


def test_the_composition_obeys_the_schema_of_compose(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(_text(_FLEET / "compose.yaml").replace("stop_grace_period", "stop_grace"))
    codes = [
        subprocess.run([*command, file], capture_output=True, check=False).returncode
        for file in (_FLEET / "compose.yaml", wrong)
    ]
    assert codes == [0, 1]
