"""What may do something else on each database is not replayed: each gets its own, as with `--no-replay`."""

from pathlib import Path

import pytest

from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

_COUNT = 3
_AFTER = [("demo", "0001_item")]
_ADD = "migrations.AddField('item', 'note', models.CharField(max_length=90, default='x'))"
_OWN = f"database_operations=[{_ADD}], state_operations=[{_ADD}]"
_SKIPS = "if editor.connection.alias != 'shard_0': super().database_forwards(app_label, editor, before, after)\n"
_FORWARDS = f"    def database_forwards(self, app_label, editor, before, after):\n        {_SKIPS}"
_BY_ALIAS = """
class Sealed(models.CharField):
    def get_db_prep_save(self, value, connection):
        return f'{connection.alias}:{value}'
"""
_OF_ITS_OWN = """
import uuid

class Token(models.CharField):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{'default': 'unused'} | kwargs)

    def get_default(self):
        return uuid.uuid4().hex
"""
_EXPRESSION = """
class Here(models.Value):
    def as_sql(self, compiler, connection):
        return f"'{connection.alias}'", []
"""
_TYPE = """
class Mine(models.DecimalField):
    def db_type(self, connection):
        return f'numeric({20 + int(connection.alias[-1])})'

    def rel_db_type(self, connection):
        return self.db_type(connection)
"""
_LOOKUP = """
class Here(models.lookups.Exact):
    lookup_name = {name!r}

    def as_sql(self, compiler, connection):
        return f"'{{connection.alias}}' <> ''", []

models.CharField.register_lookup(Here)
"""
_REMEMBERS = """
def forwards(apps, editor):
    item, alias = apps.get_model('demo', 'Item'), editor.connection.alias
    item.seen = getattr(item, 'seen', None) or alias
    item.objects.using(alias).update(name=item.seen)
"""
_MANAGER_IN_PLACE = """
class Alive(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(name__startswith='shard')

def forwards(apps, editor):
    item, alias = apps.get_model('demo', 'Item'), editor.connection.alias
    item.objects.using(alias).create(name='spare')
    item.objects.using(alias).update(name=f'{alias} {item.objects.using(alias).count()}')
    item.add_to_class('objects', Alive())

def again(apps, editor):
    pass
"""
_FIELDS_IN_PLACE = """
def forwards(apps, editor):
    item, alias = apps.get_model('demo', 'Item'), editor.connection.alias
    item.objects.using(alias).update(name=f'{alias} {len(item._meta.local_fields) - 1}')
    models.IntegerField(null=True).contribute_to_class(item, 'later')

def again(apps, editor):
    pass
"""
_CONNECTED = """
def forwards(apps, editor):
    item, alias = apps.get_model('demo', 'Item'), editor.connection.alias
    calls = []
    models.signals.post_save.connect(lambda using, **_: COUNTS.append(using), sender=item, weak=False)
    COUNTS.clear()
    item.objects.using(alias).create(name='spare')
    item.objects.using(alias).update(name=f'{alias} {len(COUNTS)}')

def again(apps, editor):
    pass

COUNTS = []
"""
_ON_EDITOR = """
def forwards(apps, editor):
    editor.told = editor.connection.alias

def again(apps, editor):
    item, alias = apps.get_model('demo', 'Item'), editor.connection.alias
    item.objects.using(alias).update(name=f"{getattr(editor, 'told', 'nothing')} 1")
"""
_WITHOUT_MODELS = """
def forwards(apps, editor):
    editor.execute('UPDATE demo_item SET name = %s', [editor.connection.alias])
"""
_STATE_OF_ITS_OWN = """
class Extra(migrations.RunPython):
    def __init__(self):
        super().__init__(None.__class__, migrations.RunPython.noop)

    def state_forwards(self, app_label, state):
        extra = migrations.CreateModel('Extra', [('id', models.BigAutoField(primary_key=True))])
        extra.state_forwards(app_label, state)

    def database_forwards(self, app_label, editor, before, after):
        alias = editor.connection.alias
        editor.create_model(after.apps.get_model('demo', 'Extra'))
        after.apps.get_model('demo', 'Item').objects.using(alias).update(name=alias)

    def deconstruct(self):
        return 'Extra', [], {}
"""
_APPLY = """
class Base(migrations.Migration):
    def apply(self, state, editor, collect_sql=False):
        if editor.connection.alias == 'shard_0':
            return self.mutate_state(state, preserve=False)
        return super().apply(state, editor, collect_sql)
"""
_DURATION = "migrations.AddField('item', 'note', models.DurationField(default=dt.timedelta(days=-1, hours=1)))"
_DROPS = """
from django.apps import AppConfig
from django.db.models.signals import pre_migrate


def drop(using, plan, **kwargs):
    if using == {alias!r}:
        del plan[-1]


class Demo(AppConfig):
    name = 'demo'

    def ready(self):
        pre_migrate.connect(drop, sender=self)
"""
_DEFAULTS = """
from django.apps import AppConfig
from django.db.models.signals import pre_migrate


def name(using, plan, **kwargs):
    plan[0][0].operations[0].field.default = using


class Demo(AppConfig):
    name = 'demo'

    def ready(self):
        pre_migrate.connect(name, sender=self)
"""
_NOTED = """
from django.apps import AppConfig
from django.db.models.signals import post_migrate


def tell(using, apps, **kwargs):
    item = apps.get_model('demo', 'Item')
    field, registry = item._meta.get_field('name'), item._meta.apps
    assert registry is apps
    for noted in (field, apps):
        noted.seen = getattr(noted, 'seen', None) or using
    item.objects.using(using).update(name=f'{field.seen} {apps.seen}')


class Demo(AppConfig):
    name = 'demo'

    def ready(self):
        post_migrate.connect(tell, sender=self)
"""
_RECEIVER = """
from django.apps import AppConfig
from django.db.models.signals import post_migrate


def tell(using, apps, **kwargs):
    item = apps.get_model('demo', 'Item')
    item.seen = getattr(item, 'seen', None) or using
    item.objects.using(using).update(name=item.seen)


class Demo(AppConfig):
    name = 'demo'

    def ready(self):
        post_migrate.connect(tell, sender=self)
"""


