"""The migrations that a killed call ran, as they are in the files now."""

from collections.abc import Mapping, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader

from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.journal import UnfinishedCall

__all__ = ["nodes_as_run"]


def nodes_as_run(
    connection: BaseDatabaseWrapper, unfinished: UnfinishedCall, steps: Sequence[Step]
) -> Mapping[tuple[str, str], Migration]:
    """Return the migrations in the files, those that ran in halves as they ran.

    Args:
        connection: the target's. Only reads.
        unfinished: as its journal tells.
        steps: what ran.

    Raises:
        UndoFailed: a file of these is missing, or is another one now.
    """
    nodes: Mapping[tuple[str, str], Migration] = MigrationLoader(connection).disk_migrations
    if unfinished.frame.before.is_empty:
        return nodes
    from smooth_migrations.halves import install  # noqa: PLC0415 - what was empty is emptied, whatever ran
    from smooth_migrations.splitting import place_backwards  # noqa: PLC0415 - as above
    from smooth_migrations.undo.operations import refuse_other_files  # noqa: PLC0415 - as above

    refuse_other_files(nodes, steps, unfinished.entries)
    ran = [nodes[step.app, step.name] for step in steps]
    install(place_backwards(connection, ran, is_killed=True), unfinished.call_id)
    return nodes
