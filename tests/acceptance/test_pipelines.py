"""What `configs/pipelines` has for CI, and its like for Kubernetes and systemd, deploys on real servers, or stops."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
import yaml

from tests.support.piped_shop import ROLLED_OUT, Done, Shop
from tests.support.postgres_database import temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.runs import SCRIPT

_CONFIGS: Final = Path(__file__).parents[2] / "configs"
_PIPELINES: Final = _CONFIGS / "pipelines"
_RELEASE_2: Final = {"catalog.0003_product_stock", "orders.0002_order_total", "orders.0003_fill_totals"}


@pytest.fixture
def shop(tmp_path: Path, pg_server: PostgresServer) -> Iterator[Shop]:
    """The shop at release 1 in its files, and in no database."""
    shutil.copy(_PIPELINES / "deploy.toml", tmp_path)
    roll_out = tmp_path / "bin/roll-out"
    roll_out.parent.mkdir()
    roll_out.write_text(f"#!/bin/sh\ntouch {tmp_path}/{ROLLED_OUT}\n")
    roll_out.chmod(0o755)
    (tmp_path / "requirements.txt").touch()
    with ExitStack() as stack:
        first, last, journal = (stack.enter_context(temporary_database(pg_server)) for _ in range(3))
        shop = Shop(tmp_path, {"default": first, "shard_1": last}, journal)
        shop.release(1)
        yield shop


def _hold_back(shop: Shop) -> None:
    """Deploy two releases, of which the second holds something back."""
    for number in (1, 2):
        shop.release(number)
        done = shop.run("smooth-orchestrate deploy deploy.toml", ["sh", "-e"])
        assert done.exit_code == 0, done.stdout
    assert shop.held_back() == [True, True]


def _assert_finalises_when_due(shop: Shop, played: Callable[[], tuple[int, str]], *, refused: int) -> None:
    """Have a schedule come too early, to a gate that refuses, in time, and to a plan that is none.

    Args:
        shop: with something held back.
        played: does what the schedule does; returns how it ended and what it said.
        refused: how it ends where the program ends with 3.
    """
    assert played()[0] == 0
    plan = shop.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace('"24h"', '"0s"\ngate = ["false"]'))
    assert played()[0] == refused
    assert shop.held_back() == [True, True]
    plan.write_text(plan.read_text().replace('gate = ["false"]', ""))
    assert played()[0] == 0
    assert shop.held_back() == [False, False]
    plan.write_text("version = 1\n")
    assert played()[0] == 2


# --- GitHub Actions ---------------------------------------------------------------------------------------------------


def _yaml(name: str) -> dict[str, Any]:
    # `on` is a boolean to YAML 1.1.
    workflow: dict[str, Any] = yaml.safe_load((_PIPELINES / name).read_text())
    return workflow


def _by_github(shop: Shop, job: Mapping[str, Any], attempt: int, *, cancelled: bool = False) -> tuple[int, str]:
    """Run the steps of a job that are a script; return how the first that failed has ended, and the summary.

    Args:
        shop: which.
        job: as the workflow has it.
        attempt: its number.
        cancelled: whether somebody cancels it while it deploys, and the deploy is killed since it takes too long.
    """
    summary = shop.directory / f"summary-{attempt}.md"
    environment = {name: _expanded(value, attempt) for name, value in job.get("env", {}).items()}
    given = {name: value for name, value in environment.items() if "secrets." not in value}
    assert environment.keys() - given.keys() == (shop.environment.keys() if environment else set())
    code, stopped = 0, False
    annotations: list[str] = []
    for step in job["steps"]:
        wanted = {None: code == 0 and not stopped, "always()": True, "cancelled()": stopped}[step.get("if")]
        if not wanted or "run" not in step:
            continue
        further = given | {"GITHUB_STEP_SUMMARY": str(summary)}
        if cancelled and "exec" in step["run"]:
            further["SMOOTH_FAILPOINT"] = "commit_prepared.before"
            stopped = True
        done = shop.run(step["run"], ["bash", "-e"], further)
        assert (done.exit_code == -signal.SIGKILL) == ("SMOOTH_FAILPOINT" in further), done.stderr
        code = code or done.exit_code
        annotations += re.findall("^::.*$", done.stdout, re.MULTILINE)
    return code, "\n".join([summary.read_text() if summary.exists() else "", *annotations])


def _expanded(value: str, attempt: int) -> str:
    return value.replace("${{ github.run_id }}", "4711").replace("${{ github.run_attempt }}", str(attempt))


def test_github_deploys_to_every_database_and_then_rolls_the_code_out(shop: Shop) -> None:
    jobs = _yaml("github-actions.yml")["jobs"]
    assert jobs["roll-out"]["needs"] == "databases"

    code, summary = _by_github(shop, jobs["databases"], 1)

    assert code == 0, summary
    assert "| database" in summary
    assert "run github-4711-1: committed" in summary
    assert all(shop.migrations())
    assert (shop.directory / "report.html").is_file()
    assert (shop.directory / "deploy.jsonl").is_file()
    assert _by_github(shop, jobs["roll-out"], 1)[0] == 0
    assert shop.is_rolled_out()


def test_a_deploy_by_github_that_fails_takes_everything_back_and_the_next_attempt_deploys(shop: Shop) -> None:
    job = _yaml("github-actions.yml")["jobs"]["databases"]
    shop.put_in_the_way()

    code, summary = _by_github(shop, job, 1)

    assert code == 1
    plan, _, report = summary.partition("\n### How it went\n\n")
    assert "| database" in plan
    assert "    Rolled back: every database is as it was before." in report.split("\n")
    # An error may quote anything: none of it is Markdown.
    assert all(line.startswith("    ") for line in report.rstrip("\n").split("\n"))
    assert shop.migrations() == [set(), set()]
    assert (shop.directory / "report.html").is_file()
    shop.take_away()
    assert _by_github(shop, job, 2)[0] == 0
    assert all(shop.migrations())


@pytest.mark.long
def test_what_a_deploy_that_github_cancels_has_left_is_settled_by_its_next_step(shop: Shop) -> None:
    job = _yaml("github-actions.yml")["jobs"]["databases"]
    _by_github(shop, job, 1, cancelled=True)
    # It was decided: so every database is new, and none waits.
    assert all(shop.migrations())
    for database in shop.databases.values():
        assert database.server.prepared(database.name) == []


def test_a_signal_to_the_shell_of_a_step_reaches_the_program(shop: Shop) -> None:
    [step] = [
        each for each in _yaml("github-actions.yml")["jobs"]["databases"]["steps"] if "exec" in each.get("run", "")
    ]
    gate = 'gate = ["sh", "-c", "touch waits; until [ -e go ]; do sleep 0.05; done"]'
    plan = shop.directory / "deploy.toml"
    plan.write_text(f"{plan.read_text()}{gate}\n")
    (shop.directory / "step.sh").write_text(step["run"])
    path = os.pathsep.join([str(Path(SCRIPT).parent), os.environ["PATH"]])
    environment = os.environ | shop.environment | {"PATH": path, "RUN_ID": "signalled"}
    command = ["bash", "-e", "step.sh"]
    with subprocess.Popen(command, cwd=shop.directory, env=environment, stderr=subprocess.DEVNULL) as run:
        while not (shop.directory / "waits").exists():
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(timeout=0.05)
        psutil.Process(run.pid).terminate()
        assert run.wait(timeout=60) == 1
    assert shop.migrations() == [set(), set()]


@pytest.mark.long
def test_githubs_schedule_finalises_when_it_is_due_and_is_no_failure_before(shop: Shop) -> None:
    deploy = _yaml("github-actions.yml")["jobs"]["databases"]
    finalise = _yaml("github-actions-finalise.yml")["jobs"]["finalise"]
    for number in (1, 2):
        shop.release(number)
        assert _by_github(shop, deploy, number)[0] == 0
    # What comes next is checked out already, and not deployed.
    shop.release(3)
    code, summary = _by_github(shop, finalise, 3)
    assert (code, "not_due, exit 0" in summary) == (0, True)
    assert "orders.0006_one_customer_per_email" not in set.union(*shop.migrations())

    plan = shop.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace('"24h"', '"0s"\ngate = ["false"]'))
    code, summary = _by_github(shop, finalise, 4)
    assert (code, "refused, exit 3" in summary, "::notice::" in summary) == (0, True, True)
    plan.write_text(plan.read_text().replace('gate = ["false"]', ""))
    code, summary = _by_github(shop, finalise, 5)
    assert (code, "committed, exit 0" in summary) == (0, True)
    assert "orders.0006_one_customer_per_email" not in set.union(*shop.migrations())
    # A mistake is a failure.
    plan.write_text("version = 1\n")
    assert _by_github(shop, finalise, 6)[0] == 2


# --- GitLab CI --------------------------------------------------------------------------------------------------------


def _by_gitlab(shop: Shop, name: str, number: int, status: str | None = None) -> Done:
    """Run the script of a job, and what comes after it."""
    job = _yaml("gitlab-ci.yml")[name]
    given = {name: _of_gitlab(str(value), shop, number) for name, value in job.get("variables", {}).items()}
    done = shop.run("\n".join(job["script"]), ["bash", "-eo", "pipefail"], given)
    told = given | {"CI_JOB_STATUS": status or ("success" if done.exit_code == 0 else "failed")}
    after = shop.run("\n".join(job.get("after_script", ["true"])), ["bash", "-eo", "pipefail"], told)
    assert after.exit_code == 0, after.stderr
    return done


def _of_gitlab(value: str, shop: Shop, number: int) -> str:
    return value.replace("/srv/shop", str(shop.directory)).replace("$CI_JOB_ID", str(number))


def test_gitlab_deploys_to_every_database_and_then_rolls_the_code_out(shop: Shop) -> None:
    done = _by_gitlab(shop, "deploy-databases", 1)
    assert (done.exit_code, "committed, exit 0" in done.stdout) == (0, True), done.stderr
    assert all(shop.migrations())
    assert (shop.directory / "report.html").is_file()
    assert _by_gitlab(shop, "roll-out", 1).exit_code == 0
    assert shop.is_rolled_out()


@pytest.mark.long
def test_a_deploy_by_gitlab_that_fails_takes_everything_back_and_the_next_job_deploys(shop: Shop) -> None:
    shop.put_in_the_way()
    failed = _by_gitlab(shop, "deploy-databases", 1)
    assert (failed.exit_code, "rolled_back, exit 1" in failed.stdout) == (1, True)
    assert shop.migrations() == [set(), set()]
    shop.take_away()
    assert _by_gitlab(shop, "deploy-databases", 2).exit_code == 0
    assert all(shop.migrations())
    # Nothing is held back.
    assert _by_gitlab(shop, "finalise", 3).exit_code == 0


@pytest.mark.long
def test_what_a_job_that_gitlab_cancels_has_left_is_settled_after_it(shop: Shop) -> None:
    _by_gitlab(shop, "deploy-databases", 1)
    shop.release(2)
    variables = {"SMOOTH_FAILPOINT": "commit_prepared.before", "RUN_ID": "gitlab-2", "PLAN": "deploy.toml"}
    script = _yaml("gitlab-ci.yml")["deploy-databases"]["script"][-1]
    assert shop.run(script, ["bash", "-eo", "pipefail"], variables).exit_code == 128 + signal.SIGKILL
    assert any(database.server.prepared(database.name) for database in shop.databases.values())
    after = _yaml("gitlab-ci.yml")["deploy-databases"]["after_script"]
    del variables["SMOOTH_FAILPOINT"]
    settled = variables | {"CI_JOB_STATUS": "canceled"}
    assert shop.run("\n".join(after), ["bash", "-eo", "pipefail"], settled).exit_code == 0
    assert [_RELEASE_2 - names for names in shop.migrations()] == [set(), set()]


# --- Jenkins ----------------------------------------------------------------------------------------------------------

_JENKINSFILE: Final = (_PIPELINES / "Jenkinsfile").read_text()
_SH = re.compile(r"sh(?:\(returnStatus: true, script:)? ('''.*?'''|'[^'\n]*')", re.DOTALL)


@pytest.mark.parametrize(
    ("in_the_way", "expected"), [pytest.param(True, 1, marks=pytest.mark.long), (False, 0)], ids=["fails", "succeeds"]
)
def test_jenkins_deploys_to_every_database_or_fails_and_takes_everything_back(
    shop: Shop, expected: int, *, in_the_way: bool
) -> None:
    look, deploy, roll_out, recover, keep = (text.strip("'") for text in _SH.findall(_JENKINSFILE))
    given = {"RUN_ID": "jenkins-7"}
    if in_the_way:
        shop.put_in_the_way()
    assert shop.run(look, ["sh", "-xe"], given).exit_code == 0
    done = shop.run(deploy, ["sh", "-xe"], given)
    assert done.exit_code == expected, done.stderr
    assert [bool(names) for names in shop.migrations()] == [not in_the_way] * 2
    for script in (recover, keep):
        assert shop.run(script, ["sh", "-xe"], given).exit_code == 0
    assert "jenkins-7" in (shop.directory / "report.html").read_text()
    assert shop.run(roll_out, ["sh", "-xe"]).exit_code == 0
    assert shop.is_rolled_out()


@pytest.mark.long
def test_jenkins_finalises_when_it_is_due_and_not_before(shop: Shop) -> None:
    [finalise, _recover] = (text.strip("'") for text in _SH.findall((_PIPELINES / "Jenkinsfile.finalise").read_text()))
    _hold_back(shop)

    def played() -> tuple[int, str]:
        done = shop.run(finalise, ["sh", "-xe"])
        return done.exit_code, done.stdout

    _assert_finalises_when_due(shop, played, refused=3)


# --- Ansible, Kubernetes, systemd -------------------------------------------------------------------------------------


def _by_ansible(shop: Shop, release: str, name: str = "ansible.yml") -> Done:
    playbook = (_PIPELINES / name).read_text().replace("/srv/shop/.venv/bin/smooth-orchestrate", SCRIPT)
    (shop.directory / "ansible.yml").write_text(playbook.replace("/srv/shop", str(shop.directory)))
    words = ["ansible-playbook", "ansible.yml", "--inventory", "localhost,", "--connection", "local"]
    variables = {"release": release, "ansible_python_interpreter": sys.executable}
    command = shlex.join([*words, "--extra-vars", json.dumps(variables)])
    own = str(shop.directory / "ansible")
    home = {"ANSIBLE_HOME": own, "ANSIBLE_ASYNC_DIR": own, "ANSIBLE_REMOTE_TMP": own, "LC_ALL": "C.UTF-8"}
    return shop.run(command, ["bash", "-e"], home)


def test_ansible_deploys_to_every_database_or_stops_before_the_roll_out(shop: Shop) -> None:
    shop.put_in_the_way()
    failed = _by_ansible(shop, "v1")
    assert (failed.exit_code, "every database is as it was" in failed.stdout) == (2, True), failed.stdout
    assert shop.migrations() == [set(), set()]
    assert not shop.is_rolled_out()

    shop.take_away()
    done = _by_ansible(shop, "v1")
    assert done.exit_code == 0, done.stdout
    assert all(shop.migrations())
    assert shop.is_rolled_out()
    assert (shop.directory / "report.html").is_file()


@pytest.mark.long
def test_ansible_finalises_when_it_is_due_and_does_not_fail_before(shop: Shop) -> None:
    _hold_back(shop)

    def played() -> tuple[int, str]:
        done = _by_ansible(shop, "v3", "ansible-finalise.yml")
        return done.exit_code, done.stdout

    _assert_finalises_when_due(shop, played, refused=0)


def _changed(text: str, shop: Shop) -> str:
    text = text.replace("/srv/shop/.venv/bin/smooth-orchestrate", SCRIPT)
    return text.replace("/srv/shop", str(shop.directory)).replace("/etc/shop", str(shop.directory))


def test_the_job_of_kubernetes_deploys_and_what_has_failed_is_deployed_under_the_same_name(shop: Shop) -> None:
    manifest = yaml.safe_load(_changed((_CONFIGS / "kubernetes/smooth-deploy.yaml").read_text(), shop))
    pod = manifest["spec"]["template"]["spec"]
    assert (manifest["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    [container] = pod["containers"]
    command = shlex.join([*container["command"], *container["args"]])
    shop.put_in_the_way()
    assert shop.run(command, ["sh", "-e"]).exit_code == 1
    shop.take_away()
    assert shop.run(command, ["sh", "-e"]).exit_code == 0
    assert all(shop.migrations())
    again = shop.run(command, ["sh", "-e"])
    assert (again.exit_code, "nothing_to_do, exit 0" in again.stdout) == (0, True)


_ANALYZE: Final = shutil.which("systemd-analyze")
_UNIT: Final = "smooth-deploy@.service"


def test_the_unit_of_systemd_deploys(shop: Shop) -> None:
    text = _changed((_CONFIGS / "systemd" / _UNIT).read_text(), shop)
    [command] = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
    done = shop.run(command.replace("%i", "v2"), ["sh", "-e"])
    assert (done.exit_code, "run v2: committed" in done.stdout) == (0, True)
    assert done.stderr.startswith("<")
    assert all(shop.migrations())


@pytest.mark.skipif(_ANALYZE is None, reason="systemd-analyze is not installed (Debian: systemd)")
def test_systemd_has_nothing_to_say_against_the_unit(shop: Shop) -> None:
    unit = shop.directory / _UNIT.replace("@", "@v2")
    unit.write_text(_changed((_CONFIGS / "systemd" / _UNIT).read_text(), shop))
    (shop.directory / "environment").touch()
    done = subprocess.run(
        [str(_ANALYZE), "verify", "--man=no", unit],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
