"""SM3: what does not belong into one transaction, or into none."""

from collections.abc import Iterator

from django.db.migrations.operations import RunPython, RunSQL
from django.db.migrations.operations.base import Operation

from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.statements import needs_no_transaction
from smooth_migrations.lint.subject import Subject
from smooth_migrations.protocol.linting import Level
from smooth_migrations.reversibility import is_online_part

__all__ = ["CodeUnderLocks", "Mixed", "NotInTransaction"]


class Mixed(Rule):
    """Not atomic, though a transaction could hold it.

    A migration with `atomic = False` does more than what needs no transaction (building indexes concurrently,
    validating constraints, filling in batches). Each of its operations is committed by itself, so that a failure
    leaves others seen half of it, and its database is in the tier `compensated`: taken back by reverse operations.

    Move what can run in a transaction to a migration of its own, with `atomic = True`. Code that may be left as it
    is, and run again, says so by `RunPython(fill, empty, hints={"smooth_online": True})`.
    """

    code, level = "SM301", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield the first of the operations that a transaction should hold."""
        parts = [] if subject.migration.atomic else [pair for pair in subject.parts if not is_online_part(pair[1])]
        for step, part in parts[:1]:
            more = f", and so are {len(parts) - 1} more below" if parts[1:] else ""
            yield Found(
                step.line,
                f"atomic = False, and this is committed by itself: {part.describe()}{more}",
                "move it to a migration with atomic = True",
            )


class NotInTransaction(Rule):
    """Cannot run in a transaction, and is in one.

    PostgreSQL does this in no transaction, and the migration is atomic: it fails as soon as it is run.

    Set `atomic = False` in the migration, and leave only such operations there.
    """

    code, level = "SM302", Level.ERROR

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield what would be refused by the server, or by Django."""
        for step, part in subject.parts if subject.migration.atomic else ():
            words = needs_no_transaction(part) if isinstance(part, RunSQL) else _marked(part)
            if words:
                yield Found(
                    step.line, f"{words} in an atomic migration", "set atomic = False, in a migration of its own"
                )


class CodeUnderLocks(Rule):
    """Code moves rows while a table is locked.

    Code moves rows in the same transaction in which a table that is in use is altered: the locks of that are held
    for as long as the code takes, by all databases of a deploy. PostgreSQL also refuses to alter a table again
    whose rows were changed with foreign keys still to be checked ("pending trigger events").

    Move the code to a migration of its own; for many rows, use `smooth_migrations.Backfill`, which runs ahead.
    """

    code, level = "SM303", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield code beside a change of a table that was there before."""
        locks = [lock for step in subject.steps for lock in step.locks]
        for step, part in subject.parts if subject.migration.atomic and locks else ():
            if isinstance(part, RunPython) and part.code is not RunPython.noop:
                yield Found(step.line, f"code runs beside {locks[0]}", "move the code to a migration of its own")


def _marked(part: Operation) -> str | None:
    # By its name: the module needs psycopg.
    is_marked = any(base.__name__ == "NotInTransactionMixin" for base in type(part).__mro__)
    return part.describe() if is_marked else None
