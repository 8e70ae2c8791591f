"""From the first COMMIT PREPARED to the last: for how long some databases are new and others old."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.many_databases import ManyDatabases
from benchmarks.measuring import Run, timed
from benchmarks.site import Site, State
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_home import program

__all__ = ["CommitWindow", "script_by_hand"]

# The transaction that recorded the newest migration is the one that was prepared.
_COMMITTED_AT = (
    "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM django_migrations ORDER BY id DESC LIMIT 1"
)
# Strong locks on tables that existed before count from the beginning of the migration that took the first, as ours do.
_EXISTING = "SELECT array(SELECT oid FROM pg_class WHERE relkind IN ('r', 'p', 'm')) AS existing \\gset"
_BEGINS = "SELECT extract(epoch FROM clock_timestamp()) AS began \\gset"
_LOCKED = """
SELECT :began WHERE EXISTS (
    SELECT 1 FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted AND relation = ANY(:'existing'::oid[])
      AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
);
"""
_ENDS = frozenset({"BEGIN;", "COMMIT;"})
_COMMIT = """printf '%s %s\\n' "$@" | xargs -P 8 -L1 sh -c "$ONE" """
_COMMIT_ONE = """echo "COMMIT PREPARED :'gid'" | "$PSQL" -qX -v ON_ERROR_STOP=1 -v gid="$1" -d "$0" """


class CommitWindow:
    """Five pending migrations; the time is that of the commits alone, by the servers' own commit timestamps.

    Beside it, for how long strong locks were held, from the first to the commit: ours by the deploy's own report, the
    peer's by its server's clock.

    The peer is what one would type: the SQL of `sqlmigrate` in a transaction that `psql` prepares on each database, and
    then a `psql` for each COMMIT PREPARED, eight at a time.

    Args:
        site: the project.
        databases: by alias; their servers have `track_commit_timestamp` on.
        directory: for the plan and the journal.
    """

    def __init__(self, site: Site, databases: Mapping[str, PostgresDatabase], directory: Path) -> None:
        self._site = site
        self._databases = databases
        self._deploy = ManyDatabases(site, databases, State.FIVE_PENDING, directory)
        self._script: str | None = None

    @property
    def name(self) -> str:
        """Such as `commit-window/20-databases`."""
        return f"commit-window/{len(self._databases)}-databases"

    def prepare(self) -> None:
        """Put the databases back, and begin a new journal."""
        self._deploy.prepare()

    def run_ours(self) -> Run:
        """Run the installed program."""
        return self._window(self._deploy.run_ours(), self._deploy.longest_lock_s())

    def run_peer(self) -> Run:
        """Prepare with `psql`, and commit with as many of them."""
        first = next(iter(self._databases.values()))
        script = self._script = self._script or script_by_hand(self._site, first, prepares=True)
        words, locked_at_s = [], {}
        for alias, database in self._databases.items():
            argv = [
                str(program("psql")),
                "-qtAX",
                "-v",
                "ON_ERROR_STOP=1",
                "-v",
                f"gid={database.name}",
                "-d",
                database.dsn,
            ]
            done = subprocess.run(argv, input=script, text=True, check=True, stdout=subprocess.PIPE)
            if moments := [*filter(None, done.stdout.splitlines())]:
                locked_at_s[alias] = float(moments[0])
            words += [database.dsn, database.name]
        environment = {"PSQL": str(program("psql")), "ONE": _COMMIT_ONE}
        duration_s = timed(["sh", "-c", _COMMIT, "sh", *words], cwd=Path.cwd(), env=environment)
        ended_s = self._committed_at_s()
        locked_s = max((ended_s[alias] - began_s for alias, began_s in locked_at_s.items()), default=0.0)
        return self._window(Run(duration_s, self._deploy.left()), locked_s)

    def _window(self, run: Run, locked_s: float) -> Run:
        moments = self._committed_at_s().values()
        return Run(max(moments) - min(moments), run.left, {"locks": locked_s})

    def _committed_at_s(self) -> dict[str, float]:
        moments = {}
        for alias, database in self._databases.items():
            with database.connect() as session:
                (moment_s,) = session.execute(_COMMITTED_AT).fetchone() or (0,)
                moments[alias] = float(moment_s)
        return moments


def script_by_hand(site: Site, database: PostgresDatabase, *, prepares: bool = False) -> str:
    """Return what `psql` runs: the SQL of a database's pending migrations, recorded, in one transaction.

    Args:
        site: the project.
        database: where they are pending.
        prepares: prepare the transaction under the name in the variable `gid`, and print since when it has locks.
    """
    lines = [_EXISTING, "BEGIN;"] if prepares else ["BEGIN;"]
    for app, name in _pending(site, database):
        sql = [line for line in _manage(site, database, "sqlmigrate", app, name).splitlines() if line not in _ENDS]
        lines += [_BEGINS, *sql, _LOCKED] if prepares else sql
        record = f"INSERT INTO django_migrations (app, name, applied) VALUES ('{app}', '{name}', now());"  # noqa: S608
        lines.append(record)
    return "\n".join([*lines, "PREPARE TRANSACTION :'gid';" if prepares else "COMMIT;", ""])


def _pending(site: Site, database: PostgresDatabase) -> list[tuple[str, str]]:
    shown = _manage(site, database, "showmigrations", "--plan", "--no-color")
    names = [line.split()[-1] for line in shown.splitlines() if line.startswith("[ ]")]
    return [(app, name) for app, _, name in (each.partition(".") for each in names)]


def _manage(site: Site, database: PostgresDatabase, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=site.project,
        env=os.environ | site.environment({"default": database}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
