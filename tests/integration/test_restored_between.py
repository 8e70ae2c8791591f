"""A dump that was taken while two releases are served can be restored, and what is held back there be done."""

import subprocess
from pathlib import Path

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_home import program
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import FIRST, content, project_with

_CASES = {
    "a field with another name": [
        "migrations.RenameField('item', 'price', 'cost')",
        "migrations.RenameField('item', 'note', 'remark')",
    ],
    "models with other names": ["migrations.RenameModel('Kind', 'Sort')", "migrations.RenameModel('Item', 'Thing')"],
    "a foreign key that is followed": [
        "migrations.AddField('item', 'other', models.ForeignKey('demo.Kind', models.CASCADE, null=True))",
        "migrations.RemoveField('item', 'note')",
    ],
}
_FIRST_CASE, *_OTHERS = _CASES


@pytest.mark.parametrize("case", [_FIRST_CASE, *(pytest.param(case, marks=pytest.mark.long) for case in _OTHERS)])
def test_a_dump_is_restored_and_finalised(pg_databases: NewDatabases, tmp_path: Path, case: str) -> None:
    database, restored = pg_databases.new(), pg_databases.new()
    assert isinstance(database, PostgresDatabase)
    assert isinstance(restored, PostgresDatabase)
    project = project_with(tmp_path / "one", database, _CASES[case])
    project.succeed("apply_migrations", "--expand")
    dumped = subprocess.run([str(program("pg_dump")), f"--dbname={database.dsn}"], check=True, capture_output=True)
    # A setting of the program's own version, which servers before 17 do not know.
    statements = dumped.stdout.replace(b"SET transaction_timeout = 0;\n", b"")

    psql = [str(program("psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", restored.dsn]
    done = subprocess.run(psql, input=statements, check=False, capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")
    assert content(restored) == content(database)
    history = {"demo.0001_first": FIRST, "demo.0002_next": migration(*_CASES[case], after=[("demo", "0001_first")])}
    other = SmallProject(tmp_path / "other", {"default": restored.django}, history)
    for each in (project, other):
        each.succeed("finalise_migrations")
    assert content(restored) == content(database)
