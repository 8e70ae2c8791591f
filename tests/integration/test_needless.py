"""Fields that one migration makes, fills and alters outside a transaction: the way back sees them as the code did."""

from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.small_migrations import run_python
from tests.support.small_project import migration

# It changes no rows alone, so that nobody can tell which ones: then its reverse code runs.
_DEFINES = "editor.execute('CREATE TABLE other (x integer)'); editor.execute('DROP TABLE other')"
_FILLS = """\
for item in apps.get_model('demo', 'Item').objects.all():
        item.size, item.name = 7, f'{item.name}+'
        item.save()"""
_BACK = """
def back(apps, editor):
    for item in apps.get_model('demo', 'Item').objects.filter(size__gt=5):
        item.name = item.name[:-1]
        item.save()

def fails(apps, editor):
    raise ValueError('no')
"""


@pytest.mark.parametrize(
    ("field", "first", "back"),
    [
        ("CharField(max_length=9)", _DEFINES, "back"),
        ("IntegerField(default=1)", _DEFINES, "back"),
        ("IntegerField(default=1)", "", "nothing"),
        ("IntegerField(null=True, db_index=False)", _DEFINES, "back"),
    ],
    ids=["another type", "not null", "not null, rows recorded", "no index"],
)
def test_a_field_that_is_filled_and_then_altered_is_altered_back_before_its_code(
    stepping_databases: NewDatabases, tmp_path: Path, field: str, first: str, back: str
) -> None:
    database = stepping_databases.new()
    operations = (
        "migrations.AddField('item', 'size', models.IntegerField(null=True, db_index=True))",
        f"migrations.RunPython(forwards, {back})",
        f"migrations.AlterField('item', 'size', models.{field})",
        "migrations.RunPython(fails, nothing)",
    )
    code = run_python(f"{first}\n    {_FILLS}") + _BACK
    release = migration(*operations, after=[("demo", "0001_item")], atomic=False, functions=code)
    project = project_of(tmp_path, database, {"demo.0002_size": release})
    before = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations", "--allow-irreversible")

    assert result.returncode == 1, result.stderr
    assert not diff(before, dump(database.dsn, sequences=False))


def test_a_field_that_the_same_call_adds_and_fills_may_be_made_not_null(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    fills = run_python(_FILLS) + _BACK
    project = project_of(
        tmp_path,
        database,
        {
            "demo.0002_add": migration(
                "migrations.AddField('item', 'size', models.IntegerField(null=True))",
                after=[("demo", "0001_item")],
                atomic=False,
            ),
            "demo.0003_fill": migration(
                "migrations.RunPython(forwards, back)", after=[("demo", "0002_add")], atomic=False, functions=fills
            ),
            "demo.0004_alter": migration(
                "migrations.AlterField('item', 'size', models.IntegerField())",
                after=[("demo", "0003_fill")],
                atomic=False,
            ),
            "demo.0005_fail": migration(
                "migrations.RunPython(fails, nothing)", after=[("demo", "0004_alter")], atomic=False, functions=fills
            ),
        },
    )
    before = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert "ValueError: no" in result.stderr
    assert not diff(before, dump(database.dsn, sequences=False))


def test_a_key_comes_back_of_which_the_index_has_stayed(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    key = "models.ForeignKey('demo.item', models.CASCADE, null=True, related_name='+'{})"
    made = migration(f"migrations.AddField('item', 'other', {key.format('')})", after=[("demo", "0001_item")])
    altered = migration(
        f"migrations.AlterField('item', 'other', {key.format(', db_constraint=False')})",
        "migrations.RunPython(fails, migrations.RunPython.noop)",
        after=[("demo", "0002_other")],
        atomic=False,
        functions=_BACK,
    )
    project = project_of(tmp_path, database, {"demo.0002_other": made})
    project.succeed("migrate", "--verbosity=0")
    project.write_migration("demo.0003_altered", altered)
    before = every_database.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stdout + result.stderr
    assert diff(before, every_database.dump(database)) == ""
