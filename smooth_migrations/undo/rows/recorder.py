"""Sees to it that every transaction in which code changes rows also writes down which, before it commits."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from smooth_migrations.interruption import Interruption
from smooth_migrations.undo.rows.images import Change, Images, chunks
from smooth_migrations.undo.rows.statements import Kind, kind_of
from smooth_migrations.undo.rows.tables import Table, UnknownError, Written
from smooth_migrations.undo.rows.vendors import vendor_of

__all__ = ["Recorder"]

_SETS = re.compile(r"\s*SET\b", re.IGNORECASE)

# Rows that are read, at the most, to find out what one piece of code has changed.
_MAX_READ = 1_000_000
# Characters of different statements in one transaction.
_MAX_TEXT = 4_000_000
# What goes past Django's wrappers around a cursor's `execute`, by the names that the drivers give it.
_PAST_WRAPPERS = ("callproc", "copy", "copy_expert", "copy_from", "stream")


class Recorder:
    """Records the rows that one piece of code changes, each in the transaction that changes it.

    A statement outside a transaction gets one of its own. A second session is opened at the first change, and closed
    by `close`; the tables are only read.

    Args:
        connection: the target's.
        interruption: of the call, which must not part a commit from what is written down of it.
        write: writes down, in the open transaction, which rows were changed, or that it cannot be told which:
            `{"unknown": why}`.
        prepare: called once before the first change, with the second session; nothing of it is in a transaction.
        write_over: writes down the same over another session.

    Attributes:
        is_unknown: whether it cannot be told which rows were changed.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        interruption: Interruption,
        write: Callable[[dict[str, Any]], None],
        prepare: Callable[[BaseDatabaseWrapper], None] | None = None,
        write_over: Callable[[BaseDatabaseWrapper, dict[str, Any]], None] | None = None,
    ) -> None:
        self._connection = connection
        self._interruption = interruption
        self._write = write
        self._prepare = prepare
        self._write_over = write_over
        self._vendor = vendor_of(connection)
        self._written = Written()
        self._length = 0
        self._number: str | None = None
        self._is_alone = False
        self._is_watching = False
        self._images: Images | None = None
        self._is_own = False
        self.is_unknown = False
        self._is_marked = False
        # How many statements were run since the server was asked for its count, and what it said then.
        self._run = 0
        self._base: int | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is run within; what is in an open transaction at the end is left to `flush` or `finish`."""
        own = self._connection.__dict__
        commit, rollback, open_cursor = self._connection.commit, self._connection.rollback, self._connection.cursor
        set_autocommit = self._connection.set_autocommit

        def committing() -> None:
            with self._interruption.held_back():
                try:
                    self.flush()
                except BaseException:
                    # Django turns autocommit on again afterwards, which commits what is still there.
                    rollback()
                    raise
                commit()
                self._is_marked |= self.is_unknown

        def rolling_back() -> None:
            rollback()
            self._forget()

        def setting_autocommit(autocommit: bool, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, FBT001 - as Django's
            with self._interruption.held_back():
                if autocommit and self._written.texts:
                    # It commits what is not committed yet.
                    self.flush()
                set_autocommit(autocommit, *args, **kwargs)

        def cursor() -> CursorWrapper:
            cursor = open_cursor()
            for name in _PAST_WRAPPERS:
                if hasattr(cursor, name):
                    cursor.__dict__[name] = self._past(getattr(cursor, name))
            return cursor

        with ExitStack() as stack:
            # Not by `execute_wrapper`, which takes the last one out when it ends, whoever has put it there since.
            self._connection.execute_wrappers.append(self)
            stack.callback(self._connection.execute_wrappers.remove, self)
            ends = {"commit": committing, "rollback": rolling_back, "set_autocommit": setting_autocommit}
            for name, replaced in {**ends, "cursor": cursor}.items():
                own[name] = replaced
                stack.callback(own.pop, name)
            yield

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Run a statement, with what makes its changes known; one of Django's execute wrappers."""
        kind = kind_of(str(sql))
        with ExitStack() as stack:
            if (kind is not Kind.NOTHING or self._is_watching) and not self._is_own:
                self._expect(str(sql), kind, stack)
            if kind is not Kind.ROWS:
                with self._numbered_again(str(sql)):
                    return execute(sql, params, many, context)
            if many:
                self._expect_batch()
            self._run += 1
            result = execute(sql, params, many, context)
            if many and self._base is not None:
                self.count()
            if not self._is_own:
                self._written.is_effective |= context["cursor"].rowcount != 0
                self._identify()
            return result

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take what is run within for nobody's code."""
        was, self._is_own = self._is_own, True
        try:
            yield
        finally:
            self._is_own = was

    def watch(self) -> None:
        """Ask the server before each commit what it has seen, too: what runs now may change rows in any way."""
        self._is_watching = True
        self.count()

    def count(self) -> None:
        """Ask the server how many statements it has run, to compare with how many are seen from here on."""
        with self.aside():
            self._base, self._run = self._vendor.statements(self._connection), 0

    def give_up(self, why: str) -> None:
        """Write down that it cannot be told which rows were changed. Safe to repeat."""
        self.is_unknown = True
        self._forget()
        if not self._is_marked:
            with self.aside():
                self._write({"unknown": why})
            # In a transaction it is written once more right before the commit, since a savepoint may take it back.
            self._is_marked = self._connection.get_autocommit()

    def _give_up_at_once(self, write: Callable[[BaseDatabaseWrapper, dict[str, Any]], None], why: str) -> None:
        """Write down that it cannot be told, over the second session: what is to be run stays if the rest does not."""
        try:
            other = self._second().other
            write(other, {"unknown": why})
            other.commit()
        except Error as error:
            self.give_up(f"{why}: {error}")
            return
        self.is_unknown = self._is_marked = True
        self._forget()

    def flush(self) -> None:
        """Write down, in the open transaction, which rows it has changed. Only reads tables; safe to repeat."""
        if self.is_unknown:
            self.give_up("as before")
        elif self._written.texts or (self._is_watching and not self._connection.get_autocommit()):
            with self.aside():
                try:
                    changes = self._changes()
                    found = [*chunks(changes, self._vendor.room(self._connection))] if changes else []
                except (UnknownError, Error) as error:
                    self.give_up(str(error))
                    return
                self._forget()
                for detail in found:
                    self._write(detail)

    def finish(self) -> None:
        """Write down what is in an open transaction, when the code has ended, and whether all of it was seen."""
        if self._connection.run_on_commit:
            self.give_up("it has more to do after its commit")
        elif not (self.is_unknown or self._written.texts or self._is_counted()):
            self.give_up("not all its statements were seen")
        self.flush()

    def close(self) -> None:
        """Close the second session. Safe to repeat."""
        if self._images is not None:
            self._images.other.close()
            self._images = None

    def _expect(self, sql: str, kind: Kind, stack: ExitStack) -> None:
        if kind is Kind.MORE:
            # It may commit what was changed before it.
            self.flush()
            self.give_up("its statements changed more than rows")
            return
        is_alone = self._is_alone = not self._connection.in_atomic_block and self._connection.get_autocommit()
        if kind is Kind.ROWS and not self.is_unknown and self._prepare is not None:
            with self.aside():
                self._second()
        if self.is_unknown:
            if is_alone:
                self.give_up("as before")
            return
        if is_alone:
            stack.enter_context(transaction.atomic(self._connection.alias))
        if kind is Kind.ROWS and sql not in self._written.texts:
            self._written.texts.add(sql)
            self._length += len(sql)
            with self.aside():
                if self._write_over is not None and self._vendor.lasting(self._connection, sql):
                    self._give_up_at_once(self._write_over, "no transaction holds what it writes")
            if self._length > _MAX_TEXT:
                self.give_up("its statements are too long")

    def _expect_batch(self) -> None:
        # How many statements a driver makes of it nobody counts, so it is counted up to here, and afterwards from here.
        self._written.is_batched = True
        if not (self.is_unknown or self._is_counted()):
            self.give_up("not all its statements were seen")

    def _past(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return what a cursor does past its wrappers; what is not in a transaction is not seen by anybody."""

        def told(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - a driver's
            if self._connection.get_autocommit() and not self._is_own:
                self.give_up("what it does outside a transaction is not seen")
            return run(*args, **kwargs)

        return told

    def _changes(self) -> list[tuple[Table, list[Change]]]:
        if self._connection.get_autocommit():
            raise UnknownError("its transaction was ended in another way than by a commit")
        if not self._is_counted():
            raise UnknownError("not all its statements were seen")
        self._check_number()
        if not self._vendor.has_written(self._connection, self._written):
            if self._written.is_effective:
                raise UnknownError("what its statements changed is not seen")
            return []
        images = self._second()
        if not self._vendor.is_fresh(self._connection):
            raise UnknownError("its transaction sees the rows of an earlier moment")
        try:
            return images.changes(self._written)
        finally:
            images.other.rollback()

    def _identify(self) -> None:
        """Remember the transaction's number, if it may last for longer than this statement."""
        if self._number is None and not (self._is_alone or self.is_unknown):
            with self.aside():
                self._number = self._vendor.number(self._connection)

    def _check_number(self) -> None:
        if self._number is not None and self._vendor.number(self._connection) != self._number:
            raise UnknownError("its transaction was ended in another way than by a commit")

    @contextmanager
    def _numbered_again(self, sql: str) -> Iterator[None]:
        """Let a setting be changed within, which a server may take for another transaction."""
        if self._number is None or self._is_own or not _SETS.match(sql):
            yield
            return
        try:
            with self.aside():
                self._check_number()
        except UnknownError as error:
            self.give_up(str(error))
        yield
        self._number = None
        self._identify()

    def _is_counted(self) -> bool:
        if self._base is None:
            return True
        with self.aside():
            count = self._vendor.statements(self._connection)
        return count is None or count - self._base == self._run

    def _second(self) -> Images:
        if self._images is None:
            # Not from the project's pool, which may be empty.
            other = self._connection.copy()
            other.settings_dict["OPTIONS"].pop("pool", None)
            self._images = Images(self._vendor, self._connection, other, _MAX_READ)
            try:
                self._vendor.prepare(other)
                if self._prepare is not None:
                    self._prepare(other)
                # In a transaction, which whoever stands between a program and its servers leads to the primary one.
                other.set_autocommit(False)
            except Error as error:
                self.give_up(f"a second session is needed: {error}")
        return self._images

    def _forget(self) -> None:
        self._written = Written()
        self._number = None
        self._length = 0
