"""What the fingerprint says of the things in a SQLite database."""

from pathlib import Path

import pytest

from tests.support.fingerprints import assert_there_and_back
from tests.support.histories import SqliteDatabase, execute

_SCHEMA = """
    CREATE TABLE parent (id integer PRIMARY KEY AUTOINCREMENT, name varchar(20) NOT NULL);
    CREATE TABLE child (id integer PRIMARY KEY, total decimal NOT NULL DEFAULT 0, note text);
    CREATE TABLE django_migrations (id integer, app text, name text, applied datetime);
"""

_CASES = [
    pytest.param(
        "CREATE TABLE fresh (id int PRIMARY KEY, [a b] text CHECK (`a b` <> 'x  y'), UNIQUE (id, [a b])) WITHOUT ROWID",
        "DROP TABLE fresh",
        """
        + table fresh
        + table fresh column "a b": text CHECK("a b" <> 'x  y')
        + table fresh column id: int PRIMARY KEY
        + table fresh columns: id, "a b"
        + table fresh constraint: UNIQUE(id, "a b")
        + table fresh options: WITHOUT ROWID
        """,
        id="table",
    ),
    pytest.param(
        "CREATE VIRTUAL TABLE box USING rtree(id, low, high)",
        "DROP TABLE box",
        """
        + table box
        + table box definition: CREATE VIRTUAL TABLE box USING rtree(id, low, high)
        + table box_node
        + table box_node column data
        + table box_node column nodeno: INTEGER PRIMARY KEY
        + table box_node columns: nodeno, data
        + table box_parent
        + table box_parent column nodeno: INTEGER PRIMARY KEY
        + table box_parent column parentnode
        + table box_parent columns: nodeno, parentnode
        + table box_rowid
        + table box_rowid column nodeno
        + table box_rowid column rowid: INTEGER PRIMARY KEY
        + table box_rowid columns: rowid, nodeno
        """,
        id="virtual-table",
    ),
    pytest.param(
        'ALTER TABLE child ADD COLUMN "parent_id" integer NULL REFERENCES "parent" ("id") DEFERRABLE',
        "ALTER TABLE child DROP COLUMN parent_id",
        """
        + table child column parent_id: integer NULL REFERENCES parent(id) DEFERRABLE
        - table child columns: id, total, note
        + table child columns: id, total, note, parent_id
        """,
        id="column",
    ),
    pytest.param(
        "ALTER TABLE child RENAME note TO memo",
        "ALTER TABLE child RENAME memo TO note",
        """
        + table child column memo: text
        - table child column note: text
        - table child columns: id, total, note
        + table child columns: id, total, memo
        """,
        id="column-name",
    ),
    pytest.param(
        """
        CREATE TABLE "new__child" ("id" integer NOT NULL PRIMARY KEY, "note" text NULL, "total" decimal NOT NULL);
        DROP TABLE child;
        ALTER TABLE "new__child" RENAME TO "child"
        """,
        """CREATE TABLE other (
  id integer PRIMARY KEY, -- the key
  total decimal NOT NULL /* net */ DEFAULT 0,
  note text
); DROP TABLE child; ALTER TABLE other RENAME TO child""",
        """
        - table child column id: integer PRIMARY KEY
        + table child column id: integer NOT NULL PRIMARY KEY
        - table child column note: text
        + table child column note: text NULL
        - table child column total: decimal NOT NULL DEFAULT 0
        + table child column total: decimal NOT NULL
        - table child columns: id, total, note
        + table child columns: id, note, total
        """,
        id="remade",
    ),
    pytest.param(
        'CREATE UNIQUE INDEX "by_note" ON "child" ("note" DESC) WHERE "total" > 0',
        "DROP INDEX by_note",
        """
        + table child index by_note: CREATE UNIQUE INDEX by_note ON child(note DESC) WHERE total > 0
        """,
        id="index",
    ),
    pytest.param(
        "CREATE VIEW seen AS SELECT id,  note FROM child",
        "DROP VIEW seen",
        """
        + view seen: CREATE VIEW seen AS SELECT id, note FROM child
        """,
        id="view",
    ),
    pytest.param(
        "CREATE TRIGGER touched AFTER UPDATE ON child BEGIN SELECT 1; END",
        "DROP TRIGGER touched",
        """
        + table child trigger touched: CREATE TRIGGER touched AFTER UPDATE ON child BEGIN SELECT 1; END
        """,
        id="trigger",
    ),
    pytest.param(
        "PRAGMA user_version = 7",
        "PRAGMA user_version = 0",
        """
        - pragma user_version: 0
        + pragma user_version: 7
        """,
        id="pragma",
    ),
    pytest.param(
        "INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial', 'now')",
        "DELETE FROM django_migrations",
        """
        + migration shop.0001_initial
        """,
        id="record",
    ),
]


@pytest.mark.parametrize(("change", "inverse", "expected"), _CASES)
def test_a_change_differs_in_just_that_and_its_inverse_in_nothing(
    tmp_path: Path, change: str, inverse: str, expected: str
) -> None:
    database = SqliteDatabase(tmp_path / "some.sqlite3")
    execute(database, _SCHEMA)
    assert_there_and_back(database, change, inverse, expected)
