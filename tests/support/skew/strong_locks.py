"""Run in a project: the strong locks of each command, as its session holds them at its end, and which came late."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command
from django.db import connection

from smooth_migrations.locks import taking

# Weakest first (PostgreSQL manual, 13.3.1).
_MODES = ["ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]
_TABLES = "SELECT oid, relname FROM pg_class WHERE relkind IN ('r', 'p') AND relname ~ '^(demo_|things)'"
_LOCKS = "SELECT relation, mode FROM pg_locks WHERE pid = pg_backend_pid() AND granted AND relation = ANY(%s)"
_COMMANDS = (
    ("expand", "apply_migrations", "--expand"),
    ("back", "apply_migrations", "demo", "0001"),
    ("expand again", "apply_migrations", "--expand"),
    ("finalise", "finalise_migrations"),
    ("all back", "apply_migrations", "demo", "0001"),
    ("at once", "apply_migrations"),
)


def _looked_at(*command: str) -> tuple[dict[str, str], dict[str, str]]:
    """Run a command; return its locks by table, and by what statement it got those that were not taken together."""
    held: dict[int, int] = {}
    late: dict[str, str] = {}
    with connection.cursor() as cursor:
        cursor.execute(_TABLES)
        names = dict(cursor.fetchall())

    def look(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:  # noqa: ANN401 - Django's wrapper protocol
        result = execute(sql, *rest)
        if connection.in_atomic_block:
            with connection.connection.cursor() as cursor:
                found = cursor.execute(_LOCKS, [[*names]]).fetchall()
            for table, mode in found:
                if mode in _MODES and _MODES.index(mode) > held.get(table, -1):
                    held[table] = _MODES.index(mode)
                    if "LOCK TABLE" not in sql:
                        late[names[table]] = sql
        return result

    with connection.execute_wrapper(look):
        call_command(*command, verbosity=0)
    return {names[table]: _MODES[strength] for table, strength in held.items()}, late


@contextmanager
def _as_they_come() -> Iterator[None]:
    """Let each statement take its own locks."""
    statement = taking._TAKE
    taking._TAKE = "SELECT 1"  # type: ignore[misc]
    try:
        yield
    finally:
        taking._TAKE = statement  # type: ignore[misc]


together = {name: _looked_at(*command) for name, *command in _COMMANDS}
call_command("apply_migrations", "demo", "0001", verbosity=0)
with _as_they_come():
    needed = {name: _looked_at(*command)[0] for name, *command in _COMMANDS}
print(json.dumps({name: [*locks, needed[name]] for name, locks in together.items()}))  # noqa: T201 - the answer
