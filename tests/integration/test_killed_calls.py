"""Calls that are killed: the next one takes back what they left; a second one at the same time is kept out."""

import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, execute
from tests.support.killing import assert_undone_after_each_kill
from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.small_migrations import DEFINES, ITEM, KIND, NOTE, SLOW_TO_FAIL, failing, run_python
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.timeout(120)

_MOMENTS = 50
_WAITING = "print('waiting', flush=True); threading.Event().wait()"
_WAITS = failing(_WAITING, atomic=False)
_UPDATE = "apps.get_model('demo', 'Item').objects.update(name='changed')"
_BROKEN = "  demo.0003_kind: its code was broken off outside a transaction; rows that it had written stay"
_RELEASE = {
    "demo.0002_note": NOTE.replace("atomic = True", "atomic = False"),
    "demo.0003_tag": migration(
        "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True)), "
        "('item', models.ForeignKey('demo.item', models.CASCADE)), ('word', models.CharField(max_length=20))])",
        "migrations.AddField('item', 'tags', models.ManyToManyField('demo.tag', related_name='+'))",
        "migrations.RenameField('item', 'note', 'remark')",
        after=[("demo", "0002_note")],
        atomic=False,
    ),
    "demo.0004_index": migration(
        "migrations.AddIndex('item', models.Index(fields=['name', 'remark'], name='demo_item_both'))",
        "migrations.AddField('tag', 'size', models.IntegerField(default=1))",
        "migrations.AlterUniqueTogether('tag', {('item', 'word')})",
        after=[("demo", "0003_tag")],
    ),
    "demo.0005_wide": migration(
        "migrations.AlterField('item', 'name', models.CharField(max_length=80))",
        "migrations.RenameModel('Tag', 'Label')",
        after=[("demo", "0004_index")],
        atomic=False,
    ),
}


def killed_while_waiting(project: SmallProject, *options: str) -> None:
    """Start a call, and kill it when a migration says that it waits."""
    with _started(project, *options) as process:
        process.kill()


