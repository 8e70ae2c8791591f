"""The options that `apply_migrations` adds to those of `migrate`."""

from typing import Any
from uuid import uuid4

from django.core.management.base import CommandError, CommandParser

from smooth_migrations.durations import duration_s, limit_s
from smooth_migrations.options import Options
from smooth_migrations.protocol.names import session_name
from smooth_migrations.protocol.values import OtherAliases
from smooth_migrations.undo.transaction import Limits

__all__ = ["add_arguments", "add_limits", "options_of", "refuse_contradictions"]

# A report needs the call's own list of what it did; what is rehearsed is rolled back, and so would be what was resumed.
_CONTRADICTIONS = {
    "json": ("plan", "check_unapplied", "no_rollback"),
    "expand": ("fake", "fake_initial", "no_rollback", "run_syncdb"),
    "resume": ("plan", "check_unapplied", "no_rollback", "rehearse"),
}
_SPELT = {"check_unapplied": "check", "no_rollback": "no-rollback"}


def add_arguments(parser: CommandParser) -> None:
    """Add them to the command's parser."""
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
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Go on where a call that was killed stopped, rather than take back what it left.",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="Print the machine report on stdout, and nothing else there; what migrate prints goes to stderr.",
    )
    parser.add_argument(
        "--allow-irreversible",
        action="store_true",
        help="Run also what could not be rolled back, and would stay after a failure.",
    )
    parser.add_argument(
        "--no-fingerprint",
        action="store_true",
        help="Do not compare the schema after an undo with what it was before.",
    )
    parser.add_argument(
        "--expand",
        action="store_true",
        help="Hold back what the release still running could not live with, for finalise_migrations.",
    )
    add_limits(parser)
    _add_outcomes(parser)


def refuse_contradictions(options: dict[str, Any]) -> None:
    """Refuse options that do not go together.

    Raises:
        CommandError: with `returncode` 2.
    """
    for name, others in _CONTRADICTIONS.items():
        given = [other for other in others if options[other]]
        if options[name] and given:
            raise CommandError(f"--{name} does not go with --{_SPELT.get(given[0], given[0])}", returncode=2)


def options_of(options: dict[str, Any]) -> Options:
    """Return how a call behaves that was asked for by these parsed options."""
    number = uuid4().hex
    return Options(
        limits=Limits(_ms(options["lock_timeout"]), _ms(options["statement_timeout"])),
        lock_retries=options["lock_retries"],
        other_aliases=OtherAliases(options["other_aliases"]),
        application_name=session_name(number, options["database"]),
        call_id=f"call:{number}",
        compares=not options.get("no_fingerprint"),
        expands=options["expand"],
    )


def _ms(duration: float | None) -> int | None:
    return None if duration is None else round(duration * 1000)


def add_limits(parser: CommandParser) -> None:
    """Add the time limits of statements to a command's parser."""
    parser.add_argument(
        "--lock-timeout",
        type=limit_s,
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
        "--show-queries",
        action="store_true",
        help="Tell the queries of those who are waited for, too: their first 80 characters, with whatever is in them.",
    )
    parser.add_argument("--statement-timeout", type=limit_s, metavar="DURATION", help="How long one statement may run.")


def _add_outcomes(parser: CommandParser) -> None:
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument(
        "--no-rollback", action="store_true", help="Stop at a failure as migrate does, and undo nothing."
    )
    outcome.add_argument(
        "--rehearse",
        action="store_true",
        help="Roll everything back at the end, whatever happens; 0 says that the migrations would succeed.",
    )
