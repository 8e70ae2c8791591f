"""The migrations that another process ran, as they are in the files now."""

from collections.abc import Mapping, Sequence

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.journal import UnfinishedCall

__all__ = ["nodes_as_run", "rename_types_with_models"]


def nodes_as_run(
    connection: BaseDatabaseWrapper, unfinished: UnfinishedCall, steps: Sequence[Step]
) -> Mapping[tuple[str, str], Migration]:
    """Return the migrations in the files, those that a killed call ran as they ran.

    Args:
        connection: the target's. Only reads.
        unfinished: as its journal tells.
        steps: what ran.

    Raises:
        FilesGone: a file of these is missing, or is another one now.
    """
    nodes: Mapping[tuple[str, str], Migration] = MigrationLoader(connection).disk_migrations
    if unfinished.frame.before.is_empty:
        return nodes
    from smooth_migrations.halves import install  # noqa: PLC0415 - what was empty is emptied, whatever ran
    from smooth_migrations.splitting import place_backwards  # noqa: PLC0415 - as above
    from smooth_migrations.undo.operations import refuse_other_files  # noqa: PLC0415 - as above

    # Others of these, since those that ran in halves get their operations by number.
    files = {key: type(nodes[key])(nodes[key].name, nodes[key].app_label) for key in map(_key, steps) if key in nodes}
    rename_types_with_models(connection, files, steps)
    refuse_other_files(files, steps, unfinished.entries)
    ran = [nodes[_key(step)] for step in steps]
    install(place_backwards(connection, ran, is_killed=True), unfinished.call_id)
    rename_types_with_models(connection, nodes, steps)
    return nodes


def rename_types_with_models(
    connection: BaseDatabaseWrapper, nodes: Mapping[tuple[str, str], Migration], steps: Sequence[Step]
) -> None:
    """Let migrations rename a content type with its model, as a receiver of pre_migrate let them in their call.

    Not to be repeated on the same instances.

    Args:
        connection: the target's. Only reads.
        nodes: as they are in the files, or placed.
        steps: those of them that ran.
    """
    records = MigrationRecorder(connection)
    if (
        apps.is_installed("django.contrib.contenttypes")
        and ("contenttypes", "0001_initial") in records.applied_migrations()
    ):
        from django.contrib.contenttypes.management import (  # noqa: PLC0415 - of an optional app
            inject_rename_contenttypes_operations,
        )

        plan = [(nodes[_key(step)], step.backwards) for step in steps if _key(step) in nodes]
        inject_rename_contenttypes_operations(plan, using=connection.alias)


def _key(step: Step) -> tuple[str, str]:
    return step.app, step.name
