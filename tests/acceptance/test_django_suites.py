"""Django's own tests of migrations, with `apply_migrations` wherever `migrate` is asked for."""

from collections.abc import Iterator
from pathlib import Path

import django
import pytest

from tests.django_suites.source import unpacked_tests
from tests.django_suites.suites import SQLITE, SUITES, UNDONE, WITHOUT_ICU, Databases, compare, run_kept
from tests.support.postgres_server import PostgresServer

# The first run on a machine downloads Django's source distribution, too.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def sources() -> Iterator[Path]:
    with unpacked_tests() as directory:
        yield directory


def _assert_drop_in(vendor: str, suite: str, databases: Databases, sources: Path) -> None:
    found = compare(vendor, suite, SUITES[suite], databases, sources)

    # Where Django's own command failed too, a comparison would say little.
    assert found.stock.failed.keys() <= WITHOUT_ICU, "\n".join(found.stock.failed.values())
    assert found.unexplained == [], "\n".join(trace for test, trace in found.new_failures.items() if test not in UNDONE)


@pytest.mark.parametrize("suite", SUITES)
def test_djangos_own_tests_pass_on_sqlite_as_they_do_with_its_own_command(suite: str, sources: Path) -> None:
    _assert_drop_in("sqlite", suite, SQLITE, sources)


@pytest.mark.parametrize("suite", SUITES)
def test_djangos_own_tests_pass_on_postgresql_as_they_do_with_its_own_command(
    suite: str, sources: Path, pg_server: PostgresServer
) -> None:
    databases = {alias: pg_server.django(f"django_suites_{alias}") for alias in SQLITE}

    _assert_drop_in("postgresql", suite, databases, sources)


@pytest.mark.parametrize("test", UNDONE)
def test_what_cannot_pass_when_a_failure_is_undone_passes_when_it_is_not(test: str, sources: Path) -> None:
    module, _class, name = test.rsplit(".", maxsplit=2)
    if f"def {name}(" not in sources.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"):
        pytest.skip(f"Django {django.get_version()} has no such test")

    found = run_kept([test], SQLITE, sources)

    assert (found.run, found.failed) == (1, {})
    assert found.handled > 1
