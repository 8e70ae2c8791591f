"""Count the lock-table entries that a project's pending migrations take, beside what the inspection says they take.

Run as a script in a project's directory, with its settings named in the environment. Everything is rolled back, except
where a migration is not atomic. Writes a JSON object:

- `whole` and `each`: the inspection's `lock_entries` and `lock_entries_each`;
- `taken`: the objects that took an entry in any transaction of the call;
- `greatest`: of these, how many one migration added at most;
- `locked`: the objects locked at the end, on the fast path too.
"""

import json
import sys
from pathlib import Path

import django
from django.db import DEFAULT_DB_ALIAS, connections

from smooth_migrations.call import Call
from smooth_migrations.management.commands.apply_migrations import Command
from smooth_migrations.options import Options
from smooth_migrations.protocol import Inspect
from smooth_migrations.worker.inspection import inspect
from smooth_migrations.worker.known import Library

__all__: list[str] = []

_LOCKED = """
    SELECT concat_ws(' ', locktype, database, relation, transactionid, virtualxid, classid, objid, objsubid), fastpath
    FROM pg_locks WHERE pid = pg_backend_pid()
"""


class _Counting:
    """An observer that looks at `pg_locks` after each migration."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.greatest = 0

    def moved(self, *_args: object, **_options: object) -> None:
        self.look()

    def look(self) -> int:
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(_LOCKED)
            rows = cursor.fetchall()
        entries = {name for name, is_fast in rows if not is_fast}
        self.greatest = max(self.greatest, len(entries - self.taken))
        self.taken |= entries
        return len({name for name, _is_fast in rows})

    def began(self, *_args: object) -> None: ...

    def started(self, *_args: object) -> None: ...

    def failed(self, *_args: object, **_options: object) -> None: ...

    def undone(self, *_args: object, **_options: object) -> None: ...

    def undo_failed(self, *_args: object) -> None: ...

    def left(self, *_args: object) -> None: ...

    def retrying(self, *_args: object) -> None: ...

    def stepping(self, *_args: object) -> None: ...


def _count() -> dict[str, int]:
    connection = connections[DEFAULT_DB_ALIAS]
    report = inspect(Inspect(id=1, database=connection.alias, alias=connection.alias), connection, Library())
    assert not report.findings, report.findings
    counting = _Counting()
    call = Call(connection, Options(), counting)
    command = Command()
    options = vars(command.create_parser("manage.py", "apply_migrations").parse_args(["--no-input", "--verbosity=0"]))
    call.run(lambda: command.move(call, **options))
    locked = counting.look()
    if not call.committed:
        call.rollback()
    return {
        "whole": report.lock_entries,
        "each": report.lock_entries_each,
        "taken": len(counting.taken),
        "greatest": counting.greatest,
        "locked": locked,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    django.setup()
    sys.stdout.write(json.dumps(_count()))
