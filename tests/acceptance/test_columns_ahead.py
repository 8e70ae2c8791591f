"""New columns of large tables come with their indexes ahead of a deploy's transactions."""

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
from tests.support.small_migrations import failing
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_NEXT = "demo.0002_note"
_FIRST = [("demo", "0001_item")]
_MANY = "INSERT INTO demo_item (name) SELECT 'kite ' || n FROM generate_series(1, 100001) AS n"
_AHEAD = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'demo_item'::regclass AND attname LIKE 'smooth%%'"
_KEY = "migrations.AddField('item', 'above', models.ForeignKey('demo.Item', models.CASCADE, null=True))"
_FIELDS = {
    "a key": [_KEY],
    "a key that must be": [
        "migrations.AddField('item', 'above', models.ForeignKey('demo.Item', models.CASCADE, default=1))"
    ],
    "a default": ["migrations.AddField('item', 'size', models.IntegerField(default=7, db_index=True))"],
    "a default of the migration": [
        "migrations.AddField('item', 'size', models.IntegerField(default=7, db_index=True), preserve_default=False)"
    ],
    "a default for rows alone": [
        "migrations.AddField('item', 'size', models.IntegerField(default=7, null=True, db_index=True))"
    ],
    "words": ["migrations.AddField('item', 'note', models.CharField(max_length=9, default='NOT NULL', db_index=True))"],
    "a slug": ["migrations.AddField('item', 'slug', models.SlugField(null=True, db_collation='C'))"],
    "one to one": [
        "migrations.AddField('item', 'above', models.OneToOneField('demo.Item', models.CASCADE, null=True))"
    ],
    "a check": ["migrations.AddField('item', 'size', models.PositiveIntegerField(null=True, db_index=True))"],
    "another name": [
        "migrations.AddField('item', 'size', models.IntegerField(null=True, db_index=True, db_column='a b'))"
    ],
    "to a new table": [
        "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True))])",
        "migrations.AddField('item', 'kind', models.ForeignKey('demo.Kind', models.CASCADE, null=True))",
    ],
    "renamed at once": [
        "migrations.AddField('item', 'size', models.IntegerField(null=True, db_index=True))",
        "migrations.RenameField('item', 'size', 'width')",
    ],
    "a key that is filled before the table changes": [
        _KEY,
        "migrations.RunSQL('UPDATE demo_item SET above_id = 1 WHERE id < 9', '')",
        "migrations.AddField('item', 'size', models.IntegerField(null=True))",
    ],
    "two": [
        _KEY.replace("CASCADE", "SET_NULL"),
        "migrations.AddField('item', 'size', models.IntegerField(default=7, db_index=True))",
    ],
}
# Of these nothing is made ready.
_WHOLE = {"one to one", "a check", "to a new table"}
_SHORT = {"a key", "two"}


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """Two servers whose tables have many rows, each of which may next refer to another; the file has nothing to do."""
    release = {_NEXT: migration(_KEY, after=_FIRST)}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as found:
        found.migrate("kiosk", "--fake")
        on_servers(found, _MANY)
        found.plan(deploy="expand_contract = true", servers='atomicity = "two_phase"')
        yield found


@pytest.mark.parametrize(
    "case", [case if case in _SHORT else pytest.param(case, marks=pytest.mark.long) for case in _FIELDS]
)
def test_a_column_is_what_a_transaction_would_have_made(fleet: Fleet, tmp_path: Path, case: str) -> None:
    source = migration(*_FIELDS[case], after=_FIRST)
    (fleet.directory / "project/demo/migrations/0002_note.py").write_text(source)
    with copy_of(fleet, tmp_path / "other") as other:
        other.plan(deploy="expand_contract = true", servers='atomicity = "compensated"')
        assert other.deploy().exit_code == 0
        wanted = schemas(other)
    fleet.plan(deploy="expand_contract = true", canary=GATE_WAITS)

    with fleet.running() as run:
        run.wait_for("gate.started")
        columns = numbers(fleet, _AHEAD)[1]
        (fleet.directory / "go").touch()
        outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert columns == (
        0 if case in _WHOLE else sum("Key" in each or "db_index" in each or "Slug" in each for each in _FIELDS[case])
    )
    assert schemas(fleet) == wanted
    plan = fleet.directory / "deploy.toml"
    plan.write_text(f'{plan.read_text()}\n[finalise]\nbake_time = "0s"\n')
    assert fleet.run("finalise").exit_code == 0
    assert fleet.run("plan").exit_code == 0


