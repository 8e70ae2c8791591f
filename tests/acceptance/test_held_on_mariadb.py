"""What a run holds on MariaDB until its decision: the rows that it writes beside its changes of tables."""

import json
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.mariadb_database import MariadbDatabase
from tests.support.runs import run_in
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(180)

_PLAN = """\
version = 1
[deploy]
name = "maria"
expand_contract = false
[projects.one]
path = "project"
settings = "small_settings"
env = { SMALL_DATABASES = "${SMALL_DATABASES}" }
[databases.primary]
project = "one"
alias = "default"
"""
_GATED = '[[phases]]\nname = "all"\ndatabases = ["*"]\ngate = ["false"]\n'
_TYPES = ("django.contrib.contenttypes", "django.contrib.auth")
_EXTRA = migration(
    "migrations.CreateModel('Extra', [('id', models.BigAutoField(primary_key=True))])", after=[("demo", "0001_item")]
)
_MORE = migration(
    "migrations.AddField('extra', 'more', models.IntegerField(null=True))", after=[("demo", "0002_extra")]
)


@pytest.fixture
def environment(mariadb_database: MariadbDatabase, tmp_path: Path) -> dict[str, str]:
    """What the program needs to know the database of a plan, whose next release makes a model."""
    databases = {"default": mariadb_database.django}
    environment = {"SMALL_DATABASES": json.dumps(databases)}
    project = SmallProject(tmp_path / "project", databases, {"demo.0001_item": ITEM}, installed=_TYPES)
    (tmp_path / "deploy.toml").write_text(_PLAN)
    assert run_in(tmp_path, environment, "deploy").exit_code == 0
    project.write_migration("demo.0002_extra", _EXTRA)
    return environment


def test_a_deploy_that_is_given_up_leaves_nothing_of_what_receivers_wrote(
    mariadb_database: MariadbDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "deploy.toml").write_text(_PLAN + _GATED)
    before = dump(mariadb_database.dsn, sequences=False)

    failed = run_in(tmp_path, environment, "deploy")

    assert (failed.exit_code, failed.outcomes) == (1, {"primary": "rolled_back"}), failed.stderr
    assert diff(before, dump(mariadb_database.dsn, sequences=False)) == ""


@pytest.mark.long
def test_a_rollback_that_is_given_up_leaves_the_mark_of_what_it_was_to_take_back(
    mariadb_database: MariadbDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    old = dump(mariadb_database.dsn, sequences=False)
    assert run_in(tmp_path, environment, "deploy").exit_code == 0
    new = dump(mariadb_database.dsn, sequences=False)
    killed = run_in(tmp_path, environment, "rollback", failpoint="journal.decision.before")
    assert killed.exit_code == -9, killed.stderr

    recovered = run_in(tmp_path, environment, "recover")

    assert (recovered.exit_code, recovered.outcomes) == (0, {"primary": "rolled_back"}), recovered.stderr
    assert diff(new, dump(mariadb_database.dsn, sequences=False)) == ""
    assert run_in(tmp_path, environment, "rollback").exit_code == 0
    assert diff(old, dump(mariadb_database.dsn, sequences=False)) == ""


@pytest.mark.long
def test_run_ids_that_differ_by_case_are_two(
    mariadb_database: MariadbDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    old = dump(mariadb_database.dsn, sequences=False)
    assert run_in(tmp_path, environment, "deploy", "--run-id", "Build-7").exit_code == 0
    (tmp_path / "project/demo/migrations/0003_more.py").write_text(_MORE)

    again = run_in(tmp_path, environment, "deploy", "--run-id", "build-7")

    assert (again.exit_code, again.report["outcome"]) == (0, "committed"), again.stderr
    for taken_back in ("build-7", "Build-7"):
        back = run_in(tmp_path, environment, "rollback", "--run", taken_back)
        assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
    assert diff(old, dump(mariadb_database.dsn, sequences=False)) == ""
