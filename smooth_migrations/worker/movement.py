"""What one command moves within its call, and what is told of it."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

from django.db import DatabaseError, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from smooth_migrations import protocol
from smooth_migrations.call import Call
from smooth_migrations.contract_queue import Queued, read_queue
from smooth_migrations.errors import Afresh
from smooth_migrations.finalising import Pending
from smooth_migrations.groundwork import Groundwork, standing_on
from smooth_migrations.management.commands.apply_migrations import Command as ApplyMigrations
from smooth_migrations.marker import make_table, remove_marker, write_marker
from smooth_migrations.measuring import Measuring
from smooth_migrations.plan_groundwork import plan_groundwork
from smooth_migrations.received import made_since, take_received
from smooth_migrations.replay import Recorder, Script, Shelf, is_lost, replay
from smooth_migrations.segments import AheadCall, SegmentEnds
from smooth_migrations.unapplying import unapply

__all__ = ["Movement"]

_QUIET = {
    "app_label": None,
    "migration_name": None,
    "interactive": False,
    "fake": False,
    "fake_initial": False,
    "plan": False,
    "run_syncdb": False,
    "check_unapplied": False,
    "prune": False,
    "verbosity": 0,
}


# All that a statement may mean otherwise by: how constants are written and read, where tables go, who owns them.
_SETTINGS: Final = """
    SELECT current_user::text, session_user::text,
           md5(string_agg(name || '=' || setting, E'\\n' ORDER BY name COLLATE "C"))
    FROM pg_settings
    WHERE (context IN ('user', 'superuser') OR name = 'server_encoding')
      AND name <> 'application_name' AND name NOT LIKE 'smooth_migrations.%'
