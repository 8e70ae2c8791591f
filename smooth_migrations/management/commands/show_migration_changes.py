"""`manage.py show_migration_changes`: what this release holds back for the one after it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from smooth_migrations.contract_queue import QueueUnreadable, read_queue
from smooth_migrations.exits import REFUSED
from smooth_migrations.helpers.found import Found

__all__ = ["Command"]


class Command(BaseCommand):
    """Lists the helpers in the code, and the contract operations that each database has pending."""

    help = (
        "Lists the fields and models under new_field, deprecated_field, backward_compatible_model and "
        "deprecated_model, and the contract operations pending in each database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Let one of the databases be chosen, and the form."""
        parser.add_argument("--database", choices=tuple(connections), help="Ask this database alone; all by default.")
        parser.add_argument("--json", action="store_true", help="Print it for machines.")

    def handle(self, *_: object, **options: Any) -> None:  # noqa: ANN401 - parsed arguments of every type
        """Print the list; changes nothing."""
        found = Found.among(apps.get_models())
        aliases = [options["database"]] if options["database"] else [*connections]
        try:
            pending = {alias: [str(half) for half in read_queue(connections[alias])] for alias in aliases}
        except QueueUnreadable as error:
            raise CommandError(f"{error.message} ({error.hint})", returncode=REFUSED) from error
        if options["json"]:
            databases = [{"alias": alias, "contract_pending": queued} for alias, queued in pending.items()]
            report = {"version": 1, "command": "show_migration_changes", **asdict(found), "databases": databases}
            self.stdout.write(json.dumps(report))
            return
        self._show("New fields:", found.new_fields)
        self._show("Backward compatible models:", found.backward_compatible_models)
        self._show("Deprecated fields:", found.deprecated_fields)
        self._show("Deprecated models:", found.deprecated_models)
        for alias, queued in pending.items():
            self._show(f"Contract operations pending in {alias}:", queued)

    def _show(self, title: str, items: Sequence[str]) -> None:
        if items:
            self.stdout.write(self.style.MIGRATE_HEADING(title))
            for item in items:
                self.stdout.write(f"  {item}")
