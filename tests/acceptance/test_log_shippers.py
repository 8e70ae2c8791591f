"""The log where it lands: rotated, shipped, read; by the real programs where Debian has them."""

import json
import os
import re
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from smooth_orchestrator.events import json_schema
from tests.support.debian import Unavailable, installed
from tests.support.deploys import GATE_WAITS, Fleet, small_fleet
from tests.support.log_lines import log_lines
from tests.support.postgres_server import PostgresServer
from tests.support.runs import SCRIPT, running_in
from tests.support.shipping import (
    CONFIGS,
    Receiver,
    rotate,
    running_journald,
    running_rsyslog,
    running_syslog_ng,
    write_lines,
)
from tests.support.small_migrations import NOTE

_HALF: Final = 5_000
# Of syslog(3), by which systemd's journal files a line.
_PRIORITIES: Final = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as made:
        yield made


@pytest.mark.parametrize(
    "running",
    [pytest.param(running_rsyslog, id="rsyslog"), pytest.param(running_syslog_ng, id="syslog-ng")],
)
def test_every_line_arrives_once_and_whole_across_a_rotation(
    tmp_path: Path, running: Callable[[Path, int], AbstractContextManager[None]]
) -> None:
    log_file = tmp_path / "deploy.jsonl"
    try:
        with Receiver() as receiver, running(tmp_path, receiver.port):
            written = write_lines(log_file, _HALF, receiver)
            received = receiver.wait_for(written)
    except Unavailable as reason:
        pytest.skip(str(reason))
    kept = log_file.with_suffix(".jsonl.1").read_text() + log_file.read_text()
    lines = kept.split("\n")[:-1]
    assert len(received) == len(lines) == written >= 2 * _HALF
    assert received == [json.loads(line) for line in lines]
    assert log_lines(f"{lines[0]}\n") == received[:1]


def test_systemds_journal_files_each_line_of_a_deploy_by_its_priority(fleet: Fleet) -> None:
    with fleet.last.connect() as session:
        session.execute("ALTER TABLE demo_item ADD note integer")
    log_file = fleet.directory / "deploy.jsonl"
    words = [SCRIPT, "deploy", "deploy.toml", "--log-format", "journald", "--log-file", str(log_file)]
    try:
        with running_journald(fleet.directory) as journal:
            journal.take(words, fleet.directory, fleet.environment)
            entries = journal.entries()
    except Unavailable as reason:
        pytest.skip(str(reason))
    lines = log_lines(log_file.read_text())
    assert [json.loads(entry["MESSAGE"]) for entry in entries] == lines
    assert [entry["PRIORITY"] for entry in entries] == [_PRIORITIES[line["level"]] for line in lines]
    assert {"info", "error"} <= {line["level"] for line in lines}


