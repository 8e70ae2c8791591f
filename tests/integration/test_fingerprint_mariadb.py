"""What the fingerprint says of the things in a MariaDB database."""

import pytest

from tests.support.fingerprints import assert_there_and_back
from tests.support.histories import execute
from tests.support.mariadb_database import MariadbDatabase

_SCHEMA = """
    CREATE TABLE parent (id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(20) NOT NULL);
    CREATE TABLE child (id integer PRIMARY KEY, parent_id bigint, total numeric(10,2) NOT NULL DEFAULT 0, note text);
    CREATE TABLE django_migrations (id integer, app text, name text, applied datetime);
"""

_CASES = [
    pytest.param(
        "CREATE TABLE fresh (id integer, `a b` text) COMMENT 'new'",
        "DROP TABLE fresh",
        """
        + table fresh
        + table fresh column `a b`: text DEFAULT NULL
        + table fresh column id: int(11) DEFAULT NULL
        + table fresh columns: id, `a b`
        + table fresh options: ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci COMMENT='new'
        """,
        id="table",
    ),
    pytest.param(
        "ALTER TABLE child ADD COLUMN extra integer NOT NULL DEFAULT 7 COMMENT 'a, b' AFTER id",
        "ALTER TABLE child DROP COLUMN extra",
        """
        + table child column extra: int(11) NOT NULL DEFAULT 7 COMMENT 'a, b'
        - table child columns: id, parent_id, total, note
        + table child columns: id, extra, parent_id, total, note
        """,
        id="column",
    ),
    pytest.param(
        "ALTER TABLE child MODIFY total numeric(12,2) NULL",
        "ALTER TABLE child MODIFY total numeric(10,2) NOT NULL DEFAULT 0",
        """
        - table child column total: decimal(10,2) NOT NULL DEFAULT 0.00
        + table child column total: decimal(12,2) DEFAULT NULL
        """,
        id="type",
    ),
    pytest.param(
        "ALTER TABLE child ADD twice numeric(12,2) AS (total * 2) STORED",
        "ALTER TABLE child DROP twice",
        """
        + table child column twice: decimal(12,2) GENERATED ALWAYS AS (`total` * 2) STORED
        - table child columns: id, parent_id, total, note
        + table child columns: id, parent_id, total, note, twice
        """,
        id="generated",
    ),
    pytest.param(
        "CREATE UNIQUE INDEX by_note ON child (note(5), id)",
        "DROP INDEX by_note ON child",
        """
        + table child index by_note: unique (`note`(5),`id`)
        """,
        id="index",
    ),
    pytest.param(
        "ALTER TABLE child DROP PRIMARY KEY",
        "ALTER TABLE child ADD PRIMARY KEY (id)",
        """
        - table child definition: PRIMARY KEY (`id`)
        """,
        id="primary-key",
    ),
    pytest.param(
        "ALTER TABLE child ADD CONSTRAINT up FOREIGN KEY (parent_id) REFERENCES parent (id)",
        "ALTER TABLE child DROP FOREIGN KEY up, DROP KEY up",
        """
        + table child constraint up: FOREIGN KEY (`parent_id`) REFERENCES `parent` (`id`)
        + table child index up: (`parent_id`)
        """,
        id="foreign-key",
    ),
    pytest.param(
        "ALTER TABLE child ADD CONSTRAINT paid CHECK (total > 0)",
        "ALTER TABLE child DROP CONSTRAINT paid",
        """
        + table child constraint paid: CHECK (`total` > 0)
        """,
        id="check",
    ),
    pytest.param(
        "ALTER TABLE child COMMENT = 'few'",
        "ALTER TABLE child COMMENT = ''",
        """
        - table child options: ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci
        + table child options: ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci COMMENT='few'
        """,
        id="options",
    ),
    pytest.param(
        "CREATE TABLE log (id integer) PARTITION BY HASH (id) PARTITIONS 2",
        "DROP TABLE log",
        """
        + table log
        + table log column id: int(11) DEFAULT NULL
        + table log columns: id
        + table log options line 0001: ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci
        + table log options line 0002:  PARTITION BY HASH (`id`)
        + table log options line 0003: PARTITIONS 2
        """,
        id="partitions",
    ),
    pytest.param(
        "CREATE SQL SECURITY INVOKER VIEW seen AS SELECT id FROM child",
        "DROP VIEW seen",
        """
        + view seen: CREATE ALGORITHM=UNDEFINED DEFINER=`tests`@`127.0.0.1` SQL SECURITY INVOKER VIEW `seen` AS select `child`.`id` AS `id` from `child`
        """,  # noqa: E501 - the server's own words
        id="view",
    ),
    pytest.param(
        "CREATE SEQUENCE counter INCREMENT 2",
        "DROP SEQUENCE counter",
        """
        + sequence counter: CREATE SEQUENCE `counter` start with 1 minvalue 1 maxvalue 9223372036854775806 increment by 2 cache 1000 nocycle ENGINE=InnoDB
        """,  # noqa: E501 - the server's own words
        id="sequence",
    ),
    pytest.param(
        "CREATE TRIGGER touched BEFORE UPDATE ON child FOR EACH ROW SET NEW.note = 'x'",
        "DROP TRIGGER touched",
        """
        + table child trigger touched: BEFORE UPDATE place 1 by tests@127.0.0.1 SET NEW.note = 'x'
        """,
        id="trigger",
    ),
    pytest.param(
        "CREATE FUNCTION plus(a integer) RETURNS integer DETERMINISTIC RETURN a + 1",
        "DROP FUNCTION plus",
        """
        + function plus line 0001: CREATE DEFINER=`tests`@`127.0.0.1` FUNCTION `plus`(a integer) RETURNS int(11)
        + function plus line 0002:     DETERMINISTIC
        + function plus line 0003: RETURN a + 1
        """,
        id="function",
    ),
    pytest.param(
        "ALTER DATABASE CHARACTER SET latin1",
        "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        """
        - database: utf8mb4 utf8mb4_general_ci
        + database: latin1 latin1_swedish_ci
        """,
        id="database",
    ),
    pytest.param(
        "INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial', now())",
        "DELETE FROM django_migrations",
        """
        + migration shop.0001_initial
        """,
        id="record",
    ),
]


@pytest.mark.parametrize(("change", "inverse", "expected"), _CASES)
def test_a_change_differs_in_just_that_and_its_inverse_in_nothing(
    mariadb_database: MariadbDatabase, change: str, inverse: str, expected: str
) -> None:
    execute(mariadb_database, _SCHEMA)
    assert_there_and_back(mariadb_database, change, inverse, expected)
