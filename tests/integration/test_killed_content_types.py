"""A content type that was renamed with its model by a call that was killed."""

from pathlib import Path

import pytest

from tests.integration.test_killed_calls import killed_while_waiting
from tests.support.dump import diff, dump
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import ITEM, run_python
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(120)

_MODEL = "migrations.RenameModel('Item', 'Thing')"
_WAIT = "migrations.RunPython(forwards, nothing)"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([[_MODEL], [_WAIT]], id="by a migration that was done", marks=pytest.mark.long),
        pytest.param([[_MODEL, _WAIT]], id="by one that was broken off"),
    ],
)
def test_a_content_type_that_was_renamed_with_its_model_gets_its_name_back(
    stepping_databases: NewDatabases, tmp_path: Path, parts: list[list[str]]
) -> None:
    database = stepping_databases.new()
    types = ["django.contrib.contenttypes"]
    project = SmallProject(tmp_path, {"default": database.django}, {"demo.0001_item": ITEM}, installed=types)
    project.succeed("migrate", "--verbosity=0")
    before = dump(database.dsn, sequences=False)
    names = ["0001_item", "0002_thing", "0003_wait"]
    for last, name, operations in zip(names, names[1:], parts, strict=False):
        functions = run_python("print('waiting', flush=True); threading.Event().wait()")
        source = migration(*operations, after=[("demo", last)], atomic=False, functions=functions)
        project.write_migration(f"demo.{name}", source)
    killed_while_waiting(project)
    assert diff(before, dump(database.dsn, sequences=False))

    project.succeed("apply_migrations", "demo", "0001")

    assert not diff(before, dump(database.dsn, sequences=False))
