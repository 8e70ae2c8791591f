"""Keep a migration on the alias it is run for.

A `RunPython` that forgets `schema_editor.connection.alias` writes to `default`. While a target is migrated `default`
can be bound to it, and every other alias is either refused or joined to the call, so that its writes are undone too.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from smooth_migrations.errors import OtherAliasRefused
from smooth_migrations.protocol.values import OtherAliases

__all__ = ["Aliases"]


class Aliases:
    """The other aliases of one call.

    Args:
        connection: the target's connection.
        mode: refuse other aliases, or let them join in a transaction of their own each.
        bind_default: make `default` the target's connection while the call is at work.
        at_work: returns `app.name` of the migration at work, for the error's text.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        *,
        mode: OtherAliases,
        bind_default: bool,
        at_work: Callable[[], str | None],
    ) -> None:
        self._connection = connection
        self._mode = mode
        self._bind_default = bind_default
        self._at_work = at_work
        self._joined: dict[str, BaseDatabaseWrapper] = {}
        self._is_joining = False

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Guard the other aliases of this thread while migrations run."""
        with ExitStack() as stack:
            if self._bind_default and self._connection.alias != DEFAULT_DB_ALIAS:
                stack.enter_context(self._default_bound())
            if self._mode is OtherAliases.REFUSE:
                for connection in self._others():
                    stack.enter_context(connection.execute_wrapper(self._refuse))
            else:
                stack.enter_context(self._joining())
            yield

    def commit(self) -> None:
        """Commit what joined; while guarded, it joins anew. Safe to repeat."""
        self._end(lambda connection: connection.commit())
        if self._is_joining:
            self._join_connected()

    def rollback(self) -> None:
        """Roll back what joined. Safe to repeat."""
        self._end(lambda connection: connection.rollback())

    def _end(self, end: Callable[[BaseDatabaseWrapper], None]) -> None:
        while self._joined:
            _alias, connection = self._joined.popitem()
            if connection.connection is None:
                continue
            end(connection)
            connection.set_autocommit(True)

    def _others(self) -> Iterator[BaseDatabaseWrapper]:
        for alias in connections:
            connection = connections[alias]
            if connection is not self._connection:
                yield connection

    @contextmanager
    def _default_bound(self) -> Iterator[None]:
        original = connections[DEFAULT_DB_ALIAS]
        connections[DEFAULT_DB_ALIAS] = self._connection
        try:
            yield
        finally:
            connections[DEFAULT_DB_ALIAS] = original

    def _refuse(
        self, _execute: Callable[..., Any], _sql: str, _params: object, _many: object, context: dict[str, Any]
    ) -> NoReturn:
        migration = self._at_work()
        alias = context["connection"].alias
        where = f"migration {migration}" if migration else "a receiver of pre_migrate or post_migrate"
        raise OtherAliasRefused(
            f"{where} reached the alias {alias!r} while {self._connection.alias!r} is migrated",
            hint='use schema_editor.connection.alias in RunPython, or allow it with other_aliases = "allow"',
        )

    @contextmanager
    def _joining(self) -> Iterator[None]:
        self._join_connected()

        def joined_on_connect(connection: BaseDatabaseWrapper, **_kwargs: object) -> None:
            if connection is not self._connection:
                self._join(connection)

        connection_created.connect(joined_on_connect)
        self._is_joining = True
        try:
            yield
        finally:
            self._is_joining = False
            connection_created.disconnect(joined_on_connect)

    def _join_connected(self) -> None:
        for connection in self._others():
            if connection.connection is not None:
                self._join(connection)

    def _join(self, connection: BaseDatabaseWrapper) -> None:
        # Django treats a block on a connection without autocommit as nested (transaction.Atomic.__enter__), so
        # whatever the migration opens and closes there stays inside this transaction. A connection that is already
        # inside a block belongs to somebody else, who will end it.
        # A copy, such as another thread's, is nobody's alias here.
        is_copy = connection is not connections[connection.alias]
        if is_copy or connection.in_atomic_block or connection.alias in self._joined:
            return
        self._joined[connection.alias] = connection
        if connection.vendor == "sqlite":
            # Through the driver: Django's own way would run a statement, which a test case forbids on other aliases.
            connection.ensure_connection()
            connection.connection.execute("BEGIN")
            connection.autocommit = False
        else:
            connection.set_autocommit(False)
