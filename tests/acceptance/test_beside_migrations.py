"""What receivers write beside the migrations goes with a rollback, whatever befalls the runs meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import Fleet, small_fleet
from tests.support.fault_proxy import Fault, Harm
from tests.support.postgres_server import PostgresServer
from tests.support.small_project import migration
from tests.support.tiers import DEPLOY, decided_by_journal, dumps_of, proxied

pytestmark = pytest.mark.timeout(120)

_EXTRA = migration(
    "migrations.CreateModel('Extra', [('id', models.BigAutoField(primary_key=True))])", after=[("demo", "0001_item")]
)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """A project whose next release has a model, for which content types and permissions are written."""
    installed = ("django.contrib.contenttypes", "django.contrib.auth")
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_extra": _EXTRA}, installed=installed) as fleet:
        yield fleet


@pytest.mark.long
def test_of_a_commit_whose_answer_was_lost(fleet: Fleet) -> None:
    fleet.plan(deploy=DEPLOY, servers='atomicity = "held_open"')
    before = dumps_of(fleet)
    with proxied(fleet) as (first, _last):
        lost = Fault("^COMMIT$", Harm.REPLY_LOST)
        first.arm(Fault("^SELECT 1$", Harm.DELAYED, meanwhile=lambda: first.arm(lost)))
        assert fleet.deploy().report["outcome"] == "committed"
        lost.wait()
        assert fleet.run("rollback").report["outcome"] == "committed"
    assert dumps_of(fleet) == before


@pytest.mark.long
def test_of_a_rollback_that_was_killed_with_nothing_left_to_reverse(fleet: Fleet) -> None:
    fleet.plan(deploy=DEPLOY, servers='atomicity = "two_phase"')
    decided_by_journal(fleet)
    before = dumps_of(fleet)
    assert fleet.deploy().report["outcome"] == "committed"
    assert fleet.run("rollback", failpoint="commit.before").exit_code == 4
    for process in fleet.processes():
        process.wait()
    fleet.wait_until_alone()

    assert fleet.run("recover").report["outcome"] == "committed"

    assert dumps_of(fleet) == before
