"""End a call from outside, only at moments at which it is known what has been done.

An exception raised by a signal between any two bytecodes could fall between a commit and the note of it. So a signal,
or another thread, only asks. What was asked for is raised before the next statement; in place of what the statement at
work raises, which is broken off on its server; and at once where Python code of a migration runs whose effects a
ROLLBACK takes back, or of which it is known that it is at work.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import Interrupted, sqlstate_of

__all__ = ["Interruption", "LockLimit"]

_CANCEL_TIMEOUT_S = 5.0
_AGAIN_S = 0.1
_QUERY_CANCELED = "57014"


class LockLimit(OperationalError):  # noqa: N818 - named by what happened
    """A statement has waited for longer than it may; to be tried again like any other that has."""

    sqlstate = "55P03"  # lock_not_available


class Interruption:
    """One call's, for one connection; nothing is raised before `arm`.

    Args:
        connection: the target's, whose statement is broken off.
        lock_timeout_ms: how long a statement within `lock_limited` may take; None for no limit.
    """

    def __init__(self, connection: BaseDatabaseWrapper, lock_timeout_ms: int | None = None) -> None:
        self._connection = connection
        self._lock_timeout_ms = lock_timeout_ms
        # Held while a statement is broken off, so that it can never be the statement after it.
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._reason: str | None = None
        self._is_armed = False
        self._in_statement = False
        self._session = 0
        self._windows = 0

    def ask(self, reason: str) -> None:
        """Ask for the end, from any thread or from a signal's handler; asking again changes nothing."""
        if self._reason is None:
            self._reason = reason
            threading.Thread(target=self._insist, name="smooth-interruption", daemon=True).start()

    def strike(self) -> None:
        """Raise here and now if the main thread is where that is harmless; called by a signal's handler in it.

        Raises:
            Interrupted: it is.
        """
        if self._windows and not self._in_statement:
            self.check()

    def check(self) -> None:
        """Raise what was asked for.

        Raises:
            Interrupted: somebody asked, and the call is armed.
        """
        if self._reason is not None and self._is_armed:
            self._is_armed = False
            self._settled.set()
            raise Interrupted(self._reason)

    def arm(self) -> None:
        """Begin an attempt.

        Raises:
            Interrupted: somebody has asked meanwhile.
        """
        self._windows = 0
        self._is_armed = True
        self.check()

    def stand_down(self) -> None:
        """Raise nothing from now on: what follows is an undo."""
        self._is_armed = False
        with self._lock:
            self._in_statement = False

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let nothing be raised within, where a commit and the note of it must not be parted."""
        was_armed, self._is_armed = self._is_armed, False
        try:
            yield
        finally:
            self._is_armed = was_armed

    @contextmanager
    def window(self) -> Iterator[None]:
        """Let it be raised at once within."""
        self.open()
        try:
            yield
        finally:
            self.close()

    @contextmanager
    def lock_limited(self, waits_for: str) -> Iterator[None]:
        """Break the statement within off after `lock_timeout_ms`: one that does little else than wait for locks.

        For what runs in no transaction, which could set a limit of its own.

        Args:
            waits_for: in words, what has lasted too long then.

        Raises:
            LockLimit: it has.
        """
        limit_ms = self._lock_timeout_ms
        if limit_ms is None:
            yield
            return
        guard, state = threading.Lock(), {"is_over": False, "was_broken_off": False}

        def insist() -> None:
            with guard:
                if not state["is_over"]:
                    state["was_broken_off"] = True
                    self._break_off()

        timer = threading.Timer(limit_ms / 1000, insist)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Error as error:
            if state["was_broken_off"] and sqlstate_of(error) == _QUERY_CANCELED:
                raise LockLimit(f"{waits_for} for {limit_ms / 1000:g} s") from error
            raise
        finally:
            with guard:
                state["is_over"] = True
            timer.cancel()

    def open(self) -> None:
        """Begin a window.

        Raises:
            Interrupted: somebody has asked before.
        """
        self._windows += 1
        self.check()

    def close(self) -> None:
        """End a window; one that was not begun is no error."""
        self._windows = max(self._windows - 1, 0)

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Run a statement, which may be broken off; one of Django's execute wrappers."""
        self.check()
        if self._connection.vendor == "mysql" and self._connection.connection is not None:
            # The driver tells no other thread while it is at work.
            self._session = self._connection.connection.thread_id()
        # Another wrapper may run statements before this one.
        was_in_statement, self._in_statement = self._in_statement, True
        try:
            return execute(sql, params, many, context)
        except Exception as error:
            if self._reason is None or not self._is_armed:
                raise
            self._is_armed = False
            self._settled.set()
            raise Interrupted(self._reason) from error
        finally:
            with self._lock:
                self._in_statement = was_in_statement

    def _insist(self) -> None:
        # A statement that had not yet reached its server is not broken off by the first attempt.
        while not self._settled.wait(_AGAIN_S):
            with self._lock:
                if self._in_statement and self._is_armed:
                    self._break_off()

    def _break_off(self) -> None:
        raw = self._connection.connection
        if raw is None:
            return
        # A server that cannot be asked is waited for: the statement ends at its time-out.
        with suppress(Error), self._connection.wrap_database_errors:
            if self._connection.vendor == "sqlite":
                raw.interrupt()
            elif self._connection.vendor == "mysql":
                self._kill_query(self._session)
            elif hasattr(raw, "cancel_safe"):
                raw.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
            elif hasattr(raw, "cancel"):
                raw.cancel()

    def _kill_query(self, session: int) -> None:
        # Only another session of the same user can do that (MariaDB documentation, KILL), and a connection belongs to
        # the thread that made it.
        other = self._connection.copy()
        other.settings_dict["OPTIONS"].setdefault("connect_timeout", int(_CANCEL_TIMEOUT_S))
        try:
            with other.cursor() as cursor:
                cursor.execute(f"KILL QUERY {session}")
        finally:
            other.close()
