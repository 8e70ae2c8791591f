"""Calls that are killed, and with `--resume` gone on with by the next."""

from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, Vendor
from tests.support.killing import killed_at_each_statement, make_room
from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.small_migrations import DEFINING, ITEM, NOTE, failing
from tests.support.small_project import SmallProject, migration

pytestmark = [pytest.mark.long_on("mysql"), pytest.mark.timeout(240)]

# Kills its process once, where the file says so.
_KILL = """\
from pathlib import Path

def killing(word):
    def kill(apps, editor):
        if Path("kill").exists() and Path("kill").read_text() == word:
            Path("kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return migrations.RunPython(kill, nothing)

def nothing(apps, editor):
    pass
"""
_RELEASE = {
    "demo.0002_note": NOTE.replace("atomic = True", "atomic = False"),
    "demo.0003_kind": migration(
        "killing('first')",
        "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True)), "
        "('item', models.ForeignKey('demo.item', models.CASCADE)), ('word', models.CharField(max_length=20))])",
        "killing('second')",
        "migrations.RenameField('item', 'note', 'remark')",
        "migrations.AddIndex('item', models.Index(fields=['name', 'remark'], name='demo_item_both'))",
        "killing('last')",
        after=[("demo", "0002_note")],
        atomic=False,
        functions=_KILL,
    ),
    "demo.0004_more": migration(
        "migrations.AddField('item', 'tags', models.ManyToManyField('demo.tag', related_name='+'))",
        "migrations.AlterUniqueTogether('tag', {('item', 'word')})",
        "killing('later')",
        after=[("demo", "0003_kind")],
        functions=_KILL,
    ),
}
# MariaDB's way back alters many tables.
_EVERY = {Vendor.POSTGRESQL: 1, Vendor.MYSQL: 2}
_WORDS = ["first", "second", "last", "later"]
_LATER = [pytest.param(word, marks=pytest.mark.long) for word in _WORDS[1:]]


def text_of(database: Database) -> str:
    return dump(database.dsn, sequences=False, blank={"django_migrations": ("id", "applied")})


def uninterrupted(databases: NewDatabases, directory: Path, release: dict[str, str]) -> str:
    """Return what a call leaves that nothing has disturbed."""
    database = databases.new()
    project_of(directory / "uninterrupted", database, release).succeed("apply_migrations")
    return text_of(database)


def from_nothing(databases: NewDatabases, directory: Path) -> tuple[str, SmallProject, Database]:
    """Return what a call leaves in an empty database, and a project with another one."""
    release = {"demo.0001_item": ITEM, **_RELEASE}
    reference, database = databases.new(), databases.new()
    SmallProject(directory / "whole", {"default": reference.django}, release).succeed("apply_migrations")
    return text_of(reference), SmallProject(directory / "project", {"default": database.django}, release), database


def kill(project: SmallProject, directory: Path, word: str, *arguments: str) -> None:
    (directory / "project/kill").write_text(word)
    assert project.run("apply_migrations", *arguments).returncode == -9
    assert not (directory / "project/kill").exists()


@pytest.mark.parametrize("word", [*_WORDS[:1], *_LATER])
def test_a_resumed_call_ends_where_an_uninterrupted_one_does(
    stepping_databases: NewDatabases, tmp_path: Path, word: str
) -> None:
    wanted = uninterrupted(stepping_databases, tmp_path, _RELEASE)
    database = stepping_databases.new()
    project = project_of(tmp_path, database, _RELEASE)
    kill(project, tmp_path, word)

    output = project.succeed("apply_migrations", "--resume")

    assert output.startswith("An earlier call (")
    # What was complete before the kill is not run again.
    assert "Applying demo.0002_note" not in output
    assert not diff(wanted, text_of(database))
    assert "  No migrations to apply.\n" in project.succeed("apply_migrations", "--resume")


@pytest.mark.parametrize("word", [*_WORDS[:1], *_LATER])
def test_a_resumed_call_that_fails_undoes_what_the_killed_one_did_too(
    stepping_databases: NewDatabases, tmp_path: Path, word: str
) -> None:
    database = stepping_databases.new()
    project = project_of(tmp_path, database, _RELEASE)
    before = dump(database.dsn, sequences=False)
    kill(project, tmp_path, word)
    fails = failing("raise ValueError('no')", atomic=False).replace("0002_note", "0004_more")
    project.write_migration("demo.0005_fails", fails)

    result = project.run("apply_migrations", "--resume")

    assert result.returncode == 1, result.stderr
    assert "ValueError: no" in result.stderr
    undone = [line for line in result.stdout.splitlines() if "Unapplying" in line]
    assert undone[-1] == "  Unapplying demo.0002_note... OK"
    assert "Rolling back to the last migration state: demo 0001_item" in result.stdout
    assert not diff(before, dump(database.dsn, sequences=False))


