"""What a deploy over many databases costs beside a simpler way: to take it back, to hold it, to do it at all."""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.commit_window import script_by_hand
from benchmarks.many_databases import ManyDatabases
from benchmarks.measuring import Run, timed
from benchmarks.processes import Watched
from benchmarks.site import Site, State, recorded
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_home import program

__all__ = ["GivenUp", "Limit", "OneMore", "TakenBack", "Tier"]

Databases = Mapping[str, PostgresDatabase]

_PSQL: Final = """printf '%s\\n' "$@" | xargs -P "$CORES" -I{} "$PSQL" -qX -v ON_ERROR_STOP=1 -f script.sql -d {} """


class GivenUp:
    """Five pending migrations and a gate that fails: ours is what taking them back takes, the peer's the way there.

    Both are parts of the same run, by its log: from the decision, and up to it.

    Args:
        site: the project.
        databases: by alias.
        directory: for the plan and the journal.
    """

    def __init__(self, site: Site, databases: Databases, directory: Path) -> None:
        self._deploy = ManyDatabases(site, databases, State.FIVE_PENDING, directory, phase='gate = ["false"]')
        self.name = f"rollback/{len(databases)}-databases/before-the-decision"

    def prepare(self) -> None:
        """Put the databases back."""
        self._deploy.prepare()

    def run_ours(self) -> Run:
        """Time the way back."""
        log = _log(self._deploy.run("deploy", exit_code=1))
        return Run(_between(log, "gate.failed", "deploy.rolled_back"), recorded(self._deploy.databases))

    def run_peer(self) -> Run:
        """Time the way there."""
        log = _log(self._deploy.run("deploy", exit_code=1))
        return Run(_between(log, "phase.started", "gate.started"), recorded(self._deploy.databases))


class TakenBack:
    """Five committed migrations: ours is `rollback`, the peer the deploy that it takes back.

    Args:
        site: the project.
        databases: by alias.
        directory: for the plan and the journal.
    """

    def __init__(self, site: Site, databases: Databases, directory: Path) -> None:
        self._deploy = ManyDatabases(site, databases, State.FIVE_PENDING, directory)
        self.name = f"rollback/{len(databases)}-databases/of-a-committed-run"

    def prepare(self) -> None:
        """Put the databases back."""
        self._deploy.prepare()

    def run_ours(self) -> Run:
        """Deploy, and time the way back."""
        self._deploy.run("deploy")
        return Run(self._deploy.run("rollback").duration_s, {})

    def run_peer(self) -> Run:
        """Time a deploy."""
        return Run(self._deploy.run("deploy").duration_s, {})


class Tier:
    """Five pending migrations in one tier, beside the tier `two_phase`.

    Args:
        site: the project.
        databases: by alias.
        directory: for the plan and the journal.
        tier: as in a plan.
    """

    def __init__(self, site: Site, databases: Databases, directory: Path, tier: str) -> None:
        self._ours, self._peer = (
            ManyDatabases(site, databases, State.FIVE_PENDING, directory, deploy=f'atomicity = "{each}"')
            for each in (tier, "two_phase")
        )
        self.name = f"tier/{len(databases)}-databases/{tier}"

    def prepare(self) -> None:
        """Put the databases back."""
        self._ours.prepare()

    def run_ours(self) -> Run:
        """Deploy in the tier."""
        self._ours.prepare()
        return self._ours.run_ours()

    def run_peer(self) -> Run:
        """Deploy in the other one."""
        self._peer.prepare()
        return self._peer.run_ours()


class _ByHand:
    """`psql` that runs the SQL of the pending migrations on each database, in one transaction.

    Args:
        site: the project.
        databases: by alias; all in the same state.
        directory: for the SQL.
    """

    def __init__(self, site: Site, databases: Databases, directory: Path) -> None:
        self._site, self._databases, self._directory = site, databases, directory
        self._script: str | None = None

    def run(self) -> float:
        """Run it, on as many databases at a time as there are cores, and return the seconds; the SQL is at hand."""
        script = self._script = self._script or script_by_hand(self._site, next(iter(self._databases.values())))
        (self._directory / "script.sql").write_text(script)
        words = [database.dsn for database in self._databases.values()]
        environment = {"PSQL": str(program("psql")), "CORES": str(os.cpu_count() or 1)}
        return timed(["sh", "-c", _PSQL, "sh", *words], cwd=self._directory, env=environment)


class OneMore:
    """What one more database in the same state costs, beside `psql` that runs the same SQL on it in one transaction.

    Ours is the difference between a deploy over all databases and one over half of them, by the number of the others.

    Args:
        site: the project.
        databases: by alias; an even number.
        directory: for the plan and the journal.
    """

    def __init__(self, site: Site, databases: Databases, directory: Path) -> None:
        self._count = len(databases)
        half = dict([*databases.items()][: self._count // 2])
        self._all = ManyDatabases(site, databases, State.FIVE_PENDING, directory)
        self._half = ManyDatabases(site, half, State.FIVE_PENDING, directory)
        self._peer = _ByHand(site, databases, directory)
        self._databases = databases
        self.name = f"one-more/{self._count}-databases"

    def prepare(self) -> None:
        """Put the databases back."""
        self._all.prepare()

    def run_ours(self) -> Run:
        """Deploy over half of them, and over all."""
        half_s = self._half.run("deploy").duration_s
        self._all.prepare()
        all_s = self._all.run("deploy").duration_s
        return Run(max(all_s - half_s, 0.0) / (self._count - self._count // 2), recorded(self._databases))

    def run_peer(self) -> Run:
        """Run the SQL on each."""
        return Run(self._peer.run() / self._count, recorded(self._databases))


class Limit:
    """A whole deploy of five pending migrations, beside `psql` that runs the same SQL on each database.

    The peer's SQL is written out beforehand, which is not counted: no Django is started, no model made, nothing looked
    at and nothing decided. It is what the servers need.

    Args:
        site: the project.
        databases: by alias.
        directory: for the plan, the journal and the SQL.
    """

    def __init__(self, site: Site, databases: Databases, directory: Path) -> None:
        self._deploy = ManyDatabases(site, databases, State.FIVE_PENDING, directory)
        self._peer = _ByHand(site, databases, directory)
        self.name = f"limit/{len(databases)}-databases/{State.FIVE_PENDING}"

    def prepare(self) -> None:
        """Put the databases back."""
        self._deploy.prepare()

    def run_ours(self) -> Run:
        """Deploy."""
        return self._deploy.run_ours()

    def run_peer(self) -> Run:
        """Run the SQL on each."""
        return Run(self._peer.run(), self._deploy.left())


def _log(done: Watched) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def _between(log: list[dict[str, object]], first: str, last: str) -> float:
    """Return the seconds from the first event of a name to the last one of another."""
    moments = {
        name: [datetime.fromisoformat(str(line["timestamp"])) for line in log if line["event"] == name]
        for name in (first, last)
    }
    return (moments[last][-1] - moments[first][0]).total_seconds()
