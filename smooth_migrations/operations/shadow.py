"""A second column with the values of one, which a trigger keeps equal while all go on working.

So what a renamed column leaves to the release before, and what is to be of another type, can be there, filled and
indexed, before the transaction that gives it its name. That both are equal is what a check says once it is valid: no
row has to be looked at then.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

__all__ = [
    "MOST_ROWS",
    "Shadow",
    "added",
    "checks_of",
    "found_by",
    "has_many_rows",
    "index_statement",
    "indexes_of",
    "name_of",
    "rows_of",
    "type_of",
]

MOST_ROWS: Final = 100_000
"""Of how many rows a table is filled, read or written anew while nobody else can use it."""

# Of each index its name, whether it refuses a row at once, and all that comes behind the names of it and of its table.
_INDEXES: Final = """
    SELECT relname, indisunique AND indimmediate, substr(definition, strpos(definition, ' USING '))
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_attribute ON attrelid = indrelid AND attname = %s
    CROSS JOIN pg_get_indexdef(c.oid) AS definition
    WHERE indrelid = %s::regclass AND indisvalid AND (attnum = ANY (indkey) OR EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
            AND refclassid = 'pg_class'::regclass AND refobjid = indrelid AND refobjsubid = attnum
    )) ORDER BY 1
"""
_TYPE: Final = """
    SELECT format_type(atttypid, atttypmod) || coalesce((
        SELECT format(' COLLATE %%I.%%I', nspname, collname)
        FROM pg_collation l JOIN pg_namespace n ON n.oid = collnamespace
        WHERE l.oid = attcollation AND attcollation <> typcollation
    ), '')
    FROM pg_attribute JOIN pg_type t ON t.oid = atttypid WHERE attname = %s AND attrelid = %s::regclass
"""
_READY: Final = """
    SELECT EXISTS (
        SELECT FROM pg_attribute s JOIN pg_attribute c ON c.attrelid = s.attrelid AND c.attname = %s
        WHERE s.attrelid = to_regclass(%s) AND s.attname = %s
            AND (%s <> '' OR (s.atttypid, s.atttypmod, s.attcollation) = (c.atttypid, c.atttypmod, c.attcollation))
            AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = s.attrelid AND tgname = s.attname)
            AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = s.attrelid AND conname = %s AND convalidated)
    )
"""
_NOT_NULL: Final = "SELECT FROM pg_attribute WHERE attname = %s AND attrelid = %s::regclass AND attnotnull"
_FUNCTION: Final = """
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $smooth$
    BEGIN
        NEW.{name} := NEW.{column};
        RETURN NEW;
    END
    $smooth$
"""
_TRIGGER: Final = "CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
# Not every type can tell whether values are equal, and for some of them equal values are not the same.
# Of a comparison by operator the server forgets the type that it needs, and no dump of it could be restored.
_RULE: Final = "CHECK (pg_catalog.record_image_eq(ROW({name}), ROW({value})))"
# A server of version 18 has constraints for NOT NULL too, which come with the column.
_CHECKS: Final = """
    SELECT conname, pg_get_constraintdef(p.oid) FROM pg_constraint p JOIN pg_attribute ON attrelid = conrelid
    WHERE attname = %s AND conrelid = %s::regclass AND attnum = ANY (conkey) AND contype = 'c' AND convalidated
    ORDER BY 1
"""
_TOKEN: Final = re.compile(r"""'(?:[^']|'')*'|"(?P<quoted>(?:[^"]|"")+)"|(?<!::)\b(?P<plain>[^\W\d][\w$]*)""")


