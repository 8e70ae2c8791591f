"""SM4: what has no way back."""

from collections.abc import Iterator

from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.subject import Subject
from smooth_migrations.protocol.linting import Level

__all__ = ["Lossy", "NoReverse"]


class NoReverse(Rule):
    """No reverse code.

    RunPython without `reverse_code`, RunSQL without `reverse_sql`: once it is committed, `rollback` cannot take the
    deploy back, and where each migration is committed by itself the deploy is refused.

    Write the reverse. Where nothing is to be undone, say so: `reverse_code=migrations.RunPython.noop`,
    `reverse_sql=migrations.RunSQL.noop`.
    """

    code, level = "SM401", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield operations that are not reversible."""
        for step, part in subject.parts:
            if not part.reversible:
                yield Found(step.line, f"{part.describe()}: it has no reverse code", "write it, or give noop")


class Lossy(Rule):
    """Values would be lost for good.

    It runs as a whole, its reverse puts back the schema, and not what the rows held: once it is committed,
    `rollback` refuses, and where each migration is committed by itself the deploy is refused.

    Let it be split, so that the values stay until `finalise`; or change nothing that is not to be lost.
    """

    code, level = "SM402", Level.WARNING

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield operations that lose values, though they are reversible."""
        for step in subject.steps:
            if all(part.reversible for part in step.parts):
                for text in step.lost:
                    yield Found(step.line, text, "keep the values until no release needs them")
