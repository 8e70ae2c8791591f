"""Rows that code changes where it is committed early come back as they were, whatever its reverse code does."""

from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, Vendor, execute
from tests.support.new_databases import NewDatabases
from tests.support.rows_of_code import ALL, REVERSED, assert_undone, operation, project_of, ran, values
from tests.support.sampling import one_in

pytestmark = pytest.mark.timeout(240)

_ODD_MARIADB = """
    CREATE TABLE `odd one` (
        id varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, n decimal(30, 10), f float,
        d double, b longblob, t text CHARACTER SET latin1, j json, e enum('a', 'b'), bits bit(9),
        stamp timestamp(6) NULL, day datetime(6), at time(3), y year, u uuid, p point,
        size int GENERATED ALWAYS AS (length(b)) STORED
    );
    INSERT INTO `odd one` (id, n, f, d, b, t, j, e, bits, stamp, day, at, y, u, p) VALUES
        ('a', 1.0000000001, 0.1, 0.1e0 + 0.2e0, x'00ff275c', 'é', '{"k": "é"}', 'b', b'101000001',
         '2026-10-25 00:30:00.123456', '0001-01-01', '-12:00:00.5', 2026, uuid(), point(1, 2)),
        ('B', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        ('', 0, 16777217, 1e-300, '', '', 'null', 'a', b'0', NULL, NULL, '00:00:00', 1901, NULL, NULL);
"""
_ODD_POSTGRESQL = """
    CREATE TYPE mood AS ENUM ('a', 'b');
    CREATE TABLE "odd one" (
        id varchar(20) PRIMARY KEY, n numeric(30, 10), f real, d double precision, b bytea, t text, j jsonb, e mood,
        bits bit(9), stamp timestamptz, day date, at interval, y int[], u uuid, p point,
        size int GENERATED ALWAYS AS (length(b)) STORED, number int GENERATED ALWAYS AS IDENTITY
    );
    INSERT INTO "odd one" (id, n, f, d, b, t, j, e, bits, stamp, day, at, y, u, p) VALUES
        ('a', 1.0000000001, 0.1, 0.1::float8 + 0.2::float8, '\\x00ff275c', 'é', '{"k": "é"}', 'b', b'101000001',
         '2026-10-25 00:30:00.123456+02', '0001-01-01 BC', '-12:00:00.5', '{1,NULL}', gen_random_uuid(), '(1,2)'),
        ('B', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        ('', 'NaN', 16777217, 'Infinity', '', '', 'null', 'a', b'000000000', 'infinity', '-infinity', '1 mon', '{}',
         NULL, NULL);
"""
_ODD = {
    Vendor.MYSQL: (
        _ODD_MARIADB,
        (
            "UPDATE `odd one` SET n = n / 3, f = f / 3, d = d / 3, b = 'x', t = 'ü', j = '[]', e = 'a', bits = b'1', "
            "stamp = '2000-01-01', day = '2000-01-01', at = '00:00:01', y = 2000, u = uuid(), p = NULL WHERE id = 'A'"
        ),
        "DELETE FROM `odd one` WHERE id = 'b'",
        "UPDATE `odd one` SET id = 'new', f = f / 7, d = d / 7 WHERE id = ''",
        (
            "INSERT INTO `odd one` (id, n, f, d, b, t, bits, stamp, p) "
            "SELECT concat(id, id), n, f, d, b, t, bits, stamp, p FROM `odd one`"
        ),
        "UPDATE `odd one` SET d = d / 7, n = n / 7, f = f / 7, b = repeat(x'fe', 70000), t = 'õ'",
    ),
    Vendor.POSTGRESQL: (
        _ODD_POSTGRESQL,
        (
            """UPDATE "odd one" SET n = n / 3, f = f / 3, d = d / 3, b = 'x', t = 'ü', j = '[]', e = 'a', """
            """bits = b'000000001', stamp = now(), day = 'today', at = '1 s', y = NULL, u = NULL, p = NULL"""
            """ WHERE id = 'a'"""
        ),
        """DELETE FROM "odd one" WHERE id = 'B'""",
        """UPDATE "odd one" SET id = 'new', f = f / 7, d = d / 7 WHERE id = ''""",
        """INSERT INTO "odd one" (id, n, f, d, b, stamp, at) SELECT id || id, n, f, d, b, stamp, at FROM "odd one" """,
        """UPDATE "odd one" SET d = d / 7, n = n / 7, f = f / 7, b = decode(repeat('fe', 70000), 'hex'), t = 'õ'""",
    ),
}


