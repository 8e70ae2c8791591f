"""Projects that have psycopg2 alone, which Django takes where psycopg is not installed."""

import signal
from pathlib import Path

import pytest

from tests.integration.test_configurations import Configuration, assert_undone_and_like_stock
from tests.support.dump import diff
from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import ITEM
from tests.support.small_project import PSYCOPG2_ALONE, SmallProject, migration

pytestmark = pytest.mark.parametrize("databases", [Vendor.POSTGRESQL], indirect=True)


def test_a_project_with_psycopg2_is_moved_as_by_migrate_or_not_at_all(databases: NewDatabases, tmp_path: Path) -> None:
    assert_undone_and_like_stock(Configuration(files=PSYCOPG2_ALONE), databases, tmp_path)


def test_a_signal_breaks_a_statement_of_psycopg2_off(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    asleep = migration(
        "migrations.RunPython(say)",
        "migrations.RunSQL('SELECT pg_sleep(3600)')",
        after=[("demo", "0001_item")],
        functions=(
            "def say(apps, editor):\n"
            "    import sys\n"
            "    print('psycopg' in sys.modules, editor.connection.Database.__name__, flush=True)\n"
        ),
    )
    project = SmallProject(tmp_path, {"default": database.django}, {"demo.0001_item": ITEM})
    for path, text in PSYCOPG2_ALONE.items():
        project.write(path, text)
    project.succeed("migrate", "--verbosity=0")
    project.write_migration("demo.0002_asleep", asleep)
    before = databases.dump(database)

    with project.start("apply_migrations") as process:
        assert process.stdout is not None
        assert any(line.endswith("False psycopg2\n") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        _stdout, stderr = process.communicate()

    assert (process.returncode, stderr) == (1, "CommandError: ended by SIGTERM; what was done has been undone\n")
    assert not diff(before, databases.dump(database))
