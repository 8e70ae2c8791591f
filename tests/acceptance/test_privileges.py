"""Each command with the role that the documentation makes for it, and with nothing beyond."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import KIND, NOTE
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

_DOCUMENT = Path(__file__).parents[2] / "docs/reference/privileges.md"
_ROLES = ("shop_owner", "smooth_deploy", "smooth_recover", "smooth_status", "smooth_journal")


@dataclass(frozen=True)
class _Roles:
    """The documented roles, under names that nobody else has on these servers."""

    suffix: str

    def named(self, text: str, database: str = "shop") -> str:
        """Put the names into documented text."""
        for role in _ROLES:
            text = re.sub(rf"\b{role}\b", f"{role}_{self.suffix}", text)
        return re.sub(r"\bDATABASE shop\b", f'DATABASE "{database}"', text)

    def make(self, heading: str, database: PostgresDatabase) -> None:
        """Run the statements that stand under a heading."""
        section = _DOCUMENT.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        (statements,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
        with database.connect() as session:
            session.execute(self.named(statements, database.name).encode())

    def own(self, database: PostgresDatabase) -> None:
        """Give the application's tables to their owner."""
        owner = self.named("shop_owner")
        with database.connect() as session:
            session.execute(f"CREATE ROLE {owner}".encode())
            for (table,) in session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
                session.execute(f"ALTER TABLE {table} OWNER TO {owner}".encode())

    def connect_as(self, fleet: Fleet, role: str, *, assumes: bool = True) -> None:
        """Let the project connect as a role."""
        for alias in ("default", "shard_1"):
            settings = fleet.databases[alias] | {"USER": self.named(role), "PASSWORD": "chosen by you"}
            options = {"OPTIONS": {"assume_role": self.named("shop_owner")}} if assumes else {}
            fleet.databases[alias] = {key: value for key, value in settings.items() if key != "OPTIONS"} | options