"""


class Movement:
    """What a command moves; it begins afresh where a lock failure has the call tried again.

    Args:
        command: that asked.
        connection: the target's.
        call: in which it runs.
        shelf: of this worker.

    Attributes:
        made: what Django's receivers made beside.
        measured: what was seen of it, where that was asked for.
        contracted: the contract halves that it did.
    """

    def __init__(self, command: protocol.Apply, connection: BaseDatabaseWrapper, call: Call, shelf: Shelf) -> None:
        self._command = command
        self._connection = connection
        self._call = call
        self._shelf = shelf
        self._is_first = self._may_be_like_others = True
        self._measuring = Measuring(connection) if command.measures else None
        self.made = protocol.Received()
        self.measured: protocol.Measured | None = None
        self.contracted: list[protocol.ContractHalf] = []

    def watching(self) -> AbstractContextManager[None]:
        """Look at locks meanwhile, where that was asked for."""
        return self._measuring.watching() if self._measuring else nullcontext()

    def run(self, epoch: int) -> float | None:
        """Move, and write the run's marker down in the same transaction.

        Args:
            epoch: the fencing token.

        Returns:
            Since when there may be locks that no migration tells of, on the monotonic clock.
        """
        command, connection, call = self._command, self._connection, self._call
        if self._measuring is not None:
            self._measuring.restart()
        self.contracted.clear()
        if not connection.features.can_rollback_ddl:
            make_table(connection)
        received = take_received(connection)
        locked_since_s = self._way()()
        if (call.steps or self.contracted) and not command.is_ahead:
            marker = protocol.Marker(command.run_id, epoch, command.digest, self._kind)
            write_marker(connection, command.deploy, command.database, marker)
            self.made = made_since(connection, received)
        if self._measuring is not None:
            self.measured = self._measuring.measured()
        return locked_since_s

    @property
    def _kind(self) -> str:
        if self._command.back is not None:
            return "rollback"
        return "deploy" if self._command.finalises is None else "finalise"

    def _way(self) -> Callable[[], float | None]:
        if self._command.back is not None:
            return self._back
        return self._forwards if self._command.finalises is None else self._contract

    def _back(self) -> None:
        if (back := self._command.back) is None:
            return

        def for_real(recorder: Recorder | None) -> Script | None:
            return unapply(self._call, self._connection, back, recorder)

        self._move(for_real, back)
        remove_marker(self._connection, self._command.deploy, back.run_id)

    def _contract(self) -> float | None:
        def tell(done: Queued) -> None:
            self.contracted.append(done.told())

        pending = Pending.of(self._connection, self._command.finalises)
        if not isinstance(self._call, AheadCall):
            return pending.run(tell)
        self._call.lay(pending.groundwork().grounds)
        return None

    def _forwards(self) -> None:
        def for_real(recorder: Recorder | None) -> Script | None:
            with recorder.recording() if recorder else nullcontext():
                self._migrate()
            return recorder.script() if recorder else None

        self._move(for_real)

    def _move(self, for_real: Callable[[Recorder | None], Script | None], back: protocol.Back | None = None) -> None:
        """Do what was done to the first database of this one's kind, or else whatever is to be done for real."""
        if (kind := self._likeness()) is None:
            for_real(None)
            return
        script = self._shelf.find(kind)
        # What was replayed, and rolled back, runs for real the next time.
        is_first, self._is_first = self._is_first, False
        recorder = None
        if script is not None and is_first:
            replay(script, self._call, self._connection, back)
        else:
            is_recorded = self._shelf.is_worth_recording(kind)
            if is_recorded:
                recorder = Recorder(self._connection, self._call.locks, may_commit=self._call.is_compensated)
            script = for_real(recorder)
        if script is not None:
            self._shelf.keep(kind, script)
        elif recorder is None or not recorder.was_held_up:
            self._shelf.give_up(kind)

    def _likeness(self) -> Hashable | None:
        if not self._may_be_like_others:
            return None
        try:
            return self._kind_of_database()
        except DatabaseError as error:
            if is_lost(self._connection):
                raise
            # A savepoint would cost each database three statements; here nothing is moved yet, and all runs anew.
            self._may_be_like_others = False
            raise Afresh("the database cannot be asked whether it is like others") from error

    def _kind_of_database(self) -> Hashable | None:
        """Return what another database must have in common for the same to be done to it; None where nothing tells."""
        command, connection, frame = self._command, self._connection, self._call.permanent.frame
        may_be = command.replays and not command.measures and connection.vendor == "postgresql" and not router.routers
        may_be = may_be and _is_djangos(connection)
        # Of what was empty all is dropped again; of any other one an undo must know what each migration found.
        is_plain = not (command.back and command.back.discards) and not (
            (self._call.is_compensated and not frame.before.is_empty)
            or self._call.steps
            or self._call.permanent.is_early
            or frame.groundwork
            or command.goes_on
        )
        if not (may_be and is_plain) or isinstance(self._call, AheadCall):
            return None
        applied = frozenset(record.key for record in frame.records or ())
        options = repr(sorted(connection.settings_dict.get("OPTIONS", {}).items(), key=str))
        return (
            type(connection),
            connection.get_database_version(),
            _settings(connection),
            options,
            applied,
            frame.before.is_empty,
            self._call.is_compensated,
            tuple(item.key for item in read_queue(connection)),
            command.expands,
            command.bind_default,
            command.other_aliases,
            command.back and (command.back.run_id, command.back.steps),
        )

    def _migrate(self) -> None:
        ground = self._ground()
        standing: AbstractContextManager[None] = standing_on(self._connection, ground)
        if isinstance(self._call, AheadCall):
            self._call.lay(ground.grounds)
            standing = nullcontext()
        with standing, suppress(SegmentEnds):
            ApplyMigrations().move(self._call, database=self._command.alias, **_QUIET)

    def _ground(self) -> Groundwork:
        """Return what is to be made ready ahead, or was. Only reads."""
        is_ahead, has_ground = isinstance(self._call, AheadCall), bool(self._call.permanent.frame.groundwork)
        if not self._command.expands or not (is_ahead or has_ground) or self._call.permanent.before.is_empty:
            return Groundwork()
        executor = MigrationExecutor(self._connection)
        plan = [migration for migration, _backwards in executor.migration_plan(executor.loader.graph.leaf_nodes())]
        found = plan_groundwork(self._connection, plan, executor)
        if not is_ahead:
            self._call.locks.built = found.built(self._connection)
        return found

    def held_back(self) -> tuple[protocol.ContractHalf, ...]:
        """Return the contract halves of what was moved. Only reads."""
        queue = read_queue(self._connection) if self._command.expands else ()
        return tuple(item.told() for item in queue if item.run_id == self._command.run_id)


def _is_djangos(connection: BaseDatabaseWrapper) -> bool:
    """Return whether nobody else's backend writes the statements, which may look at anything in an alias's settings."""
    kinds = (type(connection), connection.SchemaEditorClass, type(connection.ops), type(connection.introspection))
    modules = {base.__module__.partition(".")[0] for kind in kinds for base in kind.__mro__}
    return modules <= {"builtins", "django"}


def _settings(connection: BaseDatabaseWrapper) -> Hashable:
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS, None)
        return tuple(cursor.fetchone() or ())
