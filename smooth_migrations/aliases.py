"""Keep a migration on the alias it is run for.

A `RunPython` that forgets `schema_editor.connection.alias` writes to `default`. While a target is migrated `default`
can be bound to it, and every other alias is either refused or joined to the call, so that its writes are undone too.

What joined stays in a transaction of its own until the call ends, also where the target commits migration by migration:
reverse code is asked for the target, and may know nothing of the other alias. The price is that rows written there stay
locked until then. An alias that another call holds in its own transaction is written there, behind a savepoint: it
is committed with that call, and undone with either.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn

from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from smooth_migrations.errors import NotPreparable, OtherAliasRefused
from smooth_migrations.identity import identity
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import OtherAliases

__all__ = ["Aliases"]

# Statements that leave nothing to undo.
_READS = ("SELECT", "SHOW", "EXPLAIN", "PRAGMA", "SET")


class Aliases:
    """The other aliases of one call.

    Args:
        connection: the target's connection.
        mode: refuse other aliases, or let them join in a transaction of their own each.
        bind_default: make `default` the target's connection while the call is at work.
        at_work: returns `app.name` of the migration at work, for the error's text.

    Attributes:
        has_lost: whether what was to be kept is gone, with a connection that was lost: the call cannot go on.
        waits: whether to commit nothing yet: what it belongs to is in a transaction that is still open.
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
        self.has_lost = self.waits = False
        self._joined: dict[str, BaseDatabaseWrapper] = {}
        self._kept: dict[str, str] = {}
        # Those in transactions that other calls, which are held, have begun by joining.
        self._lent: set[str] = set()
        self._written: dict[str, str | None] = {}
        # In transactions of other calls: the savepoint before the first write, and the one that `keep` made.
        self._beside: dict[str, list[str]] = {}
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

    def keep(self) -> None:
        """Keep what joined so far out of `rollback`; the migration that wrote it is permanent.

        Raises:
            DatabaseError: a connection is lost, and with it what was kept before.
        """
        self._check()
        self.commit_own()
        for alias, connection in self._joined.items():
            if not _is_idle(connection):
                self._kept[alias] = str(connection.savepoint())
        for alias, marks in self._beside.items():
            marks[1:] = [str(connections[alias].savepoint())]

    def commit_own(self) -> None:
        """Commit what joined from the very database that is moved; while guarded, it joins anew. Safe to repeat.

        What an open transaction has locked there would keep the next migration waiting for ever.
        """
        for alias, connection in [*self._joined.items()]:
            if identity(connection) == identity(self._connection) and not self.waits:
                self._end(alias, commit=True)
        self._join_again()

    def has_written_here(self) -> bool:
        """Return whether a migration has written to the database that is moved, over another alias."""
        return any(identity(connections[alias]) == identity(self._connection) for alias in self._written)

    def refuse_to_prepare(self) -> None:
        """Make sure that nothing joined which the target's prepared transaction would have to wait for.

        Raises:
            NotPreparable: a migration has written to an alias whose transaction would be lost with this process.
        """
        for alias in self._written:
            raise NotPreparable(
                f"migration {self._written[alias]} of {self._connection.alias!r} has written to the alias {alias!r}, "
                "whose transaction cannot be prepared with it",
                hint=f"let {self._connection.alias!r} be held open, or move {alias!r} in a phase before it",
            )

    def refuse_to_release(self, connection: BaseDatabaseWrapper) -> None:
        """Make sure that an alias may be moved itself, by another call, after this one.

        Raises:
            OtherAliasRefused: a migration of this call has written there, and neither call could undo that.
        """
        if connection.alias in self._written:
            raise OtherAliasRefused(
                f"migration {self._written[connection.alias]} of {self._connection.alias!r} has written to the alias "
                f"{connection.alias!r}, which is to be migrated after it",
                hint=f"put {connection.alias!r} into a phase before {self._connection.alias!r}",
            )

    def release(self, connection: BaseDatabaseWrapper) -> None:
        """Let go of an alias that is about to be moved itself: no call may refuse that. Safe to repeat."""
        if self._joined.get(connection.alias) is connection:
            self._end(connection.alias, commit=True)

    def rollback(self) -> None:
        """Roll back what joined since `keep`. Safe to repeat."""
        self._take_back_beside(-1)
        for alias, connection in [*self._joined.items()]:
            if alias not in self._kept:
                self._end(alias, commit=False)
                continue
            try:
                connection.savepoint_rollback(self._kept[alias])
            except Error:
                # Lost with its connection, or made permanent by DDL on a server that commits at that.
                self.has_lost = True
                self._end(alias, commit=False)

    def commit(self) -> None:
        """Commit all that joined; while guarded, it joins anew. Safe to repeat.

        Raises:
            DatabaseError: a connection is lost, and with it what was kept before.
        """
        self._check()
        if self.waits:
            return
        self._beside.clear()
        for alias in [*self._joined]:
            self._end(alias, commit=True)
        self._join_again()

    def drop(self) -> None:
        """Roll back all that joined. Safe to repeat."""
        self._take_back_beside(0)
        for alias in [*self._joined]:
            self._end(alias, commit=False)

    def _take_back_beside(self, mark: int) -> None:
        for alias, marks in self._beside.items():
            # Where the other call has ended, so has what was written within it.
            if _is_taken(connections[alias]):
                # One that is broken cannot be committed any more.
                with suppress(Error):
                    connections[alias].savepoint_rollback(marks[mark])
            self._written.pop(alias, None)
        self._beside.clear()

    def _check(self) -> None:
        self.has_lost = self.has_lost or any(self._joined[alias].connection is None for alias in self._kept)
        if self.has_lost:
            raise DatabaseError("what earlier migrations wrote to another alias is lost with its connection")

    def _end(self, alias: str, *, commit: bool) -> None:
        connection = self._joined.pop(alias)
        self._kept.pop(alias, None)
        self._written.pop(alias, None)
        if connection.connection is None:
            return
        if commit:
            with passing("commit_alias"):
                connection.commit()
                connection.set_autocommit(True)
            return
        try:
            with passing("rollback_alias"):
                connection.rollback()
                connection.set_autocommit(True)
        except Error:
            connection.close()

    def _join_again(self) -> None:
        if self._is_joining:
            self._join_connected()

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

    def _watch(
        self, execute: Callable[..., Any], sql: str, params: object, many: object, context: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - as Django's
        """Run a statement on another alias, and note whether it writes; one of Django's execute wrappers."""
        connection = context["connection"]
        alias = connection.alias
        if not str(sql).lstrip().upper().startswith(_READS):
            if alias in self._joined or alias in self._lent:
                self._written.setdefault(alias, self._at_work())
            if alias not in self._joined and alias not in self._beside and _is_taken(connection):
                self._beside[alias] = []  # the savepoint is a statement, too
                self._beside[alias].append(str(connection.savepoint()))
        return execute(sql, params, many, context)

    @contextmanager
    def _joining(self) -> Iterator[None]:
        with ExitStack() as stack:
            for connection in self._others():
                stack.enter_context(connection.execute_wrapper(self._watch))
            stack.enter_context(self._joining_connected())
            yield

    @contextmanager
    def _joining_connected(self) -> Iterator[None]:
        self._join_connected()

        def joined_on_connect(connection: BaseDatabaseWrapper, **_kwargs: object) -> None:
            if connection is self._connection or connection is not connections[connection.alias]:
                return
            # Another connection than the one that joined before.
            self._joined.pop(connection.alias, None)
            self.has_lost = self._kept.pop(connection.alias, None) is not None or self.has_lost
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
        # inside a block, or that joined another call before, belongs to somebody else, who will end it.
        # A copy, such as another thread's, is nobody's alias here.
        is_copy = connection is not connections[connection.alias]
        if is_copy or connection.alias in self._joined:
            return
        if _is_taken(connection):
            if not connection.in_atomic_block:
                self._lent.add(connection.alias)
            return
        self._joined[connection.alias] = connection
        if connection.vendor == "sqlite":
            # Through the driver: Django's own way would run a statement, which a test case forbids on other aliases.
            connection.ensure_connection()
            connection.connection.execute("BEGIN")
            connection.autocommit = False
        else:
            connection.set_autocommit(False)


def _is_taken(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection is in a transaction of somebody's who will end it."""
    return connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)


def _is_idle(connection: BaseDatabaseWrapper) -> bool:
    """Return whether nothing has been said to the server yet, so that no transaction has begun there."""
    if connection.connection is None:
        return True
    return connection.vendor == "postgresql" and not connection.connection.info.transaction_status
