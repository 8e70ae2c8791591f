"""What one transaction cannot hold: non-atomic migrations and other aliases."""

from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import execute
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import BROKEN, BROKEN_LATE, ITEM, KIND, NOTE, run_python
from tests.support.small_project import SmallProject, migration

_SOUND = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
_NAMES = ("demo", "gone")
_STRAY = migration(
    "migrations.RunPython(forwards, nothing)",
    after=[("demo", "0001_item")],
    functions=run_python("apps.get_model('demo', 'Item').objects.create(name='stray')"),
)


def test_a_migration_without_transaction_and_those_before_it_are_reversed(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = SmallProject(
        tmp_path / "project", {"default": database.django}, {**_SOUND, "demo.0003_kind": BROKEN_LATE}
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    execute(database, "INSERT INTO demo_item (name) VALUES ('tea')")
    before = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 1
    assert "  Unapplying demo.0002_note... OK\n" in result.stdout
    assert not diff(before, dump(database.dsn, sequences=False))

    project.write_migration("demo.0003_kind", KIND)
    project.succeed("apply_migrations")


def test_migrations_around_one_without_transaction_are_undone_each_in_its_way(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = SmallProject(
        tmp_path / "project",
        {"default": database.django},
        {
            **_SOUND,
            "demo.0002_note": NOTE.replace("atomic = True", "atomic = False"),
            "demo.0003_kind": KIND,
            "demo.0004_more": BROKEN.replace("0002_note", "0003_kind").replace("'kind'", "'more'"),
        },
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    before = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations")

    undone = [line for line in result.stdout.splitlines() if "Unapplying" in line]
    assert undone == ["  Unapplying demo.0003_kind... OK", "  Unapplying demo.0002_note... OK"]
    assert not diff(before, dump(database.dsn, sequences=False))


_LOSES = """\
other = editor.connection.copy()
    taken = "epoch = epoch + 1, owner = 'other', machine = 'elsewhere'"
    other.cursor().execute(f"UPDATE smooth_migrations_lease SET {taken}")
    other.close()"""


@pytest.mark.parametrize("rest", [(), ("migrations.RunSQL('CREATE TABLE late (id integer)', 'DROP TABLE late')",)])
def test_who_has_lost_the_lease_within_a_migration_outside_a_transaction_goes_no_further(
    stepping_databases: NewDatabases, tmp_path: Path, rest: tuple[str, ...]
) -> None:
    database = stepping_databases.new()
    project = SmallProject(tmp_path / "project", {"default": database.django}, {"demo.0001_item": ITEM})
    project.succeed("migrate", "--verbosity=0")
    before = stepping_databases.dump(database)
    losing = migration(
        "migrations.RunPython(forwards, nothing)",
        *rest,
        after=[("demo", "0001_item")],
        atomic=False,
        functions=run_python(_LOSES),
    )
    project.write_migration("demo.0002_note", losing)

    result = project.run("apply_migrations")

    assert result.returncode == 4
    assert "LeaseLost: the lease of the database 'default' was lost to host " in result.stderr
    assert not diff(before, stepping_databases.dump(database))


@pytest.mark.parametrize(
    ("child", "parent", "code"),
    [
        ("raise SystemExit", "pass", 0),
        pytest.param("raise ValueError('child')", "pass", 0, marks=pytest.mark.long),
        ("return", "pass", 0),
        ("raise SystemExit", "raise ValueError('parent')", 1),
    ],
)
def test_a_process_that_a_migration_forks_does_not_end_the_call_of_its_parent(
    databases: NewDatabases, tmp_path: Path, child: str, parent: str, code: int
) -> None:
    database = databases.new()
    project = SmallProject(tmp_path / "project", {"default": database.django}, _SOUND)
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    before = dump(database.dsn, sequences=False)
    body = f"pid = os.fork()\n    if not pid: {child}\n    os.waitpid(pid, 0)\n    {parent}"
    forking = migration(
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0002_note")],
        atomic=False,
        functions=run_python(body),
    )
    project.write_migration("demo.0003_fork", forking)

    result = project.run("apply_migrations")

    assert result.returncode == code
    assert bool(diff(before, dump(database.dsn, sequences=False))) is not bool(code)
    assert project.run("migrate", "--check").returncode == code


def test_a_failure_after_a_migration_that_renames_the_records_of_another_app_is_undone(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    key = "('item', models.ForeignKey('demo.Item', models.CASCADE))"
    renamed = [
        f"\"UPDATE django_migrations SET app = '{new}' WHERE app = '{old}'\"" for old, new in (_NAMES, _NAMES[::-1])
    ]
    first, then = ("other", "0001_thing"), ("other", "0002_rename")
    project = SmallProject(
        tmp_path / "project",
        {"default": database.django},
        {
            "demo.0001_item": ITEM,
            "other.0001_thing": migration(
                f"migrations.CreateModel('Thing', [('id', models.BigAutoField(primary_key=True)), {key}])",
                after=[("demo", "0001_item")],
            ),
        },
    )
    project.succeed("migrate", "--verbosity=0")
    before = stepping_databases.dump(database)
    project.write_migration(
        "other.0002_rename", migration(f"migrations.RunSQL({', '.join(renamed)})", after=[first], atomic=False)
    )
    project.write_migration(
        "other.0003_more",
        migration(
            "migrations.AddField('thing', 'more', models.IntegerField(default=1))",
            "migrations.RunPython(forwards, nothing)",
            after=[then],
            atomic=False,
            functions=run_python("raise ValueError('no')"),
        ),
    )

    result = project.run("apply_migrations")

    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "ValueError: no")
    assert not diff(before, stepping_databases.dump(database))


def test_an_operation_without_way_back_before_a_migration_without_transaction_is_refused(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    one_way = migration("migrations.RunPython(forwards)", after=[("demo", "0001_item")], functions=run_python("pass"))
    project = SmallProject(
        tmp_path / "project",
        {"default": database.django},
        {"demo.0001_item": ITEM, "demo.0002_note": one_way, "demo.0003_kind": BROKEN_LATE},
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    before = dump(database.dsn, sequences=False)

    result = project.run("apply_migrations")

    assert result.returncode == 3
    assert result.stderr.startswith("CommandError: Refused: these could not be rolled back")
    assert "demo.0002_note: Raw Python operation" in result.stderr
    assert not diff(before, dump(database.dsn, sequences=False))


@pytest.mark.parametrize("broken_first", [True, False], ids=["the first one breaks", "a later one breaks"])
def test_a_database_that_was_empty_is_empty_again_whatever_has_no_way_back(
    databases: NewDatabases, tmp_path: Path, *, broken_first: bool
) -> None:
    database = databases.new()
    one_way = migration("migrations.RunPython(forwards)", after=[("demo", "0001_item")], functions=run_python("pass"))
    broken = {"demo.0001_item": migration("migrations.RunSQL('SELECT 1/0 FROM nowhere')", atomic=False)}
    late = {"demo.0001_item": ITEM, "demo.0002_note": one_way, "demo.0003_kind": BROKEN_LATE}
    project = SmallProject(tmp_path / "project", {"default": database.django}, broken if broken_first else late)

    before = dump(database.dsn)

    result = project.run("apply_migrations")

    assert result.returncode == 1
    undone = [line for line in result.stdout.splitlines() if "Unapplying" in line]
    expected = [] if broken_first else ["  Unapplying demo.0002_note... OK", "  Unapplying demo.0001_item... OK"]
    assert undone == expected
    assert dump(database.dsn) == before


def test_a_database_that_held_something_unrecorded_is_left_without_records(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    execute(database, "CREATE TABLE somebody (id integer)")
    project = SmallProject(
        tmp_path / "project", {"default": database.django}, {**_SOUND, "demo.0003_kind": BROKEN_LATE}
    )
    before = dump(database.dsn)

    assert project.run("apply_migrations").returncode == 1

    assert not diff(before, dump(database.dsn))


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_what_a_migration_wrote_to_another_alias_is_kept_with_it(
    databases: NewDatabases, tmp_path: Path, *, atomic: bool
) -> None:
    default, other = databases.new(), databases.new()
    project = SmallProject(
        tmp_path / "project",
        {"default": default.django, "other": other.django},
        {
            "demo.0001_item": ITEM,
            "demo.0002_note": _STRAY.replace("atomic = True", f"atomic = {atomic}"),
            "demo.0003_kind": KIND,
        },
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")

    project.succeed("apply_migrations", "--database=other")

    assert "stray" in dump(default.dsn)
    assert "0003_kind" in dump(other.dsn)


def test_a_migration_that_reaches_a_refused_alias_is_named_and_undone(databases: NewDatabases, tmp_path: Path) -> None:
    default, other = databases.new(), databases.new()
    project = SmallProject(
        tmp_path / "project",
        {"default": default.django, "other": other.django},
        {"demo.0001_item": ITEM, "demo.0002_note": _STRAY},
    )
    before = [databases.dump(default), databases.dump(other)]

    result = project.run("apply_migrations", "--database=other", "--other-aliases=refuse")

    assert result.returncode == 1
    assert "migration demo.0002_note reached the alias 'default' while 'other' is migrated\n" in result.stdout
    assert [databases.dump(default), databases.dump(other)] == before
