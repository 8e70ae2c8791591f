import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

# What an undo of permanent migrations, a wait, a report or a plan needs.
LATE: Final = {
    "sqlite3",
    *(
        f"smooth_migrations.{name}"
        for name in (
            "fingerprint",
            "losses",
            "planning",
            "protocol.failures",
            "protocol.findings",
            "report",
            "undo.choice",
            "undo.indexes",
            "undo.operations",
            "undo.proof",
            "undo.renames",
            "undo.rows",
            "undo.steps",
            "undo.tables.mysql",
            "undo.tables.postgresql",
            "waits",
        )
    ),
}
SLOW: Final = {
    "anyio",
    "asyncio",
    "asyncpg",
    "jinja2",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "rich.console",
    "smooth_orchestrator.runner",
    "structlog",
}
"""Of what a command of the orchestrator may need, that which takes long to import."""

SETTINGS: Final = """
import sys
import django
from django.conf import settings
from django.core.management import call_command

name = sys.argv[1]
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "smooth_migrations"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}} if name else {},
)
django.setup()
"""
IMPORT: Final = "import smooth_migrations.management.commands.apply_migrations\n"
CALL: Final = "call_command('apply_migrations', verbosity=0)\n"
SHOW: Final = "print(*sys.modules)\n"


def modules_of(program: str, database: Path | str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SETTINGS + program + SHOW, str(database)], capture_output=True, text=True, check=True
    )
    return {*done.stdout.split()}


def test_the_command_imports_no_driver_and_nothing_that_only_an_undo_needs() -> None:
    assert modules_of(IMPORT, "") & LATE == set()


def test_a_call_that_succeeds_in_one_transaction_never_imports_what_an_undo_by_steps_needs(tmp_path: Path) -> None:
    from_zero = modules_of(CALL, tmp_path / "one.sqlite3")
    assert from_zero & LATE == {"sqlite3", "smooth_migrations.undo.choice"}
    nothing_to_do = modules_of(CALL, tmp_path / "one.sqlite3")
    assert nothing_to_do & LATE == {"sqlite3"}


def imported_by(*words: str) -> set[str]:
    """Return what is imported of all that is slow when the program is run with these words."""
    program = (
        "import sys; from smooth_orchestrator.cli import main; code = main(sys.argv[1:]); "
        "print(code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    _code, *names = done.stderr.splitlines()[-1].split()
    return SLOW & {*names}


def test_help_and_version_import_nothing_slow() -> None:
    for words in (["--version"], ["--help"], ["deploy", "--help"]):
        assert imported_by(*words) == set()


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        (None, set()),
        ("version = ", set()),
        ("version = 1", {"pydantic"}),
        ("version = 1\n[deploy]\nname = 7\nnonsense = 1", {"pydantic"}),
    ],
    ids=["no-file", "no-toml", "no-plan", "wrong-key-and-type"],
)
@pytest.mark.parametrize("command", ["deploy", "plan"])
def test_a_plan_that_is_refused_waits_for_nothing_that_runs_one(
    tmp_path: Path, command: str, text: str | None, needed: set[str]
) -> None:
    plan = tmp_path / "deploy.toml"
    if text is not None:
        plan.write_text(text)
    assert imported_by(command, str(plan), "--json") == needed
    assert imported_by(command, str(plan)) == needed
