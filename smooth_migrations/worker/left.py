"""What a call that has not ended has left in a database, and what becomes of it where an operator has seen to it."""

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader

from smooth_migrations import protocol
from smooth_migrations.call import Call
from smooth_migrations.contract_queue import purge
from smooth_migrations.errors import FilesGone
from smooth_migrations.files import digest_of
from smooth_migrations.marker import remove_marker
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.undo.journal import CallJournal, UnfinishedCall, unfinished_call
from smooth_migrations.undo.proof import prove
from smooth_migrations.undo.recalling import nodes_as_run
from smooth_migrations.undo.records import shown_by_records

__all__ = ["any_stands", "forget_what_is_gone", "left_in", "refuse_other_files", "steps_of"]


def steps_of(unfinished: UnfinishedCall) -> tuple[protocol.Step, ...]:
    """Return what a call has moved, in order, with the migration that was at work. Pure."""
    return (*unfinished.steps, *([unfinished.broken] if unfinished.broken else ()))


def left_in(connection: BaseDatabaseWrapper) -> protocol.Left | None:
    """Return what was left in a database, or is being moved there at this moment. Only reads."""
    found = unfinished_call(connection)
    if found is None:
        return None
    return protocol.Left(
        found.call_id, steps_of(found), is_being_undone=found.is_being_undone, is_undone=found.is_undone
    )


def any_stands(connection: BaseDatabaseWrapper, steps: tuple[protocol.Step, ...]) -> bool:
    """Return whether the records show the effect of a step, whoever it was that made it."""
    return bool(shown_by_records(connection, steps))


def refuse_other_files(connection: BaseDatabaseWrapper, steps: tuple[protocol.Step, ...]) -> None:
    """Make sure that what is to be reversed is what ran. Only reads.

    Raises:
        FilesGone: a file is missing, or was changed since; nothing was taken back.
    """
    nodes = MigrationLoader(connection).disk_migrations
    for step in steps:
        node = nodes.get((step.app, step.name))
        if node is None or (step.digest and digest_of(node) not in {"", step.digest}):
            what = "is missing" if node is None else "has been changed since it ran"
            raise FilesGone(
                f"the file of {step} {what}", hint="smooth-orchestrate recover PLAN, with the files of that release"
            )


def forget_what_is_gone(
    connection: BaseDatabaseWrapper, call: Call, command: protocol.Undo, unfinished: UnfinishedCall | None
) -> bool:
    """Forget steps that an operator has taken back by hand, where nobody else can: their files are gone.

    Repeating it does nothing.

    Args:
        connection: the target's, in autocommit.
        call: whose turn it is.
        command: says which steps.
        unfinished: what stands in the database's own journal of them, if anything does.

    Returns:
        Whether the files are gone; where they are not, nothing was done.

    Raises:
        FilesGone: a step is still recorded; nothing was done.
        SchemaDiffers: the schema is not what it was before the steps, where that is known and to be compared.
    """
    steps = steps_of(unfinished) if unfinished else command.steps
    try:
        if unfinished is None:
            refuse_other_files(connection, steps)
        else:
            nodes_as_run(connection, unfinished, steps)
    except FilesGone as gone:
        if found := shown_by_records(connection, steps):
            names = ", ".join(map(str, found))
            raise FilesGone(f"it is not as it was before the run: the records still tell of {names}") from gone
    else:
        return False
    if unfinished is not None and command.compares:
        prove(connection, unfinished.frame, call.permanent.manner)
    with passing("undo"), transaction.atomic(connection.alias):
        call.permanent.journal.check()
        if unfinished is not None:
            journal = CallJournal(connection, command.run_id)
            journal.adopt(unfinished)
            journal.end()
        remove_marker(connection, command.deploy, command.run_id)
        purge(connection)
    return True
