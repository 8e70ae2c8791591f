"""Look, from a second session, at a statement that takes long: whom it waits for, how far it has come."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from smooth_migrations.waits import Blocker, Look, Progress, Session

__all__ = ["Watch"]

_AFTER_S = 0.5
_EVERY_S = 0.25
_STOP_TIMEOUT_S = 2.0


class Watch:
    """Watches the statements of one connection.

    A second session is opened only for a statement that has taken half a second, or a third of the time that it may
    wait for a lock, and closed after it. A server that does not answer it is not asked again.

    Args:
        connection: whose statements are watched.
        name: the `application_name` of its session.
        on_wait: told once a wait who has what is waited for. This and the next are called in a thread of the watch's
            own, while the call's is in a statement.
        on_progress: told when an index has come further by a tenth, or to its next phase; None is not told.
        lock_timeout_ms: how long a statement waits for a lock.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        name: str,
        *,
        on_wait: "Callable[[tuple[Blocker, ...]], None]",
        on_progress: "Callable[[Progress], None] | None",
        lock_timeout_ms: int | None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._on_wait = on_wait
        self._on_progress = on_progress
        self._after_s = min(_AFTER_S, (lock_timeout_ms or 60_000) / 3000)
        self._stopping = threading.Event()
        # The statement at work: since when, and in which session, as MySQL and MariaDB number them.
        self._at_work: tuple[float, int | None] | None = None
        self._seen_waiting: tuple[int, ...] = ()
        self._seen_progress: tuple[str, str, int] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is run within."""
        if self._connection.vendor == "sqlite":
            # It can be asked by nobody.
            yield
            return
        thread = threading.Thread(target=self._watch, name="smooth-watch", daemon=True)
        thread.start()
        try:
            with self._connection.execute_wrapper(self):
                yield
        finally:
            self._stopping.set()
            thread.join(_STOP_TIMEOUT_S)

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Run a statement; one of Django's execute wrappers."""
        raw = self._connection.connection
        number = raw.thread_id() if self._connection.vendor == "mysql" and raw is not None else None
        # Another wrapper may run statements before this one.
        was_at_work, self._at_work = self._at_work, (time.monotonic(), number)
        try:
            return execute(sql, params, many, context)
        finally:
            self._at_work = was_at_work

    def _watch(self) -> None:
        while not self._stopping.wait(self._after_s / 4):
            at_work = self._at_work
            if at_work is not None and time.monotonic() - at_work[0] > self._after_s:
                try:
                    self._watch_statement(at_work)
                except Exception:  # noqa: BLE001 - as a project's receiver of connection_created may raise anything
                    return  # away, or forbidden: what that means for the call, the call itself says

    def _watch_statement(self, at_work: tuple[float, int | None]) -> None:
        from smooth_migrations.waits import LOOKS, Session  # noqa: PLC0415 - most calls wait for nobody

        look = LOOKS.get(self._connection.vendor)
        if look is None:
            return
        # Made here: a connection belongs to the thread that made it. Not from the project's pool, which may be empty.
        connection = self._connection.copy()
        connection.settings_dict["OPTIONS"].pop("pool", None)
        try:
            while self._at_work is at_work:
                self._tell(look, connection, Session(self._name, at_work[1]))
                if self._stopping.wait(min(_EVERY_S, self._after_s)):
                    return
        finally:
            connection.close()

    def _tell(self, look: "Look", connection: BaseDatabaseWrapper, session: "Session") -> None:
        blockers = look.blockers(connection, session)
        pids = tuple(blocker.pid for blocker in blockers)
        if pids and pids != self._seen_waiting:
            self._on_wait(blockers)
        self._seen_waiting = pids
        progress = look.progress(connection, session) if self._on_progress else None
        if progress is not None and self._on_progress is not None:
            seen = (progress.index, progress.phase, int((progress.percent or 0) // 10))
            if seen != self._seen_progress:
                self._seen_progress = seen
                self._on_progress(progress)
