"""An altered field that would not give its values back is refused first, where no transaction holds it."""

from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.histories import execute
from tests.support.new_databases import NewDatabases
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(120)

_START = migration(
    "migrations.CreateModel('Part', [('id', models.IntegerField(primary_key=True)), ('name', models.TextField()), "
    "('code', models.CharField(max_length=9)), ('price', models.DecimalField(max_digits=9, decimal_places=4))])",
    "migrations.CreateModel('Line', [('id', models.BigAutoField(primary_key=True)), "
    "('part', models.ForeignKey('demo.Part', models.CASCADE))], options={'order_with_respect_to': 'part'})",
    "migrations.CreateModel('Old', [('id', models.CharField(max_length=9, primary_key=True))])",
    "migrations.CreateModel('Use', [('id', models.BigAutoField(primary_key=True)), "
    "('of', models.ForeignKey('demo.Old', models.CASCADE, db_constraint=False))])",
)
_ROWS = """
    INSERT INTO demo_part VALUES (0, 'longer', 'ab     ', 1.2345), (7, 'short', 'ab', 1.5);
    INSERT INTO demo_line (id, part_id, _order) VALUES (1, 7, 1), (2, 7, 0);
    INSERT INTO demo_use (id, of_id) VALUES (1, '007')
"""
_LOST = {
    "decimal places": "AlterField('part', 'price', models.DecimalField(max_digits=9, decimal_places=2))",
    "a text": "AlterField('part', 'name', models.CharField(max_length=5))",
    "spaces at the end": "AlterField('part', 'code', models.CharField(max_length=4))",
    "an order": "AlterOrderWithRespectTo('line', None)",
    "another key": "AlterField('use', 'of', models.ForeignKey('demo.Part', models.CASCADE, db_constraint=False))",
}
_KEPT = [
    "AlterField('part', 'price', models.DecimalField(max_digits=10, decimal_places=4))",
    "AlterField('part', 'name', models.CharField(max_length=6))",
    "AlterField('part', 'code', models.CharField(max_length=7))",
    "AddField('part', 'note', models.CharField(max_length=9, default='a note'))",
    "AlterField('part', 'note', models.CharField(max_length=6))",
]


@pytest.mark.parametrize("operation", _LOST.values(), ids=_LOST)
def test_it_is_refused_where_values_would_come_back_changed(
    stepping_databases: NewDatabases, tmp_path: Path, operation: str
) -> None:
    _assert_ends(stepping_databases, tmp_path, operation, status=3)


def test_a_zero_that_is_to_be_numbered_is_refused_in_mariadb(mariadb_databases: NewDatabases, tmp_path: Path) -> None:
    _assert_ends(mariadb_databases, tmp_path, "AlterField('part', 'id', models.AutoField(primary_key=True))", status=3)


@pytest.mark.parametrize(
    "operation",
    [
        "AlterField('part', 'id', models.SmallIntegerField(primary_key=True))",
        "AlterField('part', 'name', models.TextField(db_collation='latin1_swedish_ci'))",
        "AlterField('part', 'price', models.DecimalField(max_digits=6, decimal_places=4))",
    ],
    ids=["numbers", "letters", "digits"],
)
def test_what_mariadb_would_clip_is_refused_where_it_is_not_strict(
    mariadb_databases: NewDatabases, tmp_path: Path, operation: str
) -> None:
    _assert_ends(mariadb_databases, tmp_path, operation, status=3, sql_mode="NO_ENGINE_SUBSTITUTION")


def test_a_field_may_become_as_short_as_its_values(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    _assert_ends(stepping_databases, tmp_path, *_KEPT, status=1)


def _assert_ends(databases: NewDatabases, directory: Path, *operations: str, status: int, **options: str) -> None:
    """Run these, and let the next migration fail: how the call ends is as said, and the database is as before."""
    database = databases.new()
    project = SmallProject(
        directory / "project",
        {"default": database.django | ({"OPTIONS": options} if options else {})},
        {"demo.0001_start": _START},
    )
    project.succeed("migrate", "--verbosity=0")
    execute(database, _ROWS)
    changes = [f"migrations.{operation}" for operation in operations]
    project.write_migration("demo.0002_change", migration(*changes, after=[("demo", "0001_start")], atomic=False))
    fails = migration("migrations.RunSQL('no', 'no')", after=[("demo", "0002_change")])
    project.write_migration("demo.0003_fails", fails)
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == status, result.stdout + result.stderr
    assert ("  Unapplying demo.0002_change... OK\n" in result.stdout) == (status == 1)
    assert diff(before, databases.dump(database)) == ""