@pytest.fixture
def roles(pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[_Roles]:
    roles = _Roles(uuid4().hex[:8])
    yield roles
    for server in (pg_server, second_pg_server):
        with server.connect() as session:
            for role in (*_ROLES[1:], _ROLES[0]):
                session.execute(f"DROP ROLE IF EXISTS {roles.named(role)}".encode())


@pytest.fixture
def fleet(
    roles: _Roles, pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> Iterator[Fleet]:
    release = {"demo.0002_note": NOTE, "demo.0003_kind": KIND}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        for database in (fleet.first, fleet.last):
            roles.own(database)
            roles.make("The deploy role", database)
        roles.connect_as(fleet, "smooth_deploy")
        yield fleet


def _owners(database: PostgresDatabase) -> set[str]:
    with database.connect() as session:
        query = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        return {str(owner) for (owner,) in session.execute(query).fetchall()}


@pytest.mark.long
def test_the_deploy_role_deploys_rehearses_and_rolls_back(fleet: Fleet, roles: _Roles) -> None:
    before = fleet.dumps(sequences=False)
    assert fleet.run("check").exit_code == 0
    assert fleet.run("rehearse").exit_code == 0

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert [entry["tier"] for entry in outcome.report["databases"]] == ["two_phase", "held_open", "two_phase"]
    assert fleet.run("rollback").exit_code == 0
    assert fleet.dumps(sequences=False) == before
    assert {owner for database in (fleet.first, fleet.last) for owner in _owners(database)} <= {
        roles.named("shop_owner"),
        "postgres",
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("role", "point"),
    [
        ("smooth_recover", "decide.before"),
        *(
            pytest.param(role, point, marks=pytest.mark.long)
            for role, point in (
                ("smooth_deploy", "prepare.after"),
                ("smooth_deploy", "journal.decision.after"),
                ("smooth_recover", "journal.decision.after"),
            )
        ),
    ],
)
def test_a_role_that_recovers_settles_what_another_login_has_left(
    role: str, point: str, fleet: Fleet, roles: _Roles
) -> None:
    before = fleet.dumps(sequences=False)
    if role == "smooth_recover":
        for database in (fleet.first, fleet.last):
            roles.make("A role that recovers", database)
    crashed = fleet.run("deploy", failpoint=point)
    assert crashed.exit_code == -signal.SIGKILL or crashed.named("worker.failed")
    for process in fleet.processes():
        process.wait(timeout=20)
    roles.connect_as(fleet, role)

    recovered = fleet.run("recover")

    assert recovered.exit_code == 0, recovered.stderr
    assert not fleet.prepared()
    assert (fleet.dumps(sequences=False) == before) is (point != "journal.decision.after")


@pytest.mark.long
def test_check_names_the_role_that_may_end_what_was_prepared(fleet: Fleet, roles: _Roles) -> None:
    for database in (fleet.first, fleet.last):
        roles.make("A role that looks", database)
        with database.connect() as session:
            session.execute(roles.named("GRANT CREATE ON SCHEMA public TO smooth_status").encode())
    assert fleet.run("deploy", failpoint="decide.before").exit_code == -signal.SIGKILL
    roles.connect_as(fleet, "smooth_status", assumes=False)

    refused = fleet.run("check")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    said = {error["place"]: error["message"] for error in refused.report["errors"]}
    owner, other = roles.named("shop_owner"), roles.named("smooth_status")
    assert said.keys() == {"primary", LAST}
    assert re.fullmatch(rf"smooth:\S+ was prepared by the role {owner}, and {other} may not end it", said["primary"])


@pytest.mark.long
def test_the_role_that_looks_reads_where_every_database_stands(fleet: Fleet, roles: _Roles) -> None:
    for database in (fleet.first, fleet.last):
        roles.make("A role that looks", database)
    roles.connect_as(fleet, "smooth_status", assumes=False)

    outcome = fleet.run("status")

    assert outcome.exit_code == 0, outcome.stderr
    assert [entry["pending"] for entry in outcome.report["databases"]] == [["demo.0002_note", "demo.0003_kind"]] * 3
    refused = fleet.run("deploy")
    assert refused.exit_code == 3, refused.stderr


@pytest.mark.long
def test_the_role_that_looks_is_told_when_what_is_held_back_is_due(fleet: Fleet, roles: _Roles) -> None:
    narrow = "migrations.AlterField('item', 'name', models.CharField(max_length=9))"
    source = migration(narrow, after=[("demo", "0003_kind")])
    (fleet.directory / "project/demo/migrations/0004_name.py").write_text(source)
    fleet.plan(deploy="expand_contract = true")
    assert fleet.deploy().exit_code == 0
    for database in (fleet.first, fleet.last):
        roles.make("A role that looks", database)
        with database.connect() as session:
            session.execute(roles.named("GRANT SELECT ON smooth_migrations_contract TO smooth_status").encode())
    roles.connect_as(fleet, "smooth_status", assumes=False)

    outcome = fleet.run("status")

    assert outcome.exit_code == 0, outcome.stderr
    told = {entry["database"]: entry["contract_due"] for entry in outcome.report["databases"]}
    assert all(due["due_at"] for entries in told.values() for due in entries)
    for name in ("primary", LAST):
        [[blocked]] = [due["blocked_by"] for due in told[name]]
        assert "permission denied for table demo_item" in blocked


@pytest.mark.long
def test_a_journal_is_kept_by_a_role_of_its_own(fleet: Fleet, roles: _Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    roles.make("A journal on PostgreSQL", fleet.first)
    server = fleet.first.server
    url = server.dsn(fleet.first.name, roles.named("smooth_journal"), "${JOURNAL_PASSWORD}")
    monkeypatch.setenv("JOURNAL_PASSWORD", "chosen by you")
    fleet.plan(deploy=f'expand_contract = false\njournal = "{url}"')

    assert fleet.deploy().exit_code == 0
    assert [run["outcome"] for run in fleet.run("runs").report["runs"]] == ["committed"]
    assert roles.named("smooth_journal") in _owners(fleet.first)
