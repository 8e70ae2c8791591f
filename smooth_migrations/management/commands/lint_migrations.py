"""`manage.py lint_migrations`: what migrations would do to two live releases, without a database."""

import sys
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser, no_translations
from django.db import connections
from django.db.utils import DEFAULT_DB_ALIAS

from smooth_migrations import __version__
from smooth_migrations.lint.chosen import CannotLint
from smooth_migrations.lint.linting import lint
from smooth_migrations.lint.outputs import OUTPUTS, Linted
from smooth_migrations.lint.rules import RULES

__all__ = ["Command"]

_USAGE = 2


class Command(BaseCommand):
    """Look at migration files, and fail where anything in them is not allowed."""

    help = (
        "Tells what pending migrations would do to two releases that are live at once, and what they should not do "
        "unsaid. Needs no database: where it cannot be read, every migration of the project is looked at."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's own options."""
        parser.add_argument("app_label", nargs="*", help="Look at these apps alone.")
        parser.add_argument(
            "--database",
            default=DEFAULT_DB_ALIAS,
            choices=tuple(connections),
            help='The one that the migrations are for. Defaults to "default".',
        )
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--since", metavar="REF", help="What was changed or added since this revision of Git.")
        which.add_argument("--all", action="store_true", help="Every migration, each as a deploy by itself.")
        parser.add_argument("--format", choices=tuple(OUTPUTS), default="text", help="What is written.")
        parser.add_argument(
            "--json", action="store_const", dest="format", const="json", help="The same as --format json."
        )
        parser.add_argument("--no-expand", action="store_false", dest="expands", help="Nothing is to be held back.")
        codes = [rule.code for rule in RULES]
        parser.add_argument("--explain", choices=codes, metavar="CODE", help="Say what a code means, and nothing else.")

    @no_translations
    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401 - parsed arguments of every type
        """Write what is found.

        Raises:
            CommandError: with `returncode` 2: there is no such app or revision, or the migrations cannot be read.
            SystemExit: with 1: something was found that is not allowed.
        """
        del args
        if options["explain"]:
            self.stdout.write(str(next(rule.told() for rule in RULES if rule.code == options["explain"])))
            return
        labels = {config.label for config in apps.get_app_configs()}
        if unknown := sorted({*options["app_label"]} - labels):
            raise CommandError(f"No installed app with label '{unknown[0]}'.", returncode=_USAGE)
        try:
            report = lint(
                connections[options["database"]],
                apps=options["app_label"],
                since=options["since"],
                everything=options["all"],
                expands=options["expands"],
            )
        except CannotLint as error:
            raise CommandError(f"{error.message} ({error.hint})", returncode=_USAGE) from error
        linted = Linted((report,), Path.cwd(), __version__)
        self.stdout.write(OUTPUTS[options["format"]](linted), ending="")
        self.stdout.write("")
        if linted.exit_code:
            sys.exit(linted.exit_code)
