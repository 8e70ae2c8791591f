"""What a renamed column leaves to the release before is made, filled and indexed ahead of a deploy's transactions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ahead import (
    assert_killed_and_recovered,
    assert_taken_back_with_a_later_phase,
    numbers,
    on_servers,
    schemas,
)
from tests.support.deploys import GATE_WAITS, Fleet, copy_of, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_NEXT = "demo.0002_note"
_FIRST = [("demo", "0001_item")]
_RENAMES = ("migrations.RenameField('item', 'name', 'title')", "migrations.RenameField('item', 'code', 'mark')")
_COLUMNS = (
    "ALTER TABLE demo_item ADD COLUMN code varchar(40) COLLATE \"C\" NOT NULL DEFAULT 'first'",
    "ALTER TABLE demo_item ALTER COLUMN code DROP DEFAULT",
    "CREATE UNIQUE INDEX once ON demo_item (code)",
    'CREATE INDEX "two of it" ON demo_item (name DESC, code) INCLUDE (id)',
    "CREATE INDEX odd ON demo_item (upper(name)) WHERE name <> 'name' AND code::varchar > '\"code\"'",
    "GRANT SELECT (name) ON demo_item TO PUBLIC",
)
_MANY = "INSERT INTO demo_item (name, code) SELECT 'kite ' || n, 'k' || n FROM generate_series(1, 100000) AS n"
_AHEAD = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'demo_item'::regclass AND attname LIKE 'smooth%%'"
_UNLIKE = "SELECT count(*) FROM demo_item WHERE (name, code) IS DISTINCT FROM (title, mark)"


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """Two servers whose tables have columns with indexes, next to get other names; the file has nothing to do."""
    release = {_NEXT: migration(*_RENAMES, after=_FIRST)}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as found:
        first = found.directory / "project/demo/migrations/0001_item.py"
        more = "('code', models.CharField(max_length=40, db_collation='C'))])"
        first.write_text(first.read_text().replace("max_length=40))])", f"max_length=40)), {more}"))
        found.migrate("kiosk", "--fake")
        on_servers(found, *_COLUMNS)
        found.plan(deploy="expand_contract = true", servers='atomicity = "two_phase"')
        yield found


def test_it_is_what_a_transaction_would_have_made(fleet: Fleet, tmp_path: Path) -> None:
    with copy_of(fleet, tmp_path / "other") as other:
        other.plan(deploy="expand_contract = true", servers='atomicity = "compensated"')
        assert other.deploy().exit_code == 0
        wanted = schemas(other)
        other.run("rollback")
        other.plan(deploy="expand_contract = false")
        assert other.deploy().exit_code == 0
        plain = schemas(other)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert schemas(fleet) == wanted
    plan = fleet.directory / "deploy.toml"
    plan.write_text(f'{plan.read_text()}\n[finalise]\nbake_time = "0s"\n')
    assert fleet.run("finalise").exit_code == 0
    assert schemas(fleet) == plain


def test_a_large_table_is_filled_while_all_go_on(fleet: Fleet) -> None:
    on_servers(fleet, _MANY)
    fleet.plan(deploy="expand_contract = true", canary=GATE_WAITS)
    with fleet.running() as run:
        run.wait_for("gate.started")
        assert numbers(fleet, _AHEAD)[1] == len(_RENAMES)
        with fleet.last.connect() as writer:
            writer.execute("INSERT INTO demo_item (name, code) VALUES ('tea', 't')")
            writer.execute("UPDATE demo_item SET code = 'seven' WHERE name = 'kite 7'")
        (fleet.directory / "go").touch()
        outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert (numbers(fleet, _UNLIKE), numbers(fleet, _AHEAD)) == ([0, 0], [0, 0])
    with fleet.last.connect() as session:
        session.execute("UPDATE demo_item SET name = 'coffee' WHERE mark = 'seven'")
        assert session.execute("SELECT title FROM demo_item WHERE code = 'seven'").fetchall() == [("coffee",)]
    assert fleet.run("rollback").exit_code == 0
    assert numbers(fleet, "SELECT count(code) FROM demo_item") == [100_001, 100_002]


def test_a_large_table_that_cannot_be_filled_ahead_is_refused(fleet: Fleet) -> None:
    on_servers(fleet, _MANY)
    fleet.plan(deploy="expand_contract = true", servers='atomicity = "compensated"')
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert outcome.exit_code == 3
    assert "demo_item has more than 100000 rows" in outcome.stderr
    assert fleet.dumps(sequences=False) == before


def test_a_rehearsal_says_that_it_is_not_rehearsed(fleet: Fleet) -> None:
    on_servers(fleet, _MANY)
    before = fleet.dumps(sequences=False)

    outcome = fleet.run("rehearse")

    told = {entry["database"]: (entry["rehearsed"], entry.get("reason")) for entry in outcome.report["databases"]}
    assert told["primary"] == (False, f"for {_NEXT} a deploy makes something ready first; nothing was run")
    assert fleet.dumps(sequences=False) == before


_THING = """\
migrations.RunSQL('CREATE SCHEMA other'),
migrations.CreateModel('Thing', [('id', models.BigAutoField(primary_key=True)),
    ('price', models.IntegerField(db_index=True))], options={'db_table': '"other"."thing"'}),
migrations.AddIndex('thing', models.Index(fields=['price', 'id'], name='dear'))"""
_THING_INDEXES = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'other' AND indexdef LIKE '%%(price%%'"


@pytest.mark.long
def test_an_index_of_another_schema_that_the_plan_drops_first_is_not_given_to_it(fleet: Fleet) -> None:
    folder = fleet.directory / "project/demo/migrations"
    (folder / "0002_note.py").write_text(migration(_THING, after=_FIRST))
    for alias in ("default", "shard_1"):
        fleet.migrate(alias)
    renames = ("migrations.RunSQL('DROP INDEX other.dear', '')", "migrations.RenameField('thing', 'price', 'cost')")
    (folder / "0003_cost.py").write_text(migration(*renames, after=[("demo", "0002_note")]))
    fleet.migrate("kiosk", "--fake")
    indexes = numbers(fleet, _THING_INDEXES)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert (indexes, numbers(fleet, _THING_INDEXES)) == ([2, 2], [1, 1])


@pytest.mark.long
def test_nothing_of_it_stays_where_a_later_phase_fails(fleet: Fleet) -> None:
    assert_taken_back_with_a_later_phase(fleet)


@pytest.mark.parametrize(
    "point",
    [
        "lay.after:2",
        *(
            pytest.param(point, marks=pytest.mark.long)
            for point in (
                "lay.before",
                "lay.after",
                "fill.before",
                "fill.after",
                "lay.before:3",
                "lay.after:12",
                "seal.after",
                "prepare.after",
            )
        ),
    ],
)
def test_a_crash_leaves_nothing_of_it(fleet: Fleet, point: str) -> None:
    assert_killed_and_recovered(fleet, point)

    assert (numbers(fleet, _UNLIKE), numbers(fleet, _AHEAD)) == ([0, 0], [0, 0])
