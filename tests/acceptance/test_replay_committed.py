"""What is done to an empty database is done to others where each migration is committed by itself, too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

_COUNT: Final = 3
_CODE: Final = "migrations.RunPython(forwards, migrations.RunPython.noop)"
_SORT: Final = (
    "migrations.CreateModel('Sort', [('id', models.BigAutoField(primary_key=True)), "
    "('item', models.ForeignKey('demo.item', models.CASCADE)), ('of', Key('demo.item', models.CASCADE, "
    "related_name='+')), ('note', models.CharField(max_length=9, unique=True))])"
)
_COUNTED: Final = """
import os


class Key(models.ForeignKey):
    pass


def forwards(apps, editor):
    alias = editor.connection.alias
    item = apps.get_model('demo', 'Item')
    item.objects.using(alias).create(name=f'{alias} {editor.connection.in_atomic_block} {item._meta.db_table}')
"""
_BUILT: Final = """
import os

from django.apps import AppConfig
from django.db.backends.postgresql.schema import DatabaseSchemaEditor

create_model = DatabaseSchemaEditor.create_model


def counted(self, model):
    with open(os.environ["SMALL_COUNTS"], "a") as file:
        print(self.connection.alias, model.__name__, file=file)
    return create_model(self, model)


class Demo(AppConfig):
    name = "demo"

    def ready(self):
        DatabaseSchemaEditor.create_model = counted
"""
_RELEASE: Final = {
    "demo.0001_item": ITEM,
    # A field of somebody else: the operation runs on each, and leaves its constraints to the migration's end.
    "demo.0002_sort": migration(
        "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none', db_index=True))",
        _SORT,
        "migrations.RenameField('sort', 'of', 'whose')",
        after=[("demo", "0001_item")],
        functions=_COUNTED,
    ),
    "demo.0003_outside": migration(
        _CODE,
        "migrations.RenameModel('Sort', 'Kind')",
        "migrations.AddField('kind', 'other', models.ForeignKey('demo.item', models.CASCADE, null=True, "
        "related_name='+'))",
        "migrations.RunSQL('ALTER TABLE demo_kind ADD more int', migrations.RunSQL.noop, "
        "state_operations=[migrations.AddField('kind', 'more', models.IntegerField(null=True))])",
        "AddIndexConcurrently('kind', models.Index(fields=['more'], name='kind_more'))",
        "migrations.SeparateDatabaseAndState(database_operations=[migrations.RenameField('kind', 'more', 'less')], "
        "state_operations=[migrations.RenameField('kind', 'more', 'less')])",
        "migrations.RunPython(forwards, migrations.RunPython.noop, atomic=True)",
        after=[("demo", "0002_sort")],
        atomic=False,
        functions=_COUNTED,
    ),
    "demo.0004_last": migration(
        "migrations.AddIndex('kind', models.Index(fields=['note', 'other'], name='kind_note'))",
        _CODE,
        after=[("demo", "0003_outside")],
        functions=_COUNTED,
    ),
}


@contextmanager
def _empty(server: PostgresServer, directory: Path, release: dict[str, str]) -> Iterator[ManyDatabases]:
    directory.mkdir(exist_ok=True)
    with many_databases(directory, [server], _COUNT, release) as many:
        many.make_empty()
        plan = many.directory / "deploy.toml"
        lines = plan.read_text().replace("parallel = 4", "parallel = 1")
        plan.write_text(lines.replace('minimum_atomicity = "two_phase"', 'minimum_atomicity = "compensated"'))
        yield many


def _assert_committed(outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
    assert {entry["tier"] for entry in outcome.report["databases"]} == {"compensated"}


def test_replay_on_and_off_give_the_same(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []
    for name, options in (("on", []), ("off", ["--no-replay"])):
        counts = tmp_path / f"{name}.counts"
        monkeypatch.setenv("SMALL_COUNTS", str(counts))
        with _empty(pg_server, tmp_path / name, _RELEASE) as many:
            (many.directory / "project/demo/apps.py").write_text(_BUILT)
            _assert_committed(many.run("deploy", *options))
            found.append(many.dumps(sequences=False))
            assert many.rows("SELECT name FROM demo_item ORDER BY id") == [
                [(f"shard_{number} {is_atomic} demo_item",) for is_atomic in (False, True, True)]
                for number in range(_COUNT)
            ]
        # The model with a field of somebody else is created by Django on each, and the other one on the first alone.
        expected = [f"shard_{number} Sort" for number in range(_COUNT)]
        built = counts.read_text().splitlines()
        assert [line for line in built if line.endswith("Sort")] == expected
        assert len([line for line in built if line.endswith("Item")]) == (1 if name == "on" else _COUNT)
    assert found[0] == found[1]


_ODD: Final = """
def forwards(apps, editor):
    if editor.connection.alias == 'shard_1':
        editor.execute('CREATE TABLE of_one_alone (id int)')
