"""SM2: what keeps everybody else waiting for as long as a table is large."""

from collections.abc import Iterator

from django.db.migrations.operations import AddConstraint, AddField, AddIndex, AlterField, RunSQL
from django.db.migrations.operations.base import Operation
from django.db.models import CheckConstraint, UniqueConstraint

from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.statements import builds_index
from smooth_migrations.lint.subject import Step, Subject
from smooth_migrations.protocol.linting import Level

__all__ = ["Index", "Rewrite", "Scan"]


class Rewrite(Rule):
    """A table is written anew.

    The server writes every row of the table anew, and its indexes, under a lock that lets nobody read or write
    (PostgreSQL: ACCESS EXCLUSIVE) and takes as much disk again. Where the operation is split, that is at
    `finalise`; a renamed field's second column is filled at the deploy.

    Add a column of the new kind, fill it in batches (`smooth_migrations.Backfill`), and remove the old one in a
    later release. SQLite has one writer anyway, and no such findings.
    """

    code, level = "SM201", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield what has rows written anew that were there before."""
        for step in subject.steps:
            for text in step.rewrites:
                yield Found(step.line, text, "add a new column, fill it in batches, and remove the old one later")


class Index(Rule):
    """An index is built while writers wait.

    An index is built within the transaction: nobody writes to the table from the first row on that is indexed to
    the end of the deploy (PostgreSQL: SHARE, or ACCESS EXCLUSIVE where a column comes with it).

    Use `AddIndexConcurrently` of `django.contrib.postgres.operations` in a migration with `atomic = False` that
    does nothing else: it runs ahead of the transactions. For a field with an index, add it with `db_index=False`
    and the index by itself. SQLite has one writer anyway, and no such findings.
    """

    code, level = "SM202", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield indexes of tables that were there before."""
        hint = "build it by AddIndexConcurrently in a migration with atomic = False"
        for step, part in subject.parts if subject.vendor != "sqlite" else ():
            if isinstance(part, RunSQL):
                if words := builds_index(part):
                    yield Found(step.line, f"SQL that builds an index while writers wait: {words}", hint)
            elif name := _indexed(step, part):
                yield Found(step.line, f"{part.describe()}: builds an index of {name} while writers wait", hint)


class Scan(Rule):
    """All rows are checked while writers wait.

    Every row of the table is looked at under a lock that keeps writers waiting. Where the operation is split, that
    is at `finalise`.

    On a large table of PostgreSQL, and where both releases keep to it already, add a check by
    `AddConstraintNotValid`, and validate it by `ValidateConstraint` in a migration with `atomic = False` (both of
    `django.contrib.postgres.operations`): that lets writers go on.
    """

    code, level = "SM203", Level.NOTE

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield constraints on tables that were there before."""
        for step, part in subject.parts if subject.vendor != "sqlite" else ():
            if what := _checked(step, part):
                yield Found(step.line, f"{part.describe()}: {what} is checked for every row while writers wait")


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
    return "a foreign key" if part.field.remote_field is not None and old.remote_field is None else None
