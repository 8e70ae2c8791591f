"""Undo that a migration registers for what it does outside the database, in a deploy over several."""

from pathlib import Path

import pytest

from tests.support.deploys import LAST, assert_rolled_back_at_a_gate, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE, run_python
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

_REGISTERS = migration(
    "migrations.RunPython(forwards, nothing)",
    after=[("demo", "0002_note")],
    functions="from smooth_migrations import on_rollback\n\n"
    + run_python("on_rollback(lambda alias=editor.connection.alias: open('undone', 'a').write(f'{alias}\\n'))"),
)


@pytest.mark.long
@pytest.mark.parametrize("commit", ["deploy", pytest.param("phase", marks=pytest.mark.long)])
def test_what_is_held_at_the_barrier_calls_it_when_it_is_rolled_back(
    commit: str, pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {"demo.0002_note": NOTE, "demo.0003_kind": _REGISTERS}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        assert_rolled_back_at_a_gate(fleet, commit=commit)
        # What a phase has committed is the past; whoever reverses it did not run it.
        held = ["default", "kiosk", "shard_1"] if commit == "deploy" else ["shard_1"]
        assert sorted((tmp_path / "project/undone").read_text().split()) == held


@pytest.mark.long
def test_an_error_in_it_needs_an_operator(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    fails = _REGISTERS.replace("open('undone', 'a')", "1 / (alias != 'shard_1') and open('undone', 'a')")
    release = {"demo.0002_note": NOTE, "demo.0003_kind": fails}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        fleet.plan(shards='gate = ["false"]')
        before = fleet.dumps(sequences=False)

        outcome = fleet.deploy()

        assert (outcome.exit_code, outcome.outcomes[LAST]) == (4, "in_doubt"), outcome.stderr
        assert any("ZeroDivisionError" in str(entry["error"]) for entry in outcome.report["databases"])
        assert fleet.dumps(sequences=False) == before
