"""Calls that fail, each after or within something that an undo has to bring back, on every kind of database."""

from tests.support.failing_move import ROWS, FailingMove
from tests.support.small_migrations import DEFINES, run_python
from tests.support.small_project import migration

__all__ = ["ADD_NOTE", "FAILING_RECEIVER", "MOVES", "START", "change", "fails"]

_CRATE = (
    "migrations.CreateModel('Crate', [('id', models.AutoField(primary_key=True)), "
    "('label', models.CharField(max_length=40))])"
)
_ITEM = (
    "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
    "('name', models.CharField(max_length=40)), ('code', models.CharField(max_length=20, unique=True)), "
    "('size', models.IntegerField(null=True)), "
    "('crate', models.ForeignKey('demo.crate', models.CASCADE, null=True))], "
    "options={'indexes': [models.Index(fields=['name'], name='demo_item_name')], "
    "'constraints': [models.UniqueConstraint(fields=['name', 'size'], name='demo_item_once')]})"
)
_LABEL = (
    "migrations.CreateModel('Label', [('id', models.BigAutoField(primary_key=True)), "
    "('text', models.CharField(max_length=40)), ('tone', models.IntegerField(null=True)), "
    "('ink', models.IntegerField(null=True)), ('crate', models.ForeignKey('demo.crate', models.CASCADE))])"
)
START = migration(_CRATE, _ITEM, _LABEL)
"""demo.0001_start: crates, the items in them, and labels of which there are none."""

_FAIL = run_python("raise ValueError('no')")
# The receivers of the installed applications have written their content types and permissions before.
FAILING_RECEIVER = {
    "demo/management/__init__.py": """\
from django.db.models.signals import post_migrate

def fail(app_config, **kwargs):
    if app_config.label == "demo":
        raise ValueError("no")

post_migrate.connect(fail)
"""
}


def change(*operations: str, functions: str = "", atomic: bool = True) -> str:
    """Return the source of demo.0002_change."""
    return migration(*operations, after=[("demo", "0001_start")], functions=functions, atomic=atomic)


def fails(*after: str) -> str:
    """Return the source of a migration of demo that fails, after these; after demo.0002_change without any."""
    names = after or ("0002_change",)
    return migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", name) for name in names], functions=_FAIL
    )


def _then_fails(
    name: str,
    *operations: str,
    functions: str = "",
    rows: str = ROWS,
    cases: tuple[int, ...] = (15,),
    refused: bool = False,
    stays: str | None = None,
) -> FailingMove:
    """Return a call whose first migration does this and whose second fails."""
    migrations = {
        "demo.0001_start": START,
        "demo.0002_change": change(*operations, functions=functions),
        "demo.0003_fails": fails(),
    }
    return FailingMove(name=name, cases=cases, migrations=migrations, rows=rows, refused=refused, stays=stays)


def _within(
    name: str,
    *operations: str,
    functions: str = "",
    rows: str = "",
    cases: tuple[int, ...] = (15,),
    stays: str | None = None,
) -> FailingMove:
    """Return a call that fails in the last of these operations."""
    migrations = {"demo.0001_start": START, "demo.0002_change": change(*operations, functions=functions)}
    return FailingMove(name=name, cases=cases, migrations=migrations, rows=ROWS + rows, stays=stays)


ADD_NOTE = "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))"
_SECOND_STEP = "migrations.RunPython(forwards, nothing)"
_UPDATE = "apps.get_model('demo', 'Item').objects.update(name='changed')"
_AFTER_NOTE = {
    "demo.0001_start": START,
    "demo.0002_change": change(ADD_NOTE),
    "demo.0003_more": migration(ADD_NOTE.replace("note", "more"), after=[("demo", "0002_change")]),
}

