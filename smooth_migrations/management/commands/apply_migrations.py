"""`manage.py apply_migrations`: `migrate` that undoes everything it did when anything fails."""

import gc
import os
import sys
import traceback
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.models.signals import pre_migrate

from smooth_migrations.arguments import add_arguments, options_of, refuse_contradictions
from smooth_migrations.backends import why_not_undone
from smooth_migrations.call import Call
from smooth_migrations.console import ConsoleReport
from smooth_migrations.errors import Interrupted, Irreversible, UndoAlsoFailed, UndoFailed, is_unusable
from smooth_migrations.exits import LOCKED, NEEDS_OPERATOR, REFUSED
from smooth_migrations.forks import leave_if_forked
from smooth_migrations.guard import Guard
from smooth_migrations.lease import LeaseHeld, SessionLeft
from smooth_migrations.options import Options
from smooth_migrations.session import named
from smooth_migrations.signals import signals_asking
from smooth_migrations.streams import UNWRITABLE, let_go
from smooth_migrations.turn import Turn
from smooth_migrations.undo.emptiness import look_before
from smooth_migrations.undo.journal import UnfinishedCall
from smooth_migrations.watch import Watch

__all__ = ["Command"]


class Command(migrate.Command):
    """Django's `migrate`, with its options and its output, inside a call that can be taken back."""

    help = "Applies migrations as migrate does; when anything fails, everything this call did is undone."

    _call: Call | None = None
    _is_program = False
    _pid = 0

    def add_arguments(self, parser: CommandParser) -> None:
        """Add to `migrate`'s options what concerns the undo."""
        super().add_arguments(parser)
        add_arguments(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a program; exit with 4 where a failure could not be undone."""
        self._is_program = True
        # What the start has made stays to the end. Looking through it for garbage takes a fifth of a short call's time.
        gc.freeze()
        try:
            super().run_from_argv(argv)
        except (UndoAlsoFailed, UndoFailed) as error:
            # What cannot be printed must not change what the exit code says.
            with suppress(*UNWRITABLE):
                self.stderr.write("".join(traceback.format_exception(error)), lambda text: text)
            sys.exit(NEEDS_OPERATOR)
        finally:
            let_go()

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - parsed arguments of every type
        """Run `migrate`; on any failure undo it, say so, and raise the original error again.

        Raises:
            CommandError: with `returncode` 3 when something could not be rolled back; nothing ran.
            BaseException: whatever made the migration fail, after the undo.
        """
        refuse_contradictions(options)
        if options["plan"] or options["check_unapplied"]:
            self._show(*args, **options)
            return
        if options["json"]:
            self._report(*args, **options)
            return
        console = self._console(options)
        for callback in self._apply(self._begun(console, options), console, *args, **options):
            callback()

    def _report(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - as handle's
        """Do as `handle` does, and print the machine report instead."""
        from smooth_migrations.report import printed_only, reporting, stdout_spared  # noqa: PLC0415 - --json's alone

        with stdout_spared(self) as write:
            console = self._console(options)
            call = self._begun(console, options)
            connection, is_rehearsal = connections[options["database"]], options["rehearse"]
            with reporting(call, connection, write, undone=console.taken_back, is_rehearsal=is_rehearsal):
                for callback in self._apply(call, console, *args, **options):
                    # What is committed stays so, and that is what the report tells.
                    with printed_only(self.stderr):
                        callback()

    def _console(self, options: dict[str, Any]) -> ConsoleReport:
        return ConsoleReport(
            self.stdout, self.style, verbosity=options["verbosity"], show_queries=options["show_queries"]
        )

    def _begun(self, console: ConsoleReport, options: dict[str, Any]) -> Call:
        return Call(connections[options["database"]], options_of(options), console)

    def _show(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - as handle's
        """Run `migrate --plan` or `--check`, and say how what is planned would be undone.

        Only to a person: what asks by `call_command` reads what Django's own command prints.
        """
        try:
            super().handle(*args, **options)
        except SystemExit:
            # --check ends the program when there is something to do.
            self._show_undo(options)
            raise
        self._show_undo(options)

    def _show_undo(self, options: dict[str, Any]) -> None:
        if options["plan"] and self._is_program:
            from smooth_migrations.planning import plan_of  # noqa: PLC0415 - --plan's alone
            from smooth_migrations.undo.choice import choose  # noqa: PLC0415 - as above

            connection = connections[options["database"]]
            is_empty = look_before(connection).is_empty
            choices = choose(plan_of(connection, options), connection, is_empty=is_empty, compensated=False)
            ConsoleReport(self.stdout, self.style, verbosity=2).undo_of_this_call(choices)

    def _apply(self, call: Call, console: ConsoleReport, *args: object, **options: Any) -> list[Callable[[], None]]:  # noqa: ANN401 - as handle's
        """Run the call, and return what the migrations want to be run after its commit."""
        connection = connections[options["database"]]
        reason = why_not_undone(connection)
        if reason and not options["no_rollback"]:
            raise CommandError(f"Refused: {reason}; nothing was run", returncode=REFUSED)
        watch = Watch(
            connection,
            call.options.application_name or "",
            on_wait=console.waiting,
            on_progress=console.progress if options["verbosity"] > 1 else None,
            lock_timeout_ms=call.options.limits.lock_timeout_ms,
        )
        with (
            signals_asking(call.interruption),
            self._turn(connection, call, console, **options),
            named(connection, call.options.application_name),
            watch.watching(),
        ):
            try:
                if options["no_rollback"]:
                    super().handle(*args, **options)
                    return []
                call.run(lambda: self.move(call, *args, **options))
            except (Interrupted, Irreversible) as error:
                hint = f" ({error.hint})" if isinstance(error, Irreversible) else ""
                raise CommandError(f"{error}; what was done has been undone{hint}") from error
            except BaseException as error:
                console.detail()
                if self._is_program and _says_success(error):
                    raise CommandError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
                raise
            if options["rehearse"]:
                call.rollback()
                self.stdout.write(self.style.SUCCESS("Rehearsed: these migrations would succeed. Nothing was changed."))
                return []
            return call.commit_or_undo()

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
            earlier = Options(compares=call.options.compares)
            return Call(connection, earlier, ConsoleReport(self.stdout, self.style, verbosity=1))

        try:
            turn = Turn.begin(
                connection,
                call,
                wait_s=options["wait"],
                on_wait=console.held,
                on_unfinished=on_unfinished,
            )
        except (LeaseHeld, SessionLeft) as error:
            raise CommandError(f"{error.message}: nothing was run ({error.hint})", returncode=LOCKED) from error
        except UndoFailed as error:
            message = f"{error.message} ({error.hint})" if error.hint else error.message
            raise CommandError(message, returncode=NEEDS_OPERATOR) from error
        except Error as error:
            console.locked(connection, error)
            if not is_unusable(error):
                raise
            message = f"Refused: the tables in which runs are noted cannot be used, and nothing was run: {error}"
            raise CommandError(message, returncode=REFUSED) from error
        for item in call.permanent.moved:
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
        verbosity = options["verbosity"] if self._is_program else 0
        console = ConsoleReport(self.stdout, self.style, verbosity=verbosity)
        guard = Guard(call, connections[options["database"]], options, console.undo_of_this_call)
        self._call, self._pid = call, os.getpid()
        pre_migrate.connect(guard.check)
        try:
            super().handle(*args, **options)
            guard.finish()
        except BaseException as error:
            leave_if_forked(self._pid, error)
            raise
        finally:
            pre_migrate.disconnect(guard.check)
            self._call = None
        console.held_back(guard.held_back)

    def sync_apps(self, connection: BaseDatabaseWrapper, app_labels: Container[str]) -> None:
        """Tell the call which tables `--run-syncdb` makes."""
        if self._call is not None:
            from smooth_migrations.undo.synced import tables_to_sync  # noqa: PLC0415 - --run-syncdb's alone

            self._call.permanent.expect_synced(tables_to_sync(connection, app_labels))
        super().sync_apps(connection, app_labels)

    def migration_progress_callback(
        self,
        action: str,
        migration: Migration | None = None,
        fake: bool = False,  # noqa: FBT001, FBT002 - Django's
    ) -> None:
        """Tell the call first, so that "OK" is printed only for what holds."""
        if self._call is not None:
            leave_if_forked(self._pid)
            self._call.progress(action, migration, fake=fake)
        super().migration_progress_callback(action, migration, fake)


def _says_success(error: BaseException) -> bool:
    """Return whether a program that ends with this error has the exit code 0."""
    return (isinstance(error, SystemExit) and not error.code) or (
        isinstance(error, CommandError) and not error.returncode
    )
