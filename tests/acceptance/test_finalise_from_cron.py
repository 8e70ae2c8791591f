"""What `configs/` has for cron, systemd and Kubernetes finishes a deploy without further help."""

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Final

import psycopg
import pytest
import yaml

from smooth_orchestrator.report import RunOutcome
from tests.support.cron import ACCOUNT, ENVIRONMENT, command_of, running_cron, why_not
from tests.support.deploys import Fleet, small_fleet
from tests.support.log_lines import log_lines
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family
from tests.support.runs import SCRIPT
from tests.support.small_project import migration

_CONFIGS: Final = Path(__file__).parents[2] / "configs"
_CRONTAB: Final = "cron/smooth-finalise"
_SERVICE, _TIMER = "systemd/smooth-finalise.service", "systemd/smooth-finalise.timer"
_MANIFEST: Final = "kubernetes/smooth-finalise.yaml"
_JOB: Final = "kubernetes/smooth-deploy.yaml"
_NEXT: Final = migration("migrations.RemoveField('item', 'name')", after=[("demo", "0001_item")])
_OLD_RELEASE: Final = "shop-v1-web"
_LOG, _REPORTS = "finalise.log", "finalise.out"
_BARE: Final = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """A fleet whose deploy holds back the removal of a column, and the environment's file that `configs/` speak of."""
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_next": _NEXT}) as fleet:
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in fleet.environment.items()]
        (tmp_path / "environment").write_text("".join(lines))
        _plan(fleet, bake_time="0s")
        yield fleet


def _plan(fleet: Fleet, *, bake_time: str, gate: str = "") -> None:
    fleet.plan(deploy="expand_contract = true")
    plan = fleet.directory / "deploy.toml"
    finalise = f'[finalise]\nbake_time = "{bake_time}"\nforbid_sessions = ["shop-v1*"]\n{gate}\n'
    plan.write_text(f"{plan.read_text()}\n{finalise}")


def _changed(config: str, directory: Path) -> str:
    """Return a file of `configs/`, changed where its comments say so: to what is in a directory."""
    text = (_CONFIGS / config).read_text()
    for there, here in {
        "/srv/shop/.venv/bin/smooth-orchestrate": SCRIPT,
        "/srv/shop/deploy.toml": str(directory / "deploy.toml"),
        "/etc/shop/environment": str(directory / "environment"),
        "/var/log/shop": str(directory),
        " * shop ": f" * {ACCOUNT.pw_name} ",
    }.items():
        text = text.replace(there, here)
    return text


def _columns(fleet: Fleet) -> list[list[str]]:
    """Return the table's columns in each database, read through connections of their own."""
    with closing(sqlite3.connect(fleet.kiosk)) as connection:
        found = [[name for (name,) in connection.execute("SELECT name FROM pragma_table_info('demo_item')")]]
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            rows = session.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'demo_item'")
            found.append(sorted(name for (name,) in rows))
    return found


_HELD: Final = [["id", "name"]] * 3
_DONE: Final = [["id"]] * 3


