"""Where it is not certain which rows code has changed its reverse code runs, and the output says so."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.histories import Database, execute
from tests.support.new_databases import NewDatabases
from tests.support.rows_of_code import ALL, REVERSED, assert_reversed, project_of, ran, values

pytestmark = pytest.mark.timeout(240)

_FUNCTIONS = """
def by_driver(apps, editor):
    run("UPDATE demo_item SET name = 'first'")(apps, editor)
    editor.connection.connection.commit()

def by_driver_and_more(apps, editor):
    by_driver(apps, editor)
    run("UPDATE demo_label SET text = 'second'")(apps, editor)

def by_setting_and_more(apps, editor):
    run("UPDATE demo_item SET name = 'first'")(apps, editor)
    editor.connection.connection.autocommit(True)
    editor.connection.connection.autocommit(False)
    run("UPDATE demo_label SET text = 'second'", "SET @a = 1")(apps, editor)

def closed(apps, editor):
    run("UPDATE demo_item SET name = 'first'")(apps, editor)
    editor.connection.close()

def back(apps, editor):
    run("UPDATE demo_item SET name = 'jam'", "UPDATE demo_item SET name = 'tea' WHERE id = 1",
        "UPDATE demo_label SET text = 'red'")(apps, editor)
"""
_HEARD = "CREATE TABLE heard (id integer); INSERT INTO heard VALUES (4);"
_HEAR = _HEARD + "CREATE FUNCTION hear() RETURNS int BEGIN UPDATE heard SET id = 5; RETURN 1; END"
_HEARD_BACK = ran("UPDATE heard SET id = 4")
_BIG = "CREATE TABLE big (id int PRIMARY KEY, body longblob); INSERT INTO big VALUES (1, repeat('a', {size}));"
_STAMPED = """
    CREATE TABLE stamped (id int PRIMARY KEY, name text,
        at timestamp(6) NOT NULL DEFAULT '2001-01-01' ON UPDATE current_timestamp(6));
    INSERT INTO stamped VALUES (1, 'a', '2001-01-01')
