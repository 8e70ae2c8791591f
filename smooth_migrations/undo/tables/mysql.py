"""Tables of MySQL and MariaDB, which commit at every DDL statement: as they were, and back to that.

An operation may be broken off between two of its statements. Each statement by itself is atomic (MariaDB 10.6, MySQL
8.0: atomic DDL), so the tables are in one of a few shapes between before and after; which one is told by looking.
"""

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from smooth_migrations.quoting import backticked
from smooth_migrations.undo.renames import Renames
from smooth_migrations.undo.tables.unknown import refuse_to_drop

__all__ = ["MySQL"]

_OURS = "smooth_"
_POSITION = re.compile(r" AUTO_INCREMENT=\d+")
_NAMED = re.compile(r"(?P<kind>(?:UNIQUE |FULLTEXT |SPATIAL )?KEY|CONSTRAINT) `(?P<name>(?:[^`]|``)+)` (?P<rest>.*)")
_OPTIONS = re.compile(r"\) ENGINE=(?P<engine>\w+)(?P<rest>.*)")
_COLUMN = re.compile(r"`(?P<name>(?:[^`]|``)+)` ")


@dataclass(slots=True)
class _Shape:
    columns: dict[str, str] = field(default_factory=dict)
    primary: str | None = None
    keys: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)


class MySQL:
    """What SHOW CREATE TABLE writes."""

    def take(self, connection: BaseDatabaseWrapper) -> dict[str, str]:
        """Return each table's statement; about 0.2 ms a table."""
        with connection.cursor() as cursor:
            return {name: _definition(cursor, name) for name in _names(cursor)}

    def restore(
        self, connection: BaseDatabaseWrapper, before: Mapping[str, str], renames: Renames, named: Container[str]
    ) -> None:
        """Alter what differs, committing at every statement. A column or table that is gone comes back empty.

        Raises:
            UndoFailed: what would be dropped may be what is gone, under another name.
        """
        wanted = {name: text for name, text in before.items() if name in named}
        with connection.constraint_checks_disabled(), connection.cursor() as cursor:
            for stage in _STAGES:
                # Renaming a column changes the definition of keys that name it, and dropping a table whose keys go
                # with it.
                now = {name: _definition(cursor, name) for name in _names(cursor) if name in named}
                if stage is not _rename_tables:
                    _refuse_to_drop(cursor, now, wanted, renames)
                for statement in list(stage(now, wanted, renames)):
                    cursor.execute(statement)


def _names(cursor: CursorWrapper) -> list[str]:
    cursor.execute("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")
    return [name for name, _kind in cursor.fetchall() if not name.startswith(_OURS)]


def _definition(cursor: CursorWrapper, name: str) -> str:
    cursor.execute(f"SHOW CREATE TABLE {backticked(name)}")
    return _POSITION.sub("", str((cursor.fetchone() or ("", ""))[1]))


def _refuse_to_drop(cursor: CursorWrapper, now: Mapping[str, str], before: Mapping[str, str], renames: Renames) -> None:
    def has_rows(table: str) -> bool:
        cursor.execute(f"SELECT 1 FROM {backticked(table)} LIMIT 1")  # noqa: S608 - quoted
        return cursor.fetchone() is not None

    refuse_to_drop(now.keys() - before.keys(), before.keys() - now.keys(), has_rows)
    for name, current, wanted in _both(now, before):
        renamed = {new: old for (table, new), old in renames.columns.items() if table == name}
        old_names = {renamed.get(column, column) for column in current.columns}
        new = {column for column in current.columns if not {column, renamed.get(column)} & wanted.columns.keys()}
        refuse_to_drop(new, wanted.columns.keys() - old_names - current.columns.keys(), has_rows, of=name)


def _rename_tables(now: Mapping[str, str], before: Mapping[str, str], renames: Renames) -> Iterator[str]:
    for new, old in renames.tables.items():
        if new in now and new not in before and old in before and old not in now:
            yield f"RENAME TABLE {backticked(new)} TO {backticked(old)}"


def _drop_foreign_keys(now: Mapping[str, str], before: Mapping[str, str], _renames: Renames) -> Iterator[str]:
    for name, current, wanted in _both(now, before):
        # The server makes an index for a foreign key that has none, under its name, and drops it of its own accord when
        # another one serves: not so one that was made by a statement, though it looks the same (InnoDB: "Foreign Key
        # Constraints"). So it comes back as it came, with its foreign key.
        keyless = {key for key in wanted.foreign if key in wanted.keys and key not in current.keys}
        for key in current.foreign:
            if key in keyless or wanted.foreign.get(key) != current.foreign[key]:
                yield f"ALTER TABLE {backticked(name)} DROP FOREIGN KEY {backticked(key)}"


def _drop_and_create(now: Mapping[str, str], before: Mapping[str, str], _renames: Renames) -> Iterator[str]:
    for name in sorted(now.keys() - before.keys()):
        yield f"DROP TABLE {backticked(name)}"
    for name in sorted(before.keys() - now.keys()):
        yield _without_made_keys(before[name])