@dataclass(frozen=True, slots=True)
class Shadow:
    """One such column; what it is made of stands in this order in the database, and goes with it.

    Args:
        table: whose.
        column: whose values it has.
        kind: its type, in SQL; that of the column where it is empty.
    """

    table: str
    column: str
    kind: str = ""

    @property
    def name(self) -> str:
        """What it is called, and the trigger and the function that keep it equal."""
        return name_of("ahead", self.table, self.column, *filter(None, [self.kind]))

    @property
    def check(self) -> str:
        """What the check is called by which it is known to be equal."""
        return name_of("equal", self.name)

    def is_ready(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether it is there, and equal. Only reads."""
        table = connection.ops.quote_name(self.table)
        [(is_ready,)] = rows_of(connection, _READY, self.column, table, self.name, self.kind, self.check)
        return bool(is_ready)

    def making(self, connection: BaseDatabaseWrapper) -> Iterator[str]:
        """Yield what makes it, without values, and keeps it equal from then on, in one transaction.

        Takes ACCESS EXCLUSIVE on the table, for a change of the catalogue.
        """
        names = self._names(connection)
        kind = self.kind or type_of(connection, self.table, self.column)
        yield f"ALTER TABLE {names['table']} ADD COLUMN {names['name']} {kind}"
        yield _FUNCTION.format(**names)
        yield _TRIGGER.format(**names)
        yield self.checking(connection)[0]

    def checking(self, connection: BaseDatabaseWrapper) -> tuple[str, str]:
        """Return what adds its check, which is of `making` too, and what makes that valid."""
        names = self._names(connection)
        value = f"CAST({names['column']} AS {self.kind})" if self.kind else names["column"]
        return added(names["table"], self.check, _RULE.format(**names, value=value))

    def constraining(self, connection: BaseDatabaseWrapper) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the names of the checks that it is to have where it takes its column's place, and what adds each.

        Only reads. Where the column is not NULL, one of them says so: it has become a change of the catalogue then.
        """
        if not self.kind:
            return
        table = connection.ops.quote_name(self.table)
        rules = [
            (name_of(self.table, self.column, check), _renamed(definition, self.column, self.name))
            for check, definition in checks_of(connection, self.table, self.column)
            if check != self.check
        ]
        if rows_of(connection, _NOT_NULL, self.column, table):
            rules.append((name_of("filled", self.name), f"CHECK ({self.name} IS NOT NULL)"))
        for name, rule in rules:
            yield name, added(table, name, rule)

    def indexing(self, connection: BaseDatabaseWrapper) -> Iterator[tuple[str, str]]:
        """Yield the names of the indexes that it is to have, as its column has them, and what builds each. Only reads.

        What stands for the column in a definition is told by its words: whoever uses them compares (`indexes_of`).
        """
        for index, is_unique, definition in indexes_of(connection, self.table, self.column):
            name = name_of(self.table, self.column, index)
            instead = _renamed(definition, self.column, self.name)
            how = " CONCURRENTLY"
            yield name, index_statement(connection, name, self.table, instead, is_unique=is_unique, how=how)

    def let_go(self, editor: BaseDatabaseSchemaEditor) -> None:
        """Keep it equal no more. Takes ACCESS EXCLUSIVE on the table, for a change of the catalogue."""
        names = self._names(editor.connection)
        editor.execute(f"DROP TRIGGER {names['name']} ON {names['table']}", params=None)
        editor.execute(f"DROP FUNCTION {names['name']}()", params=None)
        editor.execute(f"ALTER TABLE {names['table']} DROP CONSTRAINT {self.check}", params=None)

    def _names(self, connection: BaseDatabaseWrapper) -> dict[str, str]:
        return {each: connection.ops.quote_name(getattr(self, each)) for each in ("table", "column", "name")}


def indexes_of(connection: BaseDatabaseWrapper, table: str, column: str) -> list[tuple[str, bool, str]]:
    """Return the valid indexes that have a column. Only reads.

    Args:
        connection: the database's.
        table: whose.
        column: it.

    Returns:
        Of each its name, whether it refuses a row at once, and its definition behind the name of the table.
    """
    found = _of(connection, _INDEXES, table, column)
    return [(str(name), bool(is_unique), str(definition)) for name, is_unique, definition in found]


def checks_of(connection: BaseDatabaseWrapper, table: str, column: str) -> list[tuple[str, str]]:
    """Return the valid checks that have a column, each with its definition. Only reads."""
    return [(str(name), str(definition)) for name, definition in _of(connection, _CHECKS, table, column)]


def found_by(table: str, index: str) -> str:
    """Return an index's name with the schema of its table, where that has one; both are quoted. Pure."""
    return "".join((*table.rpartition('".')[:2], index))


def added(table: str, name: str, rule: str) -> tuple[str, str]:
    """Return what adds a check to a table that is quoted, for rows to come, and what validates it. Pure."""
    return (
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {rule} NOT VALID",
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
    )


def index_statement(
    connection: BaseDatabaseWrapper, name: str, table: str, definition: str, *, is_unique: bool, how: str = ""
) -> str:
    """Return what builds an index. Pure."""
    kind = "UNIQUE INDEX" if is_unique else "INDEX"
    return f"CREATE {kind}{how} {name} ON {connection.ops.quote_name(table)}{definition}"


def type_of(connection: BaseDatabaseWrapper, table: str, column: str) -> str:
    """Return a column's type, with its collation where that is another one than the type's. Only reads."""
    [(kind,)] = _of(connection, _TYPE, table, column)
    return str(kind)


def name_of(*parts: str) -> str:
    """Return a name of our own for what belongs to these. Pure."""
    return f"smooth_{sha256(' '.join(['renamed', *parts]).encode()).hexdigest()[:16]}"


def rows_of(connection: BaseDatabaseWrapper, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Return what a query finds."""
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def has_many_rows(connection: BaseDatabaseWrapper, table: str) -> bool:
    """Return whether a table, quoted, has more rows than `MOST_ROWS`. Only reads, and no more than these."""
    limited = f"SELECT count(*) > {MOST_ROWS} FROM (SELECT FROM {table} LIMIT {MOST_ROWS + 1}) AS found"  # noqa: S608 - quoted
    return rows_of(connection, limited) == [(True,)]


def _of(connection: BaseDatabaseWrapper, query: str, table: str, column: str) -> list[tuple[Any, ...]]:
    return rows_of(connection, query, column, connection.ops.quote_name(table))


def _renamed(definition: str, old: str, new: str) -> str:
    """Return a definition with another column in it."""

    def instead(token: re.Match[str]) -> str:
        is_it = (token["quoted"] or "").replace('""', '"') == old or token["plain"] == old
        return f'"{new}"' if is_it else token[0]

    return _TOKEN.sub(instead, definition)
