"""Committed runs that are taken back: every database as it was before the run, or none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import KIND, NOTE, run_python
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

_AUTH = ("django.contrib.contenttypes", "django.contrib.auth")
_TAG = migration(
    "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True)), "
    "('item', models.ForeignKey('demo.item', models.CASCADE))])",
    # Its index is made all the same, when the migration is over, and the way back would make it once more.
    "migrations.AlterField('tag', 'item', models.ForeignKey('demo.item', models.CASCADE, db_index=False))",
    "migrations.AlterModelOptions('item', {'permissions': [('lend_item', 'Can lend')]})",
    after=[("demo", "0002_note")],
)
_RELEASE = {"demo.0002_note": NOTE, "demo.0003_tag": _TAG}


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, _RELEASE, installed=_AUTH) as fleet:
        yield fleet


def _assert_refused(outcome: Outcome, *messages: str) -> None:
    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    said = [outcome.report["error"]] if outcome.report["error"] else outcome.report["errors"]
    assert [error["message"] for error in said] == [*messages]


@pytest.mark.parametrize(
    "atomicity",
    [
        "two_phase",
        pytest.param("held_open", marks=pytest.mark.long),
        pytest.param("compensated", marks=pytest.mark.long),
    ],
)
def test_a_run_is_taken_back_whole(atomicity: str, fleet: Fleet) -> None:
    if atomicity != "held_open":
        fleet.plan(servers=f'atomicity = "{atomicity}"')
    else:
        fleet.plan(deploy='expand_contract = false\natomicity = "held_open"')
    before = fleet.dumps(sequences=False)
    assert fleet.deploy("--run-id", "r1").exit_code == 0

    outcome = fleet.run("rollback", "--run-id", "back")

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert set(outcome.outcomes.values()) == {"committed"}
    assert [entry["unapplied"] for entry in outcome.report["databases"]] == [["demo.0003_tag", "demo.0002_note"]] * 3
    assert [entry["applied"] for entry in outcome.report["databases"]] == [[]] * 3
    assert fleet.dumps(sequences=False) == before
    assert not fleet.prepared()
    assert [line["migration"] for line in outcome.named("migration.unapplied")].count("0003_tag") == 3
    assert fleet.run("rollback", "--run-id", "back").report["outcome"] == "nothing_to_do"
    _assert_refused(fleet.run("rollback"), "the run r1 was taken back by back")
    assert fleet.deploy().report["outcome"] == "committed"


@pytest.mark.long
def test_what_was_written_since_is_counted_and_not_lost(fleet: Fleet) -> None:
    before = fleet.dumps(sequences=False)
    assert fleet.deploy().exit_code == 0
    fleet.execute("UPDATE demo_item SET note = 'red'; INSERT INTO demo_tag (item_id) SELECT id FROM demo_item")
    after = fleet.dumps()
    messages = [
        "demo.0003_tag: the table would be dropped (1 row of demo_tag)",
        "demo.0002_note: the values of note would be lost (1 row of demo_item)",
    ]

    refused = fleet.run("rollback")

    _assert_refused(refused, *messages * 3)
    assert {error["place"] for error in refused.report["errors"]} == {"primary", "kiosk", LAST}
    assert {error["hint"].split()[0] for error in refused.report["errors"]} == {"--discard-data"}
    assert fleet.dumps() == after

    assert fleet.run("rollback", "--discard-data").exit_code == 0
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_a_deploy_that_was_cut_off_is_not_followed_by_the_run_before_it(fleet: Fleet) -> None:
    assert fleet.deploy("--run-id", "first").exit_code == 0
    first = fleet.dumps(sequences=False)
    newer = migration(
        "migrations.AddField('item', 'size', models.IntegerField(null=True))", after=[("demo", "0003_tag")]
    )
    (fleet.directory / "project/demo/migrations/0004_size.py").write_text(newer)
    assert fleet.run("deploy", "--run-id", "second", failpoint="decide.before").exit_code < 0

    refused = fleet.run("rollback")

    message = "the deploy second was cut off; it is rolled back now, and nothing else is"
    _assert_refused(refused, message)
    assert fleet.dumps(sequences=False) == first
    assert fleet.run("rollback").report["outcome"] == "committed"


@pytest.mark.long
def test_texts_that_were_written_since_are_not_cut_off(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    widens = migration("migrations.AlterField('item', 'name', models.TextField())", after=[("demo", "0001_item")])
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": widens}) as fleet:
        fleet.plan(deploy="expand_contract = false")
        assert fleet.deploy().exit_code == 0
        fleet.execute(f"UPDATE demo_item SET name = '{'x' * 41}'")
        after = fleet.dumps(sequences=False)

        refused = fleet.run("rollback")

        # SQLite keeps every text.
        cut_off = "demo.0002_note: the values of name would be cut off (1 row of demo_item)"
        _assert_refused(refused, *[cut_off] * len(fleet.on_servers))
        assert fleet.dumps(sequences=False) == after


@pytest.mark.long
def test_who_was_given_a_permission_of_the_run_is_not_forgotten(fleet: Fleet) -> None:
    assert fleet.deploy().exit_code == 0
    fleet.execute(
        "INSERT INTO auth_group (name) VALUES ('lenders');"
        "INSERT INTO auth_group_permissions (group_id, permission_id) "
        "SELECT g.id, p.id FROM auth_group g, auth_permission p WHERE codename = 'lend_item'"
    )
    after = fleet.dumps(sequences=False)

    refused = fleet.run("rollback")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert refused.report["error"]["message"] == "1 rows of auth_group_permissions would be lost"
    assert fleet.dumps(sequences=False) == after
    assert fleet.run("rollback", "--discard-data").exit_code == 0


@pytest.mark.long
def test_what_is_written_between_the_look_and_the_lock_is_not_lost(fleet: Fleet) -> None:
    assert fleet.deploy().exit_code == 0
    fleet.plan(deploy='expand_contract = false\nlock_timeout = "1min"')
    with fleet.first.connect() as session:
        session.execute("BEGIN; INSERT INTO demo_item (name, note) VALUES ('swift', 'blue')")
        with fleet.running(command="rollback") as run:
            run.wait_for("lock.waiting", database="primary")
            session.execute("COMMIT")
            outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    message = "demo.0002_note: the values of note would be lost (1 row of demo_item)"
    assert outcome.report["error"]["message"] == message
    with fleet.first.connect() as session:
        assert session.execute("SELECT note FROM demo_item WHERE name = 'swift'").fetchall() == [("blue",)]


def test_a_rollback_that_fails_changes_nothing(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    fails_back = migration(
        "migrations.RunPython(forwards, backwards)",
        after=[("demo", "0002_note")],
        functions=run_python("pass") + "def backwards(apps, editor):\n"
        "    if editor.connection.alias == 'default':\n        raise ValueError('no way back')\n",
    )
    release = {"demo.0002_note": NOTE, "demo.0003_fill": fails_back}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        assert fleet.deploy().exit_code == 0
        after = fleet.dumps()

        outcome = fleet.run("rollback")

        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert outcome.report["error"]["migration"] == "demo.0003_fill"
        # The last phase first. A file of SQLite goes back before `primary`; a database beside that may not have begun.
        kiosk = {"rolled_back", "unchanged"} if fleet.third else {"rolled_back"}
        assert outcome.outcomes["kiosk"] in kiosk
        assert outcome.outcomes | {"kiosk": ""} == {LAST: "rolled_back", "primary": "failed", "kiosk": ""}
        assert fleet.dumps() == after
        assert not fleet.prepared()


@pytest.mark.long
def test_files_that_are_not_those_of_the_run_are_refused_by_name(fleet: Fleet) -> None:
    assert fleet.deploy().exit_code == 0
    after = fleet.dumps()
    file = fleet.directory / "project/demo/migrations/0003_tag.py"
    source = file.read_text()

    file.write_text(source.replace("lend_item", "rent_item"))
    changed = "the file of demo.0003_tag has been changed since that run applied it"
    _assert_refused(fleet.run("rollback"), *[changed] * 3)

    file.unlink()
    missing = "demo.0003_tag is recorded as applied, and its file is missing"
    refused = fleet.run("rollback")
    assert refused.exit_code == 3
    assert missing in [error["message"] for error in refused.report["errors"]]
    assert fleet.dumps() == after

    file.write_text(source)
    assert fleet.run("rollback").exit_code == 0


@pytest.mark.long
def test_what_stands_on_a_run_is_taken_back_first(fleet: Fleet) -> None:
    before = fleet.dumps(sequences=False)
    (fleet.directory / "project/demo/migrations/0003_tag.py").rename(fleet.directory / "later.py")
    assert fleet.deploy("--run-id", "r1").exit_code == 0
    (fleet.directory / "later.py").rename(fleet.directory / "project/demo/migrations/0003_tag.py")
    assert fleet.deploy("--run-id", "r2").exit_code == 0

    _assert_refused(fleet.run("rollback", "--run", "r1"), "the run r2 committed after r1")
    _assert_refused(fleet.run("rollback", "--run", "r9"), "the journal holds no committed run 'r9'")
    assert fleet.run("rollback", "--run", "r2", "--run-id", "b2").exit_code == 0
    _assert_refused(fleet.run("rollback", "--run", "b2"), "the run b2 is a rollback, and no deploy")
    _assert_refused(fleet.run("rollback"), "the run r2 was taken back by b2")
    assert fleet.run("rollback", "--run", "r1").exit_code == 0
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_what_somebody_else_applied_on_top_is_refused_by_name(fleet: Fleet) -> None:
    assert fleet.deploy().exit_code == 0
    later = KIND.replace("0002_note", "0003_tag")
    (fleet.directory / "project/demo/migrations/0004_kind.py").write_text(later)
    with fleet.first.connect() as session:
        session.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('demo', '0004_kind', now())")
    after = fleet.dumps()

    message = "demo.0004_kind was applied after that run and stands on it"
    _assert_refused(fleet.run("rollback"), message)
    assert fleet.dumps() == after


@pytest.mark.long
def test_a_phase_that_committed_takes_its_content_types_along_when_a_later_one_fails(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, _RELEASE, installed=_AUTH) as fleet:
        fleet.plan(deploy='expand_contract = false\ncommit = "phase"', shards='gate = ["false"]')
        before = fleet.dumps(sequences=False)

        outcome = fleet.deploy()

        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert fleet.dumps(sequences=False) == before
