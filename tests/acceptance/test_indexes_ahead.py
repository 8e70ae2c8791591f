"""Indexes of a plan are built ahead of its transactions, without a lock that keeps writers waiting."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ahead import assert_killed_and_recovered, assert_taken_back_with_a_later_phase, schemas
from tests.support.deploys import GATE_WAITS, Fleet, copy_of, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

_INDEX = "migrations.AddIndex('item', models.Index(fields=['name'], name='demo_item_name'))"
_COLUMN_BY_SQL = (
    "migrations.RunSQL('ALTER TABLE demo_item ADD COLUMN size int',"
    " state_operations=[migrations.AddField('item', 'size', models.IntegerField(null=True))])"
)
_FUNCTION = (
    "migrations.RunSQL('CREATE FUNCTION twice(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT $1 || $1$$')"
)
_NEXT = "demo.0002_note"
_FIRST = [("demo", "0001_item")]
_QUICK = 'expand_contract = true\nlock_timeout = "200ms"\nlock_retries = 0\nsettle_timeout = "2s"'
_INDEXES = (
    "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'demo_item'::regclass ORDER BY 1"
)


def _indexing(expression: str) -> str:
    return f"migrations.AddIndex('item', models.Index({expression}, name='demo_item_by'))"


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """Two servers and SQLite's file, with an index to come."""
    release = {_NEXT: migration(_INDEX, after=_FIRST)}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as found:
        found.plan(deploy=_QUICK)
        yield found


def _rewrite(fleet: Fleet, name: str, source: str) -> None:
    (fleet.directory / f"project/demo/migrations/{name}.py").write_text(source)


def _indexes(fleet: Fleet) -> list[list[tuple[str, bool]]]:
    found = []
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            found.append(session.execute(_INDEXES.encode()).fetchall())
    return found


_BOTH = [[("demo_item_name", True), ("demo_item_pkey", True)]] * 2
_NEITHER = [[("demo_item_pkey", True)]] * 2


def test_an_index_keeps_no_writer_waiting_and_waits_for_none(fleet: Fleet) -> None:
    fleet.plan(deploy=_QUICK, canary=GATE_WAITS)
    planned = {entry["database"]: entry["tier_reason"] for entry in fleet.run("plan").report["databases"]}
    assert planned["primary"].endswith(f"; made ready ahead of it: what {_NEXT} needs")
    with fleet.running() as run, fleet.last.connect() as writer:
        run.wait_for("gate.started")
        assert any(name.startswith("smooth_") and is_valid for name, is_valid in _indexes(fleet)[1])
        writer.autocommit = False
        writer.execute("INSERT INTO demo_item (name) VALUES ('tea')")
        (fleet.directory / "go").touch()
        outcome = run.finish()
        writer.commit()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert {entry["tier"] for entry in outcome.report["databases"] if entry["database"] != "kiosk"} == {"two_phase"}
    assert _indexes(fleet) == _BOTH
    assert fleet.run("rollback").exit_code == 0
    assert _indexes(fleet) == _NEITHER


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param(
            ["migrations.AlterField('item', 'name', models.CharField(max_length=40, db_index=True))"], id="db"
        ),
        pytest.param(
            ["migrations.AddField('item', 'size', models.IntegerField(null=True))", _INDEX], id="changed before"
        ),
        pytest.param(
            [_INDEX, "migrations.RunSQL('DROP TABLE demo_item CASCADE; CREATE TABLE demo_item (id int, name text)')"],
            id="gone",
        ),
        pytest.param(
            ["migrations.RunSQL('ALTER TABLE demo_item DROP COLUMN name, ADD COLUMN name text')", _INDEX], id="dropped"
        ),
        pytest.param([_COLUMN_BY_SQL, _INDEX.replace("['name']", "['size']")], id="column by SQL"),
        pytest.param([_FUNCTION, _indexing("models.Func('name', function='twice')")], id="function by SQL"),
        pytest.param(
            ["migrations.RunSQL('TRUNCATE demo_item')", _indexing("models.functions.Length('name') / 0")],
            id="rows gone before",
        ),
    ],
)
@pytest.mark.long
def test_the_schema_is_that_of_a_plain_deploy(fleet: Fleet, tmp_path: Path, operations: list[str]) -> None:
    _rewrite(fleet, "0002_note", migration(*operations, after=_FIRST))
    fleet.migrate("kiosk", "--fake")
    with copy_of(fleet, tmp_path / "plain") as plain:
        plain.plan()
        assert plain.deploy().exit_code == 0

        assert fleet.deploy().exit_code == 0

        assert schemas(fleet) == schemas(plain)


@pytest.mark.long
def test_an_index_goes_where_a_later_phase_fails(fleet: Fleet) -> None:
    assert_taken_back_with_a_later_phase(fleet)


@pytest.mark.parametrize(
    "point",
    [
        "lay.after",
        *(
            pytest.param(point, marks=pytest.mark.long)
            for point in ("lay.before", "seal.before", "seal.after", "prepare.before", "prepare.after", "decide.before")
        ),
    ],
)
def test_a_crash_leaves_no_index(fleet: Fleet, point: str) -> None:
    assert_killed_and_recovered(fleet, point)

    assert _indexes(fleet) == _BOTH
