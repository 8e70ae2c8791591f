"""Where a report says that an error has come from."""

from pathlib import Path

import pytest

from tests.support.deploys import LAST, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE, failing
from tests.support.small_project import migration


def test_an_error_names_the_operation_and_the_line_of_the_migrations_own_code(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    raising = "raise ValueError('no such kind')"
    release = {"demo.0002_note": NOTE, "demo.0003_kind": failing(raising)}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        outcome = fleet.deploy()

        error = outcome.report["error"]
        assert (outcome.exit_code, error["message"]) == (1, "no such kind"), outcome.stderr
        assert error["database"] != LAST
        assert error["operation"] == "Raw Python operation"
        file, _, number = error["place"].rpartition(":")
        assert Path(file).read_text().splitlines()[int(number) - 1].strip() == raising
        (failed, *_) = outcome.named("migration.failed")
        assert failed["error"]["place"] == error["place"]


@pytest.mark.parametrize(
    ("creates", "message"),
    [
        pytest.param("items.create(id=1, name='kite')", "UNIQUE constraint failed: demo_item.id", id="broken_block"),
        pytest.param("items.create(nothing=1)", "Item() got unexpected keyword arguments: 'nothing'", id="orphan"),
    ],
)
def test_what_sqlites_editor_finds_when_it_is_left_hides_no_error_of_the_migration(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer, creates: str, message: str
) -> None:
    # The editor looks for rows without their parents, which is a query in a broken block, or finds one.
    refers = "migrations.CreateModel('Part', [('id', models.BigAutoField(primary_key=True)), ('item', models.ForeignKey"
    code = f"""\
def forwards(apps, editor):
    if editor.connection.alias == 'kiosk':
        apps.get_model('demo', 'Part').objects.create(item_id=77)
        items = apps.get_model('demo', 'Item').objects
        {creates}

def nothing(apps, editor):
    pass
"""
    release = migration(
        f"{refers}('demo.item', models.CASCADE))])",
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0001_item")],
        functions=code,
    )
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_part": release}) as fleet:
        error = fleet.deploy().report["error"]

    assert (error["database"], error["message"]) == ("kiosk", message)
    assert error["operation"] == "Raw Python operation"
    number = error["place"].rpartition(":")[2]
    assert (
        (tmp_path / "project/demo/migrations/0002_part.py").read_text().splitlines()[int(number) - 1].endswith(creates)
    )
