"""Run Django's tests with a command of our choice wherever `migrate` is asked for, and write down what came of them.

Both Django's own command and ours are put there in the same way, so that both are counted.
"""

import json
import os
import unittest
from pathlib import Path
from typing import Any, ClassVar

from django.core.management.commands import migrate
from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases  # type: ignore[attr-defined]

from smooth_migrations.management.commands import apply_migrations

__all__ = ["Kept", "Ours", "Stock"]


class Stock(DiscoverRunner):
    """Django's runner with Django's own `migrate`."""

    command: ClassVar[type[migrate.Command]] = migrate.Command

    def run_tests(self, test_labels: list[str], **kwargs: Any) -> int:  # noqa: ANN401 - as Django's
        """Exchange the command before any test's module could import it, then run the tests."""
        self._counts = {"loaded": 0, "handled": 0}
        migrate.Command = _counted(self.command, self._counts)  # type: ignore[misc]
        return super().run_tests(test_labels, **kwargs)

    def run_suite(self, suite: unittest.TestSuite, **kwargs: Any) -> unittest.TextTestResult:  # noqa: ANN401 - as Django's
        """Write down which tests there are, then run them."""
        self._tests = [test.id() for test in iter_test_cases(suite)]
        return super().run_suite(suite, **kwargs)

    def suite_result(self, suite: unittest.TestSuite, result: unittest.TextTestResult, **kwargs: Any) -> int:  # noqa: ANN401 - as Django's
        """Write down what came of the tests."""
        failed: dict[str, str] = {}
        for test, trace in (*result.failures, *result.errors):
            failed[test.id()] = failed.get(test.id(), "") + trace
        for test in result.unexpectedSuccesses:
            failed[test.id()] = "unexpected success"
        outcome = {
            "tests": self._tests,
            "run": result.testsRun,
            "failed": failed,
            "skipped": [test.id() for test, _reason in result.skipped],
            **self._counts,
        }
        Path(os.environ["SMOOTH_SUITES_OUTCOME"]).write_text(json.dumps(outcome))
        return super().suite_result(suite, result, **kwargs)


class Ours(Stock):
    """Django's runner with `apply_migrations` wherever `migrate` is asked for."""

    command = apply_migrations.Command


class _WithoutUndo(apply_migrations.Command):
    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - as Django's
        super().handle(*args, **{**options, "no_rollback": True})


class Kept(Stock):
    """Django's runner with `apply_migrations --no-rollback`."""

    command = _WithoutUndo


def _counted(command: type[migrate.Command], counts: dict[str, int]) -> type[migrate.Command]:
    class Command(command):  # type: ignore[misc, valid-type]
        def __init__(self, *args: object, **kwargs: object) -> None:
            counts["loaded"] += 1
            super().__init__(*args, **kwargs)

        def handle(self, *args: object, **options: Any) -> str | None:  # noqa: ANN401 - as Django's
            counts["handled"] += 1
            printed: str | None = super().handle(*args, **options)
            return printed

    return Command
