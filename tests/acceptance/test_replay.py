"""What is done to the first of several databases is done to the others: with the same result as if each were alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import COUNTING_APP, ITEM
from tests.support.small_project import migration

_COUNT = 3
_NOTE = "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none', db_index=True))"
_KIND = (
    "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True)), "
    "('item', models.ForeignKey('demo.item', models.CASCADE)), ('note', models.CharField(max_length=9, unique=True))])"
)
_AFTER = [("demo", "0001_item")]
_TOLD = """
import os

from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate
from django.db import connections


def tell(signal, using, apps, plan, **kwargs):
    moment = "pre" if signal is pre_migrate else "post"
    names = sorted(model.__name__ for model in apps.get_models() if model._meta.app_label == "demo")
    text = f"{moment} {len(plan)} {','.join(names)}"
    with connections[using].cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS told (told text)")
        cursor.execute("INSERT INTO told VALUES (%s)", [text])


class Demo(AppConfig):
    name = "demo"

    def ready(self):
        pre_migrate.connect(tell, sender=self)
        post_migrate.connect(tell, sender=self)
"""


_CODE = """
def forwards(apps, editor):
    alias = editor.connection.alias
    item, kind = apps.get_model('demo', 'Item'), apps.get_model('demo', 'Kind')
    gone = item.objects.using(alias).create(name='gone')
    kind.objects.using(alias).create(item=gone, note='gone')
    item.objects.using(alias).filter(name='gone').delete()
    item.objects.using(alias).create(name=f'{alias} {len(item._meta.related_objects)}')
"""

_SEEN = """
def forwards(apps, editor):
    with open(os.environ['SMALL_SEEN'], 'a') as file:
        print(editor.connection.alias, file=file)
"""

_FAILS_ON_THE_LAST = """
def forwards(apps, editor):
    if editor.connection.alias == 'shard_2':
        raise ValueError('no kites')