"""
_FAILS: Final = """
def forwards(apps, editor):
    if editor.connection.alias == 'shard_2':
        raise ValueError('no kites')
"""
_DIES: Final = """
def forwards(apps, editor):
    if editor.connection.alias == 'shard_2':
        os.kill(os.getpid(), signal.SIGKILL)
"""


def _ending(functions: str, *, atomic: bool = True) -> dict[str, str]:
    last = migration(_CODE, after=[("demo", "0004_last")], functions=functions, atomic=atomic)
    return _RELEASE | {"demo.0005_end": last}


def test_a_database_on_which_code_makes_something_else_is_done_again_by_itself(
    pg_server: PostgresServer, tmp_path: Path
) -> None:
    found = []
    for name, options in (("on", []), ("off", ["--no-replay"])):
        with _empty(pg_server, tmp_path / name, _ending(_ODD)) as many:
            outcome = many.run("deploy", *options)
            _assert_committed(outcome)
            found.append(many.dumps(sequences=False))
            applied = [entry["applied"] for entry in outcome.report["databases"]]
            assert [len(each) for each in applied] == [len(_ending(_ODD))] * _COUNT
            assert many.rows("SELECT count(*) FROM pg_tables WHERE tablename = 'of_one_alone'") == [
                [(int(number == 1),)] for number in range(_COUNT)
            ]
    assert found[0] == found[1]


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize(("functions", "error"), [(_FAILS, "ValueError"), (_DIES, "worker_lost")])
def test_what_fails_on_one_leaves_all_empty(
    pg_server: PostgresServer, tmp_path: Path, functions: str, error: str, *, atomic: bool
) -> None:
    with _empty(pg_server, tmp_path, _ending(functions, atomic=atomic)) as many:
        before = many.dumps(sequences=False)
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr[-3000:]
        assert outcome.report["error"]["type"] == error
        assert outcome.report["error"]["migration"] == "demo.0005_end"
        assert many.dumps(sequences=False) == before


_ODD_AND_DIES: Final = """
def forwards(apps, editor):
    alias = editor.connection.alias
    item = apps.get_model('demo', 'Item')
    item.objects.using(alias).create(name=alias)
    if alias == 'shard_1' and os.path.exists(os.environ['SMALL_COUNTS']):
        os.kill(os.getpid(), signal.SIGKILL)
    if alias == 'shard_1':
        open(os.environ['SMALL_COUNTS'], 'w').close()
        editor.execute('CREATE TABLE of_one_alone (id int)')
"""


def test_what_is_done_again_and_killed_then_is_emptied_all_the_same(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The replay differs, what it had committed is taken back, and the worker dies when all is run for real.
    monkeypatch.setenv("SMALL_COUNTS", str(tmp_path / "counts"))
    with _empty(pg_server, tmp_path, _ending(_ODD_AND_DIES, atomic=False)) as many:
        before = many.dumps(sequences=False)
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr[-3000:]
        assert outcome.report["error"]["type"] == "worker_lost"
        assert many.dumps(sequences=False) == before