@contextmanager
def _started(project: SmallProject, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a call, and yield it when a migration says that it waits."""
    with project.start("apply_migrations", *options) as process:
        assert process.stdout is not None
        assert any(line.endswith("waiting\n") for line in process.stdout)
        yield process


@pytest.mark.parametrize(
    ("code", "told"),
    [(f"{_UPDATE}; {_WAITING}", []), (f"{DEFINES}; {_WAITING}", [_BROKEN])],
    ids=["rows", "more than rows"],
)
def test_the_next_call_takes_back_what_a_killed_one_left(
    stepping_databases: NewDatabases, tmp_path: Path, code: str, told: list[str]
) -> None:
    database = stepping_databases.new()
    release = {"demo.0002_note": _RELEASE["demo.0002_note"], "demo.0003_kind": failing(code, atomic=False)}
    project = project_of(tmp_path, database, release)
    before = dump(database.dsn, sequences=False)
    killed_while_waiting(project)
    assert diff(before, dump(database.dsn, sequences=False))

    project.write_migration("demo.0003_kind", failing("raise ValueError('no')", atomic=False))
    result = project.run("apply_migrations")

    assert result.returncode == 1
    head, _, rest = result.stdout.partition("Taking back what it left:\n")
    assert head.startswith("An earlier call (")
    assert rest.splitlines()[: len(told) + 1] == [*told, "  Unapplying demo.0002_note... OK"]
    assert not diff(before, dump(database.dsn, sequences=False))


_MAKES = "editor.connection.cursor().execute('CREATE VIEW left_behind AS SELECT 1 AS one')"
_LEAVES = {
    "demo.0002_note": _RELEASE["demo.0002_note"],
    "demo.0003_kind": failing(f"{_MAKES}; {_WAITING}", atomic=False),
}


@pytest.mark.long_on("postgresql")
@pytest.mark.parametrize(
    "accepts", [pytest.param(True, id="accepted", marks=pytest.mark.long), pytest.param(False, id="mended")]
)
def test_what_a_killed_call_has_left_behind_for_good_is_told_until_somebody_has_seen_to_it(
    stepping_databases: NewDatabases, tmp_path: Path, *, accepts: bool
) -> None:
    database = stepping_databases.new()
    project = project_of(tmp_path, database, _LEAVES)
    killed_while_waiting(project)
    project.write_migration("demo.0003_kind", failing("pass", atomic=False))

    for _attempt in range(2):
        told = project.run("apply_migrations")

        assert told.returncode == 4
        _, _, differences = told.stderr.partition("the schema is not as it was before:\n")
        assert differences
        assert all(line.startswith("+ view ") and "left_behind" in line for line in differences.splitlines())
        assert "apply_migrations --no-fingerprint" in told.stderr
        assert "kind" not in dump(database.dsn)

    if accepts:
        project.succeed("apply_migrations", "--no-fingerprint")
    else:
        execute(database, "DROP VIEW left_behind")
        project.succeed("apply_migrations")
    assert ("left_behind" in dump(database.dsn)) is accepts
    assert "kind" in dump(database.dsn)
    project.succeed("apply_migrations")


def test_what_a_failed_call_has_left_behind_for_good_is_told_by_the_next_one_too(
    pg_databases: NewDatabases, tmp_path: Path
) -> None:
    database = pg_databases.new()
    project = project_of(tmp_path, database, _LEAVES)
    project.write_migration("demo.0003_kind", failing(f"{_MAKES}; raise ValueError('no')", atomic=False))
    failed = project.run("apply_migrations")
    project.write_migration("demo.0003_kind", failing("pass", atomic=False))

    told = project.run("apply_migrations")

    for result in (failed, told):
        assert result.returncode == 4
        assert "+ view public.left_behind" in result.stderr
        assert "apply_migrations --no-fingerprint" in result.stderr
    project.succeed("apply_migrations", "--no-fingerprint")


@pytest.mark.long
def test_what_was_taken_back_is_not_taken_back_again_when_what_it_has_left_is_told_again(
    pg_databases: NewDatabases, tmp_path: Path
) -> None:
    database = pg_databases.new()
    execute(database, "CREATE TABLE theirs (number integer)")
    release = {"demo.0001_item": ITEM, **_LEAVES}
    project = SmallProject(tmp_path / "project", {"default": database.django}, release, installed=("plain",))
    project.write("plain/__init__.py", "")
    project.write("plain/models.py", "from django.db import models\n\n\nclass Thing(models.Model):\n    pass\n")
    killed_while_waiting(project, "--run-syncdb")
    project.write_migration("demo.0003_kind", failing("pass", atomic=False))
    told = project.run("apply_migrations")
    execute(database, "CREATE TABLE plain_thing (id bigint); INSERT INTO plain_thing VALUES (7)")

    again = project.run("apply_migrations")

    for result in (told, again):
        assert result.returncode == 4
        assert "+ view public.left_behind" in result.stderr
    assert "plain_thing" in dump(database.dsn)


@pytest.mark.long
def test_without_a_fingerprint_nothing_is_compared(pg_databases: NewDatabases, tmp_path: Path) -> None:
    database = pg_databases.new()
    project = project_of(tmp_path, database, _LEAVES)
    project.write_migration("demo.0003_kind", failing(f"{_MAKES}; raise ValueError('no')", atomic=False))

    assert project.run("apply_migrations", "--no-fingerprint").returncode == 1
    assert "left_behind" in dump(database.dsn)
    execute(database, "DROP VIEW left_behind")
    assert project.run("apply_migrations").returncode == 4


@pytest.mark.long
def test_a_call_whose_migration_files_have_changed_is_not_taken_back_by_guess(
    pg_databases: NewDatabases, tmp_path: Path
) -> None:
    database = pg_databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": _RELEASE["demo.0002_note"], "demo.0003_kind": _WAITS})
    killed_while_waiting(project)
    left = dump(database.dsn, sequences=False)
    project.write_migration("demo.0003_kind", NOTE.replace("note", "kind").replace("0001_item", "0002_note"))

    result = project.run("apply_migrations")

    assert result.returncode == 4
    changed = "demo.0003_kind, of which the file has changed since: operation 2 was RunPython (Raw Python operation)"
    assert changed in result.stderr
    assert not diff(left, dump(database.dsn, sequences=False))
    project.write_migration("demo.0003_kind", _WAITS.replace(_WAITING, "pass"))
    project.succeed("apply_migrations")


@pytest.mark.long_on("postgresql")
def test_a_table_whose_name_was_put_into_the_file_meanwhile_is_not_dropped(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    makes = (
        "migrations.CreateModel('New', [('id', models.BigAutoField(primary_key=True))], options={'db_table': 'new'})"
    )
    release = migration(
        makes,
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0001_item")],
        atomic=False,
        functions=run_python(_WAITING),
    )
    project = project_of(tmp_path, database, {"demo.0002_new": release})
    execute(database, "CREATE TABLE precious AS SELECT 42 AS answer")
    killed_while_waiting(project)
    left = dump(database.dsn, sequences=False)
    project.write_migration("demo.0002_new", release.replace("'db_table': 'new'", "'db_table': 'precious'"))

    result = project.run("apply_migrations", "--no-fingerprint")

    assert result.returncode == 4
    assert "has changed since: operation 1 was CreateModel (Create model New, new)" in result.stderr
    assert not diff(left, dump(database.dsn, sequences=False))
    project.write_migration("demo.0002_new", release.replace(_WAITING, "pass"))
    project.succeed("apply_migrations")


@pytest.mark.long_on("postgresql")
def test_a_call_whose_migration_files_are_gone_is_not_taken_back_by_guess(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": _RELEASE["demo.0002_note"], "demo.0003_kind": _WAITS})
    killed_while_waiting(project)
    left = dump(database.dsn, sequences=False)
    (tmp_path / "project/demo/migrations/0003_kind.py").unlink()

    result = project.run("apply_migrations")

    assert result.returncode == 4
    assert "demo.0003_kind, of which the files are missing" in result.stderr
    assert not diff(left, dump(database.dsn, sequences=False))


_KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
_KILLS = migration(
    "migrations.RunPython(forwards, nothing)", after=[("demo", "0002_note")], functions=run_python(_KILLED)
)


@pytest.mark.long_on("mysql")
@pytest.mark.parametrize(
    "was_empty",
    [pytest.param(False, id="rows before"), pytest.param(True, id="empty before", marks=pytest.mark.long)],
)
@pytest.mark.parametrize(
    "fake", [pytest.param(False, id="applied", marks=pytest.mark.long), pytest.param(True, id="faked")]
)
def test_what_others_have_built_upon_what_a_killed_call_left_is_not_taken_back(
    stepping_databases: NewDatabases, tmp_path: Path, *, was_empty: bool, fake: bool
) -> None:
    database = stepping_databases.new()
    # Where the column is there already, stock `migrate` cannot make it once more.
    kills = failing(_KILLED, atomic=False) if fake else _KILLS
    release = {"demo.0002_note": _RELEASE["demo.0002_note"], "demo.0003_kind": kills}
    if was_empty:
        project = SmallProject(tmp_path / "project", {"default": database.django}, {"demo.0001_item": ITEM, **release})
    else:
        project = project_of(tmp_path, database, release)
    assert project.run("apply_migrations").returncode == -signal.SIGKILL
    project.write_migration("demo.0003_kind", KIND)
    project.succeed("migrate", "--verbosity=0", *(["--fake"] if fake else []))
    execute(database, "INSERT INTO demo_item (name, note, kind) VALUES ('a', 'b', 'c')")
    left = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 4
    assert "others have applied demo.0003_kind since a call was killed here" in result.stderr
    assert not diff(left, dump(database.dsn, sequences=False))
    execute(database, "DELETE FROM smooth_migrations_journal")
    project.succeed("apply_migrations")


@pytest.mark.long_on("postgresql")
def test_a_call_that_cannot_be_understood_any_more_waits_for_an_operator(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": _RELEASE["demo.0002_note"], "demo.0003_kind": _WAITS})
    killed_while_waiting(project)
    execute(database, "UPDATE smooth_migrations_journal SET state = 'unheard' WHERE operation = -1")
    left = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 4
    assert result.stderr.startswith("CommandError: what a killed call has left cannot be taken back: ")
    assert not diff(left, dump(database.dsn, sequences=False))


@pytest.fixture
def at_work(databases: NewDatabases, tmp_path: Path) -> Iterator[SmallProject]:
    """A project of which a call is at work that does not end by itself."""
    database = databases.new()
    project = project_of(tmp_path, database, {"demo.0002_note": NOTE, "demo.0003_kind": SLOW_TO_FAIL})
    with _started(project) as process:
        try:
            yield project
        finally:
            process.kill()


@pytest.mark.long_on("postgresql")
def test_a_second_call_is_kept_out_by_name(at_work: SmallProject) -> None:
    result = at_work.run("apply_migrations")
    assert result.returncode == 5
    assert "another run holds the lease of the database 'default'" in result.stderr
    assert "nothing was run" in result.stderr

    waited = at_work.run("apply_migrations", "--wait=300ms")
    assert waited.returncode == 5
    assert waited.stdout.startswith("Waiting for another run: ")


@pytest.mark.long_on("postgresql")
def test_the_next_call_takes_back_what_was_killed_while_it_was_taken_back(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    _kill_at_statements(stepping_databases, tmp_path, every=97)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_call_killed_after_a_statement_whichever_is_taken_back_by_the_next(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    _kill_at_statements(stepping_databases, tmp_path, every=1)


def _kill_at_statements(databases: NewDatabases, directory: Path, *, every: int) -> None:
    database = databases.new()
    project = _failing_at_the_end(directory, database)
    assert_undone_after_each_kill(databases, database, project, directory / "project", every=every, altered="demo_item")


def _failing_at_the_end(directory: Path, database: Database) -> SmallProject:
    project = project_of(directory, database, _RELEASE)
    project.write_migration("demo.0006_fails", failing("raise ValueError('no')").replace("0002_note", "0005_wide"))
    return project


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_call_killed_at_any_moment_is_taken_back_by_the_next(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    project = _failing_at_the_end(tmp_path, database)
    before = stepping_databases.dump(database)
    chance = random.Random(7)
    for number in range(_MOMENTS):
        with project.start("apply_migrations") as process:
            try:
                process.communicate(timeout=0.2 + chance.random() * 0.8)
            except subprocess.TimeoutExpired:
                process.kill()
        result = project.run("apply_migrations")
        assert result.returncode == 1, f"moment {number}: {result.stderr}"
        assert "no" in result.stderr
        assert not diff(before, stepping_databases.dump(database)), f"moment {number}: {result.stdout}"
