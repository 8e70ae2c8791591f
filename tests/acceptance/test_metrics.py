"""What Prometheus is told of a real deploy: by a file, and by a real Pushgateway that a real Prometheus scrapes."""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from smooth_orchestrator.metrics.table import Metric
from tests.support.debian import Unavailable
from tests.support.deploys import Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.prometheus import check_metrics, check_rules, running_prometheus, running_pushgateway
from tests.support.runs import Outcome
from tests.support.shipping import CONFIGS
from tests.support.small_migrations import BROKEN, NOTE

_DASHBOARD: Final = json.loads((CONFIGS / "grafana-dashboard.json").read_text())
# Hides a module as if it were not installed.
_HIDING: Final = """
import importlib.util

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "prometheus_client" else found(name, *more)
"""


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as made:
        yield made


def _samples(path: Path) -> dict[tuple[str, str, str], float]:
    """Return what a file tells, by name, command, and the label that a metric may have of its own."""
    families = text_string_to_metric_families(path.read_text())
    return {
        (
            sample.name,
            sample.labels["command"],
            sample.labels.get("outcome") or sample.labels.get("state") or "",
        ): sample.value
        for family in families
        for sample in family.samples
    }


def _warnings(outcome: Outcome) -> list[str]:
    return [line["message"] for line in outcome.named("log.message") if line["logger"] == "metrics"]


def test_a_file_tells_of_a_deploy_and_of_the_one_that_failed_after_it(fleet: Fleet) -> None:
    path = fleet.directory / "smooth.prom"
    done = fleet.deploy("--metrics-file", "smooth.prom")
    assert done.exit_code == 0, done.stderr
    after = _samples(path)
    assert after[Metric.RUN_OUTCOME, "deploy", "committed"] == 1
    assert after[Metric.DATABASES, "deploy", "committed"] == 3
    assert after[Metric.MIGRATIONS, "deploy", "applied"] == 3
    assert after[Metric.RUN_DURATION, "deploy", ""] == pytest.approx(done.report["duration_ms"] / 1000)
    longest_ms = max(line["duration_ms"] for line in done.named("migration.applied"))
    assert after[Metric.MIGRATION_LONGEST, "deploy", ""] == pytest.approx(longest_ms / 1000)
    held_ms = max(each["lock_hold_ms"] for each in done.report["databases"])
    assert after[Metric.LOCK_HOLD_LONGEST, "deploy", ""] == pytest.approx(held_ms / 1000)

    (fleet.directory / "project/demo/migrations/0003_broken.py").write_text(BROKEN)
    broken = fleet.deploy("--metrics-file", "smooth.prom")
    assert broken.exit_code == 1
    assert fleet.run("status", "--metrics-file", "smooth.prom").exit_code == 0
    failed = _samples(path)
    assert failed[Metric.RUN_OUTCOME, "deploy", "rolled_back"] == 1
    # Of those at work at the same time a second one may have failed before it was told to stop.
    outcomes = [each["outcome"] for each in broken.report["databases"]]
    assert failed[Metric.DATABASES, "deploy", "failed"] == outcomes.count("failed") > 0
    for kept in (Metric.LAST_SUCCESS, Metric.LAST_COMMIT):
        assert failed[kept, "deploy", ""] == after[kept, "deploy", ""]
    assert (failed[Metric.IN_DOUBT, "status", ""], failed[Metric.IN_DOUBT_AGE, "status", ""]) == (0, 0)
    try:
        assert check_metrics(path.read_text()) == ""
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_a_transaction_that_a_killed_deploy_has_left_is_told_of_with_its_age(fleet: Fleet) -> None:
    fleet.kill("deploy", "commit_prepared.before")
    assert fleet.prepared()
    assert fleet.run("status", "--metrics-file", "smooth.prom").exit_code == 0
    values = _samples(fleet.directory / "smooth.prom")
    assert values[Metric.IN_DOUBT, "status", ""] == len(fleet.prepared())
    assert values[Metric.IN_DOUBT_AGE, "status", ""] >= 0
    assert fleet.run("recover").exit_code == 0


