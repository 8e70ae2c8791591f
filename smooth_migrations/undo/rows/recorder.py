"""Sees to it that every transaction in which code changes rows also writes down which, before it commits."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.interruption import Interruption
from smooth_migrations.undo.rows.images import Change, Images, chunks
from smooth_migrations.undo.rows.mysql import MySQL
from smooth_migrations.undo.rows.postgresql import PostgreSQL
from smooth_migrations.undo.rows.statements import Kind, kind_of, qualifiers_in, words_in
from smooth_migrations.undo.rows.tables import Table, UnknownError, Vendor, Written

__all__ = ["VENDORS", "Recorder"]

VENDORS: Final[dict[str, Vendor]] = {"mysql": MySQL(), "postgresql": PostgreSQL()}

# Rows that are read, at the most, to find out what one piece of code has changed.
_MAX_READ = 1_000_000
_MAX_WORDS = 100_000


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

    Attributes:
        is_unknown: whether it cannot be told which rows were changed.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        interruption: Interruption,
        write: Callable[[dict[str, Any]], None],
        prepare: Callable[[BaseDatabaseWrapper], None] | None = None,
    ) -> None:
        self._connection = connection
        self._interruption = interruption
        self._write = write
        self._prepare = prepare
        self._vendor = VENDORS[connection.vendor]
        self._written = Written(set(), set())
        self._has_written = False
        self._images: Images | None = None
        self._is_own = False
        self.is_unknown = False
        self._is_marked = False
        # How many statements were run since the server was asked for its count; None where that cannot be compared.
        self._run: int | None = 0
        self._base: int | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is run within; what is in an open transaction at the end is left to `flush` or `finish`."""
        own = self._connection.__dict__
        commit, rollback = self._connection.commit, self._connection.rollback

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

        with ExitStack() as stack:
            stack.enter_context(self._connection.execute_wrapper(self))
            own["commit"], own["rollback"] = committing, rolling_back
            stack.callback(own.pop, "commit")
            stack.callback(own.pop, "rollback")
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
            if kind is not Kind.NOTHING and not self._is_own:
                self._expect(str(sql), kind, stack)
            if kind is Kind.ROWS and self._run is not None:
                self._run = None if many else self._run + 1
            result = execute(sql, params, many, context)
            if kind is Kind.ROWS and not self._is_own:
                self._has_written |= context["cursor"].rowcount != 0
            return result

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take what is run within for nobody's code."""
        was, self._is_own = self._is_own, True
        try:
            yield
        finally:
            self._is_own = was

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

    def flush(self) -> None:
        """Write down, in the open transaction, which rows it has changed. Only reads tables; safe to repeat."""
        if self.is_unknown:
            self.give_up("as before")
        elif self._written.words:
            with self.aside():
                try:
                    found = [*chunks(self._changes())]
                except (UnknownError, Error) as error:
                    self.give_up(str(error))
                    return
                if self._has_written and not found:
                    # They were committed past Django, or changed nothing; which of the two nobody can tell.
                    self.give_up("what its statements changed is not seen")
                    return
                self._forget()
                for detail in found:
                    self._write(detail)

    def finish(self) -> None:
        """Write down what is in an open transaction, when the code has ended, and whether all of it was seen."""
        if self._connection.run_on_commit:
            self.give_up("it has more to do after its commit")
        elif not (self.is_unknown or self._written.words or self._is_counted()):
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
        is_alone = not self._connection.in_atomic_block and self._connection.get_autocommit()
        if not self.is_unknown and self._prepare is not None:
            with self.aside():
                self._second()
        if self.is_unknown:
            if is_alone:
                self.give_up("as before")
            return
        if is_alone:
            stack.enter_context(transaction.atomic(self._connection.alias))
        self._written.words |= words_in(sql)
        self._written.qualifiers |= qualifiers_in(sql)
        if len(self._written.words) > _MAX_WORDS:
            self.give_up("its statements name too many words")

    def _changes(self) -> list[tuple[Table, list[Change]]]:
        if self._connection.get_autocommit():
            raise UnknownError("its transaction was ended in another way than by a commit")
        if not self._is_counted():
            raise UnknownError("not all its statements were seen")
        images = self._second()
        if not self._vendor.is_fresh(self._connection):
            raise UnknownError("its transaction sees the rows of an earlier moment")
        try:
            return images.changes(self._written)
        finally:
            images.other.rollback()

    def _is_counted(self) -> bool:
        if self._base is None or self._run is None:
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
        self._written = Written(set(), set())
        self._has_written = False
