"""What others have applied on top of what a killed call has left, and would lose with it."""

from collections.abc import Iterator

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader

from smooth_migrations.errors import UndoFailed
from smooth_migrations.undo.journal import UnfinishedCall
from smooth_migrations.undo.records import Key, keys_of

__all__ = ["refuse_what_others_need"]


def refuse_what_others_need(connection: BaseDatabaseWrapper, unfinished: UnfinishedCall, *, goes_on: bool) -> None:
    """Make sure that nobody has gone on from what a killed call has left, as stock `migrate` may. Only reads.

    Args:
        connection: the target's.
        unfinished: the call.
        goes_on: whether what was complete stays, so that only what was broken off is to be taken back.

    Raises:
        UndoFailed: somebody has; nothing was taken back.
    """
    if found := sorted(".".join(key) for key in _in_the_way(MigrationLoader(connection), unfinished, goes_on=goes_on)):
        raise UndoFailed(
            f"others have applied {', '.join(found)} since a call was killed here, on top of what it had applied; "
            "nothing was taken back",
            hint="if the database is as you want it, DELETE FROM smooth_migrations_journal; else unapply these first",
        )


def _in_the_way(loader: MigrationLoader, unfinished: UnfinishedCall, *, goes_on: bool) -> Iterator[Key]:
    frame, broken = unfinished.frame, unfinished.broken
    steps = {(step.app, step.name) for step in unfinished.steps if not step.backwards}
    files = [loader.disk_migrations[step] for step in steps if step in loader.disk_migrations]
    replaced = {key for migration in files for key in keys_of(migration)}
    before = {record.key for record in frame.records or ()}
    # What replaces others is recorded at the end of a call, as no step of it.
    others = {*loader.applied_migrations} - {*loader.replacements} - steps - replaced - before
    for key in others:
        # What the call has recorded itself is noted as complete by the same commit.
        is_broken = broken is not None and not broken.backwards and key == (broken.app, broken.name)
        parents = loader.graph.node_map[key].parents if key in loader.graph.node_map else ()
        is_upon = frame.before.is_empty or any(parent.key in steps for parent in parents)
        if is_broken or (is_upon and not goes_on):
            yield key
