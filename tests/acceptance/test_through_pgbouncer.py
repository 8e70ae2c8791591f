"""A deploy through a pooler of transactions, as the page about PgBouncer tells."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.pgbouncer import PgBouncer, why_not
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import BROKEN, ITEM, NOTE
from tests.support.small_project import SmallProject, migration

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.timeout(120),
]
_GONE = migration("migrations.RemoveField('item', 'name')", after=[("demo", "0001_item")])


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of which one database is known by its pooler's address, which has two sessions for it."""
    with (
        PgBouncer(second_pg_server, pool_size=2) as pooler,
        small_fleet(tmp_path, pg_server, second_pg_server, {}) as fleet,
    ):
        fleet.databases["shard_1"] = pooler.django(fleet.last.name)
        SmallProject(tmp_path / "project", fleet.databases, {"demo.0001_item": ITEM})
        yield fleet


def _bring(fleet: Fleet, name: str, source: str) -> None:
    (fleet.directory / f"project/demo/migrations/{name}.py").write_text(source)


def test_a_deploy_through_a_pooler_of_transactions_commits_by_two_phases(fleet: Fleet) -> None:
    _bring(fleet, "0002_note", NOTE)
    outcome = fleet.deploy()
    assert outcome.exit_code == 0, outcome.stderr
    assert {each["database"]: each["tier"] for each in outcome.report["databases"]}[LAST] == "two_phase"
    assert "0002_note" in fleet.dumps()[LAST]
    assert fleet.prepared() == []


def test_a_deploy_through_a_pooler_that_fails_takes_everything_back(fleet: Fleet) -> None:
    _bring(fleet, "0002_note", NOTE)
    _bring(fleet, "0003_kind", BROKEN)
    before = fleet.dumps(sequences=False)
    outcome = fleet.deploy()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert fleet.dumps(sequences=False) == before


def test_a_client_of_the_release_before_that_rests_is_not_seen_behind_a_pooler(fleet: Fleet) -> None:
    fleet.plan(deploy="expand_contract = true")
    plan = fleet.directory / "deploy.toml"
    plan.write_text(f'{plan.read_text()}\n[finalise]\nbake_time = "0s"\nforbid_sessions = ["shop-v1*"]\n')
    _bring(fleet, "0002_gone", _GONE)
    assert fleet.deploy().exit_code == 0
    place = fleet.databases["shard_1"]
    name = "shop-v1-web"
    with psycopg.connect(
        host=place["HOST"], port=place["PORT"], user="postgres", dbname=place["NAME"], application_name=name
    ):
        assert fleet.run("finalise").exit_code == 0
