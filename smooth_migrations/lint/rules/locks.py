"""SM2: what keeps everybody else waiting for as long as a table is large."""

from collections.abc import Iterator
from typing import Final

from django.db.migrations.operations import AddConstraint, AddField, AddIndex, AlterField, RunSQL
from django.db.migrations.operations.base import Operation
from django.db.models import (
    CheckConstraint,
    PositiveBigIntegerField,
    PositiveIntegerField,
    PositiveSmallIntegerField,
    UniqueConstraint,
)

from smooth_migrations.changes import Changes
from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.statements import builds_index
from smooth_migrations.lint.subject import Step, Subject
from smooth_migrations.operations.fields import in_database
from smooth_migrations.protocol.linting import Level
from smooth_migrations.touched import refers_to

__all__ = ["Index", "Rewrite", "Scan"]

_WITH_CHECKS: Final = (PositiveBigIntegerField, PositiveIntegerField, PositiveSmallIntegerField)
_FOREIGN_KEY: Final = "a foreign key"


class Rewrite(Rule):
    """A table is written anew.

    The server writes every row of the table anew, and its indexes, under a lock that lets nobody read or write
    (PostgreSQL: ACCESS EXCLUSIVE) and takes as much disk again. Where the operation is split, that is at `finalise`.
    The second column of a renamed field is filled in batches before that, and is not found here.

    Add a column of the new kind, fill it in batches (`smooth_migrations.Backfill`), and remove the old one in a
    later release. SQLite has one writer anyway, and no such findings.
    """

    code, level = "SM201", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield what has rows written anew that were there before."""
        for step in subject.steps:
            for text in step.remakes:
                yield Found(step.line, text, "add a new column, fill it in batches, and remove the old one later")


class Index(Rule):
    """An index is built while writers wait.

    An index is built within the transaction: nobody writes to the table from the first row on that is indexed to
    the end of the deploy (PostgreSQL: SHARE, or ACCESS EXCLUSIVE where a column comes with it).

    On PostgreSQL, where `expand_contract` is true and the migration atomic, an index is built ahead of the
    transactions, concurrently, and is not found here: `AddIndex`, or an `AlterField` that does nothing but
    `db_index=True`, on a table that was there before, of fields that the migration has not changed; and, where the
    table has many rows, that of an `AddField`, but of one that is unique, or has a check, or a default of its own for
    each row, or refers to a table that the migration makes. Add such a field with `db_index=False`, and the index in a
    later deploy. Elsewhere use `AddIndexConcurrently` of `django.contrib.postgres.operations` in a migration with
    `atomic = False` that does nothing else. SQLite has one writer anyway, and no such findings.
    """

    code, level = "SM202", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield indexes of tables that were there before, but those that are built ahead."""
        hint = "build it by AddIndexConcurrently in a migration with atomic = False"
        is_ahead = subject.vendor == "postgresql" and subject.expands and subject.migration.atomic
        changes = Changes()
        for step, part in subject.parts if subject.vendor != "sqlite" else ():
            if isinstance(part, RunSQL):
                if words := builds_index(part):
                    yield Found(step.line, f"SQL that builds an index while writers wait: {words}", hint)
            elif (name := _indexed(step, part)) and not (
                is_ahead and not changes.touch(step.app_label, part) and _is_ready_ahead(step, part, changes)
            ):
                yield Found(step.line, f"{part.describe()}: builds an index of {name} while writers wait", hint)
            changes.note(step.app_label, part)


class Scan(Rule):
    """All rows are checked while writers wait.

    Every row of the table is looked at under a lock that keeps writers waiting. Where the operation is split, that
    is at `finalise`; on PostgreSQL that looks at them before it takes a lock, and is not found here.

    On a large table of PostgreSQL, and where both releases keep to it already, add a check by
    `AddConstraintNotValid`, and validate it by `ValidateConstraint` in a migration with `atomic = False` (both of
    `django.contrib.postgres.operations`): that lets writers go on.
    """

    code, level = "SM203", Level.NOTE

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield constraints on tables that were there before, but those that are validated before."""
        for step, part in subject.parts if subject.vendor != "sqlite" else ():
            what = _checked(step, part)
            if what and (step.split is None or subject.vendor != "postgresql" or what == _FOREIGN_KEY):
                yield Found(step.line, f"{part.describe()}: {what} is checked for every row while writers wait")


def _is_ready_ahead(step: Step, part: Operation, changes: Changes) -> bool:
    """Return whether nothing of an operation but its index is seen by the database, or a column that can be as well."""
    model = step.model(part)
    if type(part) is AddField:
        field = part.field
        is_named_after = field.unique or isinstance(field, _WITH_CHECKS) or getattr(field, "generated", False)
        is_own = callable(field.default) and not field.null
        return not is_named_after and not is_own and not changes.have_moved(refers_to(part, step.app_label))
    if model is None or not isinstance(part, AlterField):
        return type(part) is AddIndex
    was, is_to_be = (in_database(field) for field in (model.fields[part.name], part.field))
    return (*was[:2], {**was[2], "db_index": True}) == (*is_to_be[:2], {**is_to_be[2], "db_index": True})


def _indexed(step: Step, part: Operation) -> str | None:
    """Return what an operation builds an index of, in words."""
    model = step.model(part)
    if model is None:
        return None
    if isinstance(part, AddIndex):
        # One that is built concurrently is a subclass.
        return model.name if type(part) is AddIndex else None
    if not isinstance(part, AddField | AlterField) or part.field.many_to_many:
        return None
    old, new = model.fields.get(part.name), part.field
    has_index = old is not None and (getattr(old, "db_index", False) or old.unique)
    return f"{model.name}.{part.name}" if getattr(new, "db_index", False) and not has_index else None


def _checked(step: Step, part: Operation) -> str | None:
    """Return what all rows are checked for, in words."""
    model = step.model(part)
    if model is None:
        return None
    if type(part) is AddConstraint and isinstance(part.constraint, CheckConstraint | UniqueConstraint):
        return str(part.constraint.name)
    old = model.fields.get(part.name) if isinstance(part, AlterField) else None
    if not isinstance(part, AlterField) or old is None or old.many_to_many:
        return None
    if old.null and not part.field.null:
        return "NOT NULL"
    if part.field.unique and not old.unique:
        return "uniqueness"
    return _FOREIGN_KEY if part.field.remote_field is not None and old.remote_field is None else None
