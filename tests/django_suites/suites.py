"""Run one of Django's suites twice, with its own `migrate` and with ours in its place, and compare."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import django

__all__ = ["SQLITE", "SUITES", "UNDONE", "WITHOUT_ICU", "Comparison", "Databases", "Outcome", "compare", "run_kept"]

Databases = Mapping[str, Mapping[str, Any]]
"""Django's `DATABASES`; its runner makes and drops `test_…` databases beside those named."""

SUITES: Final[Mapping[str, Sequence[str]]] = {
    "migrations": ("migrations", "migrate_signals", "migration_test_data_persistence"),
    "neighbours": (
        "contenttypes_tests",
        "auth_tests.test_management",
        "multiple_database",
        "swappable_models",
        "migrations2",
        "user_commands",
    ),
}
"""Labels of Django's `tests/runtests.py`: all that is about migrations, and what uses the command besides."""

SQLITE: Final[Databases] = {alias: {"ENGINE": "django.db.backends.sqlite3"} for alias in ("default", "other")}
"""Two databases in memory, as in Django's own `test_sqlite`."""

WITHOUT_ICU: Final = frozenset(
    f"migrations.test_operations.OperationTests.{name}"
    for name in ("test_alter_field_pk_fk_db_collation", "test_create_fk_models_to_pk_field_db_collation")
)
"""What fails with either command on a PostgreSQL server that was built without ICU, whose collations it names."""

UNDONE: Final[Mapping[str, str]] = {
    "auth_tests.test_management.PermissionRenameOperationsTests.test_rename_permission_conflict": (
        "goes on from the migration that stays applied when a receiver of post_migrate fails; ours takes it back"
    ),
}
"""What can pass only where a failed call leaves behind what it did: each with what it looks for.

Its second call is to fail because of a migration that the first, failed one has applied; with `--no-rollback` it does.
"""

_ROOT: Final = Path(__file__).parents[2]
_PACKAGE: Final = __name__.rpartition(".")[0]
_TIMEOUT_S: Final = 900


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run.

    Args:
        tests: ids of all tests, in order.
        run: how many of them were run.
        failed: ids of failures and errors, each with its traceback.
        skipped: ids of those that the tests' authors skip here.
        loaded: how often the command was made, wherever `migrate` was asked for.
        handled: how often it was run.
        duration_s: of the whole process.
    """

    tests: Sequence[str]
    run: int
    failed: Mapping[str, str]
    skipped: Sequence[str]
    loaded: int
    handled: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One suite on one kind of database, with either command."""

    vendor: str
    suite: str
    stock: Outcome
    ours: Outcome

    @property
    def new_failures(self) -> Mapping[str, str]:
        """What fails with our command alone, each with its traceback."""
        return {test: trace for test, trace in self.ours.failed.items() if test not in self.stock.failed}

    @property
    def unexplained(self) -> Sequence[str]:
        """Whatever speaks against a drop-in, a line each."""
        return [
            *(f"{test} fails with ours alone" for test in self.new_failures if test not in UNDONE),
            *(f"{test} passes: it is no exception any more" for test in self._exceptions - {*self.new_failures}),
            *(f"{test} is skipped with one of both" for test in {*self.ours.skipped} ^ {*self.stock.skipped}),
            *(f"{test} is there with one of both" for test in {*self.ours.tests} ^ {*self.stock.tests}),
            *self._uncounted,
        ]

    @property
    def _exceptions(self) -> AbstractSet[str]:
        return UNDONE.keys() & {*self.ours.tests}

    @property
    def _uncounted(self) -> Iterator[str]:
        for what in ("run", "loaded", "handled"):
            stock, ours = getattr(self.stock, what), getattr(self.ours, what)
            if stock != ours or not ours:
                yield f"{what}: {ours} with ours, {stock} with stock"


def compare(vendor: str, suite: str, labels: Sequence[str], databases: Databases, sources: Path) -> Comparison:
    """Run a suite with Django's command, then with ours.

    Args:
        vendor: a name for the kind of database.
        suite: a name for the labels.
        labels: for Django's `runtests.py`.
        databases: the aliases `default` and `other`.
        sources: Django's `tests` directory, of the installed version.

    Raises:
        RuntimeError: the tests could not be run to their end.
    """
    stock, ours = (_run(labels, databases, sources, runner) for runner in ("Stock", "Ours"))
    return Comparison(vendor, suite, stock, ours)


def run_kept(labels: Sequence[str], databases: Databases, sources: Path) -> Outcome:
    """Run tests with our command told to undo nothing; arguments as of `compare`."""
    return _run(labels, databases, sources, "Kept")


def _run(labels: Sequence[str], databases: Databases, sources: Path, runner: str) -> Outcome:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DJANGO_"))}
    with tempfile.TemporaryDirectory(prefix="smooth-django-suites-") as directory:
        outcome = Path(directory) / "outcome.json"
        environment |= {
            "PYTHONPATH": str(_ROOT),
            "SMOOTH_SUITES_DATABASES": json.dumps(databases),
            "SMOOTH_SUITES_RUNNER": f"{_PACKAGE}.runners.{runner}",
            "SMOOTH_SUITES_OUTCOME": str(outcome),
        }
        started_s = time.monotonic()
        done = subprocess.run(
            # One process: what is counted is counted within it.
            [sys.executable, "runtests.py", f"--settings={_PACKAGE}.settings", "--parallel=1", "--noinput", *labels],
            check=False,
            cwd=sources,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_S,
        )
        duration_s = time.monotonic() - started_s
        if not outcome.exists():
            raise RuntimeError(
                f"Django {django.get_version()}'s tests {' '.join(labels)} did not run with {runner}:\n{done.stdout}"
            )
        return Outcome(**json.loads(outcome.read_text()), duration_s=duration_s)
