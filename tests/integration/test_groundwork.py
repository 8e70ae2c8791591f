"""What a contract half reads a table for is done before its transaction, and goes with it where that fails."""

from pathlib import Path

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.rows_read import rows_read
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import assert_killed_finalise_is_taken_back, content, project_with, run, without_rows

pytestmark = pytest.mark.timeout(120)

_UNIQUE = "migrations.AlterField('item', 'code', models.CharField(max_length=10, unique=True))"
_CHECK = "migrations.AddConstraint('item', models.CheckConstraint(condition=models.Q(price__gt=0), name='paid'))"
_ALIKE = "models.UniqueConstraint(fields=['note', 'price'], name='alike', nulls_distinct=False)"
_CASES = {
    "not null": ["migrations.AlterField('item', 'note', models.TextField(default='?'))"],
    "not null, without a default": ["migrations.AlterField('item', 'note', models.TextField())"],
    "unique": [_UNIQUE],
    "unique together": ["migrations.AlterUniqueTogether('item', {('name', 'code')})"],
    "constraints": [
        "migrations.AddConstraint('item', models.UniqueConstraint(fields=['name', 'code'], name='one'))",
        "migrations.AddConstraint('item', models.UniqueConstraint('name', name='named', condition=models.Q(price=1)))",
        f"migrations.AddConstraint('item', {_ALIKE})",
        _CHECK,
    ],
    "several at once": [
        "migrations.RemoveField('item', 'kind')",
        "migrations.AlterField('item', 'note', models.TextField(default='?', unique=True))",
        _CHECK,
        "migrations.AlterUniqueTogether('item', {('name', 'code')})",
    ],
}
_WITHOUT = """\
import smooth_migrations.finalising
from smooth_migrations.groundwork import Groundwork

smooth_migrations.finalising.contract_groundwork = lambda *_, **__: Groundwork()
"""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == "several at once" else pytest.mark.long) for case in _CASES]
)
def test_a_transaction_reads_no_table_for_what_was_made_ready(
    pg_databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    stock, ours, plain = (pg_databases.new() for _ in range(3))
    project_with(tmp_path / "stock", stock, _CASES[case]).succeed("migrate", "--verbosity=0")
    projects = [project_with(tmp_path / name, database, _CASES[case]) for name, database in (("o", ours), ("p", plain))]
    for project in projects:
        project.succeed("apply_migrations", "--expand")

    assert rows_read(projects[0]) == 0
    assert rows_read(projects[1], _WITHOUT) > 0
    assert without_rows(ours) == without_rows(stock)


def test_null_is_filled_before_the_transaction(pg_databases: NewDatabases, tmp_path: Path) -> None:
    database = pg_databases.new()
    project = project_with(tmp_path, database, _CASES["not null"])
    project.succeed("apply_migrations", "--expand")
    rows = "SELECT 'old', number, 1, 1 FROM generate_series(1, 9) AS number"
    run(database, [f"INSERT INTO demo_item (name, code, price, kind_id) {rows}"])

    assert rows_read(project) == 0
    assert "old\t9\t?\t1\t1" in str(content(database))


_TABLE, _COLUMN = "demo (odd) one", "a, b;"
_VALUE = "%s'; x"
_ODD = migration(
    "migrations.CreateModel('Odd', [('id', models.BigAutoField(primary_key=True)), "
    f"('code', models.CharField(max_length=9, null=True, db_column={_COLUMN!r})), ('size', models.IntegerField())], "
    f"options={{'db_table': {_TABLE!r}}})",
)
_ODDER = migration(
    "migrations.AlterField('odd', 'code', "
    f"models.CharField(max_length=9, default={_VALUE!r}, unique=True, db_column={_COLUMN!r}))",
    "migrations.AddConstraint('odd', "
    f"models.CheckConstraint(condition=~models.Q(code={_VALUE * 2!r}), name='{_TABLE}'))",
    "migrations.AddConstraint('odd', models.UniqueConstraint(models.F('size') % 7, 'code', name='seven; odd'))",
    after=[("demo", "0001_odd")],
)


def test_names_and_values_may_be_odd(pg_databases: NewDatabases, tmp_path: Path) -> None:
    stock, ours = pg_databases.new(), pg_databases.new()
    projects = [
        SmallProject(tmp_path / name, {"default": database.django}, {"demo.0001_odd": _ODD})
        for name, database in (("stock", stock), ("ours", ours))
    ]
    for project in projects:
        project.succeed("migrate", "--verbosity=0")
        project.write_migration("demo.0002_odder", _ODDER)
    run(ours, [f'INSERT INTO "{_TABLE}" (size) VALUES (1)'])
    projects[0].succeed("migrate", "--verbosity=0")
    projects[1].succeed("apply_migrations", "--expand")

    assert rows_read(projects[1]) == 0

    run(ours, [f'DELETE FROM "{_TABLE}"'])
    assert without_rows(ours) == without_rows(stock)


_PARTS = (
    "CREATE TABLE demo_part (id bigint PRIMARY KEY, code varchar(9) NOT NULL) PARTITION BY HASH (id); "
    "CREATE TABLE demo_part_all PARTITION OF demo_part FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
)
_PART = (
    f"migrations.RunSQL('{_PARTS}', state_operations=[migrations.CreateModel('Part', ["
    "('id', models.BigIntegerField(primary_key=True)), ('code', models.CharField(max_length=9))])])"
)


def test_no_index_of_a_partitioned_table_is_made_ready(pg_databases: NewDatabases, tmp_path: Path) -> None:
    stock, ours = pg_databases.new(), pg_databases.new()
    unique = "migrations.AddConstraint('part', models.UniqueConstraint(fields=['id', 'code'], name='once'))"
    projects = [
        SmallProject(tmp_path / name, {"default": each.django}, {"demo.0001_part": migration(_PART)})
        for name, each in (("stock", stock), ("ours", ours))
    ]
    for project in projects:
        project.succeed("migrate", "--verbosity=0")
        project.write_migration("demo.0002_once", migration(unique, after=[("demo", "0001_part")]))
    projects[0].succeed("migrate", "--verbosity=0")
    projects[1].succeed("apply_migrations", "--expand")

    projects[1].succeed("finalise_migrations")

    assert without_rows(ours) == without_rows(stock)


# A row comes between the look at the rows and the first statement that makes something ready.
_MEANWHILE = """\
from django.core.management import call_command
from django.db import connection


def look(execute, sql, *rest):
    if "NOT VALID" in sql or "CONCURRENTLY" in sql:
        other = connection.copy()
        with other.cursor() as cursor:
            cursor.execute(ROW)
        other.close()
    return execute(sql, *rest)


with connection.execute_wrapper(look):
    call_command("finalise_migrations", verbosity=0)
"""
_SAME = "INSERT INTO demo_item (name, code, price, kind_id) VALUES ('same', 'a', 1, 1)"
_FREE = "INSERT INTO demo_item (name, code, price, kind_id) VALUES ('free', 'f', 0, 1)"


@pytest.mark.parametrize(
    ("operations", "row", "message"),
    [
        pytest.param([_CHECK, _UNIQUE], _SAME, "Key (code)=(a) is duplicated", id="index"),
        pytest.param([_UNIQUE, _CHECK], _FREE, "is violated by some row", id="check"),
    ],
)
def test_what_was_made_ready_goes_where_rows_are_in_the_way(
    pg_databases: NewDatabases, tmp_path: Path, operations: list[str], row: str, message: str
) -> None:
    database = pg_databases.new()
    project = project_with(tmp_path, database, operations)
    project.succeed("apply_migrations", "--expand")
    before = content(database)
    project.write("meanwhile.py", f"ROW = {f'{row} ON CONFLICT DO NOTHING'!r}\n{_MEANWHILE}")

    failed = project.run("shell", "--verbosity", "0", "--command", "import meanwhile")

    assert failed.returncode == 1
    assert message in failed.stderr
    run(database, [f"DELETE FROM demo_item WHERE name = '{'same' if row is _SAME else 'free'}'"])
    assert content(database) == before
    project.succeed("finalise_migrations")


@pytest.mark.parametrize(
    "point",
    [
        *(pytest.param(point, marks=pytest.mark.long) for point in ("lay.before", "lay.after", "lay.after:3")),
        *("lay.after:2", "contract.before"),
    ],
)
def test_a_kill_leaves_what_the_next_call_takes_back(
    pg_databases: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    stock, database = pg_databases.new(), pg_databases.new()
    operations = [_CHECK, _UNIQUE]
    project_with(tmp_path / "stock", stock, operations).succeed("migrate", "--verbosity=0")
    project = project_with(tmp_path / "ours", database, operations)
    project.succeed("apply_migrations", "--expand")

    assert_killed_finalise_is_taken_back(project, database, monkeypatch, point)

    project.succeed("finalise_migrations")
    assert without_rows(database) == without_rows(stock)
