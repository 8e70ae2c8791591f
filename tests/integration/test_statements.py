"""What a call asks of the server beside what `migrate` asks, which is what it costs where the server is far away."""

from pathlib import Path
from typing import Final

from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import ITEM, KIND, NOTE
from tests.support.small_project import SmallProject

_FILE: Final = "statements"
_SETTINGS: Final = f"""
from django.db.backends.signals import connection_created

def _written_down(execute, sql, params, many, context):
    with open("{_FILE}", "a") as file:
        file.write(" ".join(str(sql).split()) + "\\n")
    return execute(sql, params, many, context)

def _watch(connection, **kwargs):
    connection.execute_wrappers.append(_written_down)

connection_created.connect(_watch)
"""
# Those of the path, the lease, the journal, the look at what there is, the transaction and its marks. SQLite answers
# in-process.
_MORE: Final = {Vendor.POSTGRESQL: 16, Vendor.SQLITE: 16}


def statements(project: SmallProject, directory: Path, command: str) -> list[str]:
    (directory / _FILE).unlink(missing_ok=True)
    project.succeed(command)
    return (directory / _FILE).read_text().splitlines()


def test_a_call_with_nothing_to_do_sends_few_statements_more_than_migrate(
    databases: NewDatabases, tmp_path: Path
) -> None:
    directory = tmp_path / "project"
    project = SmallProject(
        directory,
        {"default": databases.new().django},
        {"demo.0001_item": ITEM, "demo.0002_note": NOTE, "demo.0003_kind": KIND},
        settings=_SETTINGS,
    )
    project.succeed("apply_migrations")

    ours, stock = (statements(project, directory, command) for command in ("apply_migrations", "migrate"))

    assert len(ours) - len(stock) <= _MORE[databases.vendor], "\n".join(ours)
    assert not set(stock) - set(ours)
