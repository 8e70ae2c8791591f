"""The tables that a call keeps for itself, where they are not to be used."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.dump import dump
from tests.support.histories import execute
from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_migrations import BROKEN_LATE, NOTE
from tests.support.small_project import SmallProject

_REFUSED = "CommandError: Refused: the tables in which runs are noted cannot be used, and nothing was run: "


@pytest.mark.parametrize("name", ["smooth_migrations_lease", "smooth_migrations_journal"])
def test_a_table_of_somebody_elses_with_such_a_name_is_left_alone(
    databases: NewDatabases, tmp_path: Path, name: str
) -> None:
    database = databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE})
    execute(database, f"CREATE TABLE {name} (answer integer)")
    before = databases.dump(database)

    result = project.run("apply_migrations")
    report = project.run("apply_migrations", "--json")

    assert (result.returncode, result.stderr.startswith(_REFUSED)) == (3, True)
    assert (report.returncode, json.loads(report.stdout)["outcome"]) == (3, "refused")
    assert databases.dump(database) == before


def test_a_column_that_a_later_release_has_added_is_none_of_ours(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE})
    project.succeed("apply_migrations", "demo", "0001")
    execute(database, "DELETE FROM smooth_migrations_lease; ALTER TABLE smooth_migrations_lease ADD COLUMN later int")

    project.succeed("apply_migrations")


@pytest.mark.parametrize("granted", [(), ("SELECT",)], ids=["none", "reading alone"])
def test_a_role_that_may_not_write_the_journal_changes_nothing(
    pg_database: PostgresDatabase, tmp_path: Path, granted: Sequence[str]
) -> None:
    project = project_of(tmp_path, pg_database, {"demo.0002_note": NOTE, "demo.0003_kind": BROKEN_LATE})
    project.run("apply_migrations")
    role = f"{pg_database.name}_owner"
    with pg_database.connect() as session:
        session.execute(f"CREATE ROLE {role} LOGIN")
        session.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        session.execute(f"ALTER TABLE demo_item OWNER TO {role}")
        session.execute(f"ALTER TABLE django_migrations OWNER TO {role}")
        session.execute(f"GRANT SELECT, UPDATE ON smooth_migrations_lease TO {role}")
        for privilege in granted:
            session.execute(f"GRANT {privilege} ON smooth_migrations_journal TO {role}")
    before = dump(pg_database.dsn, sequences=False)
    environment = {"default": pg_database.django | {"USER": role}}
    own = SmallProject(tmp_path / "own", environment, _sources(tmp_path / "project/demo/migrations"))

    result = own.run("apply_migrations")

    assert result.returncode == (1 if granted else 3)
    assert "permission denied for table smooth_migrations_journal" in result.stderr
    assert dump(pg_database.dsn, sequences=False) == before
    with pg_database.connect() as session:
        session.execute(f"DROP OWNED BY {role} CASCADE")
        session.execute(f"DROP ROLE {role}")


def _sources(directory: Path) -> dict[str, str]:
    return {f"demo.{file.stem}": file.read_text() for file in sorted(directory.glob("0*.py"))}
