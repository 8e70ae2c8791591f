"""SM1: what one of two releases cannot live with."""

from collections.abc import Iterator

from django.db.migrations.operations import AddConstraint, AddField, AlterField, AlterUniqueTogether, RunPython, RunSQL
from django.db.migrations.operations.base import Operation

from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.statements import breaks
from smooth_migrations.lint.subject import Step, Subject
from smooth_migrations.protocol.linting import Level
from smooth_migrations.reversibility import LEFT, PLAIN, SCHEMA

__all__ = ["RowsInTheWay", "Unsplit", "UnsplitKind", "UnsplitSql", "Whole"]


class Unsplit(Rule):
    """Breaks the release still running, and cannot be split.

    The operation takes something from the release that is still running, and there are no halves into which it
    could be split: a name, a type or a key cannot be two things at once. `check` and `deploy` refuse it where
    `expand_contract` is true.

    Make the change in two releases: add the new field or model and have both written, then remove the old one in a
    later release. Or, where the old release is stopped for the deploy, set `expand_contract = false` for that
    database.
    """

    code, level = "SM101", Level.ERROR

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield what `check` would refuse."""
        for step in subject.steps:
            if step.refusal is not None:
                yield Found(step.line, step.refusal.message, step.refusal.hint)


class Whole(Rule):
    """Breaks the release still running, and runs as a whole.

    Nothing of it is held back for `finalise`, as `expand_contract = false` (`--no-expand`) has it, or since it is no
    plain operation of Django's: one of `django.contrib.postgres`, or one that extends Django's. From the deploy on, the
    release that is still running reads columns and tables that are gone, or writes rows that the database refuses.

    Let it be split, by `expand_contract = true` and a plain operation, or stop the old release before the deploy. Where
    that release keeps to it already, allow it with that reason.
    """

    code, level = "SM102", Level.ERROR

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield what would have been split, or refused."""
        for step in subject.steps:
            if subject.expands and all(type(part).__module__ in PLAIN for part in step.parts):
                continue
            for text in (*step.effects.destructive, *step.effects.unsafe):
                yield Found(step.line, text, "let it be split, or stop the running release first")


class UnsplitSql(Rule):
    """SQL that one of two releases may not live with.

    SQL runs as it is written, and as a whole: nobody splits it. This one removes, renames, retypes or restricts
    something that a release which knows nothing of it may use.

    Write it as Django's own operation, which is split, or make the change in two releases. Where no release uses
    what it changes any more, or none yet, allow it with that reason.
    """

    code, level = "SM103", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield the SQL that says so in its words."""
        for step, part in subject.parts:
            words = breaks(part) if isinstance(part, RunSQL) else None
            if words:
                yield Found(step.line, f"SQL that is not split: {words}", "write it as one of Django's own operations")


class UnsplitKind(Rule):
    """An operation of a kind that is not split.

    Only Django's own operations are split. One of another package or of the project, also one that extends
    Django's, runs as a whole at the deploy, and what it does to the release still running nobody can tell.

    See what it does. If both releases live with it, allow it with that reason.
    """

    code, level = "SM104", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield operations that are not Django's own."""
        for step, part in subject.parts:
            if type(part).__module__ not in SCHEMA | LEFT and not isinstance(part, RunSQL | RunPython):
                kind = f"{type(part).__module__}.{type(part).__qualname__}"
                yield Found(step.line, f"{kind} runs as a whole: {part.describe()}")


class RowsInTheWay(Rule):
    """Rows that the old release writes may keep it from being finalised.

    The second half is done when nobody is left who does not know of it. Until then the release that runs may write
    rows that this half cannot take: `finalise` looks for them, changes nothing, and names them with exit code 3.

    Give the field a default, which fills what is NULL, or fill and mend these rows before you finalise.
    """

    code, level = "SM105", Level.NOTE

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield the held back halves that rows may keep waiting."""
        for step, part in subject.parts:
            reason = _obstacle(step, part) if step.split is not None else None
            if step.split is not None and reason:
                yield Found(step.line, f"{step.split.description}: {reason}", "mend such rows before you finalise")


def _obstacle(step: Step, part: Operation) -> str | None:
    if isinstance(part, AddConstraint | AlterUniqueTogether):
        return "rows that are written until then may violate it"
    model = step.model(part)
    if model is None or not isinstance(part, AddField | AlterField):
        return None
    old, new = model.fields.get(part.name), part.field
    if new.unique and (old is None or not old.unique):
        return "rows that are written until then may have the same value"
    held = [each for each in step.split.expand() if isinstance(each, AddField)] if step.split is not None else []
    may_be_null = old.null if old is not None else any(each.field.null for each in held)
    if may_be_null and not new.null and not new.has_default():
        return "rows that are written until then may have no value, and the field has no default"
    return None
