import pytest

from smooth_migrations.undo.rows.statements import Kind, kind_of, qualifiers_in, words_in


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        *(
            (Kind.NOTHING, sql)
            for sql in ("SELECT 1", " (select name FROM t)", "SHOW TABLES", "SAVEPOINT s", "SET x = 1")
        ),
        *((Kind.NOTHING, sql) for sql in ("ROLLBACK TO SAVEPOINT s", "WITH a AS (SELECT 1) SELECT * FROM a")),
        *(
            (Kind.ROWS, sql)
            for sql in ("INSERT INTO t VALUES (1);", "-- why\nUPDATE t SET a = 1", "/* */ delete FROM t")
        ),
        *((Kind.ROWS, sql) for sql in ("REPLACE INTO t VALUES (1)", "WITH a AS (SELECT 1) DELETE FROM t")),
        *((Kind.MORE, sql) for sql in ("DROP TABLE t", "CALL p()", "COMMIT", "ROLLBACK", "LOCK TABLES t WRITE")),
        *(
            (Kind.MORE, sql)
            for sql in ("UPDATE t SET a = 1; DROP TABLE t", "SELECT * INTO t FROM s", "SET autocommit = 1")
        ),
        *(
            (Kind.MORE, sql)
            for sql in ("/*! UPDATE t SET a = 1 */", "SET STATEMENT max_statement_time = 1 FOR DELETE FROM t")
        ),
        *((Kind.MORE, sql) for sql in ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "TRUNCATE t", "nonsense")),
    ],
)
def test_what_is_not_plain_is_said_to_change_more_than_rows(kind: Kind, sql: str) -> None:
    assert kind_of(sql) is kind


def test_tables_are_found_however_they_are_quoted() -> None:
    sql = "UPDATE Demo_Item JOIN `odd one` o ON o.id = shop.`a``b`.id SET x = 1"
    assert {"demo_item", "odd one", "a`b"} <= words_in(sql)
    assert qualifiers_in(sql) == {"o", "shop", "a`b"}
