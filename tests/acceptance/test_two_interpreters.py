"""A project with an interpreter and a Django of its own, beside one that runs on the orchestrator's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import django
import pytest

from tests.support.dump import dump
from tests.support.interpreters import interpreter
from tests.support.log_lines import log_lines
from tests.support.postgres_database import PostgresDatabase
from tests.support.runs import SCRIPT
from tests.support.small_migrations import BROKEN_LATE, ITEM, KIND, NOTE
from tests.support.small_project import SmallProject

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
# Django 6 needs one of these.
_VERSIONS = ("3.13", "3.12")
_PLAN = """\
version = 1
deploy = {{ name = "two" }}
[projects.here]
path = "here"
settings = "small_settings"
env = {{ SMALL_DATABASES = '{here}' }}
[projects.there]
path = "there"
settings = "small_settings"
python = {python}
env = {{ SMALL_DATABASES = '{there}' }}
[databases.near]
project = "here"
alias = "default"
[databases.far]
project = "there"
alias = "default"
"""


def _other_interpreter() -> str:
    """Return a supported Python of another version than this one."""
    ours = ".".join(map(str, sys.version_info[:2]))
    for version in _VERSIONS:
        found = None if version == ours else interpreter(version)
        if found:
            return found
    pytest.skip(f"no second Python of the versions {', '.join(_VERSIONS)} is installed")


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with another Python and another Django than this one's, and this distribution."""
    directory = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([_other_interpreter(), "-m", "venv", directory], check=True)
    wanted = "Django~=5.2.0" if django.VERSION >= (6, 0) else "Django>=6.0,<6.2"
    subprocess.run([directory / "bin/python", "-m", "pip", "install", "--quiet", str(ROOT), wanted], check=True)
    return directory / "bin/python"


@pytest.fixture(scope="module")
def psycopg2_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with Django and psycopg2, and of this distribution what a worker needs: itself alone."""
    directory = tmp_path_factory.mktemp("older") / "venv"
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    pip = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"Django=={django.get_version()}", "psycopg2-binary"], check=True)
    subprocess.run([*pip, "--no-deps", str(ROOT)], check=True)
    return directory / "bin/python"


def _deploy(directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, "deploy", "deploy.toml", "--json", "--log-format", "json"],
        check=False,
        cwd=directory,
        env={key: os.environ[key] for key in ("PATH", "HOME")},
        capture_output=True,
        text=True,
    )


def test_projects_of_different_pythons_and_djangos_are_deployed_together(tmp_path: Path, other_python: Path) -> None:
    databases = {}
    for name in ("here", "there"):
        path = tmp_path / f"{name}.sqlite3"
        databases[name] = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}}
        SmallProject(tmp_path / name, databases[name], {"demo.0001_item": ITEM})
    (tmp_path / "deploy.toml").write_text(
        _PLAN.format(python=json.dumps(str(other_python)), **{name: json.dumps(at) for name, at in databases.items()})
    )

    done = _deploy(tmp_path)

    assert done.returncode == 0, done.stderr
    started = {line["project"]: line for line in log_lines(done.stderr) if line["event"] == "worker.started"}
    assert started["here"]["django"] == django.get_version()
    assert started["there"]["django"] != django.get_version()
    assert started["there"]["python"].split(".")[:2] != started["here"]["python"].split(".")[:2]
    assert all("demo_item" in dump(tmp_path / f"{name}.sqlite3") for name in databases)


def test_a_project_with_psycopg2_alone_is_deployed_and_taken_back(
    tmp_path: Path, psycopg2_python: Path, pg_database: PostgresDatabase
) -> None:
    local = tmp_path / "here.sqlite3"
    databases = {
        "here": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(local)}},
        "there": {"default": pg_database.django},
    }
    projects = {name: SmallProject(tmp_path / name, at, {"demo.0001_item": ITEM}) for name, at in databases.items()}
    (tmp_path / "deploy.toml").write_text(
        _PLAN.format(
            python=json.dumps(str(psycopg2_python)), **{name: json.dumps(at) for name, at in databases.items()}
        )
    )
    assert _deploy(tmp_path).returncode == 0
    before = [dump(local), dump(pg_database.dsn, sequences=False)]
    for project, source in ((projects["here"], KIND), (projects["there"], BROKEN_LATE)):
        project.write_migration("demo.0002_note", NOTE)
        project.write_migration("demo.0003_kind", source)

    done = _deploy(tmp_path)

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["outcome"] == "rolled_back"
    assert [dump(local), dump(pg_database.dsn, sequences=False)] == before
