"""What an operation that fills columns is given: limits, signals, and mistakes."""

import re
import signal
import time
from pathlib import Path

import pytest

from smooth_migrations import Backfill
from smooth_migrations.backfill.throttle import Throttle
from tests.support.django_connections import ask, connected
from tests.support.filled import fill, filling_project
from tests.support.histories import Database, SqliteDatabase, execute
from tests.support.new_databases import NewDatabases
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(120)

_UPPER = "'Item', {'note': Upper('name')}"
_SMALL = "batch_size=100, max_batch_size=100"
_DOCUMENT = Path(__file__).parents[2] / "docs/how-to/fill-a-column.md"


def _unfilled(database: Database) -> int:
    return int(ask(database, "SELECT count(*) FROM demo_item WHERE note IS NULL OR note <> upper(name)")[0][0])


def test_a_signal_that_cannot_be_read_is_waited_for(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    release = fill(f"{_UPPER}, {_SMALL}, max_load=('SELECT value FROM load_now', 5)")
    project = filling_project(tmp_path, database, release, rows=250)

    with project.start("migrate") as process:
        assert process.stderr is not None
        assert next(process.stderr) == "Fill note of Item in batches pauses: max_load cannot be read\n"
        assert _unfilled(database) == 250
        execute(database, "CREATE TABLE load_now (value integer)")
        execute(database, "INSERT INTO load_now VALUES (5)")
        process.communicate()

    assert process.returncode == 0
    assert _unfilled(database) == 0


def test_a_call_that_waits_for_a_signal_can_be_ended(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    project = filling_project(tmp_path, database, fill(f"{_UPPER}, max_load=('SELECT 9', 5)"), rows=250)
    before = stepping_databases.dump(database)

    with project.start("apply_migrations") as process:
        assert process.stderr is not None
        assert next(process.stderr) == "Fill note of Item in batches pauses: max_load is 9, above 5\n"
        process.send_signal(signal.SIGTERM)
        process.communicate()

    assert process.returncode not in {0, 4}
    assert stepping_databases.dump(database) == before


def test_a_lag_is_read_where_the_server_tells_it(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    project = filling_project(tmp_path, database, fill(f"{_UPPER}, max_replication_lag_s=5"), rows=250)

    result = project.run("migrate")

    if stepping_databases.vendor == "postgresql":
        assert (result.returncode, _unfilled(database)) == (0, 0)
    else:
        assert (result.returncode, _unfilled(database)) == (1, 250)
        assert "does not tell how far its replicas are behind: leave max_replication_lag_s out" in result.stderr


_WRONG = {
    "'Item', {}": "Backfill('Item', {}): no field is named: say {'field': expression}",
    "'no model', {'note': 1}": "Backfill('no model', {'note'}): that is no model's name: say 'Model', or 'app.Model'",
    "'Thing', {'note': 1}": "Backfill('Thing', {'note'}): there is no model demo.Thing: name one that there is before "
    "this migration, and depend on the migration that makes it",
    "'Item', {'size': 1}": "Backfill('Item', {'size'}): there is no field size: before this migration there are id, "
    "name, note, other, touched",
    "'Item', {'id': 1}, where=Q()": "Backfill('Item', {'id'}): id is of the primary key: batches go along that: change "
    "it in a migration before",
    "'Item', {'name': 'x'}": "Backfill('Item', {'name'}): name is never NULL: say by where=Q(…) which rows are to be "
    "filled, and no longer once they are",
    "'Item', {'note': 1}, batch_size=0": "Backfill('Item', {'note'}): batch_size is 0: it must be a number above 0",
    "'Item', {'note': 1}, batch_size=2.5": "Backfill('Item', {'note'}): batch_size is 2.5: it must be a whole number",
    "'Item', {'note': 1}, rows_per_second=-1": "Backfill('Item', {'note'}): rows_per_second is -1: it must be a number "
    "above 0",
    "'Item', {'note': 1}, max_load='SELECT 1'": "Backfill('Item', {'note'}): max_load is 'SELECT 1': say "
    "max_load=('SELECT …', limit)",
    "'Item', {'note': 1}, where=True": "Backfill('Item', {'note'}): where is no condition: say where=Q(…)",
}


@pytest.mark.parametrize("arguments", _WRONG)
def test_wrong_arguments_are_told_with_a_remedy(tmp_path: Path, arguments: str) -> None:
    database = SqliteDatabase(tmp_path / "one.sqlite3")
    project = filling_project(tmp_path, database, fill(arguments), rows=2)

    result = project.run("migrate")

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].partition(": ")[2] == _WRONG[arguments]
    assert ask(database, "SELECT count(*) FROM demo_item WHERE note IS NULL AND touched = 0") == [(2,)]


def test_it_is_squashed_with_all_its_arguments(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "one.sqlite3")
    limits = "batch_size=7, max_batch_size=70, batch_ms=5.0, rows_per_second=900, max_load=('SELECT 1', 2)"
    project = filling_project(tmp_path, database, fill(f"{_UPPER}, where=Q(touched=0), {limits}"), rows=20)

    project.succeed("squashmigrations", "demo", "0002", "--noinput")

    [squashed] = (tmp_path / "project/demo/migrations").glob("0001_*squashed*.py")
    text = squashed.read_text()
    assert all(limit in text for limit in limits.replace("('SELECT 1', 2)", "").split(", "))
    assert "max_load=('SELECT 1', 2)" in text
    assert "where=models.Q(('touched', 0))" in text or "where=django.db.models.Q(('touched', 0))" in text
    project.succeed("migrate")
    assert _unfilled(database) == 0


def test_no_more_rows_are_filled_in_a_second_than_were_asked_for(tmp_path: Path) -> None:
    operation = Backfill("Item", {"note": 1}, rows_per_second=100)
    with connected(SqliteDatabase(tmp_path / "one.sqlite3").django) as connection:
        throttle = Throttle(operation, connection)
        began_s = time.monotonic()
        throttle.rest(20, 0.05)
        took_s = time.monotonic() - began_s
    assert took_s >= 0.15
    assert throttle.most(1000) == 100


def test_the_example_of_the_documents_runs(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "one.sqlite3")
    [example] = re.findall(r"```python\n(.*?)```", _DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    customer = migration(
        "migrations.CreateModel('Customer', [('id', models.BigAutoField(primary_key=True)), "
        "('email', models.CharField(max_length=40)), ('email_lower', models.CharField(max_length=40, null=True))])"
    )
    release = {"shop.0007_customer_email_lower": customer, "shop.0008_fill": example}
    project = SmallProject(tmp_path / "project", {"default": database.django}, release)
    project.succeed("migrate", "shop", "0007")
    execute(database, "INSERT INTO shop_customer (email) VALUES ('Tea@Example.org')")

    project.succeed("migrate")

    assert ask(database, "SELECT email_lower FROM shop_customer") == [("tea@example.org",)]
