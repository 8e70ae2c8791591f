"""Fields removed from rows that code of the same call has put there come back with their values, or stay."""

import signal
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.small_migrations import run_python
from tests.support.small_project import SmallProject, migration

_MADE = (
    "migrations.CreateModel('crate', [('id', models.BigAutoField(primary_key=True)), "
    "('number', models.IntegerField(unique=True)), ('label', models.CharField(max_length=30, null=True))])"
)
_ROWS = """\
crates = apps.get_model('demo', 'Crate').objects.using(editor.connection.alias)
    crates.bulk_create(crates.model(number=number, label=f'é {number}') for number in range(COUNT))"""
# What they have is what it goes by.
_BACK = """
def back(apps, editor):
    crates = apps.get_model('demo', 'Crate').objects.using(editor.connection.alias)
    crates.filter(number__lt=COUNT, label__startswith='é').delete()

def fails(apps, editor):
    raise ValueError('no')
"""
_REMOVALS = ("number", "label")


def _project(databases: NewDatabases, tmp_path: Path, count: int, *, atomic: bool) -> tuple[SmallProject, str]:
    database = databases.new()
    code = (run_python(_ROWS) + _BACK).replace("COUNT", str(count))
    project = project_of(tmp_path, database, {"demo.0002_make": migration(_MADE, after=[("demo", "0001_item")])})
    project.succeed("migrate")
    before = ("demo", "0002_make")
    steps = {
        "0003_fill": ("migrations.RunPython(forwards, back)",),
        "0004_remove": tuple(f"migrations.RemoveField('crate', '{name}')" for name in _REMOVALS),
        "0005_fail": ("migrations.RunPython(fails, back)",),
    }
    for name, operations in steps.items():
        is_atomic = atomic and name != "0005_fail"
        project.write_migration(
            f"demo.{name}", migration(*operations, after=[before], atomic=is_atomic, functions=code)
        )
        before = ("demo", name)
    return project, database.dsn


@pytest.mark.parametrize("atomic", [True, False], ids=["in transactions", "outside"])
def test_they_come_back_with_their_values(stepping_databases: NewDatabases, tmp_path: Path, *, atomic: bool) -> None:
    project, dsn = _project(stepping_databases, tmp_path, 3, atomic=atomic)
    before = dump(dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert "ValueError: no" in result.stderr
    assert not diff(before, dump(dsn, sequences=False))


@pytest.mark.long_on("postgresql")
def test_they_are_not_removed_where_their_values_are_too_many(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    project, dsn = _project(stepping_databases, tmp_path, 10_001, atomic=False)
    before = dump(dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith(
        "CommandError: demo.crate.number was not removed: rows were put there in the same call, and their values could "
        "not come back ("
    )
    assert result.stderr.endswith(
        "too many rows, or too long ones); what was done has been undone "
        "(--allow-irreversible removes it all the same; or apply what is before it by a call of its own)\n"
    )
    assert not diff(before, dump(dsn, sequences=False))


@pytest.mark.long_on("postgresql")
def test_they_are_removed_all_the_same_where_that_is_wanted(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    project, _dsn = _project(stepping_databases, tmp_path, 10_001, atomic=False)
    project.write_migration("demo.0005_fail", migration(after=[("demo", "0004_remove")]))

    result = project.run("apply_migrations", "--allow-irreversible")

    assert result.returncode == 0, result.stderr
    columns = project.succeed("inspectdb", "demo_crate")
    assert not [name for name in _REMOVALS if f"{name} = " in columns]


@pytest.mark.long_on("postgresql")
def test_they_come_back_when_the_call_is_killed(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    project, dsn = _project(stepping_databases, tmp_path, 3, atomic=False)
    before = dump(dsn, sequences=False)
    killed = run_python("__import__('os').kill(__import__('os').getpid(), 9)")
    project.write_migration(
        "demo.0005_fail",
        migration(
            "migrations.RunPython(forwards, nothing)", after=[("demo", "0004_remove")], atomic=False, functions=killed
        ),
    )
    assert project.run("apply_migrations").returncode == -signal.SIGKILL

    project.write_migration(
        "demo.0005_fail",
        migration(
            "migrations.RunPython(fails, nothing)",
            after=[("demo", "0004_remove")],
            atomic=False,
            functions=killed + _BACK.replace("COUNT", "3"),
        ),
    )
    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert not diff(before, dump(dsn, sequences=False))


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("side", ["before", "after"])
def test_they_come_back_wherever_the_call_is_killed(
    stepping_databases: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    project, dsn = _project(stepping_databases, tmp_path, 3, atomic=False)
    before = dump(dsn, sequences=False)
    killed = 0
    while True:
        monkeypatch.setenv("SMOOTH_FAILPOINT", f"note.{side}:{killed + 1}")
        returncode = project.run("apply_migrations").returncode
        if returncode != -signal.SIGKILL:
            break
        killed += 1
        monkeypatch.delenv("SMOOTH_FAILPOINT")
        assert project.run("apply_migrations").returncode == 1
        assert not diff(before, dump(dsn, sequences=False)), f"killed {side} write {killed} to the journal"

    assert returncode == 1
    assert killed > 10
