"""What code has renamed, and not named back, is not dropped with its rows where something is missing instead."""

from pathlib import Path

import pytest

from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases
from tests.support.rows_of_code import project_of

pytestmark = pytest.mark.timeout(120)

_VACUUM = "migrations.RunSQL('VACUUM', migrations.RunSQL.noop)"
_TABLE = "ALTER TABLE demo_item RENAME TO demo_thing"
_COLUMN = {
    Vendor.MYSQL: "ALTER TABLE demo_item CHANGE name title varchar(40) NOT NULL",
    Vendor.SQLITE: "ALTER TABLE demo_item RENAME name TO title",
}


@pytest.mark.parametrize("databases", [Vendor.SQLITE, Vendor.MYSQL], indirect=True)
@pytest.mark.parametrize("is_broken", [False, True], ids=["taken back", "broken off"])
@pytest.mark.parametrize("what", ["table", "column"])
def test_rows_stay_under_the_new_name(databases: NewDatabases, tmp_path: Path, what: str, *, is_broken: bool) -> None:
    database = databases.new()
    renaming = [_TABLE if what == "table" else _COLUMN[databases.vendor], *(["no"] if is_broken else [])]
    operation = f"migrations.RunSQL({renaming}, migrations.RunSQL.noop)"
    # No transaction of SQLite holds a migration that has this.
    further = [_VACUUM] if databases.vendor is Vendor.SQLITE else []
    project = project_of(tmp_path, database, operation, *further)

    result = project.run("apply_migrations")

    assert result.returncode == 4, result.stdout + result.stderr
    assert ("demo_thing" if what == "table" else "title") in result.stderr
    assert "'tea'" in databases.dump(database)
