"""Rows come back also where code names, sets or sends what is out of the ordinary."""

from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.held_up import held_up, holding_up
from tests.support.histories import SqliteDatabase, Vendor
from tests.support.mariadb_database import MariadbDatabase
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.rows_of_code import ALL, REVERSED, assert_undone, operation, project_of, ran
from tests.support.small_project import Result, SmallProject

# What is ordinary is tested at each commit.
pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

_QUOTED = {
    Vendor.MYSQL: ('`o``d.d "x%s%`', "`se``lect%d`"),
    Vendor.POSTGRESQL: ('"o`d.d ""x%s%"', '"se""lect%d"'),
}
_ODD = "CREATE TABLE `odd one` (id int PRIMARY KEY, n int); INSERT INTO `odd one` VALUES (1, 1)"
_NEWEST = "UPDATE `odd one` SET n = (SELECT max(id) FROM demo_item)"
_COMPOSITE = """
    CREATE TABLE parent (a int, b int, PRIMARY KEY (a, b));
    CREATE TABLE child (id int PRIMARY KEY, a int, b int, n int, FOREIGN KEY (a, b) REFERENCES parent (a, b));
    INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (1, 7, NULL, 1), (2, 1, 1, 1)
"""
_HEARD = "CREATE TABLE heard (id integer); INSERT INTO heard VALUES (4);"
_HEAR = "CREATE FUNCTION hear() RETURNS int LANGUAGE sql AS 'UPDATE heard SET id = 5 RETURNING 1'"
_FUNCTIONS = """
def by_driver(apps, editor):
    editor.connection.connection.cursor().execute("UPDATE heard SET id = 5")

def by_autocommit(apps, editor):
    editor.connection.set_autocommit(False)
    run("UPDATE demo_item SET name = 'first'")(apps, editor)
    editor.connection.set_autocommit(True)
    run("UPDATE demo_label SET text = 'second'")(apps, editor)

def read_on(apps, editor):
    Item = apps.get_model("demo", "Item")
    for item in Item.objects.order_by("id").iterator(chunk_size=1):
        item.name = f"changed {item.id}"
        item.save()
"""


def test_names_may_have_quotes_and_percent_signs(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    table, column = _QUOTED[stepping_databases.vendor]
    rows = f"""
        CREATE TABLE {table} (id int PRIMARY KEY, {column} int);
        INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)
    """
    statements = [
        f"UPDATE {table} SET {column} = 5 WHERE id = 1",
        f"DELETE FROM {table} WHERE id = 2",
        f"INSERT INTO {table} VALUES (7, 7)",
    ]
    assert_undone(stepping_databases, tmp_path, operation(ran(*statements)), atomic=False, rows=rows)


@pytest.mark.parametrize(
    "statements",
    [
        [f"/* don`t */ {_NEWEST}"],
        [f"/* don't */ {_NEWEST} -- don\"t"],
        ["SET sql_mode = 'ANSI_QUOTES'", _NEWEST.replace("`", '"'), ALL],
        ["SET sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,NO_BACKSLASH_ESCAPES'", ALL, _NEWEST],
        ["SET sql_select_limit = 1", ALL, _NEWEST],
        ["SET sql_safe_updates = 1", f"{_NEWEST} WHERE id = 1", "SET sql_safe_updates = 0", ALL],
    ],
    ids=["a backtick", "other quotes", "ANSI_QUOTES", "other modes", "sql_select_limit", "sql_safe_updates"],
)
@pytest.mark.parametrize("inner", [True, False], ids=["in a transaction", "each by itself"])
def test_neither_comments_nor_settings_of_a_session_hide_a_table_of_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path, statements: list[str], *, inner: bool
) -> None:
    code = f"migrations.RunPython({ran(*statements)}, fail, atomic={inner})"
    assert_undone(mariadb_databases, tmp_path, code, atomic=True, rows=_ODD)


def test_a_part_of_a_foreign_key_may_be_null_in_mariadb(mariadb_databases: NewDatabases, tmp_path: Path) -> None:
    statements = ["UPDATE child SET n = 5", "DELETE FROM child", "DELETE FROM parent"]
    assert_undone(mariadb_databases, tmp_path, operation(ran(*statements)), atomic=True, rows=_COMPOSITE)


def test_rows_come_back_that_autocommit_has_committed_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    change = "migrations.RunPython(by_autocommit, fail, atomic=False)"
    assert_undone(mariadb_databases, tmp_path, change, atomic=True, functions=_FUNCTIONS)


@pytest.mark.parametrize("inner", [True, False], ids=["in a transaction", "each by itself"])
@pytest.mark.parametrize(
    "code",
    [
        f"both(many('UPDATE demo_item SET name = %s WHERE id = %s', ('one', 1), ('two', 2)), {ran(ALL)})",
        "many('INSERT INTO demo_crate (id, label) VALUES (%s, %s)', *((100 + n, 'x' * 40) for n in range(3000)))",
        "read_on",
    ],
    ids=["updated", "inserted", "while rows are fetched"],
)
def test_rows_come_back_however_many_are_sent_or_fetched_at_once(
    stepping_databases: NewDatabases, tmp_path: Path, code: str, *, inner: bool
) -> None:
    change = f"migrations.RunPython({code}, fail, atomic={inner})"
    assert_undone(stepping_databases, tmp_path, change, atomic=False, functions=_FUNCTIONS)


