"""A MariaDB database that held nothing is made to hold nothing again."""

import pytest

from tests.integration.test_emptiness import run, started
from tests.support.dump import diff, dump
from tests.support.histories import execute
from tests.support.mariadb_database import MariadbDatabase

_AGGREGATE = """
    CREATE AGGREGATE FUNCTION total(value integer) RETURNS integer
    BEGIN
        DECLARE CONTINUE HANDLER FOR NOT FOUND RETURN 1;
        LOOP FETCH GROUP NEXT ROW; END LOOP;
    END
"""
_EVERYTHING = [
    "CREATE TABLE `A ``table` (id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(20))",
    "CREATE TABLE child (id integer PRIMARY KEY, parent bigint, FOREIGN KEY (parent) REFERENCES `A ``table` (id))",
    "ALTER TABLE `A ``table` ADD COLUMN newest integer, ADD FOREIGN KEY (newest) REFERENCES child (id)",
    "INSERT INTO `A ``table` (name) VALUES ('one')",
    "INSERT INTO child VALUES (1, 1)",
    "CREATE TABLE remembered (id integer) WITH SYSTEM VERSIONING",
    "CREATE TABLE parted (id integer) PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE VIEW seen AS SELECT * FROM `A ``table`",
    "CREATE VIEW seen_again AS SELECT * FROM seen",
    "CREATE SEQUENCE counted",
    "CREATE TRIGGER touched BEFORE UPDATE ON child FOR EACH ROW SET NEW.parent = OLD.parent",
    "CREATE PROCEDURE work() SELECT 1",
    "CREATE FUNCTION one() RETURNS integer RETURN 1",
    _AGGREGATE,
]


def test_everything_that_mariadb_can_hold_is_dropped(mariadb_database: MariadbDatabase) -> None:
    before = dump(mariadb_database.dsn)

    assert run(mariadb_database.django, _EVERYTHING, ["A `table", "child"])

    assert not diff(before, dump(mariadb_database.dsn))


def test_an_event_is_dropped_too(mariadb_database: MariadbDatabase) -> None:
    before = dump(mariadb_database.dsn)

    assert run(mariadb_database.django, ["CREATE EVENT daily ON SCHEDULE EVERY 1 DAY DO SELECT 1"], [])

    assert not diff(before, dump(mariadb_database.dsn))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("", id="plain"),
        pytest.param("WITH SYSTEM VERSIONING", id="versioned"),
    ],
)
def test_a_mariadb_table_with_somebody_else_s_rows_is_not_dropped(mariadb_database: MariadbDatabase, kind: str) -> None:
    statements = [f"CREATE TABLE billing (id integer) {kind}", "INSERT INTO billing VALUES (1)"]

    done = started(mariadb_database.django, statements, [])

    assert "holds rows in tables that no migration makes: billing" in done.stderr
    assert "billing" in dump(mariadb_database.dsn)


@pytest.mark.parametrize(
    "thing",
    [
        pytest.param("CREATE TABLE {} (id integer)", id="table"),
        pytest.param("CREATE TABLE {} (id integer) WITH SYSTEM VERSIONING", id="versioned table"),
        pytest.param("CREATE VIEW {} AS SELECT 1 AS one", id="view"),
        pytest.param("CREATE SEQUENCE {}", id="sequence"),
        pytest.param("CREATE PROCEDURE {}() SELECT 1", id="procedure"),
        pytest.param("CREATE FUNCTION {}() RETURNS integer RETURN 1", id="function"),
    ],
)
def test_a_mariadb_database_that_holds_something_is_not_empty(mariadb_database: MariadbDatabase, thing: str) -> None:
    assert run(mariadb_database.django)
    execute(mariadb_database, thing.format("smooth_own"))
    assert run(mariadb_database.django)
    execute(mariadb_database, thing.format("thing"))
    assert not run(mariadb_database.django)