def _deployed(server: PostgresServer, directory: Path, source: str, query: str, apps: str = "") -> list[object]:
    """Deploy a migration to three databases, one by one, and return what a query finds in each."""
    with many_databases(directory, [server], _COUNT, {"demo.0001_item": ITEM, "demo.0002_next": source}) as many:
        plan = many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("parallel = 4", "parallel = 1"))
        if apps:
            (many.directory / "project/demo/apps.py").write_text(apps)
        for each in many.databases:
            with each.connect() as session:
                session.execute("INSERT INTO demo_item (name) VALUES ('kite')")
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        return [_value(many, number, query) for number in range(_COUNT)]


def _value(many: ManyDatabases, number: int, query: str) -> object:
    with many.databases[number].connect() as session:
        return (session.execute(query).fetchone() or (None,))[0]


@pytest.mark.parametrize(
    ("field", "functions"),
    [
        ("Sealed(max_length=90, default='x')", _BY_ALIAS),
        ("Sealed(max_length=90, null=True)", _BY_ALIAS),
        ("Token(max_length=90)", _OF_ITS_OWN),
        ("Token(max_length=90, null=True)", _OF_ITS_OWN),
    ],
    ids=["value by connection", "no value by connection", "default of its own", "default of its own for none"],
)
def test_a_field_of_anothers(pg_server: PostgresServer, tmp_path: Path, field: str, functions: str) -> None:
    source = migration(f"migrations.AddField('item', 'note', {field})", after=_AFTER, functions=functions)
    assert len({*_deployed(pg_server, tmp_path, source, "SELECT note FROM demo_item")}) == _COUNT


def test_an_expression_of_anothers(pg_server: PostgresServer, tmp_path: Path) -> None:
    field = "migrations.AddField('item', 'note', models.CharField(max_length=90, db_default=Here('x')))"
    source = migration(field, after=_AFTER, functions=_EXPRESSION)
    assert _deployed(pg_server, tmp_path, source, "SELECT note FROM demo_item") == ["shard_0", "shard_1", "shard_2"]


def test_a_column_whose_type_a_field_of_anothers_says(pg_server: PostgresServer, tmp_path: Path) -> None:
    made = "expression=models.F('id'), output_field=Mine(max_digits=20, decimal_places=0), db_persist=True"
    field = f"migrations.AddField('item', 'made', models.GeneratedField({made}))"
    source = migration(field, after=_AFTER, functions=_TYPE)
    query = "SELECT numeric_precision FROM information_schema.columns WHERE column_name = 'made'"
    assert _deployed(pg_server, tmp_path, source, query) == [20, 21, 22]


