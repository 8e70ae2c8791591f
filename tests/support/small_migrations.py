"""The migrations of an app `demo` that many tests have in common."""

from tests.support.small_project import migration

__all__ = [
    "BROKEN",
    "BROKEN_LATE",
    "BUILD",
    "COUNTING_APP",
    "DEFINES",
    "DEFINING",
    "ITEM",
    "KIND",
    "NOTE",
    "SLOW_TO_FAIL",
    "failing",
    "run_python",
]

ITEM = migration(
    "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
    "('name', models.CharField(max_length=40))])"
)
"""demo.0001_item"""

NOTE = migration(
    "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))",
    after=[("demo", "0001_item")],
)
"""demo.0002_note"""

_KIND = "migrations.AddField('item', 'kind', models.CharField(max_length=40, default='any'))"

BUILD = migration(
    "AddIndexConcurrently('item', models.Index(fields=['name'], name='demo_item_name'))",
    after=[("demo", "0001_item")],
    atomic=False,
)
"""demo.0002_note: an index that is built outside a transaction; PostgreSQL alone has such ones."""

KIND = migration(_KIND, after=[("demo", "0002_note")])
"""demo.0003_kind as it should be."""


DEFINES = "editor.connection.cursor().execute('DROP TABLE IF EXISTS nowhere')"
"""A line of code after which nobody can tell any more which rows it changes."""

DEFINING = f"def defining(apps, editor):\n    {DEFINES}\n\n"
"""The source of a function for `RunPython` that does just that, and is taken back by its reverse code."""


def run_python(body: str) -> str:
    """Return the source of functions for `RunPython`: `forwards` does this, `nothing` does nothing."""
    return f"def forwards(apps, editor):\n    {body}\n\ndef nothing(apps, editor):\n    pass\n"


def failing(body: str, *, atomic: bool = True) -> str:
    """Return demo.0003_kind with a second operation that runs this."""
    return migration(
        _KIND,
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0002_note")],
        atomic=atomic,
        functions=run_python(body),
    )


BROKEN = failing("raise ValueError('no such kind')")
"""demo.0003_kind, failing at its second operation."""

BROKEN_LATE = failing("raise ValueError('no such kind')", atomic=False)
"""The same outside a transaction."""

SLOW_TO_FAIL = failing("print('waiting', flush=True); threading.Event().wait()")
"""demo.0003_kind, waiting for ever once it has said so."""

COUNTING_APP = """
import os

from django.apps import AppConfig
from django.db.backends.postgresql.schema import DatabaseSchemaEditor

add_field = DatabaseSchemaEditor.add_field


def counted(self, model, field):
    with open(os.environ["SMALL_COUNTS"], "a") as file:
        print(self.connection.alias, file=file)
    return add_field(self, model, field)


class Demo(AppConfig):
    name = "demo"

    def ready(self):
        DatabaseSchemaEditor.add_field = counted
"""
"""The apps.py of `demo` that notes the alias of each added field, which a schema editor makes of a rendered model."""
