"""Databases that have nothing to do: what is asked of them, and what a look of the coordinator's own must not miss."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome, run_in
from tests.support.small_migrations import ITEM, NOTE
from tests.support.small_project import migration

_COUNT = 4
# Counted when a session ends, before it is gone from pg_stat_activity.
_SESSIONS = "SELECT sessions FROM pg_stat_database WHERE datname = %s"
_READS_ELSEWHERE = """
from django.apps import AppConfig
from django.db.backends.signals import connection_created


def look_elsewhere(connection, **kwargs):
    with connection.cursor() as cursor:
        cursor.execute("SET search_path TO elsewhere")


class Demo(AppConfig):
    name = "demo"

    def ready(self):
        connection_created.connect(look_elsewhere)
"""
_CHANGES_DATABASES = """
from django.apps import AppConfig
from django.conf import settings


class Demo(AppConfig):
    name = "demo"

    def ready(self):
        entry = settings.DATABASES["shard_1"]
        settings.DATABASES = settings.DATABASES | {{"shard_1": entry | {{"NAME": {name!r}}}}}
"""
_CHANGES_BACKEND = """
from django.apps import AppConfig
from django.db.backends.postgresql.base import DatabaseWrapper

init_connection_state = DatabaseWrapper.init_connection_state


def look_elsewhere(self):
    init_connection_state(self)
    if self.alias == "shard_1":
        self.connection.execute("SET search_path TO elsewhere")


class Demo(AppConfig):
    name = "demo"

    def ready(self):
        DatabaseWrapper.init_connection_state = look_elsewhere
"""
_BACKEND = """
from django.apps import apps
from django.db.backends.postgresql import base

apps.check_models_ready()


class DatabaseWrapper(base.DatabaseWrapper):
    def init_connection_state(self):
        super().init_connection_state()
        with self.connection.cursor() as cursor:
            cursor.execute("SET search_path TO elsewhere")