def _rename_columns(now: Mapping[str, str], before: Mapping[str, str], renames: Renames) -> Iterator[str]:
    for name, current, wanted in _both(now, before):
        for (table, new), old in renames.columns.items():
            is_renamed = new in current.columns and old in wanted.columns and old not in current.columns
            if table == name and is_renamed:
                yield f"ALTER TABLE {backticked(name)} CHANGE COLUMN {backticked(new)} {wanted.columns[old]}"


def _set_options(now: Mapping[str, str], before: Mapping[str, str], _renames: Renames) -> Iterator[str]:
    """Give a table its comment and its character set back; columns follow, which are as the table says."""
    for name, text in now.items():
        # What stands in several lines has partitions.
        is_now, was = (_OPTIONS.fullmatch(each.rsplit("\n", 1)[-1]) for each in (text, before.get(name, text)))
        if is_now and was and is_now["engine"] == was["engine"] and is_now["rest"] != was["rest"]:
            no_comment = "" if " COMMENT=" in was["rest"] else " COMMENT=''"
            yield f"ALTER TABLE {backticked(name)}{was['rest']}{no_comment}"


def _alter(now: Mapping[str, str], before: Mapping[str, str], _renames: Renames) -> Iterator[str]:
    for name, current, wanted in _both(now, before):
        changes = [*_drops(current, wanted), *_columns(current, wanted), *_adds(current, wanted)]
        if changes:
            yield f"ALTER TABLE {backticked(name)} {', '.join(changes)}"


def _add_foreign_keys(now: Mapping[str, str], before: Mapping[str, str], _renames: Renames) -> Iterator[str]:
    for name, current, wanted in _both(now, before):
        for key, line in wanted.foreign.items():
            if key not in current.foreign:
                yield f"ALTER TABLE {backticked(name)} ADD {line}"


def _add_keys(now: Mapping[str, str], before: Mapping[str, str], _renames: Renames) -> Iterator[str]:
    """Add the indexes named as a foreign key that the server has not made, since another one serves."""
    for name, current, wanted in _both(now, before):
        for key, line in wanted.keys.items():
            if key not in current.keys:
                yield f"ALTER TABLE {backticked(name)} ADD {line}"


_STAGES = (
    *(_rename_tables, _drop_foreign_keys, _drop_and_create, _rename_columns),
    *(_set_options, _alter, _add_foreign_keys, _add_keys),
)


def _both(now: Mapping[str, str], before: Mapping[str, str]) -> Iterator[tuple[str, _Shape, _Shape]]:
    for name, text in now.items():
        if name in before:
            yield name, _shape(text), _shape(before[name])


def _changed(current: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    return (key for key, line in current.items() if wanted.get(key) != line)


def _drops(current: _Shape, wanted: _Shape) -> Iterator[str]:
    yield from (f"DROP CONSTRAINT {backticked(key)}" for key in _changed(current.checks, wanted.checks))
    yield from (f"DROP KEY {backticked(key)}" for key in _changed(current.keys, wanted.keys))
    if current.primary is not None and current.primary != wanted.primary:
        yield "DROP PRIMARY KEY"
    yield from (f"DROP COLUMN {backticked(name)}" for name in current.columns if name not in wanted.columns)


def _columns(current: _Shape, wanted: _Shape) -> Iterator[str]:
    order = [name for name in current.columns if name in wanted.columns]
    previous: str | None = None
    for position, (name, line) in enumerate(wanted.columns.items()):
        place = f" AFTER {backticked(previous)}" if previous else " FIRST"
        previous = name
        if name not in current.columns:
            yield f"ADD COLUMN {line}{place}"
        elif current.columns[name] != line or order[position] != name:
            yield f"MODIFY COLUMN {line}{place}"
            order.remove(name)
        else:
            continue
        order.insert(position, name)


def _adds(current: _Shape, wanted: _Shape) -> Iterator[str]:
    if wanted.primary is not None and current.primary != wanted.primary:
        yield f"ADD {wanted.primary}"
    yield from (f"ADD {wanted.keys[key]}" for key in _changed(wanted.keys, current.keys) if key not in wanted.foreign)
    yield from (f"ADD {wanted.checks[key]}" for key in _changed(wanted.checks, current.checks))


def _without_made_keys(text: str) -> str:
    foreign = _shape(text).foreign
    keyed = [(line, _NAMED.match(line.strip())) for line in text.split("\n")]
    return "\n".join(
        line
        for line, named in keyed
        if not named or named["kind"] == "CONSTRAINT" or _plain(named["name"]) not in foreign
    )


def _shape(text: str) -> _Shape:
    shape = _Shape()
    for raw in text.split("\n")[1:-1]:
        line = raw.strip().removesuffix(",")
        named = _NAMED.match(line)
        if column := _COLUMN.match(line):
            shape.columns[_plain(column["name"])] = line
        elif line.startswith("PRIMARY KEY"):
            shape.primary = line
        elif named and named["kind"] != "CONSTRAINT":
            shape.keys[_plain(named["name"])] = line
        elif named and named["rest"].startswith("FOREIGN KEY"):
            shape.foreign[_plain(named["name"])] = line
        elif named:
            shape.checks[_plain(named["name"])] = line
    return shape


def _plain(name: str) -> str:
    return name.replace("``", "`")
