"""The machine report."""

import json
from dataclasses import asdict
from typing import Any

from smooth_migrations.lint.outputs.linted import Linted
from smooth_migrations.protocol.linting import LintReport

__all__ = ["report"]


def report(linted: Linted) -> str:
    """Return one JSON document, with a list of what was found for each database."""
    document = {
        "version": 1,
        "command": "lint",
        "deploy": linted.deploy,
        "exit_code": linted.exit_code,
        "databases": [_database(each, linted) for each in linted.reports],
    }
    return json.dumps(document, indent=2)


def _database(report: LintReport, linted: Linted) -> dict[str, Any]:
    return {
        "database": report.database,
        "basis": report.basis,
        "migrations": [
            {**asdict(each), "file": linted.named(each.file), "reversible": not each.irreversible}
            for each in report.migrations
        ],
        "findings": [{**asdict(each), "file": linted.named(each.file)} for each in report.findings],
    }
