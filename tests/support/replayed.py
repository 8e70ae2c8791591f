"""Events of a deploy of any number of databases, told to the table on this process's terminal until a file appears.

`python tests/support/replayed.py COUNT FILE`; a further word `fail` lets the table itself fail, and `exception` ends
the command by one.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import structlog

from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import LogFormat, LogLevel, bind_run, configure, get_logger
from smooth_orchestrator.progress import showing
from smooth_orchestrator.secrets import Masker

_STEP = {"app": "orders", "migration": "0006_one_customer_per_email", "direction": "forwards"}


def tell(count: int) -> None:
    """Log what a deploy logs when one database has failed, one waits, and most are still to come."""
    names = [f"shards:shard_{number}" for number in range(count)]
    log = get_logger()
    log.info(EventName.DEPLOY_STARTED, command="deploy", databases=names, phases=["canary", "fleet"])
    log.info(EventName.PREFLIGHT_PASSED, duration_ms=3.0, databases=names, idle=names[-1:])
    log.info(EventName.PHASE_STARTED, phase="canary", databases=names)
    for name in names[: max(4, count // 2)]:
        log.info(EventName.MIGRATION_STARTED, database=name, **_STEP, pending=3)
    blocker: dict[str, Any] = {"pid": 4711, "application_name": "nightly report", "query_age_ms": 3.0}
    log.warning(EventName.LOCK_WAITING, database=names[3], blockers=[blocker])
    error = ValueError("\x1b[2Ja row is in the way\nwhich one is not said")
    log.error(EventName.MIGRATION_FAILED, database=names[2], **_STEP, error=error)
    log.info(EventName.OUTPUT_CAPTURED, stream="stdout", line="nobody needs to see this above the table")


def main(count: int, file: Path, how: str = "") -> None:
    """Show it until the file appears."""
    with showing("deploy", sys.stderr) as window:
        configure(LogFormat.AUTO, LogLevel.INFO, stream=window, brief=True, masker=Masker())
        bind_run("r1", "shop")
        tell(count)
        if how == "fail":
            # No name of a database at all: the table cannot be made of this.
            get_logger().info(EventName.DEPLOY_STARTED, command="deploy", databases=[None])
        if how == "exception":
            raise RuntimeError("the command failed")
        while not file.exists():
            signal.sigtimedwait([], 0.05)
    structlog.reset_defaults()


if __name__ == "__main__":
    os.environ.pop("CI", None)
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
