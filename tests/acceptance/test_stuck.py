"""A way back that has failed is told by `status`, in each of its forms, with why and with the page for it."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import SCRIPT
from tests.support.small_migrations import DEFINING, NOTE, failing, run_python
from tests.support.small_project import migration
from tests.support.tiers import DEPLOY

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

_PAGE: Final = "docs/runbooks/exit-4-not-taken-back.md"
_HOSTILE: Final = "no | archive <b>`x`</b>\\nsecond line"


def _status(fleet: Fleet, form: str) -> str:
    words = [SCRIPT, "status", "deploy.toml", "--format", form]
    told = subprocess.run(
        words, cwd=fleet.directory, env=os.environ | fleet.environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return told.stdout


def test_a_way_back_that_has_failed_is_told_with_why_and_what_to_do(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    raises = f"if not os.path.exists('../archive'): raise ValueError({_HOSTILE!r})".replace("\\\\n", "\\n")
    stuck = migration(
        "migrations.RunPython(defining, forwards)",
        after=[("demo", "0001_item")],
        atomic=False,
        functions=DEFINING + run_python(raises),
    )
    breaks = failing("if editor.connection.alias == 'shard_1': raise ValueError('no such kind')", atomic=False)
    release = {"demo.0002_note": stuck, "demo.0003_kind": breaks}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        fleet.plan(deploy=DEPLOY)
        failed = fleet.deploy()
        assert (failed.exit_code, failed.report["runbook"]) == (4, _PAGE), failed.stderr
        (event,) = failed.named("deploy.needs_operator")
        assert event["runbook"] == _PAGE

        stood = {each["database"]: each["stuck"] for each in fleet.run("status").report["databases"]}
        assert stood["kiosk"] is None
        for name in ("primary", LAST):
            found = stood[name]
            assert (found["run_id"], found["state"], found["steps"]) == (
                failed.report["run_id"],
                "going_back",
                ["demo.0002_note"],
            )
            assert found["error"]["message"].startswith("demo.0002_note could not be taken back: no | archive")
            assert found["runbook"] == _PAGE

        text, markdown, page = (_status(fleet, form) for form in ("text", "markdown", "html"))
        assert text.count(f"stuck: to be taken back: demo.0002_note (run {failed.report['run_id']})") == 2
        assert text.count(f"  what to do: {_PAGE}\n") == 2
        assert "why: demo.0002_note could not be taken back: no | archive <b>" in text
        assert "second line" not in text
        rows = [line for line in markdown.splitlines() if "stuck: " in line]
        assert len(rows) == 2
        assert {line.count("|") for line in rows} == {8}
        assert "<b>" not in markdown.replace("<br>", "")
        assert "<b>" not in page
        assert page.count(_PAGE) == 2

        (fleet.directory / "archive").mkdir()
        assert fleet.run_printed(failed).report["outcome"] == "rolled_back"
        assert {each["stuck"] for each in fleet.run("status").report["databases"]} == {None}


def test_where_a_run_was_cut_off_nothing_is_called_stuck(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "compensated"')
        fleet.kill("deploy", "decide.before")

        stood = {each["database"]: each["stuck"] for each in fleet.run("status").report["databases"]}

        assert stood == {"primary": None, "kiosk": None, LAST: None}
