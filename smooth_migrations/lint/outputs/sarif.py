"""SARIF 2.1.0, for code scanning: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from smooth_migrations.lint.outputs.linted import Linted
from smooth_migrations.protocol.linting import LintFinding, LintRule

__all__ = ["log"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def log(linted: Linted) -> str:
    """Return a log of one run, with every finding once; what is allowed is suppressed in source."""
    rules = tuple(dict.fromkeys(rule for report in linted.reports for rule in report.rules))
    codes = [rule.code for rule in rules]
    driver = {"name": "smooth-orchestrate", "version": linted.version, "rules": [_rule(rule) for rule in rules]}
    results = [_result(found, codes.index(found.code), linted) for found in linted.findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(rule: LintRule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.page},
        "help": {"text": rule.page, "markdown": rule.page},
        "defaultConfiguration": {"level": str(rule.level)},
    }


def _result(found: LintFinding, index: int, linted: Linted) -> dict[str, Any]:
    hint = f" ({found.hint})" if found.hint else ""
    result: dict[str, Any] = {
        "ruleId": found.code,
        "ruleIndex": index,
        "level": str(found.level),
        "message": {"text": f"{found.migration}: {found.message}{hint}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _location(linted.named(found.file)),
                    "region": {"startLine": found.line},
                }
            }
        ],
    }
    if found.allowed is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": found.allowed}]
    return result


def _location(name: str) -> dict[str, str]:
    if Path(name).is_absolute():
        return {"uri": Path(name).as_uri()}
    return {"uri": quote(name), "uriBaseId": "%SRCROOT%"}
