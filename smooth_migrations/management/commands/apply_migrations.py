"""`manage.py apply_migrations`: `migrate` that undoes everything it did when anything fails."""

import sys
import traceback
from collections.abc import Container, Iterator, Sequence
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
from smooth_migrations.errors import Interrupted, UndoAlsoFailed, UndoFailed
from smooth_migrations.fingerprint import take
from smooth_migrations.lease import LeaseHeld
from smooth_migrations.protocol.values import OtherAliases
from smooth_migrations.reversibility import committed_early, irreversible_operations
from smooth_migrations.signals import signals_asking
from smooth_migrations.turn import Turn
from smooth_migrations.undo.journal import UnfinishedCall
from smooth_migrations.undo.synced import tables_to_sync
from smooth_migrations.undo.transaction import Limits

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
        self._add_limits(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a program; exit with 4 where a failure could not be undone."""
        try:
            super().run_from_argv(argv)
        except UndoAlsoFailed as error:
            self.stderr.write("".join(traceback.format_exception(error)), lambda text: text)
            sys.exit(_NEEDS_OPERATOR)

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
        call = Call(connection, _options(options), report)
        with signals_asking(call.interruption), self._turn(connection, call, wait_s=options["wait"]):
            try:
                if options["no_rollback"]:
                    super().handle(*args, **options)
                    return
                call.run(lambda: self.move(call, *args, **options))
            except Interrupted as error:
                raise CommandError(f"{error}; what was done has been undone") from error
            except BaseException:
                report.detail()
                raise
            if options["rehearse"]:
                call.rollback()
                self.stdout.write(self.style.SUCCESS("Rehearsed: these migrations would succeed. Nothing was changed."))
                return
            callbacks = call.commit()
        for callback in callbacks:
            callback()

    @staticmethod
    def _add_limits(parser: CommandParser) -> None:
        parser.add_argument(
            "--lock-timeout",
            type=duration_s,
            metavar="DURATION",
            help="How long a statement waits for a lock, such as 2s; then everything is rolled back and tried again.",
        )
        parser.add_argument(
            "--lock-retries",
            type=int,
            default=0,
            metavar="N",
            help="How often it is tried again after a lock time-out. Defaults to 0.",
        )
        parser.add_argument(
            "--statement-timeout", type=duration_s, metavar="DURATION", help="How long one statement may run."
        )
        parser.add_argument(
            "--allow-irreversible",
            action="store_true",
            help="Run also what could not be rolled back, and would stay after a failure.",
        )
        outcome = parser.add_mutually_exclusive_group()
        outcome.add_argument(
            "--no-rollback", action="store_true", help="Stop at a failure as migrate does, and undo nothing."
        )
        outcome.add_argument(
            "--rehearse",
            action="store_true",
            help="Roll everything back at the end, whatever happens; 0 says that the migrations would succeed.",
        )

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
                early = committed_early(plan, connection, compensated=call.is_compensated)
                if early and options.get("rehearse"):
                    names = ", ".join(str(migration) for migration in early)
                    raise CommandError(f"Refused: these cannot be rehearsed: {names}", returncode=_REFUSED)
                if early and not options.get("allow_irreversible"):
                    _refuse_irreversible(connection, plan, early)
                if early:
                    call.expect_back(take(connection))

        self._call = call
        pre_migrate.connect(refuse)
        try:
            super().handle(*args, **options)
        finally:
            pre_migrate.disconnect(refuse)
            self._call = None

    def sync_apps(self, connection: BaseDatabaseWrapper, app_labels: Container[str]) -> None:
        """Tell the call which tables `--run-syncdb` makes."""
        if self._call is not None:
            self._call.expect_synced(tables_to_sync(connection, app_labels))
        super().sync_apps(connection, app_labels)

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


def _options(options: dict[str, Any]) -> Options:
    lock_timeout_s, statement_timeout_s = options["lock_timeout"], options["statement_timeout"]
    return Options(
        limits=Limits(
            None if lock_timeout_s is None else round(lock_timeout_s * 1000),
            None if statement_timeout_s is None else round(statement_timeout_s * 1000),
        ),
        lock_retries=options["lock_retries"],
        other_aliases=OtherAliases(options["other_aliases"]),
    )


def _refuse_irreversible(
    connection: BaseDatabaseWrapper, plan: Sequence[tuple[Migration, bool]], early: Sequence[Migration]
) -> None:
    if plan[0][1]:
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
