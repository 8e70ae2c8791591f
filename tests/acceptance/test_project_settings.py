"""Projects whose settings tell a coordinator little: a service file, a module that takes its time."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.dump import diff, dump
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.runs import Outcome, Running, running_in
from tests.support.small_migrations import BROKEN, BROKEN_LATE, ITEM, KIND, NOTE
from tests.support.small_project import SmallProject

# A worker that is told to end is given longer than that.
_PATIENCE_S = 9.0
_PLAN = """\
version = 1
deploy = { name = "small", expand_contract = false }
projects.one = { path = "project", settings = "small_settings", env = { SMALL_DATABASES = "${SMALL_DATABASES}" } }
databases.all = { project = "one", aliases = "*" }
"""


class Deploys:
    """A project and a plan of all its databases, in a directory of the test's own."""

    def __init__(self, directory: Path, databases: dict[str, dict[str, Any]], settings: str = "") -> None:
        self.directory = directory
        self.databases = databases
        self.project = SmallProject(
            directory / "project",
            databases,
            {"demo.0001_item": ITEM, "demo.0002_note": NOTE},
            settings=settings,
        )
        (directory / "deploy.toml").write_text(_PLAN)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Start a deploy; what is left of it ends with the block."""
        with running_in(self.directory, {"SMALL_DATABASES": json.dumps(self.databases)}) as run:
            yield run

    def deploy(self) -> Outcome:
        """Run a deploy to its end."""
        with self.running() as run:
            return run.finish()


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server that asks for passwords."""
    with PostgresServer(auth="scram", settings=THROW_AWAY) as server:
        yield server


@pytest.fixture
def by_service(
    guarded: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, tuple[PostgresDatabase, dict[str, Any]]]]:
    """Two databases, each with an entry of DATABASES that says nothing but the name of its service."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"{guarded.host}:{guarded.port}:*:postgres:{guarded.password}\n")
    passwords.chmod(0o600)
    services = tmp_path / "services.conf"
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with temporary_database(guarded) as first, temporary_database(guarded) as second:
        made = {"default": first, "other": second}
        services.write_text(
            "".join(
                f"[{alias}]\nhost={guarded.host}\nport={guarded.port}\nuser=postgres\ndbname={database.name}\n"
                for alias, database in made.items()
            )
        )
        yield {
            alias: (
                database,
                {
                    "ENGINE": "django.db.backends.postgresql",
                    "OPTIONS": {"service": alias, "passfile": str(passwords)},
                },
            )
            for alias, database in made.items()
        }


@pytest.mark.long
def test_databases_of_a_service_file_are_deployed_together_or_not_at_all(
    by_service: dict[str, tuple[PostgresDatabase, dict[str, Any]]], tmp_path: Path
) -> None:
    fleet = Deploys(tmp_path, {alias: entry for alias, (_database, entry) in by_service.items()})
    assert fleet.deploy().exit_code == 0
    before = {alias: dump(database.dsn, sequences=False) for alias, (database, _entry) in by_service.items()}
    assert all("0002_note" in text for text in before.values())

    for broken in (BROKEN, BROKEN_LATE):
        fleet.project.write_migration("demo.0003_kind", broken)
        failed = fleet.deploy()
        assert failed.exit_code == 1, failed.stderr
        assert failed.report["outcome"] == "rolled_back"
        for alias, (database, _entry) in by_service.items():
            assert not diff(before[alias], dump(database.dsn, sequences=False))

    fleet.project.write_migration("demo.0003_kind", KIND)
    assert fleet.deploy().exit_code == 0
    assert all("0003_kind" in dump(database.dsn) for database, _entry in by_service.values())


@pytest.mark.long
def test_a_database_of_a_service_file_is_moved_alone_or_not_at_all(
    by_service: dict[str, tuple[PostgresDatabase, dict[str, Any]]], tmp_path: Path
) -> None:
    database, entry = by_service["default"]
    project = SmallProject(tmp_path / "project", {"default": entry}, {"demo.0001_item": ITEM})
    project.succeed("apply_migrations")
    project.write_migration("demo.0002_note", NOTE)
    project.write_migration("demo.0003_kind", BROKEN_LATE)
    before = dump(database.dsn, sequences=False)

    assert project.run("apply_migrations").stderr.endswith("ValueError: no such kind\n")

    assert not diff(before, dump(database.dsn, sequences=False))


# It is imported when somebody opens the pipe to write, and has been when that one closes it.
_SLOWLY = """\
with open(os.path.join(os.path.dirname(__file__), "pipe")) as pipe:
    pipe.read()
"""


@pytest.fixture
def slow(tmp_path: Path, pg_database: PostgresDatabase) -> Deploys:
    """A project whose settings module waits for a pipe."""
    fleet = Deploys(tmp_path, {"default": pg_database.django}, settings=_SLOWLY)
    os.mkfifo(tmp_path / "project" / "pipe")
    return fleet


def test_a_settings_module_that_takes_its_time_is_waited_for(slow: Deploys, pg_database: PostgresDatabase) -> None:
    with slow.running() as run:
        (slow.directory / "project" / "pipe").write_text("")
        outcome = run.finish()

    assert outcome.exit_code == 0, outcome.stderr
    assert "0002_note" in dump(pg_database.dsn)


def test_a_deploy_ended_while_settings_are_imported_leaves_nothing(
    slow: Deploys, pg_database: PostgresDatabase
) -> None:
    before = dump(pg_database.dsn)
    with slow.running() as run, (slow.directory / "project" / "pipe").open("w"):
        # The worker is in its settings module, and stays there.
        family = run.family()
        asked_s = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        outcome = run.finish()

    # It holds nothing that it would have to be waited for.
    assert time.monotonic() - asked_s < _PATIENCE_S
    assert outcome.exit_code == 1, outcome.stderr
    assert not [process for process in family if process.is_running()]
    assert dump(pg_database.dsn) == before


@pytest.mark.long
def test_what_an_assumed_role_has_prepared_is_committed(guarded: PostgresServer, tmp_path: Path) -> None:
    with temporary_database(guarded) as database:
        with database.connect() as session:
            session.execute(
                "CREATE ROLE shop_owner; GRANT ALL ON SCHEMA public TO shop_owner;"
                f"CREATE ROLE shop_deploys LOGIN PASSWORD '{guarded.password}' NOINHERIT IN ROLE shop_owner"
            )
        entry = database.django | {"USER": "shop_deploys", "OPTIONS": {"assume_role": "shop_owner"}}
        deploys = Deploys(tmp_path, {"default": entry})

        outcome = deploys.deploy()

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert [entry["tier"] for entry in outcome.report["databases"]] == ["two_phase"]
        with database.connect() as session:
            assert session.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'demo_item'").fetchall() == [
                ("shop_owner",)
            ]
            assert session.execute("SELECT gid FROM pg_prepared_xacts").fetchall() == []