MOVES = [
    # What is taken back by its reverse operation.
    _then_fails("a field", ADD_NOTE),
    _then_fails(
        "a field and its values",
        ADD_NOTE,
        _SECOND_STEP,
        functions=run_python("apps.get_model('demo', 'Item').objects.update(note='filled')"),
    ),
    _then_fails(
        "a field for many to many", "migrations.AddField('item', 'tags', models.ManyToManyField('demo.crate'))"
    ),
    _then_fails(
        "a foreign key",
        "migrations.AddField('item', 'origin', models.ForeignKey('demo.crate', models.CASCADE, null=True, "
        "related_name='+'))",
    ),
    _then_fails(
        "a model with relations",
        "migrations.CreateModel('Part', [('id', models.BigAutoField(primary_key=True)), "
        "('item', models.ForeignKey('demo.item', models.CASCADE)), ('tags', models.ManyToManyField('demo.crate'))])",
    ),
    _then_fails("an index", "migrations.AddIndex('item', models.Index(fields=['size'], name='demo_item_size'))"),
    _then_fails("an index removed", "migrations.RemoveIndex('item', 'demo_item_name')"),
    _then_fails(
        "a unique constraint",
        "migrations.AddConstraint('item', models.UniqueConstraint(fields=['name', 'code'], name='demo_item_pair'))",
    ),
    _then_fails("a unique constraint removed", "migrations.RemoveConstraint('item', 'demo_item_once')"),
    _then_fails(
        "a unique constraint that begins with a foreign key",
        "migrations.AddConstraint('item', models.UniqueConstraint(fields=['crate', 'code'], name='demo_item_pair'))",
    ),
    _then_fails(
        "unique together",
        "migrations.AlterUniqueTogether('item', {('crate', 'code')})",
    ),
    _then_fails(
        "a check",
        "migrations.AddConstraint('item', models.CheckConstraint(condition=models.Q(size__gt=0), name='demo_item_gt'))",
    ),
    _then_fails("a field renamed", "migrations.RenameField('item', 'name', 'title')"),
    _then_fails("a foreign key renamed", "migrations.RenameField('item', 'crate', 'chest')"),
    _then_fails("a model renamed", "migrations.RenameModel('Item', 'Thing')"),
    _then_fails("a model renamed to which others refer", "migrations.RenameModel('Crate', 'Chest')"),
    _then_fails("a table renamed", "migrations.AlterModelTable('item', 'things')"),
    _then_fails("a table's comment", "migrations.AlterModelTableComment('item', 'what there is')"),
    _then_fails("a longer field", "migrations.AlterField('item', 'name', models.CharField(max_length=80))"),
    _then_fails(
        "a wider primary key",
        "migrations.AlterField('crate', 'id', models.BigAutoField(primary_key=True))",
    ),
    _then_fails(
        "a field made unique", "migrations.AlterField('item', 'size', models.IntegerField(null=True, unique=True))"
    ),
    _then_fails(
        "a field made not unique",
        "migrations.AlterField('item', 'code', models.CharField(max_length=20))",
    ),
    _then_fails(
        "a field that may not be null any more",
        "migrations.AlterField('item', 'size', models.IntegerField(default=0))",
        cases=(11,),
        refused=True,
    ),
    _then_fails(
        "a field of another type",
        "migrations.AlterField('item', 'code', models.IntegerField(unique=True))",
        cases=(11,),
        refused=True,
    ),
    _then_fails(
        "a field removed from a table without rows",
        "migrations.RemoveField('label', 'tone')",
    ),
    _then_fails(
        "a field removed from a table with rows", "migrations.RemoveField('item', 'size')", cases=(11,), refused=True
    ),
    _then_fails("a model without rows deleted", "migrations.DeleteModel('Label')"),
    _then_fails("a model with rows deleted", "migrations.DeleteModel('Item')", cases=(11,), refused=True),
    _then_fails(
        "values that nothing brings back",
        _SECOND_STEP,
        functions=run_python(_UPDATE),
        cases=(10,),
    ),
    _then_fails(
        "values that nothing brings back, by code that changes tables too",
        _SECOND_STEP,
        functions=run_python(f"{_UPDATE}; {DEFINES}"),
        cases=(10,),
        stays="its code was taken back by its reverse code; what that does not give back has changed",
    ),
    _then_fails(
        "code without a way back",
        "migrations.RunPython(forwards)",
        functions=run_python("pass"),
        cases=(10,),
        refused=True,
    ),
    _then_fails("a table made by SQL", "migrations.RunSQL('CREATE TABLE extra (id integer)', 'DROP TABLE extra')"),
    # What fails in the middle of one operation.
    _within(
        "code that had written", ADD_NOTE, _SECOND_STEP, functions=run_python(f"{_UPDATE}; raise ValueError('no')")
    ),
    _within(
        "code that had written outside a transaction",
        _SECOND_STEP.replace("nothing)", "nothing, atomic=False)"),
        functions=run_python(f"{_UPDATE}; raise ValueError('no')"),
    ),
    _within(
        "code that had written outside a transaction and changed tables too",
        _SECOND_STEP.replace("nothing)", "nothing, atomic=False)"),
        functions=run_python(f"{_UPDATE}; {DEFINES}; raise ValueError('no')"),
        stays="its code was broken off outside a transaction; rows that it had written stay",
    ),
    _within(
        "code that had made a table",
        _SECOND_STEP,
        # Django refuses DDL in a block only where its own editor is asked for it.
        functions=run_python(
            "editor.connection.cursor().execute('CREATE TABLE extra (id integer)'); raise ValueError('no')"
        ),
    ),
    _within(
        "the second of two statements",
        "migrations.RunSQL(['CREATE TABLE extra (id integer)', 'CREATE TABLE demo_item (id integer)'], "
        "['SELECT 1', 'DROP TABLE extra'])",
    ),
    _within(
        "the second of two unique sets",
        "migrations.AlterUniqueTogether('item', {('code', 'size'), ('name',)})",
    ),
    _within(
        "the second of two tables",
        "migrations.CreateModel('Part', [('id', models.BigAutoField(primary_key=True)), "
        "('tags', models.ManyToManyField('demo.crate'))])",
        rows="CREATE TABLE demo_part_tags (id integer);",
    ),
    _within(
        "a foreign key that its rows violate",
        ADD_NOTE,
        "migrations.AddField('item', 'origin', models.ForeignKey('demo.crate', models.CASCADE, default=99, "
        "related_name='+'))",
    ),
    _within(
        "a connection that is lost",
        ADD_NOTE,
        _SECOND_STEP,
        functions=run_python("editor.connection.connection.close(); editor.execute('SELECT 1')"),
        cases=(23,),
    ),
    # What the call is, and what it finds.
    FailingMove(
        name="a database without anything",
        cases=(1,),
        migrations={**_AFTER_NOTE, "demo.0004_fails": fails("0003_more")},
        applied=None,
        rows="",
    ),
    FailingMove(
        name="a database with somebody else's table",
        cases=(1,),
        migrations={**_AFTER_NOTE, "demo.0004_fails": fails("0003_more")},
        applied=None,
        rows="CREATE TABLE somebody (id integer)",
    ),
    FailingMove(
        name="several migrations and a new app",
        cases=(2,),
        migrations={
            **_AFTER_NOTE,
            "shelf.0001_initial": migration(
                "migrations.CreateModel('Shelf', [('id', models.BigAutoField(primary_key=True)), "
                "('item', models.ForeignKey('demo.item', models.CASCADE))])",
                after=[("demo", "0003_more")],
            ),
            "demo.0004_fails": fails("0003_more").replace(
                "dependencies = [", "dependencies = [('shelf', '0001_initial'), "
            ),
        },
        says=["  Unapplying shelf.0001_initial... OK"],
    ),
    FailingMove(
        name="siblings, one's name the beginning of the other's",
        cases=(8, 13),
        migrations={
            "demo.0001_start": START,
            "demo.0002_add": change(ADD_NOTE),
            "demo.0002_add_more": change(ADD_NOTE.replace("note", "more")),
            "demo.0003_fails": fails("0002_add", "0002_add_more"),
        },
        says=["  Rolling back to the last migration state: demo 0001_start"],
    ),
    FailingMove(
        name="records from the future, out of order and of files that are gone",
        cases=(4, 12),
        migrations={"demo.0001_start": START, "demo.0002_change": change(ADD_NOTE), "demo.0003_fails": fails()},
        rows=ROWS
        + "UPDATE django_migrations SET applied = '2999-01-01 00:00:00', id = 4000;"
        + "INSERT INTO django_migrations (id, app, name, applied)"
        " VALUES (7, 'demo', '0001_gone', '2999-01-01 00:00:00'), (8, 'lost', '0001_initial', '2999-01-01 00:00:00');",
    ),
    FailingMove(
        name="what was only recorded",
        cases=(6,),
        migrations=_AFTER_NOTE,
        arguments=["--fake"],
        later=FAILING_RECEIVER,
        says=["  Unapplying demo.0003_more... OK"],
    ),
    FailingMove(
        name="what was found in place",
        cases=(6,),
        migrations={"demo.0001_start": START, "demo.0002_change": change(ADD_NOTE), "demo.0003_fails": fails()},
        rows=f"{ROWS} DELETE FROM django_migrations",
        arguments=["--fake-initial"],
        says=["  Unapplying demo.0001_start... OK"],
    ),
    FailingMove(
        name="a way back that fails",
        cases=(9,),
        migrations={
            "demo.0001_start": START,
            "demo.0002_change": change("migrations.RunPython(nothing, forwards)", functions=_FAIL),
            "demo.0003_more": migration(ADD_NOTE, after=[("demo", "0002_change")]),
        },
        applied=(),
        rows="INSERT INTO demo_item (name, code, note) VALUES ('tea', '01', 'green')",
        arguments=["demo", "0001"],
        says=["  Rolling back to the last migration state: demo 0003_more", "  Applying demo.0003_more... OK"],
        refused=True,
    ),
    FailingMove(
        name="a way back from a table without rows that fails",
        cases=(9,),
        migrations={
            "demo.0001_start": START,
            "demo.0002_change": change("migrations.RunPython(nothing, forwards)", functions=_FAIL),
            "demo.0003_more": migration(ADD_NOTE.replace("item", "label"), after=[("demo", "0002_change")]),
        },
        applied=(),
        arguments=["demo", "0001"],
    ),
    FailingMove(
        name="what comes after the migrations",
        cases=(19,),
        migrations=_AFTER_NOTE,
        later=FAILING_RECEIVER,
    ),
    FailingMove(
        name="content types and permissions",
        cases=(17, 21),
        migrations={
            "demo.0001_start": START.replace("dependencies = []", "dependencies = [('auth', '__latest__')]"),
            "demo.0002_change": change("migrations.RenameModel('Item', 'Thing')"),
        },
        installed=["django.contrib.contenttypes", "django.contrib.auth"],
        later=FAILING_RECEIVER,
    ),
    FailingMove(
        name="tables without migrations",
        cases=(16,),
        migrations={"demo.0001_start": START, "demo.0002_change": change(ADD_NOTE), "demo.0003_fails": fails()},
        arguments=["--run-syncdb"],
        installed=["plain"],
        files={
            "plain/__init__.py": "",
            "plain/models.py": "from django.db import models\n\nclass Plain(models.Model):\n    pass\n",
        },
    ),
    FailingMove(
        name="the record of a squash",
        cases=(21,),
        migrations={"demo.0001_start": START, "demo.0002_change": change(ADD_NOTE)},
        applied=(),
        rows="",
        later={
            "demo/migrations/0001_squashed.py": migration(_CRATE, _ITEM, _LABEL, ADD_NOTE).replace(
                "atomic = True", "replaces = [('demo', '0001_start'), ('demo', '0002_change')]"
            ),
            **FAILING_RECEIVER,
        },
    ),
]
