"""How much a finalising reads of tables while it holds their locks."""

import json
from typing import Final

from tests.support.small_project import SmallProject

__all__ = ["rows_read"]

# Run in a project: how many rows of its tables the transaction has read after it had its locks.
_LOOK: Final = """\
import json

from django.core.management import call_command
from django.db import connection

first = read = None


def look(execute, sql, *rest):
    global first, read
    result = execute(sql, *rest)
    if connection.in_atomic_block:
        with connection.connection.cursor() as cursor:
            cursor.execute("SELECT sum(seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname LIKE 'demo%'")
            rows = cursor.fetchone()[0]
        if "LOCK TABLE" in sql:
            first, read = rows, 0
        elif read is not None:
            read = max(read, rows - first)
    return result


with connection.execute_wrapper(look):
    call_command("finalise_migrations", verbosity=0)
print(json.dumps(int(read)))
"""


def rows_read(project: SmallProject, before: str = "") -> int:
    """Finalise a project, and return how many rows of its tables the transaction has read under its locks.

    Args:
        project: which; its tables are called `demo_...`.
        before: code that is run first.
    """
    project.write("look.py", before + _LOOK)
    return int(json.loads(project.succeed("shell", "--verbosity", "0", "--command", "import look").splitlines()[-1]))