@pytest.mark.long
def test_a_call_that_is_killed_again_and_again_comes_to_its_end(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    wanted = uninterrupted(stepping_databases, tmp_path, _RELEASE)
    database = stepping_databases.new()
    project = project_of(tmp_path, database, _RELEASE)
    for word in _WORDS:
        kill(project, tmp_path, word, "--resume")

    project.succeed("apply_migrations", "--resume")

    assert not diff(wanted, text_of(database))


def test_a_way_back_is_resumed_with_the_same_arguments(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    # Columns with values go on the way; those of these tables are all alike, and come back.
    back = ("demo", "0001", "--allow-irreversible")
    # On the way back the first of these is met last.
    way_back = ("RunPython(kill, nothing)", "RunPython(nothing, kill)")
    release = {key: source.replace(*way_back) for key, source in _RELEASE.items()}
    project = project_of(tmp_path, database, {})
    wanted = text_of(database)
    for key, source in release.items():
        project.write_migration(key, source)
    project.succeed("apply_migrations")
    there = text_of(database)
    kill(project, tmp_path, "second", *back)

    refused = project.run("apply_migrations", "--resume")
    assert refused.returncode == 3
    assert "Refused: the call that was killed went backwards; resume it with its own arguments" in refused.stderr
    assert not diff(there, text_of(database))

    kill(project, tmp_path, "second", *back)
    project.succeed("apply_migrations", *back, "--resume")
    assert not diff(wanted, text_of(database))


def test_a_database_that_was_empty_is_emptied_where_a_migration_was_broken_off(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    wanted, project, database = from_nothing(stepping_databases, tmp_path)
    kill(project, tmp_path, "second")

    output = project.succeed("apply_migrations", "--resume")

    assert "The database was empty before, and demo.0003_kind was broken off" in output
    assert not diff(wanted, text_of(database))


def test_a_database_that_was_empty_keeps_what_was_complete(pg_databases: NewDatabases, tmp_path: Path) -> None:
    wanted, project, database = from_nothing(pg_databases, tmp_path)
    # Within a transaction, which the server rolls back by itself.
    kill(project, tmp_path, "later")

    output = project.succeed("apply_migrations", "--resume")

    assert "Applying demo.0003_kind" not in output
    assert not diff(wanted, text_of(database))


def test_what_cannot_be_taken_back_for_another_try_is_said(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    stuck = _RELEASE["demo.0003_kind"].replace("'first')", "'first'), migrations.RunPython(defining)")
    stuck = stuck.replace("class Migration", f"{DEFINING}class Migration")
    database = stepping_databases.new()
    project = project_of(tmp_path, database, {**_RELEASE, "demo.0003_kind": stuck})
    kill(project, tmp_path, "last", "--allow-irreversible")

    result = project.run("apply_migrations", "--resume")

    assert result.returncode == 4
    assert "what a killed call had begun could not be taken back" in result.stderr


def test_with_nothing_to_resume_it_is_an_ordinary_call(every_database: NewDatabases, tmp_path: Path) -> None:
    outputs = []
    for number, arguments in enumerate([(), ("--resume",)]):
        project = project_of(tmp_path / str(number), every_database.new(), {"demo.0002_note": NOTE})
        outputs.append(project.succeed("apply_migrations", *arguments))
    assert outputs[0] == outputs[1]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_call_killed_after_a_statement_whichever_is_resumed(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    wanted = uninterrupted(stepping_databases, tmp_path, _RELEASE)
    database = stepping_databases.new()
    project = project_of(tmp_path, database, _RELEASE)
    before = text_of(database)
    every = _EVERY[stepping_databases.vendor]
    for number in killed_at_each_statement(project, tmp_path / "project", "--resume", every=every):
        output = project.succeed("apply_migrations", "--resume")
        assert not diff(wanted, text_of(database)), f"statement {number}: {output}"
        # The values of the columns that go are those that every row gets.
        project.succeed("apply_migrations", "demo", "0001", "--allow-irreversible")
        assert not diff(before, text_of(database)), f"statement {number}, back"
        make_room(database, "demo_item")
