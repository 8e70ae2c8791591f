"""The undo that code of a migration registers itself, for what it has done outside the database.

Needs the standard library alone, so that a migration may import it wherever it is loaded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Hooks", "on_rollback"]

# A thread that a migration starts has a context of its own, in which no call is at work.
_at_work: ContextVar["Hooks | None"] = ContextVar("smooth_migrations_hooks", default=None)


def on_rollback(undo: Callable[[], object]) -> None:
    """Have `undo` called if the call that is at work is taken back, after the database has been.

    For effects that no ROLLBACK reaches: a file, a message, a bucket. What was registered last is called first; an
    error in one keeps none of the others from being called. It is called once, outside a transaction, and not at all
    when the call succeeds, when the process is killed, or when its migration could not be taken back. A migration that
    is tried again after a lock time-out is taken back first, and registers again.

    Outside a call of `apply_migrations` or of a deploy, as under Django's own `migrate`, this does nothing.

    Args:
        undo: called without arguments, in the process of the migration.
    """
    hooks = _at_work.get()
    if hooks is not None:
        hooks.register(undo)


class Hooks:
    """What one call's migrations have registered.

    Args:
        migration: returns `app.name` of the migration at work, or None outside any.
    """

    def __init__(self, migration: Callable[[], str | None]) -> None:
        self._migration = migration
        self._registered: list[tuple[str | None, Callable[[], object]]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let `on_rollback` register here what runs within."""
        token = _at_work.set(self)
        try:
            yield
        finally:
            _at_work.reset(token)

    def register(self, undo: Callable[[], object]) -> None:
        """Remember what to call, and for which migration."""
        self._registered.append((self._migration(), undo))

    def call(self, *, kept: Iterable[object]) -> list[BaseException]:
        """Call what was registered, newest first, and forget it; return what that raised.

        Args:
            kept: the migrations, as `app.name`, whose changes stay, and for which nothing is called.
        """
        names = {*map(str, kept)}
        called = [entry for entry in self._registered if entry[0] not in names]
        self._registered = [entry for entry in self._registered if entry[0] in names]
        errors: list[BaseException] = []
        for migration, undo in reversed(called):
            try:
                undo()
            except BaseException as error:  # noqa: BLE001 - it joins the cause
                error.add_note(f"raised by what {migration or 'a receiver'} had registered with on_rollback")
                errors.append(error)
        return errors

    def forget(self) -> None:
        """Call nothing any more: what was done is wanted."""
        self._registered.clear()
