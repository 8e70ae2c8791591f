"""SM6: comments that are meant for this program, and say nothing to it."""

from collections.abc import Collection, Iterator

from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.subject import Subject
from smooth_migrations.protocol.linting import Level

__all__ = ["BadComment"]


class BadComment(Rule):
    """A comment that allows nothing.

    A comment begins with `# smooth:` and allows nothing: it names no reason, or no code that there is.

    Write `# smooth: allow SM401 because nothing is to be undone`, anywhere in the migration's file; several codes
    are parted by commas. It goes for the whole file.
    """

    code, level = "SM601", Level.WARNING

    def __init__(self, others: Collection[str]) -> None:
        self._codes = {*others, self.code}

    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield such comments."""
        for comment in subject.source.comments:
            unknown = [code for code in comment.codes if code not in self._codes]
            if unknown or not comment.codes:
                what = f"there is no {unknown[0]}" if unknown else "a comment that allows nothing"
                yield Found(comment.line, what, "write: # smooth: allow CODE because REASON")