@pytest.mark.parametrize("kind", ["field", "constraint"])
def test_what_going_back_makes_again_of_anothers(pg_server: PostgresServer, tmp_path: Path, kind: str) -> None:
    mine = "Mine(max_digits=20, decimal_places=0, null=True)"
    constraint = "models.CheckConstraint(condition=models.Q(name='x') | models.Q(name=Here('x')), name='here')"
    there, change, query = {
        "field": (
            f"migrations.AddField('item', 'mine', {mine})",
            "migrations.AlterField('item', 'mine', models.BigIntegerField(null=True))",
            "SELECT 'shard_' || numeric_precision - 20 FROM information_schema.columns WHERE column_name = 'mine'",
        ),
        "constraint": (
            f"migrations.AddConstraint('item', {constraint})",
            "migrations.RemoveConstraint('item', 'here')",
            "SELECT substring(pg_get_constraintdef(oid) FROM 'shard_.') FROM pg_constraint WHERE conname = 'here'",
        ),
    }[kind]
    release = {
        "demo.0001_item": ITEM,
        "demo.0002_there": migration(there, after=_AFTER, functions=f"{_TYPE}\n{_EXPRESSION}"),
    }
    with many_databases(tmp_path, [pg_server], _COUNT, release) as many:
        plan = many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("parallel = 4", "parallel = 1"))
        assert many.run("deploy").exit_code == 0
        file = many.directory / "project/demo/migrations/0003_next.py"
        file.write_text(migration(change, after=[("demo", "0002_there")]))
        assert many.run("deploy").exit_code == 0
        outcome = many.run("rollback")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        assert [_value(many, number, query) for number in range(_COUNT)] == ["shard_0", "shard_1", "shard_2"]


@pytest.mark.parametrize(("name", "key"), [("here", "name__here"), ("exact", "name")], ids=["named", "unnamed"])
def test_a_lookup_of_anothers(pg_server: PostgresServer, tmp_path: Path, name: str, key: str) -> None:
    constraint = f"models.CheckConstraint(condition=models.Q({key}='x'), name='here')"
    source = migration(
        f"migrations.AddConstraint('item', {constraint})", after=_AFTER, functions=_LOOKUP.format(name=name)
    )
    query = "SELECT substring(pg_get_constraintdef(oid) FROM 'shard_.') FROM pg_constraint WHERE conname = 'here'"
    assert _deployed(pg_server, tmp_path, source, query) == ["shard_0", "shard_1", "shard_2"]


@pytest.mark.parametrize("kind", ["operation", "migration"])
def test_an_operation_or_a_migration_that_does_otherwise(pg_server: PostgresServer, tmp_path: Path, kind: str) -> None:
    if kind == "operation":
        functions = f"class Odd(migrations.SeparateDatabaseAndState):\n{_FORWARDS}"
        source = migration(f"Odd({_OWN})", after=_AFTER, functions=functions)
    else:
        source = migration(_ADD, after=_AFTER, functions=_APPLY)
        source = source.replace("class Migration(migrations.Migration)", "class Migration(Base)")
    has_it = "SELECT count(*) FROM information_schema.columns WHERE (table_name, column_name) = ('demo_item', 'note')"
    assert _deployed(pg_server, tmp_path, source, has_it) == [0, 1, 1]


def test_models_that_remember(pg_server: PostgresServer, tmp_path: Path) -> None:
    operations = (_ADD, "migrations.RunPython(forwards, migrations.RunPython.noop)")
    source = migration(*operations, after=_AFTER, functions=_REMEMBERS)
    assert _deployed(pg_server, tmp_path, source, "SELECT name FROM demo_item") == ["shard_0", "shard_1", "shard_2"]


