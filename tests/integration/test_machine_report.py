"""`apply_migrations --json`: one report on standard output, and nothing else there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.small_migrations import BROKEN, BROKEN_LATE, DEFINING, KIND, NOTE, failing, run_python
from tests.support.small_project import Result, migration

pytestmark = pytest.mark.long_on("sqlite")

_KEYS = {
    *("version", "command", "deploy", "run_id", "outcome", "exit_code", "rehearsed", "started_at", "duration_ms"),
    *("databases", "error", "errors"),
}
_DATABASE_KEYS = {
    *("database", "project", "alias", "vendor", "phase", "tier", "outcome", "applied", "unapplied"),
    *("contract_pending", "lock_hold_ms", "error"),
}


def report_of(result: Result) -> dict[str, Any]:
    """Return the report, which is all of standard output, and agrees with how the process ended."""
    report: dict[str, Any] = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert report.keys() == _KEYS
    assert [entry.keys() for entry in report["databases"]] == [_DATABASE_KEYS]
    assert report["exit_code"] == result.returncode
    assert (report["version"], report["command"]) == (1, "apply_migrations")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", report["started_at"])
    assert report["duration_ms"] > 0
    return report


def told(report: dict[str, Any], *keys: str) -> tuple[object, ...]:
    """Return the outcome of the run and of the database, and further keys of the database."""
    (entry,) = report["databases"]
    return (report["outcome"], entry["outcome"], *(entry[key] for key in keys))


def test_a_success_tells_what_was_applied_and_then_that_there_is_nothing_to_do(
    every_database: NewDatabases, tmp_path: Path
) -> None:
    project = project_of(tmp_path, every_database.new(), {"demo.0002_note": NOTE, "demo.0003_kind": KIND})
    tier = "compensated" if every_database.vendor.value == "mysql" else "held_open"

    first = report_of(project.run("apply_migrations", "--json"))
    second = report_of(project.run("apply_migrations", "--json"))

    assert told(first, "applied", "unapplied", "tier") == (
        *("committed", "committed"),
        *(["demo.0002_note", "demo.0003_kind"], [], tier),
    )
    assert first["databases"][0]["vendor"] == every_database.vendor.value
    assert told(second, "applied", "unapplied") == ("nothing_to_do", "unchanged", [], [])
    assert (first["error"], second["error"]) == (None, None)
    assert first["run_id"] != second["run_id"]


def test_a_way_back_tells_what_was_unapplied(databases: NewDatabases, tmp_path: Path) -> None:
    project = project_of(tmp_path, databases.new(), {"demo.0002_note": NOTE})
    project.succeed("migrate", "--verbosity=0")

    report = report_of(project.run("apply_migrations", "demo", "0001", "--json"))

    assert told(report, "applied", "unapplied") == ("committed", "committed", [], ["demo.0002_note"])


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_a_failure_tells_its_cause_and_what_was_taken_back(
    every_database: NewDatabases, tmp_path: Path, *, atomic: bool
) -> None:
    database = every_database.new()
    project = project_of(
        tmp_path, database, {"demo.0002_note": NOTE, "demo.0003_kind": BROKEN if atomic else BROKEN_LATE}
    )
    before = every_database.dump(database)

    result = project.run("apply_migrations", "--json")

    report = report_of(result)
    assert told(report, "applied", "unapplied") == ("rolled_back", "failed", [], ["demo.0002_note"])
    assert report["error"] == {
        "type": "ValueError",
        "message": "no such kind",
        "sqlstate": None,
        "migration": "demo.0003_kind",
        "hint": None,
    }
    assert report["databases"][0]["error"] == report["error"]
    assert "Traceback" in result.stderr
    assert "Applying demo.0003_kind... FAIL" in result.stderr
    assert every_database.dump(database) == before


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "raise KeyboardInterrupt"])
def test_code_that_ends_the_program_does_not_choose_the_exit_code(
    databases: NewDatabases, tmp_path: Path, body: str
) -> None:
    database = databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE, "demo.0003_kind": failing(body)})
    before = databases.dump(database)

    result = project.run("apply_migrations", "--json")

    assert result.returncode == 1
    assert told(report_of(result)) == ("rolled_back", "failed")
    assert databases.dump(database) == before


def test_whatever_migrations_print_goes_to_standard_error(databases: NewDatabases, tmp_path: Path) -> None:
    loud = "print('loud'); import subprocess; subprocess.run(['echo', 'louder'], check=True)"
    printing = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0001_item")], functions=run_python(loud)
    )
    project = project_of(tmp_path, databases.new(), {"demo.0002_note": printing})

    result = project.run("apply_migrations", "--json")

    assert told(report_of(result)) == ("committed", "committed")
    for line in ("loud", "louder"):
        assert re.search(rf"{line}\n", result.stderr)


def test_a_rehearsal_did_nothing_in_the_end(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE})
    before = databases.dump(database)

    report = report_of(project.run("apply_migrations", "--rehearse", "--json"))

    assert told(report, "applied", "unapplied") == ("nothing_to_do", "rolled_back", [], ["demo.0002_note"])
    assert report["rehearsed"] is True
    assert databases.dump(database) == before


def test_a_refusal_tells_why_and_what_to_do(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    one_way = migration("migrations.RunPython(forwards)", after=[("demo", "0001_item")], functions=run_python("pass"))
    project = project_of(tmp_path, stepping_databases.new(), {"demo.0002_note": one_way, "demo.0003_kind": BROKEN_LATE})

    report = report_of(project.run("apply_migrations", "--json"))

    assert told(report, "applied", "unapplied") == ("refused", "unchanged", [], [])
    assert (report["exit_code"], report["error"]["type"]) == (3, "Irreversible")
    assert "demo.0002_note: Raw Python operation" in report["error"]["message"]
    assert report["error"]["hint"] == "--allow-irreversible runs them all the same"


def test_an_undo_that_fails_needs_an_operator(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    stuck = migration(
        "migrations.RunPython(defining, forwards)",
        after=[("demo", "0001_item")],
        atomic=False,
        functions=DEFINING + run_python("raise OSError('stuck')"),
    )
    project = project_of(tmp_path, stepping_databases.new(), {"demo.0002_note": stuck, "demo.0003_kind": BROKEN})

    report = report_of(project.run("apply_migrations", "--json"))

    assert told(report, "applied", "unapplied") == ("needs_operator", "in_doubt", ["demo.0002_note"], [])
    assert (report["exit_code"], report["error"]["type"]) == (4, "ValueError")
    assert [error["message"] for error in report["errors"]] == ["demo.0002_note could not be taken back: stuck"]


def test_a_server_error_comes_with_its_sqlstate(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    twice = migration("migrations.RunSQL('CREATE TABLE demo_item (id integer)', '')", after=[("demo", "0001_item")])
    project = project_of(tmp_path, stepping_databases.new(), {"demo.0002_note": twice})

    report = report_of(project.run("apply_migrations", "--json"))

    assert report["error"]["sqlstate"] == ("42P07" if stepping_databases.vendor.value == "postgresql" else None)


def test_a_second_call_tells_who_keeps_it_out(databases: NewDatabases, tmp_path: Path) -> None:
    waits = failing("print('waiting', flush=True); threading.Event().wait()")
    project = project_of(tmp_path, databases.new(), {"demo.0002_note": NOTE, "demo.0003_kind": waits})
    with project.start("apply_migrations") as process:
        assert process.stdout is not None
        assert any(line.endswith("waiting\n") for line in process.stdout)
        report = report_of(project.run("apply_migrations", "--json"))
        process.kill()
    assert told(report) == ("locked", "unchanged")
    assert (report["exit_code"], report["error"]["type"]) == (5, "LeaseHeld")
    assert f"pid {process.pid}" in report["error"]["message"]


def test_a_callback_that_fails_after_the_commit_leaves_it_committed(databases: NewDatabases, tmp_path: Path) -> None:
    body = "from django.db import transaction; transaction.on_commit(lambda: 1 / 0)"
    late = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0001_item")], functions=run_python(body)
    )
    project = project_of(tmp_path, databases.new(), {"demo.0002_note": late})

    result = project.run("apply_migrations", "--json")

    assert told(report_of(result)) == ("committed", "committed")
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize("option", ["--plan", "--check", "--no-rollback"])
def test_options_of_which_there_is_no_report_are_a_usage_error(
    databases: NewDatabases, tmp_path: Path, option: str
) -> None:
    project = project_of(tmp_path, databases.new())

    result = project.run("apply_migrations", "--json", option)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"CommandError: --json does not go with {option}\n"
