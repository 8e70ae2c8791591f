"""What cannot be printed changes neither what is done nor what the exit code says."""

import json
from pathlib import Path

import pytest

from tests.support.histories import execute
from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.small_migrations import NOTE, failing
from tests.support.small_project import SmallProject

pytestmark = pytest.mark.long_on("sqlite")

_FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), {descriptor})"


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
@pytest.mark.parametrize(("descriptor", "options"), [(1, []), (2, ["--json"])], ids=["console", "json"])
def test_a_disk_that_is_full_for_what_is_told_of_an_undo_does_not_end_it(
    databases: NewDatabases, tmp_path: Path, descriptor: int, options: list[str], *, atomic: bool
) -> None:
    database = databases.new()
    body = f"{_FULL.format(descriptor=descriptor)}; raise ValueError('no such kind')"
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE, "demo.0003_kind": failing(body, atomic=atomic)})
    before = databases.dump(database)

    result = project.run("apply_migrations", *options)

    assert databases.dump(database) == before
    assert result.returncode == 1
    if options:
        assert json.loads(result.stdout)["outcome"] == "rolled_back"
    else:
        assert result.stderr.endswith("ValueError: no such kind\n")


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
@pytest.mark.parametrize(
    ("error", "shown"),
    [("ValueError('Größe')", "Gr\\xf6\\xdfe"), ("type('Odd', (Exception,), {'__str__': len})()", "failed>")],
    ids=["letters that the output lacks", "no words"],
)
def test_an_error_that_cannot_be_printed_is_undone(
    databases: NewDatabases, tmp_path: Path, error: str, shown: str, *, atomic: bool
) -> None:
    database = databases.new()
    body = f"import sys; sys.stdout.reconfigure(encoding='ascii'); raise {error}"
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE, "demo.0003_kind": failing(body, atomic=atomic)})
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1
    assert f"{shown}\n" in result.stdout
    assert databases.dump(database) == before


def test_a_report_that_cannot_be_printed_goes_to_standard_error_with_the_exit_code_of_the_outcome(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project_of(tmp_path, database)
    full = f"os.environ.get('FULL', 'yes') and {_FULL.format(descriptor=1)}"
    project = SmallProject(
        tmp_path / "full",
        {"default": database.django},
        {"demo.0001_item": (tmp_path / "project/demo/migrations/0001_item.py").read_text(), "demo.0002_note": NOTE},
        settings=full,
    )

    result = project.run("apply_migrations", "--json")

    assert (result.returncode, json.loads(result.stderr.splitlines()[-1])["outcome"]) == (0, "committed")
    execute(database, "INSERT INTO demo_item (name, note) VALUES ('tea', 'green')")
