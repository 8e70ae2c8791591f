"""Rows that code of a migration outside a transaction changed, where its phase was committed before another failed."""

from pathlib import Path

import pytest

from tests.support.deploys import assert_rolled_back_at_a_gate, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

_ADDS = migration(
    "migrations.RunPython(forwards, backwards)",
    after=[("demo", "0002_note")],
    atomic=False,
    functions="def forwards(apps, editor):\n"
    "    apps.get_model('demo', 'Item').objects.using(editor.connection.alias).create(name='new')\n\n"
    "def backwards(apps, editor):\n"
    "    apps.get_model('demo', 'Item').objects.using(editor.connection.alias).filter(name='new').delete()\n",
)


@pytest.mark.long
@pytest.mark.parametrize("commit", ["phase", pytest.param("deploy", marks=pytest.mark.long)])
def test_rows_of_committed_phases_are_taken_back(
    commit: str, pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {"demo.0002_note": NOTE, "demo.0003_kind": _ADDS}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        assert_rolled_back_at_a_gate(fleet, commit=commit)