def test_rows_that_come_meanwhile_are_there_in_the_column_too(fleet: Fleet) -> None:
    fleet.plan(deploy="expand_contract = true", canary=GATE_WAITS)
    with fleet.running() as run:
        run.wait_for("gate.started")
        with fleet.last.connect() as writer:
            writer.execute("INSERT INTO demo_item (name) VALUES ('tea')")
            writer.execute("DELETE FROM demo_item WHERE id = 7")
        (fleet.directory / "go").touch()
        outcome = run.finish()

    assert outcome.exit_code == 0, outcome.stderr
    with fleet.last.connect() as session:
        session.execute("UPDATE demo_item SET above_id = 8 WHERE id = 9")
        session.execute("DELETE FROM demo_item WHERE id = 8")
        rows = session.execute(
            "SELECT id, above_id FROM demo_item WHERE id BETWEEN 6 AND 10 OR name = 'tea' ORDER BY id"
        )
        assert [(key, above) for key, above in rows.fetchall() if key <= 10] == [(6, None), (10, None)]


@pytest.mark.parametrize("key", ["models.CASCADE, default=8", "models.SET_NULL, null=True, db_default=8"])
@pytest.mark.long
def test_the_release_still_running_deletes_what_rows_refer_to_by_a_default(fleet: Fleet, key: str) -> None:
    kind = "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True))])"
    adds = f"migrations.AddField('item', 'kind', models.ForeignKey('demo.Kind', {key}))"
    folder = fleet.directory / "project/demo/migrations"
    (folder / "0002_note.py").write_text(migration(kind, after=_FIRST))
    for alias in ("default", "kiosk", "shard_1"):
        fleet.migrate(alias)
    on_servers(fleet, "INSERT INTO demo_kind VALUES (8), (9)")
    (folder / "0003_key.py").write_text(migration(adds, after=[("demo", "0002_note")]))
    fleet.migrate("kiosk", "--fake")
    fleet.plan(deploy="expand_contract = true", canary=GATE_WAITS)
    with fleet.running() as run:
        run.wait_for("gate.started")
        columns = numbers(fleet, _AHEAD)[1]
        with fleet.last.connect() as session:
            session.execute("DELETE FROM demo_kind WHERE id = 9")
            session.execute("DELETE FROM demo_kind WHERE id = 8")
            session.execute("INSERT INTO demo_kind VALUES (8)")
        (fleet.directory / "go").touch()
        outcome = run.finish()

    assert (outcome.exit_code, columns) == (0, 1), outcome.stderr
    on_servers(fleet, "DELETE FROM demo_kind WHERE id = 8")
    left = numbers(fleet, "SELECT count(*) FROM demo_item WHERE kind_id IS NULL")
    assert left == numbers(fleet, "SELECT count(*) FROM demo_item") == ([100_002] * 2 if "null" in key else [0, 0])


@pytest.mark.long
def test_nothing_of_it_stays_where_a_later_phase_fails(fleet: Fleet) -> None:
    assert_taken_back_with_a_later_phase(fleet)


@pytest.mark.long
@pytest.mark.parametrize(
    "point", ["lay.before", "lay.after", "lay.after:2", "lay.after:3", "lift.before", "journal.decision.before"]
)
def test_a_deploy_that_is_killed_leaves_nothing_of_it(fleet: Fleet, point: str) -> None:
    is_lifted = point.startswith("lift")
    if is_lifted:
        (fleet.directory / "project/demo/migrations/0003_kind.py").write_text(failing("1 / 0"))

    assert_killed_and_recovered(fleet, point, ends=1 if is_lifted else 0)