"""


@contextmanager
def _many(server: PostgresServer, directory: Path, **release: str) -> Iterator[ManyDatabases]:
    """Databases at demo.0001_item, and the migrations that come then, in a phase that is worked on one by one."""
    directory.mkdir(exist_ok=True)
    migrations = {"demo.0001_item": ITEM} | {f"demo.{name}": source for name, source in release.items()}
    with many_databases(directory, [server], _COUNT, migrations) as many:
        plan = many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("parallel = 4", "parallel = 1"))
        yield many


def _assert_committed(outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr


def _app(many: ManyDatabases, source: str) -> None:
    (many.directory / "project/demo/apps.py").write_text(source)


def test_models_are_built_for_the_first_alone(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _many(pg_server, tmp_path, **{"0002_note": migration(_NOTE, _KIND, after=_AFTER)}) as many:
        counts = tmp_path / "counts"
        monkeypatch.setenv("SMALL_COUNTS", str(counts))
        _app(many, COUNTING_APP)
        _assert_committed(many.run("deploy"))
        assert counts.read_text().split() == ["shard_0"]
        assert len({*many.dumps()}) == 1


def test_code_runs_on_each_database_between_the_models_of_its_moment(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = {
        "0002_kind": migration(_KIND, after=_AFTER),
        "0003_code": migration(
            "migrations.RunPython(forwards, migrations.RunPython.noop)", after=[("demo", "0002_kind")], functions=_CODE
        ),
        # By then no model of the project refers to Item.
        "0004_apart": migration("migrations.RemoveField('kind', 'item')", _NOTE, after=[("demo", "0003_code")]),
    }
    with _many(pg_server, tmp_path, **release) as many:
        counts = tmp_path / "counts"
        monkeypatch.setenv("SMALL_COUNTS", str(counts))
        _app(many, COUNTING_APP)
        _assert_committed(many.run("deploy"))
        assert counts.read_text().split() == ["shard_0"]
        assert many.rows("SELECT name FROM demo_item") == [[(f"shard_{number} 1",)] for number in range(_COUNT)]
        assert many.rows("SELECT note FROM demo_kind") == [[]] * _COUNT
        assert len({*many.dumps()}) == _COUNT


def test_records_that_code_writes_are_written_once(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = "INSERT INTO django_migrations (app, name, applied) VALUES ('moved', '0001_initial', now())"
    source = migration(
        f'migrations.RunSQL("{moved}", migrations.RunSQL.noop)',
        "migrations.RunPython(forwards, migrations.RunPython.noop)",
        after=_AFTER,
        functions=_SEEN,
    )
    with _many(pg_server, tmp_path, **{"0002_next": source}) as many:
        seen = tmp_path / "seen"
        monkeypatch.setenv("SMALL_SEEN", str(seen))
        _assert_committed(many.run("deploy"))
        assert seen.read_text().split() == ["shard_0", "shard_1", "shard_2"]
        assert many.rows("SELECT name FROM django_migrations WHERE app = 'moved'") == [[("0001_initial",)]] * _COUNT


@pytest.mark.parametrize("threshold", [0, 1], ids=["at once", "the second time"])
def test_a_driver_that_prepares_statements(pg_server: PostgresServer, tmp_path: Path, threshold: int) -> None:
    release = {"0002_note": migration(_NOTE, _KIND, after=_AFTER)}
    for number in range(3, 6):
        field = f"migrations.AddField('item', 'f{number}', models.IntegerField(default=1))"
        release[f"{number:04}_note"] = migration(field, after=[("demo", f"{number - 1:04}_note")])
    with _many(pg_server, tmp_path, **release) as many:
        settings = many.directory / "project/small_settings.py"
        options = {"server_side_binding": True, "prepare_threshold": threshold}
        text = f"for each in DATABASES.values():\n    each['OPTIONS'] = {options}\n"
        settings.write_text(f"{settings.read_text()}\n{text}")
        _assert_committed(many.run("deploy"))
        assert len({*many.dumps()}) == 1
        _assert_committed(many.run("rollback"))


def test_code_that_fails_on_one_database_fails_the_deploy_with_its_error(
    pg_server: PostgresServer, tmp_path: Path
) -> None:
    code = "migrations.RunPython(forwards, migrations.RunPython.noop)"
    release = {"0002_note": migration(_NOTE, code, after=_AFTER, functions=_FAILS_ON_THE_LAST)}
    with _many(pg_server, tmp_path, **release) as many:
        before = many.dumps(sequences=False)
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back")
        error = outcome.report["error"]
        assert (error["type"], error["message"], error["migration"]) == ("ValueError", "no kites", "demo.0002_note")
        assert many.dumps(sequences=False) == before


def test_replay_on_and_off_give_the_same(pg_server: PostgresServer, tmp_path: Path) -> None:
    release = {
        "0002_note": migration(_NOTE, _KIND, after=_AFTER),
        "0003_more": migration(
            "migrations.AlterField('item', 'note', models.CharField(max_length=80, unique=False, null=True))",
            "migrations.RemoveField('kind', 'item')",
            "migrations.RenameField('kind', 'note', 'remark')",
            after=[("demo", "0002_note")],
        ),
        "0004_last": migration(
            "migrations.AddIndex('kind', models.Index(fields=['remark'], name='kind_remark'))",
            "migrations.RenameModel('Kind', 'Sort')",
            after=[("demo", "0003_more")],
        ),
    }
    found = []
    for options in ([], ["--no-replay"]):
        with _many(pg_server, tmp_path / "-".join(["on", *options]), **release) as many:
            _app(many, _TOLD)
            _assert_committed(many.run("deploy", *options))
            found += many.dumps()
            assert many.rows("SELECT told FROM told") == [[("pre 3 Item",), ("post 3 Item,Sort",)]] * _COUNT
    assert len({*found}) == 1


def test_contract_halves_are_held_back_on_each(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = {
        "0002_note": migration(_NOTE, after=_AFTER),
        "0003_more": migration("migrations.RemoveField('item', 'name')", after=[("demo", "0002_note")]),
    }
    held = "SELECT seq, app, name, operation, kind, description, payload FROM smooth_migrations_contract ORDER BY seq"
    found, queues = [], []
    for options in ([], ["--no-replay"]):
        counts = tmp_path / "-".join(["counts", *options])
        monkeypatch.setenv("SMALL_COUNTS", str(counts))
        with _many(pg_server, tmp_path / "-".join(["on", *options]), **release) as many:
            plan = many.directory / "deploy.toml"
            text = plan.read_text().replace("expand_contract = false", "expand_contract = true")
            plan.write_text(text + '\n[finalise]\nbake_time = "0s"\n')
            _app(many, COUNTING_APP)
            outcome = many.run("deploy", *options)
            _assert_committed(outcome)
            assert counts.read_text().split() == [f"shard_{number}" for number in range(_COUNT if options else 1)]
            run_ids = many.rows("SELECT DISTINCT run_id FROM smooth_migrations_contract")
            assert run_ids == [[(outcome.report["run_id"],)]] * _COUNT
            queues += many.rows(held)
            found += many.dumps()
            _assert_committed(many.run("finalise"))
            found += many.dumps()
    assert len({*map(str, queues)}) == 1
    assert len(queues[0]) == len(release)
    # Of each run as it was deployed, and as it was finalised.
    assert len({*found}) == len(release)


_REMOVES = {
    "0002_note": migration(_NOTE, _KIND, after=_AFTER),
    "0003_more": migration("migrations.RemoveField('item', 'name')", after=[("demo", "0002_note")]),
}


@pytest.mark.parametrize("expands", ["false", "true"])
def test_the_way_back_is_replayed_too(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expands: str
) -> None:
    in_halves = expands == "true"
    # The way back adds the field again, and in halves that is not done.
    release = {"0002_note": migration(_NOTE, after=_AFTER)} if in_halves else _REMOVES
    with _many(pg_server, tmp_path, **release) as many:
        plan = many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("expand_contract = false", f"expand_contract = {expands}"))
        before = many.dumps(sequences=False)
        _assert_committed(many.run("deploy"))
        counts = tmp_path / "counts"
        monkeypatch.setenv("SMALL_COUNTS", str(counts))
        _app(many, COUNTING_APP.replace("add_field", "remove_field") if in_halves else COUNTING_APP)
        outcome = many.run("rollback")
        _assert_committed(outcome)
        assert counts.read_text().split() == ["shard_0"]
        assert many.dumps(sequences=False) == before
        unapplied = [item["unapplied"] for item in outcome.report["databases"]]
        assert unapplied == [[f"demo.{name}" for name in reversed(release)]] * _COUNT


def test_what_one_database_would_lose_is_not_lost_by_replay(pg_server: PostgresServer, tmp_path: Path) -> None:
    with _many(pg_server, tmp_path, **{"0002_note": migration(_NOTE, after=_AFTER)}) as many:
        before = many.dumps(sequences=False)
        _assert_committed(many.run("deploy"))
        with many.databases[1].connect() as session:
            session.execute("INSERT INTO demo_item (name, note) VALUES ('kite', 'red')")
        after = many.dumps()
        refused = many.run("rollback")
        assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
        assert [item["place"] for item in refused.report["errors"]] == ["shards:shard_1"], refused.stdout
        assert many.dumps() == after
        _assert_committed(many.run("rollback", "--discard-data"))
        dumps = many.dumps(sequences=False)
        assert [dumps[0], dumps[2]] == [before[0], before[2]]
        assert many.rows("SELECT name FROM demo_item") == [[], [("kite",)], []]


def test_code_runs_on_each(pg_server: PostgresServer, tmp_path: Path) -> None:
    functions = (
        "def forwards(apps, editor):\n"
        "    alias = editor.connection.alias\n"
        "    apps.get_model('demo', 'Item').objects.using(alias).update(note=alias)\n"
    )
    code = migration(
        "migrations.RunPython(forwards, migrations.RunPython.noop)",
        after=[("demo", "0002_note")],
        functions=functions,
    )
    last = migration(_KIND, after=[("demo", "0003_code")])
    release = {"0002_note": migration(_NOTE, after=_AFTER), "0003_code": code, "0004_kind": last}
    with _many(pg_server, tmp_path, **release) as many:
        for each in many.databases:
            with each.connect() as session:
                session.execute("INSERT INTO demo_item (name) VALUES ('kite')")
        _assert_committed(many.run("deploy"))
        assert many.rows("SELECT note FROM demo_item") == [[(f"shard_{number}",)] for number in range(_COUNT)]
        assert many.rows("SELECT count(*) FROM demo_kind") == [[(0,)]] * _COUNT


def test_a_default_that_is_another_one_each_time_is_asked_for_each(pg_server: PostgresServer, tmp_path: Path) -> None:
    field = "migrations.AddField('item', 'token', models.UUIDField(default=uuid.uuid4))"
    with _many(
        pg_server, tmp_path, **{"0002_token": migration(field, after=_AFTER, functions="import uuid\n")}
    ) as many:
        for each in many.databases:
            with each.connect() as session:
                session.execute("INSERT INTO demo_item (name) VALUES ('kite')")
        _assert_committed(many.run("deploy"))
        tokens = many.rows("SELECT token FROM demo_item")
        assert len({str(each) for each in tokens}) == _COUNT


def test_an_operation_that_is_not_djangos_own_runs_on_each(pg_server: PostgresServer, tmp_path: Path) -> None:
    functions = (
        "class Odd(migrations.AddField):\n"
        "    def database_forwards(self, app_label, editor, before, after):\n"
        "        if editor.connection.alias != 'shard_1':\n"
        "            super().database_forwards(app_label, editor, before, after)\n"
    )
    field = "Odd('item', 'note', models.CharField(max_length=40, default='none'))"
    with _many(pg_server, tmp_path, **{"0002_note": migration(field, after=_AFTER, functions=functions)}) as many:
        outcome = many.run("deploy")
        _assert_committed(outcome)
        assert many.new() == _COUNT - 1


def test_a_database_that_is_unlike_the_first_one_is_moved_for_real(pg_server: PostgresServer, tmp_path: Path) -> None:
    with _many(pg_server, tmp_path, **{"0002_note": migration(_NOTE, _KIND, after=_AFTER)}) as many:
        with many.databases[1].connect() as session:
            session.execute("CREATE INDEX of_ours ON demo_item (name)")
        outcome = many.run("deploy")
        _assert_committed(outcome)
        assert many.new() == _COUNT
        recorded = many.rows("SELECT array_agg(name ORDER BY id) FROM django_migrations WHERE app = 'demo'")
        assert recorded == [[(["0001_item", "0002_note"],)]] * _COUNT
        indexes = many.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        assert indexes[1] == sorted([*indexes[0], ("of_ours",)])
        assert indexes[0] == indexes[2]
        # Twice on the one that was unlike, and not on the next.
        assert [line["database"] for line in outcome.named("migration.applied")] == [
            f"shards:shard_{number}" for number in (0, 1, 1, 2)
        ]


def test_rows_in_the_way_are_told_as_ever(pg_server: PostgresServer, tmp_path: Path) -> None:
    operations = (_KIND, "migrations.AddConstraint('item', models.UniqueConstraint(fields=['name'], name='one'))")
    with _many(pg_server, tmp_path, **{"0002_kind": migration(*operations, after=_AFTER)}) as many:
        with many.databases[2].connect() as session:
            session.execute("INSERT INTO demo_item (name) VALUES ('kite'), ('kite')")
        before = many.dumps(sequences=False)
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        error = outcome.report["error"]
        assert (error["database"], error["migration"]) == ("shards:shard_2", "demo.0002_kind")
        assert 'could not create unique index "one"' in error["message"]
        assert many.dumps(sequences=False) == before
