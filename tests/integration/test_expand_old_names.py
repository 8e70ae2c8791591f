"""Who may use a renamed table by its old name: whoever might before, and nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db.backends.postgresql.features import DatabaseFeatures

from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.postgres_versions import Unavailable, programs_of
from tests.support.two_releases import OLD, content, project_with, run

_MODEL = ["migrations.RenameModel('Item', 'Thing')"]
# Roles are the server's: those of an earlier test are there, and nothing is theirs any more.
_ROLES = [
    "DROP ROLE IF EXISTS old_release, table_owner, migrator",
    "CREATE ROLE old_release",
    "CREATE ROLE table_owner",
    "CREATE ROLE migrator IN ROLE table_owner, postgres",
]
_POLICY = [
    "GRANT SELECT ON demo_item TO old_release",
    "ALTER TABLE demo_item ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY cheap ON demo_item TO old_release USING (price < 2)",
]
_OWNED = ["ALTER TABLE demo_item OWNER TO table_owner", "ALTER TABLE demo_item_tags OWNER TO table_owner"]
_VIEWS = "SELECT viewname, viewowner FROM pg_views WHERE viewname LIKE 'demo%' ORDER BY viewname"


@pytest.fixture(scope="session")
def pg_14() -> Iterator[PostgresServer]:
    """A server from before views could have the rights of whoever asks them."""
    if (DatabaseFeatures.minimum_database_version or ()) > (14,):
        pytest.skip("this Django supports no PostgreSQL from before 15, where views have the rights of whoever asks")
    try:
        programs = programs_of("14")
    except Unavailable as reason:
        pytest.skip(str(reason))
    with PostgresServer(settings=THROW_AWAY, programs=programs) as server:
        yield server


def test_whoever_was_allowed_to_use_the_table_may_use_it_by_the_old_name(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project = project_with(tmp_path, pg_database, _MODEL)
    grants = [
        "GRANT SELECT ON demo_item TO old_release",
        "GRANT UPDATE (price) ON demo_item TO old_release WITH GRANT OPTION",
    ]
    run(pg_database, [*_ROLES, *grants])

    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        session.execute("SET ROLE old_release")
        session.execute("UPDATE demo_item SET price = 0")
        assert session.execute("SELECT name, price FROM demo_item").fetchall() == [("tea", 0), ("jam", 0)]


def test_rows_that_a_policy_hides_are_hidden_by_the_old_name_too(
    pg_database: PostgresDatabase, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    if int(pytestconfig.getoption("postgresql")) < 15:
        pytest.skip("this server has no views with the rights of whoever asks them")
    project = project_with(tmp_path, pg_database, _MODEL)
    run(pg_database, [*_ROLES, *_POLICY])

    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        session.execute("SET ROLE old_release")
        assert session.execute("SELECT name FROM demo_item").fetchall() == [("tea",)]


@pytest.mark.older_django
def test_a_view_that_would_show_what_a_policy_hides_is_refused(pg_14: PostgresServer, tmp_path: Path) -> None:
    with temporary_database(pg_14) as database:
        project = project_with(tmp_path, database, _MODEL)
        run(database, [*_ROLES, *_POLICY])
        before = content(database)

        refused = project.run("apply_migrations", "--expand")

        assert refused.returncode == 3
        assert refused.stderr == (
            "CommandError: Refused: Rename model Item to Thing: demo_item has row security, which views go round on "
            "this server, before PostgreSQL 15 (set expand_contract = false for this database, or make the change in "
            "two releases)\n"
        )
        assert content(database) == before
        run(database, ["ALTER TABLE demo_item DISABLE ROW LEVEL SECURITY"])
        project.succeed("apply_migrations", "--expand")


def test_whoever_was_not_allowed_may_not_by_the_old_name_either(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_database, _MODEL)
    run(pg_database, [*_ROLES, "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO old_release, PUBLIC"])

    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        row = session.execute("SELECT has_table_privilege('old_release', 'demo_item', 'SELECT')").fetchone()
    assert row == (False,)


@pytest.mark.parametrize("role", ["postgres", "migrator"])
def test_the_owner_of_a_table_owns_it_by_the_old_name_too(
    pg_database: PostgresDatabase, tmp_path: Path, role: str
) -> None:
    project = project_with(tmp_path, pg_database, _MODEL)
    migrates_as = f"ALTER DATABASE {pg_database.name} SET role = {role}"
    run(pg_database, [*_ROLES, *_OWNED, "GRANT CREATE ON SCHEMA public TO table_owner", migrates_as])

    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        session.execute("SET ROLE table_owner")
        for statement in OLD:
            session.execute(statement.encode())
        views = session.execute(_VIEWS).fetchall()
    assert views == [(name, "table_owner") for name in ("demo_item", "demo_item_tags")]
    project.succeed("finalise_migrations")


def test_the_old_name_stands_where_the_table_does(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_database, _MODEL)
    run(pg_database, ["CREATE SCHEMA front", f"ALTER DATABASE {pg_database.name} SET search_path = front, public"])

    project.succeed("apply_migrations", "--expand")

    assert _views(pg_database) == ["public.demo_item", "public.demo_item_tags"]
    run(pg_database, ["CREATE VIEW front.demo_item AS SELECT 1", "CREATE TABLE front.demo_item_tags (id integer)"])
    project.succeed("finalise_migrations")
    assert _views(pg_database) == ["front.demo_item"]


def test_a_view_that_its_owner_may_not_own_is_refused(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_database, _MODEL)
    migrates_as = f"ALTER DATABASE {pg_database.name} SET role = migrator"
    run(pg_database, [*_ROLES, *_OWNED, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", migrates_as])

    refused = project.run("apply_migrations", "--expand")

    assert refused.returncode == 3
    assert "demo_item belongs to table_owner, who may not create a view in its schema (set exp" in refused.stderr
    assert _views(pg_database) == []


def _views(database: PostgresDatabase) -> list[str]:
    found = "SELECT format('%I.%I', schemaname, viewname) FROM pg_views WHERE viewname LIKE 'demo%' ORDER BY 1"
    with database.connect() as session:
        return [name for (name,) in session.execute(found).fetchall()]