@dataclass(frozen=True, slots=True)
class Start:
    """A command as a scheduler starts it.

    Args:
        argv: its words.
        environment: all that it finds.
    """

    argv: list[str]
    environment: Mapping[str, str]

    def run(self) -> int:
        """Run it to its end, in a directory that tells it nothing, and return its exit code."""
        with self.running() as process:
            return process.wait(timeout=90)

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Start it; what is left of it ends with the block."""
        with subprocess.Popen(self.argv, env=self.environment, cwd="/", stdin=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                kill_family(process.pid)


def _by_cron(fleet: Fleet) -> Start:
    return Start(["/bin/sh", "-c", command_of(_changed(_CRONTAB, fleet.directory))], ENVIRONMENT)


def _by_systemd(fleet: Fleet) -> Start:
    unit = _settings(_changed(_SERVICE, fleet.directory))
    lines = Path(unit["EnvironmentFile"]).read_text().splitlines()
    given = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    return Start(shlex.split(unit["ExecStart"]), _BARE | given)


def _settings(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", unit, re.MULTILINE))


def _by_kubernetes(fleet: Fleet) -> Start:
    manifest = yaml.safe_load(_changed(_MANIFEST, fleet.directory))
    [container] = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return Start([*container["command"], *container["args"]], _BARE | fleet.environment)


@pytest.mark.parametrize(
    "scheduled",
    [_by_cron, *(pytest.param(each, marks=pytest.mark.long) for each in (_by_systemd, _by_kubernetes))],
)
def test_what_is_scheduled_waits_for_the_release_before_and_then_finalises(
    fleet: Fleet, scheduled: Callable[[Fleet], Start]
) -> None:
    start = scheduled(fleet)
    assert fleet.deploy().exit_code == 0
    with psycopg.connect(fleet.last.dsn, application_name=_OLD_RELEASE):
        assert start.run() == 3
    assert _columns(fleet) == _HELD

    assert start.run() == 0
    assert _columns(fleet) == _DONE
    assert start.run() == 0


@pytest.mark.long
def test_the_crontab_leaves_a_log_and_the_reports_in_files_and_prints_nothing(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    start = _by_cron(fleet)
    assert fleet.deploy().exit_code == 0
    capfd.readouterr()

    assert [start.run(), start.run()] == [0, 0]
    assert capfd.readouterr() == ("", "")
    events = [line["event"] for line in log_lines((fleet.directory / _LOG).read_text())]
    assert events.count("finalise.finished") == 1
    assert _reported(fleet) == ["committed, exit 0", "nothing_to_do, exit 0"]


def test_a_mistake_in_the_plan_stands_in_the_reports(fleet: Fleet) -> None:
    (fleet.directory / "deploy.toml").write_text("version = 1\n")
    assert _by_cron(fleet).run() == 2
    assert _reported(fleet) == ["invalid, exit 2"]


def test_cron_is_told_where_the_environment_is_missing(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    (fleet.directory / "environment").unlink()
    assert _by_cron(fleet).run() != 0
    assert f"{fleet.directory}/environment" in capfd.readouterr().err
    assert not (fleet.directory / _LOG).exists()


@pytest.mark.long
def test_the_next_minute_changes_nothing_while_one_is_still_at_work(fleet: Fleet) -> None:
    gate = "touch at_the_gate; until [ -e go ]; do sleep 0.05; done"
    _plan(fleet, bake_time="0s", gate=f'gate = ["sh", "-c", "{gate}"]')
    start = _by_cron(fleet)
    assert fleet.deploy().exit_code == 0
    with start.running() as first:
        _wait_for((fleet.directory / "at_the_gate").exists, first)
        assert start.run() == 5
        assert _columns(fleet) == _HELD
        (fleet.directory / "go").touch()
        assert first.wait(timeout=90) == 0
    assert _columns(fleet) == _DONE


@pytest.mark.long
@pytest.mark.timeout(420)
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_real_cron_finalises_by_itself_when_bake_time_and_release_before_are_over(
    fleet: Fleet, tmp_path: Path
) -> None:
    [committed] = fleet.deploy().named("deploy.committed")
    # The first minute that cron surely sees comes too early, and the one after it does not.
    minute_s = (time.time() + 10) // 60 * 60 + 60
    bake_s = minute_s + 40 - datetime.fromisoformat(committed["timestamp"]).timestamp()
    _plan(fleet, bake_time=f"{round(bake_s)}s")
    before = fleet.dumps()
    with running_cron(tmp_path / "cron", _changed(_CRONTAB, tmp_path)) as daemon:
        with psycopg.connect(fleet.last.dsn, application_name=_OLD_RELEASE):
            _wait_for(lambda: _reported(fleet) == ["not_due, exit 0"], daemon)
            _wait_for(lambda: _reported(fleet) == ["not_due, exit 0", "refused, exit 3"], daemon)
            assert fleet.dumps() == before
        _wait_for(lambda: _reported(fleet) == ["not_due, exit 0", "refused, exit 3", "committed, exit 0"], daemon)
    assert _columns(fleet) == _DONE


def _reported(fleet: Fleet) -> list[str]:
    """Return how commands have ended, by the reports that they have left; of several in a row that did alike one."""
    reports = fleet.directory / _REPORTS
    text = reports.read_text() if reports.exists() else ""
    return [end for end, _ in groupby(re.findall(r"^finalise[^:]*: (\w+, exit \d)", text, re.MULTILINE))]


def _wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Look again and again until a condition holds; fail when a process ends before. The test's time limit is its."""
    while not condition():
        try:
            code = process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"{process.args!r} has ended with {code}")


_ANALYZE: Final = shutil.which("systemd-analyze")


@pytest.mark.skipif(_ANALYZE is None, reason="systemd-analyze is not installed (Debian: systemd)")
def test_systemd_has_nothing_to_say_against_its_units(tmp_path: Path) -> None:
    (tmp_path / "environment").touch()
    units = []
    for config in (_SERVICE, _TIMER):
        units.append(tmp_path / Path(config).name)
        units[-1].write_text(_changed(config, tmp_path))
    done = subprocess.run(
        [str(_ANALYZE), "verify", "--man=no", *units],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_systemd_takes_what_a_later_minute_will_do_for_no_failure() -> None:
    unit = _settings((_CONFIGS / _SERVICE).read_text())
    outcomes = {RunOutcome.REFUSED.exit_code, RunOutcome.LOCKED.exit_code}
    assert {int(code) for code in unit["SuccessExitStatus"].split()} == outcomes


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize(("manifest", "resource"), [(_MANIFEST, "cronjob/shop-finalise"), (_JOB, "job/shop-deploy-v2")])
def test_the_manifest_obeys_the_schema_of_kubernetes(version: str, manifest: str, resource: str) -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, str(_CONFIGS / manifest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"INFO {_CONFIGS / manifest} passed for resource {resource} against version {version}\n"


def test_the_manifest_says_what_its_schema_does_not_tell_from_any_other_text() -> None:
    spec = yaml.safe_load((_CONFIGS / _MANIFEST).read_text())["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_whatever_is_scheduled_in_configs_is_run_here() -> None:
    found = {path.relative_to(_CONFIGS).as_posix() for path in _CONFIGS.rglob("*/*")}
    # What is there schedules nothing, or is run by tests of its own.
    scheduled = {name for name in found if not name.startswith(("fleet/", "observability/", "pipelines/"))}
    scheduled -= {_JOB, "systemd/smooth-deploy@.service"}
    assert scheduled == {_CRONTAB, _SERVICE, _TIMER, _MANIFEST}
    assert {path.name for path in _CONFIGS.rglob("*") if os.access(path, os.X_OK) and path.is_file()} == set()
