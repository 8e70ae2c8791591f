"""Fields of odd kinds under the helpers, in an application without migrations."""

import json
import shutil
from pathlib import Path
from typing import Final

from tests.support.new_databases import NewDatabases
from tests.support.small_project import SmallProject

FILES: Final = Path(__file__).parents[1] / "projects" / "odd_fields"


def test_fields_of_odd_kinds_go_on_where_they_are_not_used(every_database: NewDatabases, tmp_path: Path) -> None:
    directory = tmp_path / "odd"
    directory.mkdir()
    databases = {"default": every_database.new().django}
    project = SmallProject(
        directory,
        databases,
        {"demo.none": ""},
        installed=["django.contrib.contenttypes"],
        settings='MIGRATION_MODULES = {"contenttypes": None}',
    )
    shutil.rmtree(directory / "demo/migrations")
    for name in ("demo/models.py", "odd.py"):
        project.write(name, (FILES / Path(name).name).read_text())
    assert project.run("check").stderr in {"", "System check identified no issues (0 silenced).\n"}
    project.succeed("migrate", "--run-syncdb", "--verbosity", "0")

    assert json.loads(project.succeed("shell", "--verbosity", "0", "--command", "import odd")) == {
        "item": [["a", "day", "id"], 2],
        "row": [None, None, None, 2, None, None],
        "form": [["a", "day"], True, 3],
        "deleted": [{"demo.Parent": 1}, {"demo.Item": 1}],
        "left": [[[None], [None]], [[None]]],
        "fresh": [{}, "", 2, 4, 5, True],
        "generic": ["notes", "notes", "about", "about", {"demo.Note": 1, "demo.Parent": 1}],
        "pickled": True,
    }
