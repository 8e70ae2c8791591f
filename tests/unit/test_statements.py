import pytest

from smooth_migrations.undo.rows.statements import Kind, kind_of, named_in, qualifying_in


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
            for sql in (
                "/*! UPDATE t SET a = 1 */",
                "/*M! DELETE FROM t */",
                "SET STATEMENT max_statement_time = 1 FOR DELETE FROM t",
            )
        ),
        *((Kind.MORE, sql) for sql in ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "TRUNCATE t", "nonsense")),
    ],
)
def test_what_is_not_plain_is_said_to_change_more_than_rows(kind: Kind, sql: str) -> None:
    assert kind_of(sql) is kind


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("UPDATE Demo_Item SET x = 1", "demo_item"),
        ("UPDATE `odd one` o SET x = 1", "odd one"),
        ('UPDATE "odd one" SET x = 1', "odd one"),
        ("/* don`t */ UPDATE `odd one` SET x = 1", "odd one"),
        ("UPDATE shop.`a``b` SET x = 1", "a`b"),
        ('UPDATE "a""b" SET x = 1', 'a"b'),
        ("UPDATE `odd%%one` SET x = %s", "odd%one"),
        ("UPDATE `odd%one` SET x = 1", "odd%one"),
    ],
)
def test_a_table_is_found_however_it_is_quoted(sql: str, name: str) -> None:
    assert named_in({sql, "SELECT 1"}, [name, "another"]) == {name}


def test_a_part_of_a_name_is_no_name() -> None:
    assert named_in({"UPDATE demo_item_tags SET item_$ = 1"}, ["demo_item", "tags", "item_"]) == set()


def test_what_stands_before_a_dot_is_told() -> None:
    sql = "UPDATE Demo_Item JOIN `else where` . parts ON shop.a = o.id SET x = 1"
    names = ["demo_item", "else where", "shop", "o", "x", "parts"]
    assert qualifying_in({sql}, names) == {"else where", "shop", "o"}
