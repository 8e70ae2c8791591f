"""`manage.py finalise_migrations`: the contract halves that `apply_migrations --expand` has held back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, no_translations
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DEFAULT_DB_ALIAS

from smooth_migrations.arguments import add_limits, options_of
from smooth_migrations.backends import why_not_undone
from smooth_migrations.call import Call
from smooth_migrations.conflicts import unrecorded
from smooth_migrations.console import ConsoleReport
from smooth_migrations.contract_queue import Queued, QueueUnreadable, remove
from smooth_migrations.durations import duration_s
from smooth_migrations.errors import Interrupted, UndoFailed, words_of
from smooth_migrations.exits import LOCKED, NEEDS_OPERATOR, REFUSED
from smooth_migrations.finalising import CannotFinalise, Pending
from smooth_migrations.lease import LeaseHeld, SessionLeft
from smooth_migrations.options import Options
from smooth_migrations.segments import GroundedCall
from smooth_migrations.session import named
from smooth_migrations.signals import signals_asking
from smooth_migrations.turn import Turn
from smooth_migrations.undo.journal import UnfinishedCall

__all__ = ["Command"]


class Command(BaseCommand):
    """Do all that is held back on one database, or nothing of it."""

    help = "Does what apply_migrations --expand has held back, when the release before is gone: all of it or nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's own options."""
        parser.add_argument(
            "--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help='Which one. Defaults to "default".'
        )
        parser.add_argument("--plan", action="store_true", help="List what would be done.")
        parser.add_argument(
            "--force",
            action="store_true",
            help=(
                "Do also what a deploy of smooth-orchestrate has held back, which it would do on all its databases; "
                "forget what is held back of migrations that are not recorded as applied."
            ),
        )
        parser.add_argument(
            "--wait", type=duration_s, default=0.0, metavar="DURATION", help="For how long another run is waited for."
        )
        add_limits(parser)

    @no_translations
    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - parsed arguments of every type
        """Do what is held back.

        Raises:
            CommandError: with `returncode` 3 where something is in the way, 5 where it is another run's turn; without
                one where a statement failed: what was done has been undone.
        """
        del args
        connection = connections[options["database"]]
        if reason := why_not_undone(connection):
            raise CommandError(f"Refused: {reason}; nothing was changed", returncode=REFUSED)
        with _errors_told():
            pending = Pending.of(connection)
            if options["plan"]:
                self._write("Held back:", pending.queue)
            elif not pending.queue:
                self.stdout.write("  Nothing is held back.")
            else:
                if not options["force"]:
                    _leave_deploys_alone(pending)
                done, forgotten = self._finalise(connection, **options)
                self._write("Finalised:", done)
                if forgotten:
                    self._write("Forgotten, since no such migration is recorded as applied:", forgotten)

    def _finalise(
        self,
        connection: BaseDatabaseWrapper,
        **options: Any,  # noqa: ANN401 - as handle's
    ) -> tuple[list[Queued], tuple[Queued, ...]]:
        done: list[Queued] = []
        forgotten: tuple[Queued, ...] = ()
        console = ConsoleReport(self.stdout, self.style, verbosity=options["verbosity"])
        call = GroundedCall(connection, options_of({**options, "other_aliases": "refuse", "expand": False}), console)

        def on_unfinished(unfinished: UnfinishedCall) -> Call:
            console.unfinished(unfinished, goes_on=False, wanted=False)
            return Call(connection, Options(), ConsoleReport(self.stdout, self.style, verbosity=1))

        def move() -> float:
            nonlocal forgotten
            done.clear()
            pending = Pending.of(connection)
            if options["force"]:
                forgotten = unrecorded(connection, pending.queue)
                pending.queue = tuple(item for item in pending.queue if item not in forgotten)
            call.lay(pending.groundwork().grounds)
            remove(connection, forgotten)
            return pending.run(done.append)

        with signals_asking(call.interruption):
            turn = Turn.begin(
                connection, call, wait_s=options["wait"], on_wait=console.held, on_unfinished=on_unfinished
            )
            try:
                with named(connection, call.options.application_name):
                    call.run(move)
                    callbacks = call.commit()
            finally:
                turn.end()
        for callback in callbacks:
            callback()
        return done, forgotten

    def _write(self, heading: str, queue: Sequence[Queued]) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(heading))
        for item in queue:
            self.stdout.write(f"  {item}")
        if not queue:
            self.stdout.write("  Nothing.")


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except (LeaseHeld, SessionLeft) as error:
        raise CommandError(f"{error.message}: nothing was changed ({error.hint})", returncode=LOCKED) from error
    except (CannotFinalise, QueueUnreadable) as error:
        raise CommandError(f"Refused: {error.message} ({error.hint})", returncode=REFUSED) from error
    except UndoFailed as error:
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        raise CommandError(message, returncode=NEEDS_OPERATOR) from error
    except Interrupted as error:
        raise CommandError(f"{error}; what was done has been undone") from error
    except Error as error:
        raise CommandError(f"{words_of(error).strip()}\nWhat was done has been undone.") from error


def _leave_deploys_alone(pending: Pending) -> None:
    runs = sorted({item.run_id for item in pending.queue if ":" not in item.run_id})
    if runs:
        raise CommandError(
            f"Refused: the run {runs[0]} has held this back on all its databases; nothing was changed "
            "(smooth-orchestrate finalise PLAN, or --force for this database alone)",
            returncode=REFUSED,
        )
