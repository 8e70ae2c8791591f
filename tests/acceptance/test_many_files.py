"""More databases than a process may have files open, unless it asks for as many as it is allowed."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.support.runs import run_words
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

_COUNT: Final = 60
# One worker is to hold all of them.
_PLAN: Final = """\
version = 1
deploy.name = "small"
projects.one = { path = "project", settings = "small_settings" }
databases.shards = { project = "one", aliases = "*" }
phases = [{ name = "all", databases = ["shards:*"], parallel = 1 }]
"""


@pytest.mark.timeout(120)
def test_a_worker_holds_more_databases_than_a_process_may_have_files_at_first(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.sqlite3" for name in ("default", *map("shard_{}".format, range(1, _COUNT)))}
    databases = {name: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)} for name, file in files.items()}
    SmallProject(tmp_path / "project", databases, {"demo.0001_item": ITEM})
    (tmp_path / "deploy.toml").write_text(_PLAN)

    limited = ["prlimit", f"--nofile={_COUNT}:"]
    outcome = run_words(tmp_path, {"SMALL_DATABASES": json.dumps(databases)}, "deploy", "deploy.toml", under=limited)

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stdout
    for file in files.values():
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM demo_item").fetchone() == (0,)
