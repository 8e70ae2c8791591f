"""Extensions that were there before a migration names them outlast its way back, also where there are none at all."""

from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases
from tests.support.rows_of_code import project_of

pytestmark = pytest.mark.timeout(120)

_NAMES = "from django.contrib.postgres.operations import BtreeGinExtension, CreateCollation"


@pytest.mark.parametrize("atomic", [True, False], ids=["in a transaction", "each by itself"])
def test_what_was_there_stays_and_what_was_made_goes(
    stepping_databases: NewDatabases, tmp_path: Path, *, atomic: bool
) -> None:
    database = stepping_databases.new()
    operations = ["BtreeGinExtension()", "CreateCollation('own', 'C', deterministic=True)"]
    rows = "CREATE EXTENSION btree_gin" if stepping_databases.vendor is Vendor.POSTGRESQL else ""
    project = project_of(tmp_path, database, *operations, atomic=atomic, rows=rows, functions=_NAMES)
    # Outside a transaction, so that what is before it is committed.
    last = tmp_path / "project/demo/migrations/0003_fails.py"
    last.write_text(last.read_text().replace("atomic = True", "atomic = False"))
    before = stepping_databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stdout + result.stderr
    assert "  Unapplying demo.0002_change... OK\n" in result.stdout
    assert diff(before, stepping_databases.dump(database)) == ""