def test_a_deploy_goes_on_in_a_new_file_when_it_is_told_that_its_log_was_rotated(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    logs = fleet.directory / "logs"
    logs.mkdir()
    log_file = logs / "deploy.jsonl"
    options = ("--log-file", str(log_file))
    with running_in(fleet.directory, fleet.environment, *options, under=["setsid"]) as run:
        run.wait_for("gate.started")
        try:
            rotate(logs)
        except Unavailable as reason:
            pytest.skip(str(reason))
        run.process.send_signal(signal.SIGHUP)
        (fleet.directory / "go").touch()
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    old, new = (log_lines(path.read_text()) for path in (logs / "deploy.jsonl.1", log_file))
    assert old[-1]["event"] == "gate.started"
    assert new[-1]["event"] == "deploy.committed"
    assert old + new == outcome.log


def test_a_terminal_that_goes_away_ends_a_deploy_that_writes_a_log_file_too(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    ours, theirs = os.openpty()
    options = ("--log-file", str(fleet.directory / "deploy.jsonl"))
    # Whatever runs the tests may have ignored it, as nohup does.
    under = ["env", "--default-signal=HUP", "setsid", "--ctty"]
    with running_in(fleet.directory, fleet.environment, *options, under=under, stdin=theirs) as run:
        os.close(theirs)
        run.wait_for("gate.started")
        os.close(ours)
        run.wait_for("run.interrupted", signal="SIGHUP")
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr


def test_a_full_disk_for_the_log_stops_no_deploy(fleet: Fleet) -> None:
    outcome = fleet.deploy("--log-file", "/dev/full")
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr


def test_lnav_knows_the_format_and_answers_for_its_keys(fleet: Fleet, tmp_path: Path) -> None:
    try:
        lnav = installed("lnav", "lnav").path
    except Unavailable as reason:
        pytest.skip(str(reason))
    log_file = tmp_path / "deploy.jsonl"
    assert fleet.deploy("--log-file", str(log_file)).exit_code == 0
    home = os.environ | {"HOME": str(tmp_path / "home"), "TERM": "dumb"}
    (tmp_path / "home").mkdir()
    subprocess.run([lnav, "-i", CONFIGS / "lnav.json"], env=home, capture_output=True, check=True)
    question = (
        ";SELECT event, database, app, migration, duration_ms FROM smooth_orchestrator"
        " WHERE event = 'migration.applied' ORDER BY database"
    )
    done = subprocess.run(
        [lnav, "-n", "-c", question, "-c", ":write-json-to -", log_file],
        env=home,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = [line for line in log_lines(log_file.read_text()) if line["event"] == "migration.applied"]
    keys = ("event", "database", "app", "migration", "duration_ms")
    assert json.loads(done.stdout) == sorted(
        ({key: line[key] for key in keys} for line in wanted), key=lambda line: line["database"]
    )
    assert len(wanted) == 3


def _keys_of(schema: dict[str, Any]) -> set[str]:
    return {*schema["properties"]}


def test_lnav_is_told_of_keys_that_there_are() -> None:
    told = json.loads((CONFIGS / "lnav.json").read_text())["smooth_orchestrator"]
    assert {*told["value"]} - _keys_of(json_schema()) == set()


def test_what_vector_is_told_is_toml_whose_parts_find_each_other() -> None:
    told = tomllib.loads((CONFIGS / "vector.toml").read_text())
    names = {*told["sources"], *told["transforms"]}
    asked = [name for part in (*told["transforms"].values(), *told["sinks"].values()) for name in part["inputs"]]
    assert {*asked} == names


def test_what_fluent_bit_is_told_is_yaml_whose_parts_find_each_other() -> None:
    told = yaml.safe_load((CONFIGS / "fluent-bit.yaml").read_text())
    [source], [output] = told["pipeline"]["inputs"], told["pipeline"]["outputs"]
    assert [parser["name"] for parser in told["parsers"]] == [source["parser"]]
    assert source["tag"] == output["match"]


def test_promtail_and_alloy_read_keys_that_there_are_and_the_same() -> None:
    [job] = yaml.safe_load((CONFIGS / "promtail.yaml").read_text())["scrape_configs"]
    keys, _moment, labels, metadata = (next(iter(stage.values())) for stage in job["pipeline_stages"])
    assert {*keys["expressions"]} - _keys_of(json_schema()) == set()
    assert {*labels, *metadata} | {"timestamp"} == {*keys["expressions"]}

    text = re.sub("//.*?\n", "\n", (CONFIGS / "config.alloy").read_text().replace("http://", ""))
    assert [text.count(opened) for opened in "{[("] == [text.count(closed) for closed in "}])"]
    parts = {f"{kind}.{name}" for kind, name in re.findall(r'^([a-z._]+) "([a-z_]+)" \{', text, re.MULTILINE)}
    asked = {name.rpartition(".")[0] for name in re.findall(r"[a-z_]+\.[a-z_.]+(?=[,\]\n])", text)}
    assert asked <= parts
    assert len(asked) == 3
    [expressions] = re.findall(r"expressions = \{(.*?)\}", text, re.DOTALL)
    assert {*re.findall("[a-z_]+", expressions)} == {*keys["expressions"]}


def test_datadogs_agent_is_told_of_the_files_in_yaml() -> None:
    [told] = yaml.safe_load((CONFIGS / "datadog.yaml").read_text())["logs"]
    assert told["path"] == "/var/log/smooth-orchestrator/*.jsonl"


def test_each_file_says_what_was_run_of_it() -> None:
    for path in CONFIGS.iterdir():
        text = path.read_text()
        assert ("un by a test" in text) or ("Not run by a test" in text), path.name
