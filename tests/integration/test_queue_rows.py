"""What is held back, by rows and files that do not say any more what is so: nothing is guessed from them."""

from pathlib import Path

import pytest

from tests.support.django_connections import ask
from tests.support.histories import Database, execute
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import content, project_with

_OF_KIND = "migrations.AddField('kind', 'size', models.IntegerField(default=7))"
_SIZE = "migrations.AddField('item', 'size', models.IntegerField(default=7))"
_MORE = migration("migrations.AddField('kind', 'more', models.IntegerField(null=True))", after=[("demo", "0002_next")])
_NAMES = "SELECT name FROM smooth_migrations_contract"
_UNRECORDED = "drop the default of demo_item.size is held back, and demo.0002_next is not recorded as applied"


def _expanded(directory: Path, database: Database) -> SmallProject:
    project = project_with(directory, database, [_SIZE])
    project.succeed("apply_migrations", "--expand")
    return project


def test_what_is_held_back_of_a_migration_that_somebody_took_back_is_forgotten_on_demand(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = _expanded(tmp_path, database)
    project.succeed("migrate", "demo", "0001", "--verbosity=0")

    for command in (["apply_migrations", "--expand"], ["finalise_migrations"]):
        refused = project.run(*command)
        assert (refused.returncode, _UNRECORDED in refused.stderr) == (3, True), refused.stderr
        assert "manage.py finalise_migrations --force forgets it" in refused.stderr
    assert ask(database, _NAMES) == [("0002_next",)]

    told = project.succeed("finalise_migrations", "--force")

    assert told.splitlines()[-2:] == [
        "Forgotten, since no such migration is recorded as applied:",
        "  demo.0002_next: drop the default of demo_item.size",
    ]
    assert ask(database, _NAMES) == []
    project.succeed("apply_migrations", "--expand")
    assert ask(database, _NAMES) == [("0002_next",)]
    project.succeed("finalise_migrations")
    assert ask(database, _NAMES) == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ('{"version": 2, "digest": ""}', "was held back by a later version of this program"),
        ("[]", "the payload of demo.0002_next, operation 0, in smooth_migrations_contract cannot be read: '[]'"),
        ("{", "in smooth_migrations_contract cannot be read: '{'"),
    ],
)
def test_a_row_of_a_later_version_or_of_nobody_is_left_alone(
    databases: NewDatabases, tmp_path: Path, payload: str, message: str
) -> None:
    database = databases.new()
    project = _expanded(tmp_path, database)
    project.write_migration("demo.0003_more", _MORE)
    execute(database, f"UPDATE smooth_migrations_contract SET payload = '{payload}'")
    before = content(database)

    for command in (["apply_migrations", "--expand"], ["apply_migrations", "demo", "0001"], ["finalise_migrations"]):
        refused = project.run(*command)
        assert (refused.returncode, message in refused.stderr) == (3, True), refused.stderr
        assert "Traceback" not in refused.stderr
    assert content(database) == before
    execute(database, "UPDATE smooth_migrations_contract SET payload = '{\"version\": 1}'")
    project.succeed("finalise_migrations")


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        pytest.param([], "the file of demo.0002_next has been changed since its expand half ran", id="less"),
        pytest.param([_OF_KIND], "and the file of demo.0002_next is another one now", id="another"),
    ],
)
def test_what_is_held_back_of_another_file_is_not_guessed(
    pg_database: PostgresDatabase, tmp_path: Path, operations: list[str], message: str
) -> None:
    project = project_with(tmp_path, pg_database, [_SIZE])
    project.succeed("apply_migrations", "--expand")
    before = content(pg_database)
    project.write_migration("demo.0002_next", migration(*operations, after=[("demo", "0001_first")]))

    refused = project.run("finalise_migrations")

    assert refused.returncode == 3
    assert message in refused.stderr
    assert "with the release that deployed it)" in refused.stderr
    assert content(pg_database) == before