def _told_to(fleet: Fleet, address: str) -> Iterator[Outcome]:
    yield fleet.deploy("--pushgateway", f"http://{address}")
    for command in ("finalise", "status"):
        yield fleet.run(command, "--pushgateway", address)


def test_prometheus_scrapes_what_was_pushed_and_the_dashboard_finds_it(fleet: Fleet, tmp_path: Path) -> None:
    try:
        with running_pushgateway() as gateway, running_prometheus(tmp_path, [gateway.address]) as prometheus:
            outcomes = [*_told_to(fleet, gateway.address)]
            assert [each.exit_code for each in outcomes] == [0, 0, 0]
            assert [_warnings(each) for each in outcomes] == [[], [], []]
            asked = f'{Metric.RUN_OUTCOME}{{command="deploy",outcome="committed"}} == 1'
            [found] = prometheus.wait_for(asked)
            assert (found["metric"]["deploy"], found["metric"]["job"]) == ("small", "smooth_orchestrator")
            prometheus.wait_for(f'{Metric.IN_DOUBT}{{command="status"}}')
            names = {each["metric"]["__name__"] for each in prometheus.ask('{__name__=~"smooth_orchestrator_.+"}')}
            assert names == {*Metric}
            silent = [query for query in _queries() if not prometheus.ask(query)]
            assert silent == []
    except Unavailable as reason:
        pytest.skip(str(reason))


def _queries() -> list[str]:
    """Return what the dashboard's panels ask, of all deploys and commands."""
    return [
        re.sub(r"\$(deploy|command)", ".*", target["expr"])
        for panel in _DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def test_the_dashboard_asks_for_every_metric_and_for_none_that_is_not_there() -> None:
    asked = {*re.findall("smooth_orchestrator_[a-z_]+", json.dumps(_DASHBOARD))}
    assert asked | {Metric.RUN_START} == {*Metric}


def test_the_alerts_are_raised_when_they_should_be() -> None:
    rules = CONFIGS / "prometheus-rules.yaml"
    try:
        check_rules("check", "rules", rules)
        check_rules("test", "rules", CONFIGS / "prometheus-rules-test.yaml")
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert {*re.findall("smooth_orchestrator_[a-z_]+", rules.read_text())} <= {*Metric}


@pytest.mark.parametrize("is_deaf", [False, True], ids=["nobody listens", "nobody answers"])
def test_no_deploy_waits_for_a_gateway_that_is_away_which_is_one_warning(fleet: Fleet, *, is_deaf: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if not is_deaf:
            listening.close()
        # What has connected is held open until the command has ended.
        outcome = fleet.run("deploy", "--pushgateway", f"http://shop:hunter22@127.0.0.1:{port}", under=["env"])
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    [warning] = _warnings(outcome)
    assert "the Pushgateway did not get the metrics" in warning
    assert "hunter22" not in outcome.stderr + outcome.stdout


def test_a_file_that_cannot_be_made_is_a_mistake_that_is_told_before_anything_is_done(fleet: Fleet) -> None:
    outcome = fleet.deploy("--metrics-file", "nowhere/smooth.prom")
    assert (outcome.exit_code, outcome.report["errors"][0]["place"]) == (2, "--metrics-file")
    assert fleet.decisions() == ["commit"]


@pytest.mark.parametrize("option", ["--metrics-file", "--pushgateway"])
def test_without_prometheus_client_a_command_says_what_to_install(
    fleet: Fleet, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fleet.directory / "hiding").mkdir()
    (fleet.directory / "hiding/sitecustomize.py").write_text(_HIDING)
    paths = [str(fleet.directory / "hiding"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    outcome = fleet.run("status", option, "smooth.prom", under=["env"])
    assert (outcome.exit_code, outcome.report["outcome"]) == (2, "invalid")
    [error] = outcome.report["errors"]
    assert (error["place"], error["hint"]) == (option, "pip install 'smooth-orchestrator[prometheus]'")
