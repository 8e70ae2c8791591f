"""What a worker takes back of what was committed, and what would be lost with it."""

from collections.abc import Mapping, Sequence

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor

from smooth_migrations import protocol
from smooth_migrations.call import Call
from smooth_migrations.errors import UndoFailed, describe, is_lock_failure
from smooth_migrations.files import digest_of
from smooth_migrations.halves import install
from smooth_migrations.marker import remove_marker
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.splitting import place_backwards
from smooth_migrations.unapplying import lost_under_locks, plan_back, refuse_losses
from smooth_migrations.undo.moved import Moved

__all__ = ["adopt", "losses_of"]


def _refuse_other_files(nodes: Mapping[tuple[str, str], Migration], steps: Sequence[protocol.Step]) -> None:
    """Make sure that what is to be reversed is what ran.

    Raises:
        UndoFailed: a file is missing, or was changed since; nothing was taken back.
    """
    for step in steps:
        node = nodes.get((step.app, step.name))
        if node is None or (step.digest and digest_of(node) not in {"", step.digest}):
            what = "is missing" if node is None else "has been changed since it ran"
            raise UndoFailed(
                f"the file of {step} {what}", hint="smooth-orchestrate recover PLAN, with the files of that release"
            )


def adopt(connection: BaseDatabaseWrapper, call: Call, command: protocol.Undo) -> None:
    """Make a call responsible for committed steps. Locks nothing; not to be repeated in one transaction.

    Args:
        connection: the target's.
        call: that takes them back.
        command: which they are.

    Raises:
        UndoFailed: a file is missing, or was changed since.
    """
    nodes = MigrationExecutor(connection).loader.disk_migrations
    _refuse_other_files(nodes, command.steps)
    moved = [Moved(nodes[step.app, step.name], step) for step in command.steps]
    install(place_backwards(connection, [item.migration for item in moved]), command.run_id)
    # Where each step is committed by itself, it shows from here on as steps to be taken back, however far that comes.
    with passing("undo"), transaction.atomic(command.alias):
        call.permanent.adopt(moved, before=command.before, received=command.received)
        remove_marker(connection, command.deploy, command.run_id)


def losses_of(connection: BaseDatabaseWrapper, command: protocol.Undo) -> tuple[str, ...]:
    """Return in words what is lost with committed steps, whose tables stay locked. Safe to repeat.

    As for the locks, see `lost_under_locks`.

    Args:
        connection: the target's, in the transaction that takes them back, where there is one.
        command: which they are.

    Raises:
        WouldDiscard: something is, and must not be.
        DatabaseError: a lock is in the way, or nobody can look and nothing must be lost.
    """
    executor = MigrationExecutor(connection)
    migrations = plan_back(executor, protocol.Back(command.run_id, command.steps))
    try:
        with transaction.atomic(connection.alias):
            lost = tuple(map(str, lost_under_locks(connection, executor, migrations)))
    except Error as error:
        if not command.discards or is_lock_failure(error):
            raise
        return (f"nobody can tell what of {command.database} is lost: {describe(error).message}",)
    if not command.discards:
        refuse_losses(lost)
    return lost
