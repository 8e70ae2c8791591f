"""Columns that are filled batch by batch, outside any big transaction."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.django_connections import ask
from tests.support.filled import ITEM, fill, filling_project
from tests.support.histories import Database, execute
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(120)

_UPPER = "'Item', {'note': Upper('name')}"
# However slow the machine is, they do not become smaller.
_SMALL = "batch_size=100, max_batch_size=100, batch_ms=60_000"
_COUNTING = f"'Item', {{'touched': F('touched') + 1}}, where=Q(), {_SMALL}"
_POSITIONS = "SELECT batches FROM smooth_migrations_backfill"
_FAILS = "migrations.RunPython(lambda apps, editor: 1 / 0, migrations.RunPython.noop)"


def _touched(database: Database) -> list[tuple[int, int]]:
    return ask(database, "SELECT touched, count(*) FROM demo_item GROUP BY touched ORDER BY touched")


def _unfilled(database: Database) -> int:
    return int(ask(database, "SELECT count(*) FROM demo_item WHERE note IS NULL OR note <> upper(name)")[0][0])


@pytest.mark.parametrize("command", ["migrate", "apply_migrations"])
def test_all_rows_are_filled_and_values_that_are_there_stay(
    every_database: NewDatabases, tmp_path: Path, command: str
) -> None:
    database = every_database.new()
    release = fill(f"'Item', {{'note': Upper('name'), 'other': 'new'}}, {_SMALL}")
    project = filling_project(tmp_path, database, release, rows=450)
    execute(database, "UPDATE demo_item SET other = 'own' WHERE name = 'row 7'")
    execute(database, "UPDATE demo_item SET other = 'own', note = 'own' WHERE name = 'row 8'")

    project.succeed(command)

    found = ask(
        database,
        "SELECT note, other, count(*) FROM demo_item WHERE note <> upper(name) OR other <> 'new' "
        "GROUP BY note, other ORDER BY note DESC",
    )
    assert sorted(found) == [("ROW 7", "own", 1), ("own", "own", 1)]
    assert ask(database, "SELECT count(*) FROM demo_item WHERE note IS NULL OR other IS NULL") == [(0,)]


@pytest.mark.parametrize("command", ["migrate", "apply_migrations"])
@pytest.mark.parametrize(
    "point",
    [
        "fill.before:4",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("fill.after:1", "fill.before:2", "fill.after:2")),
        pytest.param("fill.after:6", marks=pytest.mark.long),
    ],
)
def test_a_killed_call_is_gone_on_with_and_no_row_is_written_twice(
    every_database: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, command: str
) -> None:
    database = every_database.new()
    project = filling_project(tmp_path, database, fill(_COUNTING), rows=450)
    monkeypatch.setenv("SMOOTH_FAILPOINT", point)
    reached = project.run(command).returncode
    monkeypatch.delenv("SMOOTH_FAILPOINT")
    side, number = point.removeprefix("fill.").split(":")
    is_held = command == "apply_migrations" and every_database.vendor == "sqlite"
    # The first point is the row's own; SQLite's calls are one transaction, which knows no batches.
    batches = int(number) - 1 - (side == "before")
    if is_held:
        assert (reached, _touched(database)) == (0, [(1, 450)])
        return
    assert reached == -9
    done = min(batches * 100, 450)
    assert _touched(database) == [each for each in ((0, 450 - done), (1, done)) if each[1]]
    assert ask(database, _POSITIONS) == [(max(batches, 0),)]

    project.succeed(command)

    assert _touched(database) == [(1, 450)]
    assert ask(database, _POSITIONS) == []


def test_other_arguments_begin_anew(
    stepping_databases: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = stepping_databases.new()
    project = filling_project(tmp_path, database, fill(_COUNTING), rows=250)
    monkeypatch.setenv("SMOOTH_FAILPOINT", "fill.after:2")
    assert project.run("migrate").returncode == -9
    monkeypatch.delenv("SMOOTH_FAILPOINT")
    project.write_migration("demo.0002_fill", fill(_COUNTING.replace("+ 1", "+ 10")))

    project.succeed("migrate")

    assert _touched(database) == [(10, 150), (11, 100)]
    assert ask(database, _POSITIONS) == []


_KEYS = {
    "uuid": ("('id', models.UUIDField(primary_key=True))", "id", "'{0:08x}-0000-4000-8000-000000000000'"),
    "text": ("('id', models.CharField(max_length=20, primary_key=True))", "id", "'key {0}'"),
    "date": ("('id', models.DateField(primary_key=True))", "id", "'20{1:02d}-01-{2:02d}'"),
    "composite": (
        (
            "('pk', models.CompositePrimaryKey('a', 'b')), ('a', models.IntegerField()), "
            "('b', models.CharField(max_length=9))"
        ),
        "a, b",
        "{1}, 'b{2:02d}'",
    ),
}


@pytest.mark.parametrize("kind", _KEYS)
def test_batches_go_along_keys_of_any_kind(
    every_database: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _assert_gone_along(every_database.new(), tmp_path, monkeypatch, *_KEYS[kind])


# MariaDB has no such keys.
def test_batches_go_along_keys_of_bytes(
    databases: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "bytea" if databases.vendor == "postgresql" else "blob"
    key = "('id', models.BinaryField(primary_key=True))"
    _assert_gone_along(databases.new(), tmp_path, monkeypatch, key, "id", f"CAST('key {{0:03d}}' AS {kind})")


def _assert_gone_along(
    database: Database, directory: Path, monkeypatch: pytest.MonkeyPatch, fields: str, columns: str, values: str
) -> None:
    item = migration(f"migrations.CreateModel('Item', [{fields}, ('touched', models.IntegerField(default=0))])")
    project = filling_project(directory, database, fill(_COUNTING), rows=0, item=item)
    rows = ", ".join(f"({values.format(number, number // 25, number % 25 + 1)}, 0)" for number in range(350))
    execute(database, f"INSERT INTO demo_item ({columns}, touched) VALUES {rows}")
    monkeypatch.setenv("SMOOTH_FAILPOINT", "fill.after:3")
    assert project.run("migrate").returncode == -9
    assert _touched(database) == [(0, 150), (1, 200)]
    monkeypatch.delenv("SMOOTH_FAILPOINT")

    project.succeed("migrate")

    assert _touched(database) == [(1, 350)]


def test_a_key_that_is_another_one_when_it_is_read_back_is_refused(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    odd = (
        "class Odd(models.IntegerField):\n    def to_python(self, value):\n        return super().to_python(value) + 1"
    )
    item = migration(
        "migrations.CreateModel('Item', [('id', Odd(primary_key=True)), ('touched', models.IntegerField(default=0))])",
        functions=odd,
    )
    project = filling_project(tmp_path, pg_database, fill(_COUNTING), rows=0, item=item)
    execute(pg_database, "INSERT INTO demo_item (id, touched) VALUES (3, 0), (4, 0)")

    refused = project.run("migrate")

    assert refused.returncode == 1
    assert "its key 4 is another one when it is read back" in refused.stderr
    assert _touched(pg_database) == [(0, 2)]


@pytest.mark.parametrize("rows", [0, 100], ids=["empty", "filled"])
def test_where_nothing_is_to_be_filled_nothing_is_written(
    every_database: NewDatabases, tmp_path: Path, rows: int
) -> None:
    database = every_database.new()
    project = filling_project(tmp_path, database, fill(_UPPER), rows=rows)
    execute(database, "UPDATE demo_item SET note = 'own'")

    project.succeed("migrate", "--verbosity=0")
    project.succeed("migrate", "--verbosity=0", "demo", "0001")

    assert ask(database, "SELECT note, count(*) FROM demo_item GROUP BY note") == ([("own", rows)] if rows else [])


def test_an_expression_that_gives_null_is_no_endless_work(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    project = filling_project(tmp_path, database, fill(f"'Item', {{'note': F('other')}}, {_SMALL}"), rows=250)
    execute(database, "UPDATE demo_item SET other = 'own' WHERE name LIKE 'row 1%'")

    project.succeed("migrate")

    assert ask(database, "SELECT count(*) FROM demo_item WHERE note IS NULL") == [(139,)]
    assert ask(database, "SELECT count(*) FROM demo_item WHERE note = 'own'") == [(111,)]


def test_rows_that_come_meanwhile_are_filled_too(
    every_database: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = every_database.new()
    project = filling_project(tmp_path, database, fill(f"{_UPPER}, {_SMALL}"), rows=250)
    monkeypatch.setenv("SMOOTH_FAILPOINT", "fill.after:3")
    assert project.run("migrate").returncode == -9
    monkeypatch.delenv("SMOOTH_FAILPOINT")
    assert _unfilled(database) == 50
    execute(database, "INSERT INTO demo_item (id, name, touched) VALUES (-5, 'behind', 0), (9000, 'before', 0)")

    project.succeed("migrate")

    assert (_unfilled(database), ask(database, _POSITIONS)) == (0, [])


@pytest.mark.parametrize("command", ["migrate", "apply_migrations"])
def test_in_a_transaction_everything_is_filled_within_it(databases: NewDatabases, tmp_path: Path, command: str) -> None:
    database = databases.new()
    project = filling_project(tmp_path, database, fill(f"{_UPPER}, {_SMALL}", _FAILS, atomic=True), rows=250)
    before = databases.dump(database)

    assert project.run(command).returncode == 1
    assert databases.dump(database) == before

    project.write_migration("demo.0002_fill", fill(f"{_UPPER}, max_load=('SELECT 9', 1)", atomic=True))
    project.succeed(command)
    assert _unfilled(database) == 0


def test_a_call_that_fails_afterwards_leaves_what_is_filled_and_the_schema_as_it_was(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    project = filling_project(tmp_path, database, fill(_COUNTING), rows=250)
    adds = "migrations.AddField('item', 'kind', models.CharField(max_length=9, default='any'))"
    project.write_migration("demo.0003_kind", migration(adds, _FAILS, after=[("demo", "0002_fill")]))

    failed = project.run("apply_migrations")

    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr
    assert "rows" not in failed.stdout
    assert _touched(database) == [(1, 250)]
    assert ask(database, "SELECT name FROM django_migrations WHERE app = 'demo'") == [("0001_item",)]
    assert "kind" not in stepping_databases.dump(database)


def test_relations_and_json_are_filled_side_by_side(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    item = migration(
        "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
        "('name', models.CharField(max_length=40)), ('touched', models.IntegerField()), "
        "('note', models.ForeignKey('self', models.CASCADE, null=True, related_name='+')), "
        "('other', models.ForeignKey('self', models.CASCADE, null=True, related_name='+')), "
        "('data', models.JSONField(null=True))])"
    )
    release = fill(f"'Item', {{'note': F('id'), 'other': F('note'), 'data': {{'a': [1]}}}}, {_SMALL}")
    project = filling_project(tmp_path, database, release, rows=150, item=item)
    execute(database, "UPDATE demo_item SET note_id = 1 WHERE id > 140")

    project.succeed("migrate")

    found = ask(database, "SELECT count(*) FROM demo_item WHERE note_id = CASE WHEN id > 140 THEN 1 ELSE id END")
    assert found == [(150,)]
    # What another column needs that was filled by the same batch is seen at the latest by the next look.
    assert ask(database, "SELECT count(*) FROM demo_item WHERE other_id = note_id") == [(150,)]
    assert ask(database, "SELECT count(*) FROM demo_item WHERE data IS NULL") == [(0,)]


def test_a_database_that_was_empty_is_emptied(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    before = every_database.dump(database)
    inserts = "migrations.RunSQL(\"INSERT INTO demo_item (name, touched) VALUES ('one', 0), ('two', 0)\", '')"
    release = {
        "demo.0001_item": ITEM,
        "demo.0002_rows": migration(inserts, after=[("demo", "0001_item")]),
        "demo.0003_fill": fill(_UPPER, _FAILS).replace("0001_item", "0002_rows"),
    }
    project = SmallProject(tmp_path / "project", {"default": database.django}, release)

    failed = project.run("apply_migrations")

    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr
    assert every_database.dump(database) == before


@contextmanager
def _waiting(project: SmallProject) -> Iterator[subprocess.Popen[str]]:
    """Start a call, and yield it when it waits for its signal."""
    with project.start("migrate") as process:
        assert process.stderr is not None
        assert "pauses" in next(process.stderr)
        yield process


def test_two_processes_at_once_fill_no_row_twice(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    release = fill(f"{_COUNTING}, max_load=('SELECT value FROM load_now', 5)")
    project = filling_project(tmp_path, database, release, rows=1950)

    with ExitStack() as stack:
        first, second = (stack.enter_context(_waiting(project)) for _number in range(2))
        execute(database, "CREATE TABLE load_now (value integer)")
        execute(database, "INSERT INTO load_now VALUES (1)")
        told = [process.communicate()[1] for process in (first, second)]

    assert [first.returncode, second.returncode] == [0, 0], told
    assert _touched(database) == [(1, 1950)]
    assert ask(database, _POSITIONS) == []


_TELLS_HOW_IT_COMMITS = """
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.other := current_setting('synchronous_commit'); RETURN NEW; END $$;
    CREATE TRIGGER tell BEFORE UPDATE ON demo_item FOR EACH ROW EXECUTE FUNCTION tell();
"""


@pytest.mark.parametrize(("standbys", "told"), [("", "off"), ("a_standby", "local")])
def test_a_batch_waits_for_the_disk_only_where_a_standby_is_waited_for(
    tmp_path: Path, pg_programs: Path | None, standbys: str, told: str
) -> None:
    settings = THROW_AWAY | {"synchronous_standby_names": standbys, "synchronous_commit": "local"}
    with PostgresServer(settings=settings, programs=pg_programs) as server, temporary_database(server) as database:
        project = filling_project(tmp_path, database, fill(f"{_UPPER}, {_SMALL}"), rows=250)
        execute(database, _TELLS_HOW_IT_COMMITS)

        project.succeed("migrate")

        assert ask(database, "SELECT other, count(*) FROM demo_item GROUP BY other") == [(told, 250)]