@pytest.mark.parametrize("inner", [True, False], ids=["in a transaction", "each by itself"])
def test_every_kind_of_value_comes_back(stepping_databases: NewDatabases, tmp_path: Path, *, inner: bool) -> None:
    rows, *statements = _ODD[stepping_databases.vendor]
    operations = [
        f"migrations.RunPython({ran(*statements[:4])}, fail, atomic={inner})",
        f"migrations.RunPython({ran(*statements[4:])}, fail, atomic={inner})",
    ]
    assert_undone(stepping_databases, tmp_path, *operations, atomic=False, rows=rows)


_CASCADING = """
    CREATE TABLE part (id int PRIMARY KEY, item bigint, up int,
        FOREIGN KEY (item) REFERENCES demo_item (id) ON DELETE CASCADE,
        FOREIGN KEY (up) REFERENCES part (id) ON DELETE SET NULL);
    INSERT INTO part VALUES (1, NULL, NULL), (2, 1, 1), (3, NULL, 2);
"""
_STATEMENTS = {
    "updated": [ALL],
    "deleted with what refers to it": [
        "DELETE FROM demo_label",
        "UPDATE demo_item SET crate_id = NULL",
        "DELETE FROM demo_crate",
    ],
    "inserted with what it refers to": [
        "INSERT INTO demo_crate (id, label) VALUES (70, 'tin')",
        "INSERT INTO demo_item (id, name, code, crate_id) VALUES (70, 'oil', '70', 70)",
        "UPDATE demo_item SET crate_id = 70",
    ],
    "unique values exchanged": [
        "UPDATE demo_item SET code = 'x' WHERE id = 1",
        "UPDATE demo_item SET code = '01' WHERE id = 2",
        "UPDATE demo_item SET code = '02' WHERE id = 1",
    ],
    "other keys": ["DELETE FROM demo_label", "INSERT INTO demo_label (id, text, crate_id) VALUES (9, 'red', 1)"],
    "selected": ["INSERT INTO demo_label (id, text, crate_id) SELECT id + 9, label, id FROM demo_crate"],
    "there and back": [ALL, "UPDATE demo_item SET name = 'tea' WHERE id = 1"],
    "without a key": ["INSERT INTO heard VALUES (1), (1), (2)", "DELETE FROM heard WHERE id = 4"],
}
_OF_MARIADB = {
    "replaced": ["REPLACE INTO demo_item (id, name, code) VALUES (1, 'oil', '02'), (0, 'zero', '00')"],
    "inserted or updated": [
        "INSERT INTO demo_item (id, name, code) VALUES (1, 'oil', '0') ON DUPLICATE KEY UPDATE size = 3"
    ],
    "several tables updated": [
        "UPDATE demo_item JOIN demo_crate c ON c.id = crate_id SET name = c.label, c.label = 'none'"
    ],
    "several tables deleted from": ["DELETE `demo_label`, i FROM demo_label, `demo_item` i WHERE i.crate_id = 2"],
    "deleted by the server": ["DELETE FROM demo_item WHERE id = 1"],
}


@pytest.mark.parametrize(
    ("stepping_databases", "atomic"),
    [
        pytest.param(Vendor.MYSQL, True, id="mariadb, atomic"),
        pytest.param(Vendor.MYSQL, False, id="mariadb, not atomic", marks=pytest.mark.long),
        pytest.param(Vendor.POSTGRESQL, False, id="postgresql, not atomic"),
    ],
    indirect=["stepping_databases"],
)
@pytest.mark.parametrize("about", one_in(2, _STATEMENTS))
def test_rows_come_back_whatever_was_done_to_them(
    stepping_databases: NewDatabases, tmp_path: Path, about: str, *, atomic: bool
) -> None:
    heard = "CREATE TABLE heard (id integer); INSERT INTO heard VALUES (4), (4), (1);"
    assert_undone(stepping_databases, tmp_path, operation(ran(*_STATEMENTS[about])), atomic=atomic, rows=heard)


@pytest.mark.parametrize("about", one_in(2, _OF_MARIADB))
def test_rows_come_back_whatever_was_done_to_them_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path, about: str
) -> None:
    statements = f"migrations.RunSQL({_OF_MARIADB[about]!r}, 'SELECT no')"
    assert_undone(mariadb_databases, tmp_path, statements, atomic=True, rows=_CASCADING)


