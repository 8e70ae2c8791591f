"""More databases on one server than it takes connections, all prepared: all new, or all as they were."""

from pathlib import Path

import pytest

from tests.support.many_databases import many_databases
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM, NOTE

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("count", "connections"),
    [pytest.param(300, 100, id="300, default max_connections"), pytest.param(24, 22, id="24")],
)
def test_all_are_new_or_all_are_as_they_were(count: int, connections: int, tmp_path: Path) -> None:
    server = PostgresServer(max_connections=connections, max_prepared_transactions=count, settings=THROW_AWAY)
    release = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
    with server, many_databases(tmp_path, [server], count, release) as many:
        many.plan('gate = ["false"]')
        failed = many.run("deploy")

        assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr[-3000:]
        assert many.prepared() == []
        assert many.new() == 0

        many.plan()
        outcome = many.run("deploy")

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        assert {entry["tier"] for entry in outcome.report["databases"]} == {"two_phase"}
        assert many.prepared() == []
        assert many.new() == count