@pytest.mark.parametrize(
    ("code", "inner"),
    [
        (ran("SELECT hear()"), True),
        (ran("SELECT hear()"), False),
        (ran("EXPLAIN ANALYZE UPDATE heard SET id = 5"), False),
        ("copied", True),
        ("called", True),
        ("by_driver", True),
    ],
    ids=["selected", "selected by itself", "explained", "copied", "called", "by the driver"],
)
def test_postgresql_tells_what_was_written_past_statements(
    pg_databases: NewDatabases, tmp_path: Path, code: str, *, inner: bool
) -> None:
    change = f"migrations.RunPython({code}, fail, atomic={inner})"
    assert_undone(pg_databases, tmp_path, change, atomic=False, rows=_HEARD + _HEAR, functions=_FUNCTIONS)


@pytest.mark.parametrize("inner", [True, False], ids=["in a transaction", "each by itself"])
def test_what_changes_nothing_leaves_nothing_to_tell(
    stepping_databases: NewDatabases, tmp_path: Path, *, inner: bool
) -> None:
    same = ran("UPDATE demo_item SET name = name", "UPDATE demo_item SET name = 'tea' WHERE id = 1")
    change = f"migrations.RunPython({same}, fail, atomic={inner})"
    assert_undone(stepping_databases, tmp_path, change, atomic=False)


def test_rows_that_an_operation_of_a_project_s_own_has_changed_come_back(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    own = f"Fill({ran(ALL, 'DELETE FROM demo_label')}, run('SELECT no'))"
    assert_undone(stepping_databases, tmp_path, own, atomic=False)


_IMPATIENT = {
    Vendor.MYSQL: {"init_command": "SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1"},
    Vendor.POSTGRESQL: {"options": "-c lock_timeout=500ms"},
}


def _impatient(
    databases: NewDatabases, directory: Path, change: str
) -> tuple[PostgresDatabase | MariadbDatabase, SmallProject]:
    """Return a project that waits for no lock for long, whose last migration is held up before it fails."""
    database = databases.new()
    assert not isinstance(database, SqliteDatabase)
    project = project_of(
        directory,
        database,
        change,
        last="forwards",
        functions=holding_up("raise ValueError('no')"),
        options=_IMPATIENT[databases.vendor],
    )
    return database, project


def test_a_lock_that_is_gone_a_moment_later_does_not_end_an_undo(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database, project = _impatient(stepping_databases, tmp_path, operation(ran(ALL)))
    before = stepping_databases.dump(database)

    with held_up(project, tmp_path / "project") as call:
        with database.connect() as session, session.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("UPDATE demo_item SET size = 99 WHERE id = 1")
            call.go_on_until("trying again")
            cursor.execute("ROLLBACK")
        result = call.wait()

    assert (result.returncode, "demo.0002_change: " in result.stdout) == (1, False), result.stdout + result.stderr
    assert "ValueError: no" in result.stderr
    assert diff(before, stepping_databases.dump(database)) == ""


def test_an_undo_waits_for_no_lock_for_ever(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database, project = _impatient(stepping_databases, tmp_path, operation(ran(ALL)))
    before = stepping_databases.dump(database)
    with held_up(project, tmp_path / "project") as call, database.connect() as session, session.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("UPDATE demo_item SET size = 99 WHERE id = 1")

        result = call.end()

        cursor.execute("ROLLBACK")
    assert (result.returncode, result.stdout.count("trying again")) == (4, 5), result.stdout + result.stderr
    assert project.run("apply_migrations").returncode == 1
    assert diff(before, stepping_databases.dump(database)) == ""


_OWN = "CREATE TABLE own (id int)", "DROP TABLE own"
_EXTRA = "ALTER TABLE demo_label ADD COLUMN extra int", "ALTER TABLE demo_label DROP COLUMN extra"


def _blocked(
    databases: NewDatabases, directory: Path, *changes: tuple[str, str], until: str = "trying again"
) -> tuple[Result, str]:
    """Run such changes, and let a lock be in the way of the last one's reversal until this is printed.

    Returns:
        How the call ended, and what differs.
    """
    there, back = [list(texts) for texts in zip(*changes, strict=True)]
    database, project = _impatient(databases, directory, f"migrations.RunSQL({there}, {back})")
    before = databases.dump(database)
    with held_up(project, directory / "project") as call:
        with database.connect() as session, session.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("SELECT * FROM demo_label")
            call.go_on_until(until)
            cursor.execute("ROLLBACK")
        result = call.wait()
    return result, diff(before, databases.dump(database))


def test_a_reversal_that_a_lock_kept_from_beginning_is_tried_again(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    result, difference = _blocked(stepping_databases, tmp_path, _EXTRA)
    assert (result.returncode, difference) == (1, ""), result.stdout + result.stderr
    assert f"  demo.0002_change: {REVERSED}\n" in result.stdout


def test_a_reversal_that_a_lock_has_parted_goes_on_from_there_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    result, difference = _blocked(mariadb_databases, tmp_path, _OWN, _EXTRA)
    assert (result.returncode, difference) == (1, ""), result.stdout + result.stderr


def test_a_reversal_that_a_lock_has_parted_needs_an_operator_in_postgresql(
    pg_databases: NewDatabases, tmp_path: Path
) -> None:
    result, difference = _blocked(pg_databases, tmp_path, _OWN, _EXTRA, until="could not be taken back")
    assert result.returncode == 4, result.stdout + result.stderr
    assert "demo.0002_change could not be taken back: canceling statement due to lock timeout" in result.stdout
    assert "+    extra integer" in difference