def test_what_others_do_meanwhile_stays(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    theirs = [
        "INSERT INTO demo_item (id, name, code) VALUES (50, 'theirs', '50')",
        "UPDATE demo_item SET size = 99 WHERE id = 3",
        "DELETE FROM demo_item WHERE id = 2",
    ]
    ours = f"both({ran('UPDATE demo_item SET size = 1 WHERE id = 1')}, meanwhile(*{theirs!r}), {ran(ALL)})"
    database, reference = stepping_databases.new(), stepping_databases.new()
    project_of(tmp_path / "reference", reference)
    execute(reference, ";".join(theirs))
    project = project_of(tmp_path, database, f"migrations.RunPython({ours}, fail, atomic=True)")

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert "demo.0002_change: " not in result.stdout
    assert diff(_text_of(reference), _text_of(database)) == ""


def _text_of(database: Database) -> str:
    return dump(database.dsn, sequences=False, blank={"django_migrations": ("applied",)})


def test_rows_that_others_have_changed_since_stay_and_it_is_told(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    theirs = ["UPDATE demo_item SET name = 'theirs', size = 3 WHERE id = 1", "UPDATE demo_item SET size = id + 3"]
    database = stepping_databases.new()
    code = operation(ran(ALL, "DELETE FROM demo_label"))
    project = project_of(tmp_path, database, code, last=f"both(meanwhile(*{theirs!r}), fail)")
    before = stepping_databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    [told] = [line for line in result.stdout.splitlines() if "demo.0002_change: " in line]
    assert "were changed again since, and stay so" in told
    assert "demo_item" in told
    assert "demo_label" not in told
    assert values(database, "SELECT id, name, size FROM demo_item ORDER BY id") == [
        (1, "theirs", 4),
        (2, "jam", 5),
        (3, "jam", 6),
    ]
    execute(
        database,
        "UPDATE demo_item SET name = 'tea' WHERE id = 1; UPDATE demo_item SET size = NULL; "
        "UPDATE demo_item SET size = 7 WHERE id = 2",
    )
    assert diff(before, stepping_databases.dump(database)) == ""


def test_what_refers_to_a_row_that_is_to_go_keeps_it(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    new = "INSERT INTO demo_crate (id, label) VALUES (70, 'tin')"
    refers = "INSERT INTO demo_label (id, text, crate_id) VALUES (70, 'theirs', 70)"
    code = f"migrations.RunPython({ran(new)}, run())"
    project = project_of(tmp_path, database, code, last=f"both(meanwhile({refers!r}), fail)")
    before = stepping_databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert f"  demo.0002_change: {REVERSED}\n" in result.stdout
    changes = diff(before, stepping_databases.dump(database)).splitlines()
    assert [line[0] for line in changes if line[0] in "+-" and line[:3] not in {"+++", "---"}] == ["+", "+"]
    execute(database, "DELETE FROM demo_label WHERE id = 70; DELETE FROM demo_crate WHERE id = 70")
    assert diff(before, stepping_databases.dump(database)) == ""


_MANY = {
    Vendor.MYSQL: "CREATE TABLE many (id int PRIMARY KEY); INSERT INTO many SELECT seq FROM seq_1_to_10001",
    Vendor.POSTGRESQL: "CREATE TABLE many (id int PRIMARY KEY); INSERT INTO many SELECT generate_series(1, 10001)",
}
_BEATS = "UPDATE many SET id = -1 WHERE id = 1"
_BACK = "UPDATE many SET id = 1 WHERE id = -1"


def test_code_that_writes_to_a_large_table_is_taken_back_by_its_reverse_code(
    stepping_databases: NewDatabases, tmp_path: Path
) -> None:
    database = stepping_databases.new()
    code = f"migrations.RunPython({ran(_BEATS)}, {ran(_BACK)})"
    project = project_of(tmp_path, database, code, rows=_MANY[stepping_databases.vendor])
    before = stepping_databases.dump(database)

    result = project.run("apply_migrations")

    assert f"  demo.0002_change: {REVERSED}\n" in result.stdout, result.stderr
    assert diff(before, stepping_databases.dump(database)) == ""


@pytest.mark.parametrize(
    "code",
    [
        'lambda apps, editor: editor.connection.connection.cursor().execute("UPDATE heard SET id = 5")',
        ran("INSERT INTO demo_label (text, crate_id) VALUES ('heard', 1)"),
        ran("CALL hear()"),
    ],
    ids=["a cursor of the driver", "a trigger", "a procedure"],
)
def test_rows_that_are_changed_unseen_are_told_of_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path, code: str
) -> None:
    rows = """
        CREATE TABLE heard (id integer); INSERT INTO heard VALUES (4);
        CREATE TRIGGER hears AFTER INSERT ON demo_label FOR EACH ROW UPDATE heard SET id = 5;
        CREATE PROCEDURE hear() UPDATE heard SET id = 5
    """
    database = mariadb_databases.new()
    back = ran("UPDATE heard SET id = 4", "DELETE FROM demo_label WHERE text = 'heard'")
    project = project_of(tmp_path, database, f"migrations.RunPython({code}, {back})", atomic=True, rows=rows)
    before = mariadb_databases.dump(database)

    result = project.run("apply_migrations")

    assert f"  demo.0002_change: {REVERSED}\n" in result.stdout, result.stderr
    assert diff(before, mariadb_databases.dump(database)) == ""
