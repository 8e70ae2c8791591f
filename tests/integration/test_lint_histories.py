"""The lint over applications that were written elsewhere: how often it speaks, beside what is said of that."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.histories import HISTORIES, SAME_ORDER

_PAGE: Final = Path(__file__).parents[2] / "docs/how-to/lint-migrations.md"
_AWAY: Final = {
    "default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "NAME": "nowhere"}
}
_PROGRAM: Final = """
import json, sys
from collections import Counter
import django
django.setup()
from django.apps import apps
from django.db import connection
from smooth_migrations.lint.linting import lint
labels = [config.label for config in apps.get_app_configs() if config.name.partition(".")[0] == sys.argv[1]]
report = lint(connection, apps=labels, everything=True)
print(json.dumps([len(report.migrations), Counter(finding.code for finding in report.findings)]))
"""


@pytest.mark.long
@pytest.mark.parametrize(("name", "column"), [("wagtail", 1), ("oscar", 2)])
def test_as_much_is_found_as_the_page_says(name: str, column: int) -> None:
    history = HISTORIES[name]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, name],
        cwd=history.project,
        env=os.environ
        | SAME_ORDER
        | {
            "DJANGO_SETTINGS_MODULE": history.settings,
            "SITE_DATABASES": json.dumps(_AWAY),
            "PYTHONPATH": os.pathsep.join([str(history.project), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    migrations, found = json.loads(done.stdout)
    rows = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)]
    [head] = [row for row in rows if row[0] == "code"]
    assert head[column].endswith(f", {migrations} migrations")
    assert found == {row[0]: int(row[column]) for row in rows if row[0].startswith("SM") and row[column] != "0"}