@pytest.mark.parametrize(
    ("functions", "found"),
    [
        (_MANAGER_IN_PLACE, ["shard_0 2", "shard_1 2", "shard_2 2"]),
        (_FIELDS_IN_PLACE, ["shard_0 2", "shard_1 2", "shard_2 2"]),
        (_CONNECTED, ["shard_0 1", "shard_1 1", "shard_2 1"]),
        (_ON_EDITOR, ["shard_0 1", "shard_1 1", "shard_2 1"]),
    ],
    ids=["managers", "fields", "receivers", "editor"],
)
def test_what_code_leaves_on_its_models(
    pg_server: PostgresServer, tmp_path: Path, functions: str, found: list[str]
) -> None:
    code = "migrations.RunPython(forwards, migrations.RunPython.noop)"
    again = "migrations.RunPython(again, migrations.RunPython.noop)"
    source = migration(_ADD, code, again, after=_AFTER, functions=functions)
    assert _deployed(pg_server, tmp_path, source, "SELECT max(name) FROM demo_item") == found


def test_models_of_which_one_is_not_there(pg_server: PostgresServer, tmp_path: Path) -> None:
    kind = "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True))])"
    refers = "migrations.AddField('item', 'kind', models.ForeignKey('demo.kind', models.CASCADE, null=True))"
    gone = "migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel('Kind')])"
    code = "migrations.RunPython(forwards, migrations.RunPython.noop)"
    source = migration(
        *(kind, refers, gone, code, f"migrations.SeparateDatabaseAndState(state_operations=[{kind}])"),
        after=_AFTER,
        functions=_WITHOUT_MODELS,
    )
    found = _deployed(pg_server, tmp_path, source, "SELECT name FROM demo_item")
    assert found == ["shard_0", "shard_1", "shard_2"]


def test_a_subclass_of_running_code_that_has_a_state_of_its_own(pg_server: PostgresServer, tmp_path: Path) -> None:
    source = migration("Extra()", after=_AFTER, functions=_STATE_OF_ITS_OWN)
    assert _deployed(pg_server, tmp_path, source, "SELECT name FROM demo_item") == ["shard_0", "shard_1", "shard_2"]


def test_receivers_whose_models_remember(pg_server: PostgresServer, tmp_path: Path) -> None:
    found = _deployed(pg_server, tmp_path, migration(_ADD, after=_AFTER), "SELECT name FROM demo_item", _RECEIVER)
    assert found == ["shard_0", "shard_1", "shard_2"]


def test_a_field_and_a_registry_that_remember(pg_server: PostgresServer, tmp_path: Path) -> None:
    found = _deployed(pg_server, tmp_path, migration(_ADD, after=_AFTER), "SELECT name FROM demo_item", _NOTED)
    assert found == [f"shard_{number} shard_{number}" for number in range(_COUNT)]


@pytest.mark.parametrize("alias", ["shard_0", "shard_1"])
def test_a_receiver_that_drops_a_migration(pg_server: PostgresServer, tmp_path: Path, alias: str) -> None:
    source, query = migration(_ADD, after=_AFTER), "SELECT count(*) FROM django_migrations WHERE name = '0002_next'"
    found = _deployed(pg_server, tmp_path, source, query, _DROPS.format(alias=alias))
    assert found == [int(f"shard_{number}" != alias) for number in range(_COUNT)]


def test_a_receiver_that_changes_a_field(pg_server: PostgresServer, tmp_path: Path) -> None:
    found = _deployed(pg_server, tmp_path, migration(_ADD, after=_AFTER), "SELECT note FROM demo_item", _DEFAULTS)
    assert found == ["shard_0", "shard_1", "shard_2"]


def test_a_server_that_reads_constants_otherwise(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    source = migration(_DURATION, after=_AFTER, functions="import datetime as dt\n")
    release = {"demo.0001_item": ITEM, "demo.0002_next": source}
    role = "writes_otherwise"
    with (
        many_databases(tmp_path, [pg_server, second_pg_server], 2, release) as many,
        second_pg_server.connect() as session,
    ):
        session.execute(f"DROP ROLE IF EXISTS {role}")
        session.execute(f"CREATE ROLE {role} SUPERUSER LOGIN")
        session.execute(f"ALTER ROLE {role} SET intervalstyle = 'sql_standard'")
        settings = many.directory / "project/small_settings.py"
        settings.write_text(f"{settings.read_text()}\nDATABASES['shard_1']['USER'] = {role!r}\n")
        for each in many.databases:
            with each.connect() as filling:
                filling.execute("INSERT INTO demo_item (name) VALUES ('kite')")
        outcome = many.run("deploy")
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        query = "SELECT extract(epoch FROM note)::int FROM demo_item"
        assert [_value(many, number, query) for number in range(2)] == [-82800, -82800]
