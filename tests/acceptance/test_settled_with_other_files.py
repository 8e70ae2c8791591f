"""Runs that are settled with other files than they were begun with: some are gone, were changed, or came since."""

from pathlib import Path

import pytest

from tests.support.postgres_server import PostgresServer
from tests.support.settled import BY_PHASE, DEPLOY, fleet_with, kill_at, schemas_of, settle
from tests.support.small_migrations import KIND, NOTE

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

_RELEASE = {"demo.0002_note": NOTE, "demo.0003_kind": KIND}


@pytest.mark.parametrize("command", ["deploy", "rollback"])
def test_a_decided_run_is_not_called_committed_without_its_files(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, command: str
) -> None:
    with fleet_with(tmp_path, servers, _RELEASE, deploy=DEPLOY) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "held_open"')
        before = schemas_of(fleet)
        if command == "rollback":
            assert fleet.deploy().exit_code == 0
        # The workers roll back what they hold.
        kill_at(fleet, "journal.decision.after", command)
        names = ["0003_kind.py"] if command == "rollback" else ["0002_note.py", "0003_kind.py"]
        files = [fleet.directory / "project/demo/migrations" / name for name in names]
        sources = [file.read_text() for file in files]
        for file in files:
            file.unlink()

        doubtful = fleet.run("recover")

        assert (doubtful.exit_code, {*doubtful.outcomes.values()}) == (4, {"in_doubt"}), doubtful.stderr
        assert "0003_kind" in doubtful.report["error"]["message"]
        for file, source in zip(files, sources, strict=True):
            file.write_text(source)
        # What is to be taken back can be so by hand, too, where nobody has the files any more.
        plain, *by_hand = doubtful.report["settle_with"]
        assert (plain, len(by_hand)) == ("smooth-orchestrate recover deploy.toml", command == "rollback")
        settled = fleet.run("recover")
        assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
        after = schemas_of(fleet)
        assert after == before if command == "rollback" else all("0003_kind" in text for text in after.values())


def test_a_decided_run_is_finished_without_migrations_that_came_since(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with fleet_with(tmp_path, servers, {"demo.0002_note": NOTE}, deploy=DEPLOY) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "held_open"')
        kill_at(fleet, "journal.decision.after", "deploy")
        newer = fleet.directory / "project/demo/migrations/0003_kind.py"
        newer.write_text(KIND)

        doubtful = fleet.run("recover")

        assert (doubtful.exit_code, {*doubtful.outcomes.values()}) == (4, {"in_doubt"}), doubtful.stderr
        assert doubtful.report["error"]["message"] == "demo.0003_kind would run too, and not of this run"
        assert not any("0002_note" in text for text in schemas_of(fleet).values())
        newer.unlink()
        assert fleet.run_printed(doubtful).report["outcome"] == "committed"
        assert all("0002_note" in text for text in schemas_of(fleet).values())


@pytest.mark.parametrize(
    ("commit", "point"),
    [("phase", "journal.run_finished.before"), ("deploy", "decide.after")],
)
def test_a_database_that_a_run_did_not_come_to_is_not_moved_by_the_next_release(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, commit: str, point: str
) -> None:
    with fleet_with(tmp_path, servers, {"demo.0002_note": NOTE}, deploy=f'{DEPLOY}\ncommit = "{commit}"') as fleet:
        fleet.migrate("shard_1")
        kill_at(fleet, point)
        newer = fleet.directory / "project/demo/migrations/0003_kind.py"
        newer.write_text(KIND)

        refused = fleet.deploy()

        assert (refused.exit_code, refused.report["outcome"]) == (4, "needs_operator"), refused.stderr
        assert "demo.0003_kind would run too" in refused.report["error"]["message"]
        assert not any("0003_kind" in text for text in schemas_of(fleet).values())
        newer.unlink()
        assert settle(fleet).report["outcome"] == "committed"
        newer.write_text(KIND)
        assert fleet.deploy().report["outcome"] == "committed"


def test_a_phase_is_not_taken_back_by_files_that_have_changed(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    other = "migrations.AddField('item', 'other', models.CharField(max_length=40, default='none'))"
    both = NOTE.replace("migrations.AddField('item', 'note'", f"{other}, migrations.AddField('item', 'note'")
    with fleet_with(tmp_path, servers, {"demo.0002_note": both}, deploy=BY_PHASE) as fleet:
        before = schemas_of(fleet)
        kill_at(fleet, "journal.phase_started.before:2")
        file = fleet.directory / "project/demo/migrations/0002_note.py"
        file.write_text(NOTE)
        between = schemas_of(fleet)

        refused = fleet.run("recover")

        assert (refused.exit_code, refused.report["outcome"]) == (4, "needs_operator"), refused.stderr
        assert refused.report["error"]["message"] == "the file of demo.0002_note has been changed since it ran"
        assert schemas_of(fleet) == between
        file.write_text(both)
        assert settle(fleet).report["outcome"] == "rolled_back"
        assert schemas_of(fleet) == before
