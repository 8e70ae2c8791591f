"""What only recording and replaying ask of a database keeps no deploy, and no way back, from being committed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import COUNTING_APP, ITEM, NOTE
from tests.support.small_project import migration

_COUNT: Final = 3
_OTHERS: Final = """
    CREATE TABLE others (x integer);
    CREATE VIEW seen AS SELECT x FROM others;
    CREATE MATERIALIZED VIEW kept AS SELECT x FROM others;
"""
_CODE: Final = migration(
    "migrations.RunSQL(\"INSERT INTO demo_item (name, note) VALUES ('kite', '')\", migrations.RunSQL.noop)",
    after=[("demo", "0002_note")],
)


@contextmanager
def _many(server: PostgresServer, directory: Path, **further: str) -> Iterator[ManyDatabases]:
    """Databases with tables of others, and a plan that works on one after the other and hardly waits for locks."""
    release = {"demo.0001_item": ITEM, "demo.0002_note": NOTE} | {
        f"demo.{name}": text for name, text in further.items()
    }
    with many_databases(directory, [server], _COUNT, release) as many:
        many.plan(deploy='lock_timeout = "300ms"\nlock_retries = 1')
        plan = many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("parallel = 4", "parallel = 1"))
        for each in many.databases:
            with each.connect() as session:
                session.execute(_OTHERS)
        yield many


@contextmanager
def _locked(many: ManyDatabases, number: int, statement: str) -> Iterator[None]:
    """Let somebody hold a lock on what no migration touches."""
    with psycopg.connect(many.databases[number].dsn) as other:
        other.execute(statement.encode())
        yield
        other.rollback()


def _assert_committed(outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
    assert outcome.named("lock.retry") == []


@pytest.mark.parametrize("held", [0, 1], ids=["recorded", "replayed"])
@pytest.mark.parametrize(
    "statement",
    ["LOCK TABLE others IN ACCESS EXCLUSIVE MODE", "REFRESH MATERIALIZED VIEW kept"],
    ids=["table", "refreshed"],
)
def test_a_lock_that_no_migration_needs(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, held: int
) -> None:
    with _many(pg_server, tmp_path) as many:
        counts = tmp_path / "counts"
        monkeypatch.setenv("SMALL_COUNTS", str(counts))
        (many.directory / "project/demo/apps.py").write_text(COUNTING_APP)
        with _locked(many, held, statement):
            _assert_committed(many.run("deploy"))
        # One of those that nothing is in the way of is recorded for the others.
        assert counts.read_text().split() == ["shard_0", "shard_1"]
        assert many.new() == _COUNT


@pytest.mark.parametrize("held", [0, 1], ids=["recorded", "replayed"])
def test_a_lock_that_code_does_not_need(pg_server: PostgresServer, tmp_path: Path, held: int) -> None:
    with _many(pg_server, tmp_path, **{"0003_code": _CODE}) as many:
        with _locked(many, held, "REFRESH MATERIALIZED VIEW kept"):
            _assert_committed(many.run("deploy"))
        assert many.rows("SELECT name FROM demo_item") == [[("kite",)]] * _COUNT


@pytest.mark.parametrize("held", [0, 1], ids=["recorded", "replayed"])
def test_a_lock_that_a_way_back_does_not_need(pg_server: PostgresServer, tmp_path: Path, held: int) -> None:
    with _many(pg_server, tmp_path) as many:
        _assert_committed(many.run("deploy"))
        with _locked(many, held, "REFRESH MATERIALIZED VIEW kept"):
            _assert_committed(many.run("rollback"))
        assert many.new() == 0


def test_a_role_that_may_make_no_digests(pg_server: PostgresServer, tmp_path: Path) -> None:
    with _many(pg_server, tmp_path) as many, pg_server.connect() as session:
        session.execute("DROP ROLE IF EXISTS without_digests")
        session.execute("CREATE ROLE without_digests LOGIN")
        settings = many.directory / "project/small_settings.py"
        role = "for each in DATABASES.values():\n    each['USER'] = 'without_digests'\n"
        settings.write_text(f"{settings.read_text()}\n{role}")
        for each in many.databases:
            with each.connect() as owner:
                owner.execute("GRANT ALL ON SCHEMA public TO without_digests")
                owner.execute("ALTER TABLE demo_item OWNER TO without_digests")
                owner.execute("ALTER TABLE django_migrations OWNER TO without_digests")
                owner.execute("REVOKE EXECUTE ON FUNCTION md5(text) FROM PUBLIC")
        _assert_committed(many.run("deploy"))
        assert many.new() == _COUNT
        for each in many.databases:
            with each.connect() as owner:
                owner.execute("REASSIGN OWNED BY without_digests TO postgres")
                owner.execute("DROP OWNED BY without_digests")
        session.execute("DROP ROLE without_digests")
