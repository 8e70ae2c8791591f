"""What a person is told of a project's own code that cannot be loaded: the error, and the line to open."""

import json
from pathlib import Path

import pytest

from tests.support.runs import run_words
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

_PLAN = """\
version = 1
deploy.name = "small"
projects.one = { path = "project", settings = "small_settings" }
databases.primary = { project = "one", alias = "default" }
"""
# A function that another one calls, of which the file alone is no help, and one that Python's library raises in.
_NESTED = "import os\n\n\ndef _port():\n    return int(os.environ['NO_SUCH_PORT'])\n\n\nPORT = _port()\n"
_SETTINGS = "project one: the settings 'small_settings' could not be loaded: "
_APPS = "project one: Django could not be set up by the settings 'small_settings': "


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("small_settings.py", _NESTED, f"{_SETTINGS}KeyError: 'NO_SUCH_PORT' (at {{file}}:5)"),
        ("small_settings.py", "assert False\n", f"{_SETTINGS}AssertionError (at {{file}}:1)"),
        (
            "small_settings.py",
            "A = 1\nB = [",
            f"{_SETTINGS}SyntaxError: '[' was never closed (small_settings.py, line 2)",
        ),
        ("demo/models.py", _NESTED, f"{_APPS}KeyError: 'NO_SUCH_PORT' (at {{file}}:5)"),
        ("demo/models.py", "from django.db import no_such_thing\n", f"{_APPS}ImportError: cannot import name"),
        ("demo/migrations/0002_port.py", _NESTED, "KeyError: 'NO_SUCH_PORT' (at {file}:5)"),
        ("demo/migrations/0002_port.py", "\n\nA = (", "SyntaxError: '(' was never closed (0002_port.py, line 3)"),
    ],
    ids=["settings", "settings-silent", "settings-syntax", "models", "models-import", "migration", "migration-syntax"],
)
def test_code_that_cannot_be_loaded_is_told_of_with_its_file_and_line(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "primary.sqlite3")}
    project = SmallProject(tmp_path / "project", {"default": database}, {"demo.0001_item": ITEM})
    project.write(file, text)
    (tmp_path / "deploy.toml").write_text(_PLAN)

    checked = run_words(tmp_path, {"SMALL_DATABASES": json.dumps({"default": database})}, "check", "deploy.toml")

    assert checked.exit_code == 3, checked.stdout
    report = checked.report
    [told] = [each for each in (report["error"], *report["errors"]) if each and " (at " in each["message"]]
    place = tmp_path / "project" / file
    assert told["message"].startswith(message.format(file=place))
    assert f" (at {place}:" in told["message"]
