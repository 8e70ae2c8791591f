"""What code may have renamed without a word: it is not dropped while it may hold what is missing elsewhere."""

from collections.abc import Callable, Collection

from smooth_migrations.errors import UndoFailed

__all__ = ["refuse_to_drop"]


def refuse_to_drop(new: Collection[str], gone: Collection[str], has_rows: Callable[[str], bool], of: str = "") -> None:
    """Refuse where something is gone and something else is there instead, with rows, which may be the same renamed.

    Args:
        new: the tables, or the columns of one table, that would be dropped.
        gone: those that would be made again, empty.
        has_rows: whether a table has some.
        of: the table, of columns.

    Raises:
        UndoFailed: it may be so.
    """
    if gone and any(has_rows(of or name) for name in new):
        place = f" of {of}" if of else ""
        raise UndoFailed(
            f"code has left {', '.join(sorted(new))}{place}, with rows, and not {', '.join(sorted(gone))}",
            hint="nothing of it was dropped: see which of them was renamed, name it as it was, and run this again",
        )
