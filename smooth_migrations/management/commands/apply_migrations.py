"""`manage.py apply_migrations`: `migrate` that undoes everything it did when anything fails."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.models.signals import pre_migrate

from smooth_migrations.call import Call, Options
from smooth_migrations.console import ConsoleReport
from smooth_migrations.durations import duration_s
from smooth_migrations.errors import Interrupted, UndoFailed
from smooth_migrations.interruption import Interruption
from smooth_migrations.lease import LeaseHeld
from smooth_migrations.protocol.values import OtherAliases
from smooth_migrations.reversibility import committed_early, irreversible_operations
from smooth_migrations.turn import Turn
from smooth_migrations.undo.journal import UnfinishedCall

__all__ = ["Command"]

_REFUSED = 3
_NEEDS_OPERATOR = 4
_LOCKED = 5


class Command(migrate.Command):
    """Django's `migrate`, with its options and its output, inside a call that can be taken back."""

    help = "Applies migrations as migrate does; when anything fails, everything this call did is undone."

    _call: Call | None = None

    def add_arguments(self, parser: CommandParser) -> None:
        """Add to `migrate`'s options what concerns the undo."""
        super().add_arguments(parser)
        parser.add_argument(
            "--other-aliases",
            choices=[str(mode) for mode in OtherAliases],
            default=str(OtherAliases.ALLOW),
            help=(
                "What happens when a migration reaches another database: allow lets its writes join the call, "
                "to be undone with it; refuse is an error. Defaults to allow."
            ),
        )
        parser.add_argument(
            "--wait",
            type=duration_s,
            default=0.0,
            metavar="DURATION",
            help="For how long another run on this database is waited for, such as 30s; without it, it is an error.",
        )

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - parsed arguments of every type
        """Run `migrate`; on any failure undo it, say so, and raise the original error again.

        Raises:
            CommandError: with `returncode` 3 when something could not be rolled back; nothing ran.
            BaseException: whatever made the migration fail, after the undo.
        """
        if options["plan"] or options["check_unapplied"]:
            super().handle(*args, **options)
            return
        connection = connections[options["database"]]
        report = ConsoleReport(self.stdout, self.style, verbosity=options["verbosity"])
        call = Call(connection, Options(other_aliases=OtherAliases(options["other_aliases"])), report)
        with _signals_asking(call.interruption), self._turn(connection, call, wait_s=options["wait"]):
            try:
                call.run(lambda: self.move(call, *args, **options))
            except Interrupted as error:
                raise CommandError(f"{error}; what was done has been undone") from error
            except BaseException:
                report.detail()
                raise
            callbacks = call.commit()
        for callback in callbacks:
            callback()

    @contextmanager
    def _turn(self, connection: BaseDatabaseWrapper, call: Call, *, wait_s: float) -> Iterator[None]:
        def on_unfinished(unfinished: UnfinishedCall) -> Call:
            self.stdout.write(f"An earlier call ({unfinished.call_id}) was killed here. Taking back what it left:")
            return Call(connection, Options(), ConsoleReport(self.stdout, self.style, verbosity=1))

        try:
            turn = Turn.begin(
                connection,
                call,
                wait_s=wait_s,
                on_wait=lambda holder: self.stdout.write(f"Waiting for another run: {holder}"),
                on_unfinished=on_unfinished,
            )
        except LeaseHeld as error:
            raise CommandError(f"{error.message}: nothing was run", returncode=_LOCKED) from error
        except UndoFailed as error:
            raise CommandError(f"{error.message} ({error.hint})", returncode=_NEEDS_OPERATOR) from error
        try:
            yield
        finally:
            turn.end()

    def move(self, call: Call, *args: object, **options: Any) -> None:  # noqa: ANN401 - parsed arguments of every type
        """Run Django's command inside a call.

        Args:
            call: begun by the caller.
            args: passed through.
            options: passed through.
        """
        connection = connections[options["database"]]
        checked = False

        def refuse(plan: Sequence[tuple[Migration, bool]], using: str, **_kwargs: object) -> None:
            nonlocal checked
            # Django sends the signal once for each app.
            if using == connection.alias and not options["fake"] and not checked and not call.was_empty:
                checked = True
                _refuse_irreversible(connection, plan, compensated=call.is_compensated)

        self._call = call
        pre_migrate.connect(refuse)
        try:
            super().handle(*args, **options)
        finally:
            pre_migrate.disconnect(refuse)
            self._call = None

    def migration_progress_callback(
        self,
        action: str,
        migration: Migration | None = None,
        fake: bool = False,  # noqa: FBT001, FBT002 - Django's
    ) -> None:
        """Tell the call first, so that "OK" is printed only for what holds."""
        if self._call is not None:
            self._call.progress(action, migration, fake=fake)
        super().migration_progress_callback(action, migration, fake)


def _refuse_irreversible(
    connection: BaseDatabaseWrapper, plan: Sequence[tuple[Migration, bool]], *, compensated: bool
) -> None:
    early = committed_early(plan, holds=connection.features.can_rollback_ddl, compensated=compensated)
    if not early or plan[0][1]:
        return
    # The one way to it that Django's own migrate takes.
    state = MigrationExecutor(connection)._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
    lines = [
        f"  {migration}: {operation}"
        for migration in early
        for operation in irreversible_operations(migration, state, connection)
    ]
    if lines:
        raise CommandError(
            "\n".join(["Refused: these could not be rolled back, and nothing was run:", *lines]), returncode=_REFUSED
        )


@contextmanager
def _signals_asking(interruption: Interruption) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the call, whose undo they do not end. Signals belong to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        interruption.ask(f"ended by {signal.Signals(number).name}")
        interruption.strike()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
