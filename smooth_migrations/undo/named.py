"""Which tables an operation has named, so that an undo by comparison leaves those of other processes alone."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.db.migrations import RunSQL
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState

from smooth_migrations.reversibility import database_parts

__all__ = ["Named", "made_by_sql", "named_by", "naming", "tables_of"]

_DOUBLED = '`"%'
# None of these changes a table's definition, and there may be as many as there are rows.
_ROWS = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|SAVEPOINT|RELEASE|SHOW)\b", re.IGNORECASE)

_NAME = r'(?:"((?:[^"]|"")+)"|`((?:[^`]|``)+)`|([\w$]+))'
_MAKES = re.compile(
    r"\b(?:CREATE\s+(?:(?:UNLOGGED|OR\s+REPLACE)\s+)*TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?|RENAME\s+TO\s+)"
    rf"(?:[\w$\"`]+\s*\.\s*)?{_NAME}",
    re.IGNORECASE,
)


class Named:
    """The statements that may have changed definitions; one of Django's execute wrappers.

    Args:
        texts: statements, or names.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = [*texts]

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Take note of a statement, and run it."""
        if not _ROWS.match(str(sql)):
            self._texts.append(str(sql))
        return execute(sql, params, many, context)

    def add(self, table: str) -> None:
        """Name a table."""
        self._texts.append(table)

    def __contains__(self, table: object) -> bool:
        word = naming(str(table))
        return any(word.search(text) for text in self._texts)


def naming(name: str) -> re.Pattern[str]:
    """Return what finds a name in a statement, however it is quoted there; it may find one that is in a comment."""
    # What quotes a name, or announces a parameter, is doubled within.
    letters = (re.escape(letter) + ("{1,2}" if letter in _DOUBLED else "") for letter in name)
    return re.compile(rf"(?<![\w$]){''.join(letters)}(?![\w$])", re.IGNORECASE)


def named_by(operations: Iterable[Operation], app_label: str, states: Iterable[ProjectState]) -> Named:
    """Return what operations name that another process ran, as far as can be told without their statements.

    Nobody knows what Python code named.

    Args:
        operations: of one migration.
        app_label: of it.
        states: the project's before and after each.
    """
    models = [(key, model) for state in states for key, model in state.models.items()]
    texts: list[str] = []
    for part in (part for operation in operations for part in database_parts(operation)):
        if isinstance(part, RunSQL):
            texts += [str(part.sql), str(part.reverse_sql)]
            continue
        said = (getattr(part, name, None) for name in ("name", "model_name", "old_name", "new_name"))
        own = {(app_label, str(name).lower()) for name in said if name}
        for key, model in models:
            if key in own or own & set(_related(model)):
                texts += tables_of(key, model)
    return Named(texts)


def made_by_sql(operation: RunSQL) -> set[str]:
    """Return the names that the statements of an operation give to tables, without their schemas."""
    return {
        next(filter(None, match.groups())).replace('""', '"').replace("``", "`")
        for match in _MAKES.finditer(str(operation.sql))
    }


def tables_of(key: tuple[str, str], model: ModelState) -> Iterator[str]:
    """Return the names of a model's table and of those of its many-to-many fields."""
    table = str(model.options.get("db_table") or f"{key[0]}_{key[1]}")
    yield table
    for name, field in model.fields.items():
        if field.many_to_many:
            yield str(getattr(field, "db_table", None) or f"{table}_{name}")


def _related(model: ModelState) -> Iterator[tuple[str, str]]:
    for field in model.fields.values():
        target: Any = getattr(field.remote_field, "model", None)
        if isinstance(target, str):
            app, _, name = target.lower().rpartition(".")
            yield app or model.app_label, name
