"""Databases that an operator moves by hand, since nobody else can, and says so: `recover --accept`."""

from dataclasses import replace

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.report import FILES_GONE, OTHER_FILES, SCHEMA_DIFFERS
from smooth_orchestrator.run import Run, TargetRun

__all__ = ["left_to_hand", "with_a_hand"]


def left_to_hand(run: Run, item: TargetRun, failure: ErrorInfo) -> ErrorInfo:
    """Note that a target waits for an operator, and return the failure with what is to be done about it.

    Args:
        run: which.
        item: the target.
        failure: why nobody else can move it.
    """
    run.unaccepted.add(item.name)
    first = "move it by hand to where it was before the run, with manage.py migrate, or restore it"
    if failure.type in {FILES_GONE, OTHER_FILES}:
        with_files = "smooth-orchestrate recover PLAN with the files of the release that was interrupted"
        first = f"{with_files}; where nobody has them, undo it by hand, or restore the database"
    return replace(failure, hint=f"{first}; then smooth-orchestrate recover PLAN --accept {item.name}")


def with_a_hand(run: Run, item: TargetRun, failure: ErrorInfo) -> ErrorInfo:
    """Return why a target does not go back, as one to be moved by hand where its files are gone."""
    if failure.type == SCHEMA_DIFFERS and item.name in run.accepts:
        # What an operator has done is not all of it: that was no needless word.
        run.unaccepted.add(item.name)
    return left_to_hand(run, item, failure) if failure.type == FILES_GONE else failure
