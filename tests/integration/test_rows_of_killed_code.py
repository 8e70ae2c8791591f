"""Rows that code changed before it was killed, and that receivers of signals changed before the first migration."""

from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.histories import Vendor
from tests.support.killing import assert_undone_after_each_kill
from tests.support.new_databases import NewDatabases
from tests.support.rows_of_code import ALL, operation, project_of, ran

pytestmark = pytest.mark.timeout(240)

_RELEASE = [
    operation(ran(ALL, "INSERT INTO demo_crate (id, label) VALUES (70, 'tin')")),
    "migrations.AddField('crate', 'note', models.CharField(max_length=40, default='none'))",
    "migrations.RunSQL(['DELETE FROM demo_label', \"UPDATE demo_crate SET note = 'a', label = 'all'\"], 'SELECT no')",
    f"migrations.RunPython({ran(ALL.replace('changed', 'again'), 'DELETE FROM demo_item')}, fail, atomic=True)",
]


def _kill_at_statements(databases: NewDatabases, directory: Path, *, every: int) -> None:
    database = databases.new()
    project = project_of(directory, database, *_RELEASE, atomic=databases.vendor is Vendor.MYSQL)
    assert_undone_after_each_kill(
        databases, database, project, directory / "project", every=every, altered="demo_crate"
    )


def test_rows_come_back_after_a_kill_in_or_after_a_data_migration(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    _kill_at_statements(stepping_databases, tmp_path, every=61)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_rows_come_back_after_a_kill_at_any_statement_of_a_data_migration(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    _kill_at_statements(stepping_databases, tmp_path, every=1)


_RECEIVER = """\
from django.db import connections, transaction
from django.db.models.signals import pre_migrate

def note(app_config, using, **kwargs):
    if app_config.label == "demo":
        with transaction.atomic(using), connections[using].cursor() as cursor:
            cursor.execute("UPDATE demo_item SET name = 'heard'")
            cursor.execute("DELETE FROM demo_label")
        with connections[using].cursor() as cursor:
            cursor.execute("INSERT INTO demo_crate (id, label) VALUES (70, 'heard')")

pre_migrate.connect(note)
"""


def test_what_receivers_write_before_the_first_migration_comes_back(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    project = project_of(tmp_path, database, operation(ran(ALL)))
    project.write("demo/management/__init__.py", _RECEIVER)
    before = stepping_databases.dump(database)

    result = project.run("apply_migrations")

    assert (result.returncode, "before the first migration" in result.stdout) == (1, False), result.stdout
    assert diff(before, stepping_databases.dump(database)) == ""


def test_what_receivers_of_a_killed_call_wrote_comes_back(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    project = project_of(tmp_path, database, "migrations.RunPython(fail, fail)")
    fails = (tmp_path / "project/demo/migrations/0002_change.py").read_text()
    before = stepping_databases.dump(database)
    project.write("demo/management/__init__.py", _RECEIVER)
    kills = "os.kill(os.getpid(), signal.SIGKILL)"
    project.write_migration("demo.0002_change", fails.replace('raise ValueError("no")', kills))
    project.run("apply_migrations")
    assert diff(before, stepping_databases.dump(database))
    project.write("demo/management/__init__.py", "")
    project.write_migration("demo.0002_change", fails)

    result = project.run("apply_migrations")

    assert result.returncode == 1
    assert diff(before, stepping_databases.dump(database)) == ""


_LOGGED = """\
from pathlib import Path

from django.db.backends.signals import connection_created

def _log(execute, sql, params, many, context):
    with Path("statements").open("a") as file:
        file.write(f"{sql}\\n")
    return execute(sql, params, many, context)

connection_created.connect(lambda connection, **_: connection.execute_wrappers.insert(0, _log), weak=False)
"""


@pytest.mark.parametrize(
    ("change", "asked"),
    [(operation(ran(ALL)), True), ("migrations.AddField('item', 'note', models.IntegerField(null=True))", False)],
    ids=["code", "no code"],
)
def test_a_call_without_code_asks_nothing_about_rows(
    stepping_databases: NewDatabases, tmp_path: Path, change: str, *, asked: bool
) -> None:
    project = project_of(tmp_path, stepping_databases.new(), change)
    (tmp_path / "project/demo/migrations/0003_fails.py").unlink()
    project.write("demo/models.py", _LOGGED)

    project.succeed("apply_migrations")

    lines = (tmp_path / "project/statements").read_text()
    assert "smooth_migrations_journal" in lines
    assert ("_isolation'" in lines) is asked
    assert ("lock_timeout', '1s'" in lines or "lock_wait_timeout = %s, innodb" in lines) is asked
    assert ("pg_stat_xact_user_tables" in lines or "session_status" in lines) is asked