"""
_ODD = "SET sql_mode = ''; CREATE TABLE odd (id int PRIMARY KEY, at {kind} NULL); INSERT INTO odd VALUES (1, '{value}')"
_BROKEN = "  demo.0002_change: its code was broken off outside a transaction; rows that it had written stay\n"
_LOOSE = "SET sql_mode = ''"


@pytest.mark.parametrize("code", ["by_driver", "by_driver_and_more"])
def test_what_was_committed_past_django_is_taken_back_by_reverse_code(
    stepping_databases: NewDatabases, tmp_path: Path, code: str
) -> None:
    assert_reversed(stepping_databases, tmp_path, code, "back", inner=True, functions=_FUNCTIONS)


# What is done, what takes it back, and what is there before.
_OF_MARIADB = {
    "the driver's autocommit": ("by_setting_and_more", "back", ""),
    "the connection closed": ("closed", "back", ""),
    "truncated": (
        ran("TRUNCATE demo_label"),
        ran("INSERT INTO demo_label (id, text, crate_id) VALUES (1, 'red', 1)"),
        "",
    ),
    "a copy of the records": (
        ran("CREATE TABLE copied AS SELECT * FROM django_migrations", ALL),
        f"both({ran('DROP TABLE copied')}, back)",
        "",
    ),
    "changes by itself": (
        ran("UPDATE stamped SET name = 'b'"),
        ran("UPDATE stamped SET name = 'a', at = '2001-01-01'"),
        _STAMPED,
    ),
    "a zero timestamp": (
        ran("UPDATE odd SET at = '2020-01-01'"),
        ran(_LOOSE, "UPDATE odd SET at = '0000-00-00 00:00:00'"),
        _ODD.format(kind="timestamp", value="0000-00-00 00:00:00"),
    ),
    "an impossible date": (
        ran("UPDATE odd SET at = '2020-01-01'"),
        ran(_LOOSE.replace("''", "'ALLOW_INVALID_DATES'"), "UPDATE odd SET at = '2020-02-30'"),
        _ODD.replace("''", "'ALLOW_INVALID_DATES'", 1).format(kind="date", value="2020-02-30"),
    ),
    "an enum's error value": (
        ran("UPDATE odd SET at = 'b'"),
        ran(_LOOSE, "UPDATE odd SET at = ''"),
        _ODD.format(kind="enum('a', 'b')", value=""),
    ),
    "too long in hexadecimal": (
        ran("UPDATE big SET body = 'z'"),
        ran("UPDATE big SET body = repeat('a', 8400000)"),
        _BIG.format(size=8_400_000),
    ),
    "a function after executemany": (
        f"both(many('UPDATE demo_label SET text = %s', ('red',)), {ran('SELECT hear()')})",
        _HEARD_BACK,
        _HEAR,
    ),
    "a function in executemany": (
        "many('INSERT INTO demo_label (text, crate_id) VALUES (%s, hear())', ('one',), ('two',))",
        ran("UPDATE heard SET id = 4", "DELETE FROM demo_label WHERE text <> 'red'"),
        _HEAR,
    ),
    "a function that is selected": (ran("SELECT hear()"), _HEARD_BACK, _HEAR),
    "a procedure of the driver": ("called", _HEARD_BACK, _HEARD + "CREATE PROCEDURE hear() UPDATE heard SET id = 5"),
}


@pytest.mark.parametrize("about", _OF_MARIADB)
def test_what_mariadb_does_not_tell_exactly_is_taken_back_by_reverse_code(
    mariadb_databases: NewDatabases, tmp_path: Path, about: str
) -> None:
    code, back, rows = _OF_MARIADB[about]
    inner = about != "the connection closed"
    assert_reversed(mariadb_databases, tmp_path, code, back, inner=inner, rows=rows, functions=_FUNCTIONS)


_HEAR_IN_POSTGRESQL = (
    _HEARD + "CREATE FUNCTION hear() RETURNS int LANGUAGE sql AS 'UPDATE heard SET id = 5 RETURNING 1'"
)


@pytest.mark.parametrize(
    ("code", "back", "inner"),
    [
        ("copied", ran("DELETE FROM demo_crate WHERE id = 900"), False),
        ("called", _HEARD_BACK, False),
        (ran("SET track_counts = off", "SELECT hear()"), _HEARD_BACK, True),
    ],
    ids=["copied", "a function of the driver", "a server that counts nothing"],
)
def test_what_postgresql_does_not_tell_is_taken_back_by_reverse_code(
    pg_databases: NewDatabases, tmp_path: Path, code: str, back: str, *, inner: bool
) -> None:
    assert_reversed(pg_databases, tmp_path, code, back, inner=inner, rows=_HEAR_IN_POSTGRESQL, functions=_FUNCTIONS)


def test_rows_that_others_changed_between_two_commits_of_one_operation_stay(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    ours = (
        ran("UPDATE demo_item SET name = 'ours' WHERE id = 1"),
        ran("UPDATE demo_item SET code = 'ours' WHERE id = 1"),
    )
    theirs = "meanwhile(\"UPDATE demo_item SET name = 'theirs', size = 99 WHERE id = 1\")"
    back = ran("UPDATE demo_item SET code = '01' WHERE id = 1")
    code = f"migrations.RunPython(both({ours[0]}, {theirs}, {ours[1]}), {back}, atomic=False)"
    project = project_of(tmp_path, database, code)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert f"  demo.0002_change: {REVERSED}\n" in result.stdout
    assert values(database, "SELECT id, name, code, size FROM demo_item WHERE id = 1") == [(1, "theirs", "01", 99)]


def test_a_row_that_the_journal_cannot_take_fails_no_migration(mariadb_databases: NewDatabases, tmp_path: Path) -> None:
    size = 450_000
    code, back = (ran(f"UPDATE big SET body = repeat('{letter}', {size})") for letter in "za")
    with _small_packets(mariadb_databases.new()):
        assert_reversed(mariadb_databases, tmp_path, code, back, inner=True, rows=_BIG.format(size=size))


@contextmanager
def _small_packets(database: Database) -> Iterator[None]:
    [(size,)] = values(database, "SELECT @@max_allowed_packet")
    execute(database, f"SET GLOBAL max_allowed_packet = {2**20}")
    try:
        yield
    finally:
        execute(database, f"SET GLOBAL max_allowed_packet = {size}")


def test_rows_that_a_foreign_key_takes_in_another_database_are_told_of(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    database, elsewhere = mariadb_databases.new(), mariadb_databases.new()
    back = ran("INSERT INTO demo_item (id, name, code, crate_id) VALUES (1, 'tea', '01', 1)")
    code = f"migrations.RunPython({ran('DELETE FROM demo_item WHERE id = 1')}, {back})"
    project = project_of(tmp_path, database, code, atomic=True)
    before = mariadb_databases.dump(database)
    [(name,)] = values(database, "SELECT DATABASE()")
    execute(
        elsewhere,
        f"CREATE TABLE part (id int PRIMARY KEY, item bigint, FOREIGN KEY (item) REFERENCES `{name}`.demo_item (id) "
        "ON DELETE CASCADE); INSERT INTO part VALUES (1, 1)",
    )

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert f"  demo.0002_change: {REVERSED}\n" in result.stdout
    assert values(elsewhere, "SELECT * FROM part") == []
    assert diff(before, mariadb_databases.dump(database)) == ""


def test_an_operation_of_a_project_s_own_that_defines_something_goes_back_by_itself(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    project = project_of(
        tmp_path,
        database,
        f"Fill({ran('CREATE TABLE own (id int)', ALL)}, both({ran('DROP TABLE own')}, back))",
        functions=_FUNCTIONS,
    )
    before = stepping_databases.dump(database)

    result = project.run("apply_migrations")

    assert f"  demo.0002_change: {REVERSED}\n" in result.stdout, result.stdout + result.stderr
    assert diff(before, stepping_databases.dump(database)) == ""


def test_code_in_a_transaction_that_was_broken_off_after_it_had_committed_is_told_of(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    database = mariadb_databases.new()
    code = f"both({ran(ALL)}, {ran('CREATE TABLE own (id int)')}, fail)"
    project = project_of(tmp_path, database, f"migrations.RunPython({code}, fail)", atomic=True)
    before = mariadb_databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert _BROKEN in result.stdout
    assert values(database, "SELECT DISTINCT name FROM demo_item") == [("changed",)]
    execute(database, "UPDATE demo_item SET name = 'jam'; UPDATE demo_item SET name = 'tea' WHERE id = 1")
    assert diff(before, mariadb_databases.dump(database)) == ""


def test_what_was_written_past_statements_before_a_kill_is_told_of(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    database = mariadb_databases.new()
    kills = "os.kill(os.getpid(), signal.SIGKILL)"
    code = f"both({ran('SELECT hear()')}, lambda apps, editor: {kills})"
    project = project_of(tmp_path, database, f"migrations.RunPython({code}, fail, atomic=False)", rows=_HEAR)
    assert project.run("apply_migrations").returncode == -signal.SIGKILL
    file = tmp_path / "project/demo/migrations/0002_change.py"
    file.write_text(file.read_text().replace(f"lambda apps, editor: {kills}", "fail").replace("hear()", "1"))

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert result.stdout.count(_BROKEN) == 1
    assert values(database, "SELECT id FROM heard") == [(5,)]


@pytest.mark.parametrize("inner", [True, False], ids=["in a transaction", "each by itself"])
@pytest.mark.parametrize("engine", ["MyISAM", "Aria"])
def test_rows_that_no_transaction_of_mariadb_holds_are_told_of(
    mariadb_databases: NewDatabases, tmp_path: Path, engine: str, *, inner: bool
) -> None:
    database = mariadb_databases.new()
    rows = f"CREATE TABLE old (id int PRIMARY KEY, n int) ENGINE={engine}; INSERT INTO old VALUES (1, 1);"
    code = f"migrations.RunPython(both({ran('UPDATE old SET n = 5')}, fail), fail, atomic={inner})"
    project = project_of(tmp_path, database, code, rows=rows)

    result = project.run("apply_migrations")

    assert (result.returncode, _BROKEN in result.stdout) == (1, True), result.stdout + result.stderr
    assert values(database, "SELECT n FROM old") == [(5,)]


@pytest.mark.parametrize("inner", [True, False], ids=["in a transaction", "each by itself"])
def test_what_a_function_of_postgresql_defines_is_taken_back_by_reverse_code(
    pg_databases: NewDatabases, tmp_path: Path, *, inner: bool
) -> None:
    define = "CREATE FUNCTION make() RETURNS void LANGUAGE sql AS 'CREATE TABLE made (id int)'"
    assert_reversed(pg_databases, tmp_path, ran("SELECT make()"), ran("DROP TABLE made"), inner=inner, rows=define)


def test_a_table_s_comment_and_character_set_come_back_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    database = mariadb_databases.new()
    table = "ALTER TABLE demo_item"
    statements = [f"{table} COMMENT 'new'", f"{table} CONVERT TO CHARACTER SET latin1", "no"]
    project = project_of(tmp_path, database, f"migrations.RunSQL({statements}, 'no')")
    before = mariadb_databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stdout + result.stderr
    assert diff(before, mariadb_databases.dump(database)) == ""