"""


@pytest.fixture
def many(pg_server: PostgresServer, tmp_path: Path) -> Iterator[ManyDatabases]:
    """Four databases that have nothing to do."""
    with many_databases(tmp_path, [pg_server], _COUNT, {"demo.0001_item": ITEM}) as many:
        yield many


@pytest.mark.parametrize("times", [1, 2])
def test_one_is_asked_and_speaks_for_the_others(many: ManyDatabases, times: int) -> None:
    for _ in range(times):
        before = _sessions(many)
        outcome = many.run("deploy")
        _assert_nothing_done(outcome)
        assert len(outcome.named("worker.started")) == 1
        # The one that is asked: by the coordinator, and by Django.
        assert [now - then for then, now in zip(before, _sessions(many), strict=True)] == [2, 1, 1, 1]


def test_each_that_has_something_to_do_is_moved(many: ManyDatabases) -> None:
    with many.databases[2].connect() as session:
        session.execute("DROP TABLE demo_item; DELETE FROM django_migrations WHERE app = 'demo'")
    outcome = many.run("deploy")
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert outcome.outcomes == _all("unchanged") | {"shards:shard_2": "committed"}
    assert [_has_item(each) for each in many.databases] == [True] * _COUNT


def test_all_are_moved_where_the_one_that_is_asked_has_work(many: ManyDatabases) -> None:
    (many.directory / "project/demo/migrations/0002_note.py").write_text(NOTE)
    outcome = many.run("deploy")
    assert (outcome.exit_code, outcome.report["outcome"], many.new()) == (0, "committed", _COUNT), outcome.stderr
    assert many.new() == _COUNT


def test_what_a_run_has_left_in_one_of_them_is_settled(many: ManyDatabases) -> None:
    with many.databases[3].connect() as session:
        session.execute("CREATE TABLE left_over ()")
        session.execute("PREPARE TRANSACTION 'smooth:20250101T000000-0badcafe:shards%3Ashard_3:1'")
    outcome = many.run("recover", "--abort")
    assert many.prepared() == [], outcome.stderr


@pytest.mark.parametrize(
    "options", [{"options": "-c search_path=elsewhere"}, {"options": "-csearch_path=elsewhere", "sslmode": "disable"}]
)
def test_options_of_a_session_are_those_of_the_look(many: ManyDatabases, options: dict[str, str]) -> None:
    _make_elsewhere(many)
    outcome = _run(many, {"shard_1": {"OPTIONS": options}})
    _assert_elsewhere(many, outcome, "shard_1")


def test_a_role_that_is_assumed_is_that_of_the_look(many: ManyDatabases, pg_server: PostgresServer) -> None:
    with pg_server.connect() as session:
        session.execute("CREATE ROLE nothing_to_do LOGIN; GRANT postgres TO nothing_to_do")
    try:
        before = _sessions(many)
        outcome = _run(many, {"shard_1": {"USER": "nothing_to_do", "OPTIONS": {"assume_role": "postgres"}}})
        _assert_nothing_done(outcome)
        assert [now - then for then, now in zip(before, _sessions(many), strict=True)] == [2, 1, 1, 1]
    finally:
        with pg_server.connect() as session:
            session.execute("DROP ROLE nothing_to_do")


def test_options_in_the_environment_of_a_project_are_not_passed_over(many: ManyDatabases) -> None:
    plan = many.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace("env = {", 'env = { PGOPTIONS = "-c search_path=elsewhere",'))
    _make_elsewhere(many)
    _assert_elsewhere(many, many.run("deploy"), *[f"shard_{number}" for number in range(_COUNT)])


def test_what_an_app_does_with_each_session_is_not_passed_over(many: ManyDatabases) -> None:
    (many.directory / "project/demo/apps.py").write_text(_READS_ELSEWHERE)
    _make_elsewhere(many)
    _assert_elsewhere(many, many.run("deploy"), *[f"shard_{number}" for number in range(_COUNT)])


def test_a_backend_that_an_app_has_changed_is_not_passed_over(many: ManyDatabases) -> None:
    (many.directory / "project/demo/apps.py").write_text(_CHANGES_BACKEND)
    _make_elsewhere(many)
    _assert_elsewhere(many, many.run("deploy"), "shard_1")


def test_a_backend_that_needs_the_apps_and_looks_elsewhere_is_not_passed_over(many: ManyDatabases) -> None:
    backend = many.directory / "project/looking"
    backend.mkdir()
    (backend / "__init__.py").touch()
    (backend / "base.py").write_text(_BACKEND)
    _make_elsewhere(many)
    _assert_elsewhere(many, _run(many, {"shard_1": {"ENGINE": "looking"}}), "shard_1")


def test_an_app_may_change_the_databases_when_it_is_loaded(many: ManyDatabases, pg_server: PostgresServer) -> None:
    name = f"{many.databases[1].name}_other"
    pg_server.create_database(name)
    try:
        (many.directory / "project/demo/apps.py").write_text(_CHANGES_DATABASES.format(name=name))
        outcome = many.run("deploy")
        assert outcome.outcomes == _all("unchanged") | {"shards:shard_1": "committed"}, outcome.stderr
        assert _has_item(PostgresDatabase(pg_server, name))
    finally:
        pg_server.drop_database(name)


def _all(outcome: str) -> dict[str, str]:
    return {f"shards:shard_{number}": outcome for number in range(_COUNT)}


def _sessions(many: ManyDatabases) -> list[int]:
    """Return how many sessions each database has had, once nobody is connected to it."""
    counts = []
    for each in many.databases:
        while each.server.sessions(each.name):
            pass
        with each.server.connect() as session:
            (row,) = session.execute(_SESSIONS, [each.name])
        counts.append(int(row[0]))
    return counts


def _has_item(database: PostgresDatabase) -> bool:
    with psycopg.connect(database.dsn) as session:
        (row,) = session.execute("SELECT to_regclass('public.demo_item') IS NOT NULL")
    return bool(row[0])


def _assert_nothing_done(outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "nothing_to_do"), outcome.stderr
    assert outcome.outcomes == _all("unchanged")


def _make_elsewhere(many: ManyDatabases) -> None:
    """Give each database an empty schema beside the one in which all is done."""
    for each in many.databases:
        with each.connect() as session:
            session.execute("CREATE SCHEMA elsewhere")


def _run(many: ManyDatabases, changes: Mapping[str, Mapping[str, object]]) -> Outcome:
    """Deploy with entries of DATABASES that were changed."""
    databases = {"default": many.databases[0].django}
    databases |= {f"shard_{number}": each.django for number, each in enumerate(many.databases)}
    changed = {alias: {**entry, **changes.get(alias, {})} for alias, entry in databases.items()}
    return run_in(many.directory, {"SMALL_DATABASES": json.dumps(changed)}, "deploy")


def _assert_elsewhere(many: ManyDatabases, outcome: Outcome, *aliases: str) -> None:
    """Make sure that the empty schemas of these databases were filled."""
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    filled = []
    for number, each in enumerate(many.databases):
        with each.connect() as session:
            (row,) = session.execute("SELECT to_regclass('elsewhere.demo_item') IS NOT NULL")
        filled += [f"shard_{number}"] if row[0] else []
    assert filled == [*aliases]


def test_one_speaks_for_the_others_about_what_is_pending(pg_server: PostgresServer, tmp_path: Path) -> None:
    with many_databases(tmp_path, [pg_server], _COUNT, {"demo.0001_item": ITEM, "demo.0002_note": NOTE}) as many:
        before = _sessions(many)
        outcome = many.run("plan")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "nothing_to_do"), outcome.stderr
        pending = [item["migrations"] for item in outcome.report["databases"]]
        assert [[each["migration"] for each in found] for found in pending] == [["demo.0002_note"]] * _COUNT
        assert pending == [pending[0]] * _COUNT
        # A glance and questions each; of the first a glance, a worker, and how many locks its server has room for.
        assert [now - earlier for now, earlier in zip(_sessions(many), before, strict=True)] == [3, 2, 2, 2]


def test_one_that_answers_otherwise_is_looked_at_by_itself(pg_server: PostgresServer, tmp_path: Path) -> None:
    removes = migration("migrations.RemoveField('item', 'name')", after=[("demo", "0001_item")])
    with many_databases(tmp_path, [pg_server], _COUNT, {"demo.0001_item": ITEM, "demo.0002_name": removes}) as many:
        plan = many.directory / "deploy.toml"
        text = plan.read_text().replace('minimum_atomicity = "two_phase"', 'atomicity = "compensated"')
        plan.write_text(text)
        # A column of which no row has a value can be made anew.
        with many.databases[1].connect() as session:
            session.execute("INSERT INTO demo_item (name) VALUES ('kite')")
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
        assert [item["place"] for item in outcome.report["errors"]] == ["shards:shard_1"], outcome.stdout


def test_nobody_speaks_for_one_that_is_migrated_otherwise(pg_server: PostgresServer, tmp_path: Path) -> None:
    one = '[databases.{name}]\nproject = "one"\nalias = "{alias}"\nexpand_contract = {expands}\n'
    with many_databases(tmp_path, [pg_server], 2, {"demo.0001_item": ITEM, "demo.0002_note": NOTE}) as many:
        plan = many.directory / "deploy.toml"
        before, _, after = plan.read_text().partition("[databases.shards]")
        entries = (("whole", "shard_0", "false"), ("halves", "shard_1", "true"))
        own = "".join(one.format(name=name, alias=alias, expands=expands) for name, alias, expands in entries)
        rest = after.partition("[[phases]]")[2].replace('["shards:*"]', '["whole", "halves"]')
        plan.write_text(f"{before}{own}[[phases]]{rest}")
        outcome = many.run("plan")
        assert outcome.exit_code == 0, outcome.stderr
        held_back = [[each["contract"] for each in item["migrations"]] for item in outcome.report["databases"]]
        assert held_back == [[[]], [["drop the default of demo_item.note"]]]


def test_what_may_not_be_read_is_no_reason_to_refuse(pg_server: PostgresServer, tmp_path: Path) -> None:
    removes = migration("migrations.RemoveField('item', 'name')", after=[("demo", "0001_item")])
    with many_databases(tmp_path, [pg_server], 2, {"demo.0001_item": ITEM, "demo.0002_name": removes}) as many:
        owner = "reads_nothing"
        with many.databases[0].server.connect() as session:
            session.execute(f"DROP ROLE IF EXISTS {owner}")
            session.execute(f"CREATE ROLE {owner} LOGIN")
        for each in many.databases:
            with each.connect() as session:
                session.execute(f"ALTER DATABASE {each.name} OWNER TO {owner}")
                session.execute(f"ALTER SCHEMA public OWNER TO {owner}")
                session.execute(f"ALTER TABLE demo_item OWNER TO {owner}")
                session.execute(f"ALTER TABLE django_migrations OWNER TO {owner}")
                session.execute(f"REVOKE SELECT ON demo_item FROM {owner}")
        settings = many.directory / "project/small_settings.py"
        settings.write_text(f"{settings.read_text()}\nfor each in DATABASES.values():\n    each['USER'] = {owner!r}\n")
        outcome = many.run("plan")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "nothing_to_do"), outcome.stdout
        pending = [[each["migration"] for each in item["migrations"]] for item in outcome.report["databases"]]
        assert pending == [["demo.0002_name"]] * 2
