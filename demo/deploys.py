"""Write a plan and hand it to the installed program, as a pipeline would."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Deployed", "deploy", "plan", "write_page"]

_PATIENCE_S = 30
_PROGRAM = str(Path(sys.executable).with_name("smooth-orchestrate"))


@dataclass(frozen=True, slots=True)
class Deployed:
    """What one run of the program left behind.

    Args:
        exit_code: of the process.
        report: the machine report on its standard output.
        log: its log, line by line.
    """

    exit_code: int
    report: dict[str, Any]
    log: list[dict[str, Any]]


def plan(release: str) -> str:
    """Return the text of the plan that deploys a release."""
    return f"""\
version = 1

[deploy]
name = "shop"
expand_contract = false      # one step: nothing is held back for later

[projects.shop]
path = "{release}"
settings = "shop.settings"
env = {{ SHOP_DATABASES = "${{SHOP_DATABASES}}" }}

[databases.primary]
project = "shop"
alias = "default"

[databases.kiosk]
project = "shop"
alias = "kiosk"

[databases.shards]
project = "shop"
aliases = "shard_*"

[[phases]]
name = "canary"
databases = ["primary", "kiosk"]

[[phases]]
name = "fleet"
databases = ["shards:*"]
parallel = 2
"""


def deploy(plan_file: Path, log_file: Path, databases: Mapping[str, Mapping[str, Any]]) -> Deployed:
    """Run `smooth-orchestrate deploy` to its end; when interrupted, interrupt it and wait until it has rolled back.

    Raises:
        RuntimeError: it printed no report.
    """
    argv = [_PROGRAM, "deploy", plan_file.name, "--json"]
    argv += ["--log-format", "json", "--log-file", str(log_file)]
    environment = os.environ | {"SHOP_DATABASES": json.dumps(databases)}
    with subprocess.Popen(
        argv, cwd=plan_file.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=_PATIENCE_S)
            raise
    try:
        report = json.loads(output)
    except json.JSONDecodeError as error:
        raise RuntimeError(f"no report, exit code {process.returncode}:\n{output}{errors}") from error
    return Deployed(process.returncode, report, [json.loads(line) for line in log_file.read_text().splitlines()])


def write_page(plan_file: Path, page: Path, databases: Mapping[str, Mapping[str, Any]]) -> bool:
    """Have the last run, which has failed, written down for a browser; return whether it was."""
    page.parent.mkdir(exist_ok=True)
    done = subprocess.run(
        [_PROGRAM, "report", plan_file.name, "--html", str(page)],
        cwd=plan_file.parent,
        env=os.environ | {"SHOP_DATABASES": json.dumps(databases)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    # That of the run, whose report it is.
    return done.returncode == 1
