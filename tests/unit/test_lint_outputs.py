"""What was found, in the forms that other programs read."""

import json
from pathlib import Path
from typing import Any, Final

import click
import pytest
from pydantic import ValidationError
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as SarifLog

from smooth_migrations.lint.outputs import OUTPUTS, Linted
from smooth_migrations.protocol.linting import Level, LintedMigration, LintFinding, LintReport, LintRule
from smooth_orchestrator.cli.linting import lint

ROOT: Final = Path("/srv/shop")
RULES: Final = (
    LintRule("SM101", "Breaks it", Level.ERROR, "Since.\n\nSo `do` that."),
    LintRule("SM105", "May wait", Level.NOTE, "Since.\n\nSo do this."),
)
BREAKS: Final = LintFinding(
    "SM101", Level.ERROR, "demo.0002_a", "/srv/shop/de mo/0002_a.py", 7, "100% gone,\nfor: good", hint="keep it"
)
ALLOWED: Final = LintFinding(
    "SM101", Level.ERROR, "demo.0002_a", "/srv/shop/de mo/0002_a.py", 9, "gone", allowed="nobody uses it"
)
ELSEWHERE: Final = LintFinding("SM105", Level.NOTE, "other.0003_b", "/usr/lib/other/0003_b.py", 1, "may wait")
MIGRATION: Final = LintedMigration(
    "demo.0002_a", "/srv/shop/de mo/0002_a.py", atomic=True, expand=("a",), irreversible=("b",)
)
OTHER: Final = LintedMigration("other.0003_b", "/usr/lib/other/0003_b.py", atomic=False)
REPORT: Final = LintReport("default", "all", (MIGRATION, OTHER), (BREAKS, ALLOWED, ELSEWHERE), RULES)


def written(form: str, *reports: LintReport) -> str:
    return OUTPUTS[form](Linted(reports or (REPORT,), ROOT, "0.3.0"))


@pytest.mark.parametrize(
    ("findings", "code"), [((), 0), ((ALLOWED,), 0), ((ELSEWHERE,), 0), ((ALLOWED, BREAKS), 1)], ids=str
)
def test_what_is_more_than_a_note_and_not_allowed_fails(findings: tuple[LintFinding, ...], code: int) -> None:
    assert Linted((LintReport("default", "all", findings=findings),), ROOT, "0.3.0").exit_code == code


def test_the_machine_report_has_every_migration_and_every_finding() -> None:
    report = json.loads(written("json"))
    [database] = report.pop("databases")
    assert report == {"version": 1, "command": "lint", "deploy": None, "exit_code": 1}
    assert database["migrations"][:1] == [
        {
            "migration": "demo.0002_a",
            "file": "de mo/0002_a.py",
            "atomic": True,
            "expand": ["a"],
            "contract": [],
            "locks": [],
            "rewrites": [],
            "irreversible": ["b"],
            "old_release": [],
            "new_release": [],
            "reversible": False,
        }
    ]
    assert database["findings"][1] == {
        "code": "SM101",
        "level": "error",
        "migration": "demo.0002_a",
        "file": "de mo/0002_a.py",
        "line": 9,
        "message": "gone",
        "hint": None,
        "allowed": "nobody uses it",
    }


def test_sarif_is_what_its_schema_says() -> None:
    log = json.loads(written("sarif"))
    SarifLog.model_validate(log)
    del log["runs"][0]["tool"]["driver"]["name"]
    with pytest.raises(ValidationError, match="name"):
        SarifLog.model_validate(log)


def test_sarif_names_rule_place_and_what_is_suppressed() -> None:
    [run] = json.loads(written("sarif"))["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["SM101", "SM105"]
    broken, allowed, elsewhere = run["results"]
    assert broken == {
        "ruleId": "SM101",
        "ruleIndex": 0,
        "level": "error",
        "message": {"text": "demo.0002_a: 100% gone,\nfor: good (keep it)"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": "de%20mo/0002_a.py", "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 7},
                }
            }
        ],
    }
    assert allowed["suppressions"] == [{"kind": "inSource", "justification": "nobody uses it"}]
    assert place_of(elsewhere) == {"uri": "file:///usr/lib/other/0003_b.py"}
    assert (elsewhere["ruleIndex"], elsewhere["level"]) == (1, "note")


def place_of(result: dict[str, Any]) -> dict[str, str]:
    place: dict[str, str] = result["locations"][0]["physicalLocation"]["artifactLocation"]
    return place


def test_annotations_are_commands_of_githubs_runner_in_one_line_each() -> None:
    assert written("github").splitlines() == [
        "::error file=de mo/0002_a.py,line=7,title=SM101::demo.0002_a: 100%25 gone,%0Afor: good (keep it)",
        "::notice file=/usr/lib/other/0003_b.py,line=1,title=SM105::other.0003_b: may wait",
    ]


@pytest.mark.parametrize(("form", "times"), [("sarif", 1), ("github", 1), ("json", 2), ("text", 2)])
def test_what_is_so_for_two_databases_is_one_finding_where_files_are_what_counts(form: str, times: int) -> None:
    assert written(form, REPORT, REPORT).count("may wait") == times


def test_the_program_offers_every_form() -> None:
    [option] = [parameter for parameter in lint.params if parameter.name == "output"]
    assert isinstance(option.type, click.Choice)
    assert [*option.type.choices] == [*OUTPUTS]
