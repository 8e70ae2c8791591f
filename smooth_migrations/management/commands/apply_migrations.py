"""`manage.py apply_migrations`: `migrate` that undoes everything it did when anything fails."""

import sys
import traceback
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.models.signals import pre_migrate

from smooth_migrations.arguments import add_arguments, options_of, refuse_contradictions
from smooth_migrations.backends import why_not_undone
from smooth_migrations.call import Call
from smooth_migrations.console import ConsoleReport
from smooth_migrations.errors import Interrupted, Irreversible, UndoAlsoFailed, UndoFailed
from smooth_migrations.fingerprint import take
from smooth_migrations.lease import LeaseHeld
from smooth_migrations.options import Options
from smooth_migrations.report import LOCKED, NEEDS_OPERATOR, REFUSED, printed_only, reporting, stdout_spared
from smooth_migrations.reversibility import committed_early, irreversible_operations
from smooth_migrations.signals import signals_asking
from smooth_migrations.turn import Turn
from smooth_migrations.undo.journal import UnfinishedCall
from smooth_migrations.undo.synced import tables_to_sync

__all__ = ["Command"]


class Command(migrate.Command):
    """Django's `migrate`, with its options and its output, inside a call that can be taken back."""

    help = "Applies migrations as migrate does; when anything fails, everything this call did is undone."

    _call: Call | None = None

    def add_arguments(self, parser: CommandParser) -> None:
        """Add to `migrate`'s options what concerns the undo."""
        super().add_arguments(parser)
        add_arguments(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a program; exit with 4 where a failure could not be undone."""
        try:
            super().run_from_argv(argv)
        except (UndoAlsoFailed, UndoFailed) as error:
            self.stderr.write("".join(traceback.format_exception(error)), lambda text: text)
            sys.exit(NEEDS_OPERATOR)

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - parsed arguments of every type
        """Run `migrate`; on any failure undo it, say so, and raise the original error again.

        Raises:
            CommandError: with `returncode` 3 when something could not be rolled back; nothing ran.
            BaseException: whatever made the migration fail, after the undo.
        """
        refuse_contradictions(options)
        if options["plan"] or options["check_unapplied"]:
            super().handle(*args, **options)
            return
        connection = connections[options["database"]]
        with ExitStack() as stack:
            write = stack.enter_context(stdout_spared(self)) if options["json"] else None
            console = ConsoleReport(self.stdout, self.style, verbosity=options["verbosity"])
            call = Call(connection, options_of(options), console)
            if write is not None:
                is_rehearsal = options["rehearse"]
                stack.enter_context(
                    reporting(call, connection, write, undone=console.taken_back, is_rehearsal=is_rehearsal)
                )
            for callback in self._apply(call, console, *args, **options):
                # What is committed stays so, and that is what the report tells.
                with printed_only(self.stderr) if write is not None else nullcontext():
                    callback()

    def _apply(self, call: Call, console: ConsoleReport, *args: object, **options: Any) -> list[Callable[[], None]]:  # noqa: ANN401 - as handle's
        """Run the call, and return what the migrations want to be run after its commit."""
        connection = connections[options["database"]]
        reason = why_not_undone(connection)
        if reason and not options["no_rollback"]:
            raise CommandError(f"Refused: {reason}; nothing was run", returncode=REFUSED)
        with signals_asking(call.interruption), self._turn(connection, call, console, **options):
            try:
                if options["no_rollback"]:
                    super().handle(*args, **options)
                    return []
                call.run(lambda: self.move(call, *args, **options))
            except Interrupted as error:
                raise CommandError(f"{error}; what was done has been undone") from error
            except BaseException:
                console.detail()
                raise
            if options["rehearse"]:
                call.rollback()
                self.stdout.write(self.style.SUCCESS("Rehearsed: these migrations would succeed. Nothing was changed."))
                return []
            return call.commit()

    @contextmanager
    def _turn(
        self,
        connection: BaseDatabaseWrapper,
        call: Call,
        console: ConsoleReport,
        **options: Any,  # noqa: ANN401 - as handle's
    ) -> Iterator[None]:
        def on_unfinished(unfinished: UnfinishedCall) -> Call:
            goes_on = options["resume"] and unfinished.can_go_on
            console.unfinished(unfinished, goes_on=goes_on, wanted=options["resume"])
            if goes_on:
                return call
            return Call(connection, Options(), ConsoleReport(self.stdout, self.style, verbosity=1))

        try:
            turn = Turn.begin(
                connection,
                call,
                wait_s=options["wait"],
                on_wait=lambda holder: self.stdout.write(f"Waiting for another run: {holder}"),
                on_unfinished=on_unfinished,
            )
        except LeaseHeld as error:
            raise CommandError(f"{error.message}: nothing was run", returncode=LOCKED) from error
        except UndoFailed as error:
            message = f"{error.message} ({error.hint})" if error.hint else error.message
            raise CommandError(message, returncode=NEEDS_OPERATOR) from error
        for item in call.adopted:
            console.started(item.step, item.migration)
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
            if using == connection.alias and plan and call.committed and call.committed[0].backwards is not plan[0][1]:
                way = "backwards" if call.committed[0].backwards else "forwards"
                raise CommandError(
                    f"Refused: the call that was killed went {way}; resume it with its own arguments",
                    returncode=REFUSED,
                )
            # Django sends the signal once for each app.
            if using == connection.alias and not options["fake"] and not checked and not call.before.is_empty:
                checked = True
                early = committed_early(plan, connection, compensated=call.is_compensated)
                if early and options.get("rehearse"):
                    names = ", ".join(str(migration) for migration in early)
                    raise CommandError(f"Refused: these cannot be rehearsed: {names}", returncode=REFUSED)
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
        message = "\n".join(["Refused: these could not be rolled back, and nothing was run:", *lines])
        hint = "--allow-irreversible runs them all the same"
        raise CommandError(message, returncode=REFUSED) from Irreversible(message, hint=hint)
