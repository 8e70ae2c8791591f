"""More calls that fail: not about an operation, but about what the call finds, what it is told, and how it ends."""

import signal

from tests.support.failing_move import ROWS, FailingMove
from tests.support.failing_moves import ADD_NOTE, FAILING_RECEIVER, START, change, fails
from tests.support.small_migrations import run_python
from tests.support.small_project import migration

__all__ = ["CALLS"]

_BROKEN = {"demo.0001_start": START, "demo.0002_change": change(ADD_NOTE), "demo.0003_fails": fails()}
_CODE = "migrations.RunPython(forwards, nothing)"
# The project's own: each time it is asked it is an hour earlier than before, as in a long night of clocks put back.
_BACKWARDS = """
USE_TZ = False

from datetime import datetime, timedelta
from django.utils import timezone

class Clock(datetime):
    hours = 0

    @classmethod
    def now(cls, tz=None):
        cls.hours += 1
        return datetime(2026, 10, 25, 3) - timedelta(hours=cls.hours)

timezone.datetime = Clock
"""
_STOPPED = _BACKWARDS.replace("hours += 1", "hours += 0").replace("USE_TZ = False", "")
_WITH_TYPES = ["django.contrib.contenttypes", "django.contrib.auth"]
_TYPED_START = START.replace("dependencies = []", "dependencies = [('auth', '__latest__')]")
_RENAME = "migrations.RenameModel('Item', 'Thing')"
# One that hears a signal writes it down; the undo of a call is to send none.
_LISTENER = {
    "demo/management/__init__.py": """\
from django.db import connections
from django.db.models.signals import post_migrate, pre_migrate

def note(app_config, using, **kwargs):
    if app_config.label == "demo":
        with connections[using].cursor() as cursor:
            cursor.execute("INSERT INTO heard (id) VALUES (1)")

pre_migrate.connect(note)
post_migrate.connect(note)
"""
}


def _ends(name: str, body: str, returncode: int) -> FailingMove:
    """Return a call in which code that has written, outside a transaction, ends the process."""
    last = migration(_CODE, after=[("demo", "0002_change")], atomic=False, functions=run_python(body))
    return FailingMove(
        name=name,
        cases=(14,),
        migrations={**_BROKEN, "demo.0003_fails": last},
        returncode=returncode,
        says=["  Unapplying demo.0002_change... OK"],
    )


def _outside(name: str, number: int, *operations: str, functions: str = "", refused: bool = False) -> FailingMove:
    """Return a call whose first migration is outside a transaction and whose second fails."""
    return FailingMove(
        name=f"{name}, outside a transaction",
        cases=(number,),
        migrations={
            "demo.0001_start": START,
            "demo.0002_change": change(*operations, functions=functions, atomic=False),
            "demo.0003_fails": fails(),
        },
        refused=refused,
        outside=True,
    )


CALLS = [
    FailingMove(
        name="an empty table of migrations",
        cases=(1,),
        migrations=_BROKEN,
        rows="DROP TABLE demo_label; DROP TABLE demo_item; DROP TABLE demo_crate; DELETE FROM django_migrations;",
        says=["  Rolling back to the last migration state: demo zero", "  Unapplying demo.0001_start... OK"],
    ),
    FailingMove(name="a clock that steps back", cases=(5,), migrations=_BROKEN, settings=_BACKWARDS),
    FailingMove(
        name="records of one moment",
        cases=(22,),
        migrations={
            **_BROKEN,
            "demo.0003_fails": migration(ADD_NOTE.replace("note", "more"), after=[("demo", "0002_change")]),
            "demo.0004_fails": fails("0003_fails"),
        },
        rows=ROWS
        + "UPDATE django_migrations SET applied = '2026-10-25 03:00:00';"
        + "INSERT INTO django_migrations (id, app, name, applied)"
        " VALUES (9, 'demo', '0000_before', '2026-10-25 03:00:00');",
        settings=_STOPPED,
    ),
    _outside(
        "code without a way back", 10, "migrations.RunPython(forwards)", functions=run_python("pass"), refused=True
    ),
    _outside("a field removed from a table with rows", 11, "migrations.RemoveField('item', 'code')", refused=True),
    FailingMove(
        name="a field that may not be null removed from a table with rows",
        cases=(11,),
        migrations={**_BROKEN, "demo.0002_change": change("migrations.RemoveField('item', 'code')")},
        refused=True,
    ),
    FailingMove(
        name="a squash whose replaced files are gone",
        cases=(12,),
        migrations={
            "demo.0001_squashed": START.replace(
                "atomic = True", "replaces = [('demo', '0001_start'), ('demo', '0001_gone')]"
            ),
            "demo.0002_change": change(ADD_NOTE).replace("0001_start", "0001_squashed"),
            "demo.0003_fails": fails(),
        },
        rows=f"{ROWS} DELETE FROM django_migrations WHERE name = '0001_squashed'",
    ),
    _ends("KeyboardInterrupt", "raise KeyboardInterrupt", -signal.SIGINT),
    _ends("SystemExit", "raise SystemExit(7)", 7),
    FailingMove(
        name="the second operation, outside a transaction",
        cases=(15,),
        migrations={
            "demo.0001_start": START,
            "demo.0002_change": change(ADD_NOTE, _CODE, functions=run_python("raise ValueError('no')"), atomic=False),
        },
        outside=True,
    ),
    _outside("several operations", 15, ADD_NOTE, "migrations.RenameField('item', 'name', 'title')", _RENAME),
    FailingMove(
        name="content types before a migration that fails",
        cases=(17,),
        migrations={"demo.0001_start": _TYPED_START, "demo.0002_change": change(_RENAME), "demo.0003_fails": fails()},
        installed=_WITH_TYPES,
    ),
    FailingMove(
        name="what receivers of signals write",
        cases=(17,),
        migrations=_BROKEN,
        rows=f"{ROWS} CREATE TABLE heard (id integer)",
        later=_LISTENER,
    ),
    FailingMove(
        name="an operation that pre_migrate put in, outside a transaction",
        cases=(21,),
        migrations={"demo.0001_start": _TYPED_START, "demo.0002_change": change(_RENAME, atomic=False)},
        installed=_WITH_TYPES,
        later=FAILING_RECEIVER,
        outside=True,
    ),
    FailingMove(
        name="a table with deferred foreign keys filled and then altered",
        cases=(24,),
        migrations={
            "demo.0001_start": START,
            "demo.0002_change": change(
                "migrations.RunPython(forwards, nothing)",
                "migrations.AddField('label', 'size', models.IntegerField(default=0))",
                functions="def forwards(apps, editor):\n"
                "    crate = apps.get_model('demo', 'Crate').objects.get()\n"
                "    apps.get_model('demo', 'Label').objects.create(text='new', crate=crate)\n\n"
                "def nothing(apps, editor):\n"
                "    apps.get_model('demo', 'Label').objects.all().delete()\n",
            ),
            "demo.0003_fails": fails(),
        },
    ),
]
"""Each fails, and is to change nothing."""
