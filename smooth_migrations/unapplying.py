"""Take a committed run back on one database, as `migrate` would take its migrations back one after the other."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from django.apps import apps as installed
from django.apps.registry import Apps
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ModelState, ProjectState

from smooth_migrations.contract_queue import purge
from smooth_migrations.discarding import Loss, losses_of, risks
from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.files import digest_of
from smooth_migrations.halves import Placed, install
from smooth_migrations.locks.foreseen import foreseen
from smooth_migrations.locks.modes import Locks, Mode, together
from smooth_migrations.locks.taking import take_together
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.findings import MigrationFinding
from smooth_migrations.protocol.values import Back, Received
from smooth_migrations.questions import asking
from smooth_migrations.received import dependents, remove_received
from smooth_migrations.reversibility import database_parts
from smooth_migrations.splitting import place_backwards
from smooth_migrations.undo.already_made import already_made_left

if TYPE_CHECKING:
    from smooth_migrations.call import Call
    from smooth_migrations.replay.recording import Recorder
    from smooth_migrations.replay.script import Script

__all__ = [
    "WouldDiscard",
    "back_findings",
    "discard",
    "forget",
    "lock_back",
    "lock_losing",
    "lost_beside",
    "lost_under_locks",
    "plan_back",
    "refuse_losses",
    "state_now",
    "unapply",
]

_DISCARD_HINT = "--discard-data takes it back all the same; what is listed is lost"


class WouldDiscard(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """Rows or values that were written since a run would be lost with it."""


def plan_back(executor: MigrationExecutor, back: Back) -> list[Migration]:
    """Return what of a run is still applied, the newest first. Pure."""
    nodes, applied = executor.loader.graph.nodes, executor.loader.applied_migrations
    keys = [(step.app, step.name) for step in reversed(back.steps)]
    return [nodes[key] for key in keys if key in nodes and key in applied]


def back_findings(
    connection: BaseDatabaseWrapper, executor: MigrationExecutor, back: Back
) -> Iterator[MigrationFinding]:
    """Yield what stands in the way of taking a run back. Only reads.

    Args:
        connection: the target's.
        executor: of it.
        back: the run.
    """
    loader = executor.loader
    files = [*_file_findings(executor, back)]
    yield from files
    ours = {(step.app, step.name) for step in back.steps}
    children = {
        (child.key[0], child.key[1])
        for key in ours & loader.graph.node_map.keys()
        for child in loader.graph.node_map[key].children
    }
    for app, name in sorted((children & loader.applied_migrations.keys()) - ours):
        yield MigrationFinding(
            "applied_since",
            f"{app}.{name} was applied after that run and stands on it",
            hint="take it back first: by the run that applied it, or with manage.py apply_migrations",
        )
    if files:
        return
    plan = plan_back(executor, back)
    for migration in plan:
        for operation in migration.operations:
            if not all(part.reversible for part in database_parts(operation)):
                name = f"{migration.app_label}.{migration.name}"
                yield MigrationFinding("irreversible", f"{name} has no way back: {operation.describe()}")
    if not back.discards:
        for loss in losses_of(risks(connection, executor, plan, state_now(executor))):
            if loss.rows == 0:
                continue
            yield MigrationFinding("would_discard", str(loss), hint=_DISCARD_HINT)


def _file_findings(executor: MigrationExecutor, back: Back) -> Iterator[MigrationFinding]:
    nodes = executor.loader.graph.nodes
    for step in back.steps:
        migration = nodes.get((step.app, step.name))
        if migration is None:
            message = f"the file of {step}, which that run applied, is missing or replaced by a squash"
            yield MigrationFinding("missing_file", message, hint="run this with the release that has it")
        elif step.digest and digest_of(migration) not in {"", step.digest}:
            message = f"the file of {step} has been changed since that run applied it"
            yield MigrationFinding("changed_file", message, hint="run this with the release that it deployed")


def unapply(
    call: "Call", connection: BaseDatabaseWrapper, back: Back, recorder: "Recorder | None" = None
) -> "Script | None":
    """Unapply a run's migrations inside a call, with the signals of `migrate`.

    On PostgreSQL the tables that lose something are locked before they are looked at, so that nobody writes to them
    between the look and the loss.

    Args:
        call: begun.
        connection: its target's.
        back: the run. What is no longer applied is passed over, so that repeating this does nothing.
        recorder: takes down what is done, where it may be done to other databases.

    Returns:
        What it took down, if that may be done to others.

    Raises:
        WouldDiscard: something was written since that would be lost.
    """
    executor = MigrationExecutor(
        connection, lambda action, migration=None, fake=False: call.progress(action, migration, fake=fake)
    )
    migrations = plan_back(executor, back)
    if not migrations:
        # All of them are gone, perhaps by a call that was killed before it came to what was made beside.
        forget(connection, state_now(executor).apps, back)
        return None
    plan = [(migration, True) for migration in migrations]
    placed = place_backwards(connection, migrations, executor)
    install(placed, call.options.call_id)
    locks = lock_back(connection, executor, migrations)
    state, tables, asked = state_now(executor), frozenset[str](), None
    if back.discards:
        discard(connection, placed)
    else:
        found = risks(connection, executor, migrations, state)
        tables = frozenset(loss.table for loss in losses_of(found) if loss.table)
        lock_losing(connection, tables)
        with asking(connection) as questions:
            refuse_losses(str(loss) for loss in losses_of(found) if loss.rows != 0)
        asked = questions.told() if recorder else None
    with already_made_left(connection), recorder.recording() if recorder else nullcontext():
        emit_pre_migrate_signal(verbosity=0, interactive=False, db=connection.alias, apps=state.apps, plan=plan)
        now = executor.migrate([], plan=plan, state=state.clone())
        _render(now)
        purge(connection)
        emit_post_migrate_signal(verbosity=0, interactive=False, db=connection.alias, apps=now.apps, plan=plan)
    forget(connection, now.apps, back)
    return recorder.way_back(state, locks, tables, asked) if recorder and asked is not None else None


def lock_back(connection: BaseDatabaseWrapper, executor: MigrationExecutor, migrations: Sequence[Migration]) -> Locks:
    """Take together what unapplying migrations locks strongly, and return it. Safe to repeat.

    Does nothing but on PostgreSQL.

    Args:
        connection: the target's, in the transaction that unapplies them.
        executor: of it.
        migrations: as they are placed.

    Raises:
        OperationalError: others did not let go of a lock.
    """
    if connection.vendor != "postgresql":
        return {}
    plan = [(migration, True) for migration in migrations]
    wanted = together(locks for _migration, locks in foreseen(connection, plan, executor))
    take_together(connection, wanted)
    return wanted


def lost_under_locks(
    connection: BaseDatabaseWrapper, executor: MigrationExecutor, migrations: Sequence[Migration]
) -> list[Loss]:
    """Return what is lost where migrations are unapplied, of which nothing becomes more before the transaction ends.

    On PostgreSQL the tables that lose something are locked until then. Safe to repeat.

    Args:
        connection: the target's, in the transaction that unapplies them.
        executor: of it, with every migration as recorded.
        migrations: applied, the newest first.
    """
    found = risks(connection, executor, migrations, state_now(executor))
    lock_losing(connection, {loss.table for loss in losses_of(found) if loss.table})
    return [loss for loss in losses_of(found) if loss.rows != 0]


def lost_beside(connection: BaseDatabaseWrapper, apps: Apps, received: Received) -> dict[str, str]:
    """Return in words what goes with that which was made beside migrations, by the table it is in. Only reads.

    Args:
        connection: the target's.
        apps: of the moment at which that is taken away.
        received: what was made beside.
    """
    found = dependents(connection, apps, received)
    return {table: f"{count} rows of {table} would be lost" for table, count in found}


def state_now(executor: MigrationExecutor) -> ProjectState:
    """Return the state of the tables after every migration as recorded, the way Django's own `migrate` does. Pure."""
    state: ProjectState = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
    return state


def forget(connection: BaseDatabaseWrapper, apps: Apps, back: Back) -> None:
    """Remove what a run has made beside its migrations. Repeating it does nothing.

    Args:
        connection: the target's, in a transaction.
        apps: of the moment.
        back: the run.

    Raises:
        WouldDiscard: something refers to that.
    """
    if not back.discards:
        refuse_losses(lost_beside(connection, apps, back.received).values())
    remove_received(connection, apps, back.received)


def refuse_losses(lost: Iterable[str]) -> None:
    """Refuse to go on where anything would be lost.

    Args:
        lost: what, in words.

    Raises:
        WouldDiscard: something would.
    """
    found = [*lost]
    if found:
        raise WouldDiscard("; ".join(found), hint=_DISCARD_HINT)


def discard(connection: BaseDatabaseWrapper, placed: Sequence[Placed]) -> None:
    """Delete the rows that going back over expand halves could not take; what refers to them goes with them.

    Repeating it does nothing.

    Args:
        connection: the target's.
        placed: what goes back.
    """
    for item in placed:
        for obstacle in item.split.validate_back(connection, placed[-1].states[-1]) if item.split is not None else ():
            if obstacle.found is not None:
                with passing("discard"):
                    obstacle.found.delete()
    if connection.vendor == "postgresql":
        # It alters no table with checks that are still to be done.
        connection.check_constraints()


def lock_losing(connection: BaseDatabaseWrapper, tables: Iterable[str]) -> None:
    """Keep others from writing to tables that lose something. Safe to repeat.

    SQLite notices a writer by itself; MariaDB's locks end with a change of the schema.
    """
    take_together(connection, dict.fromkeys(tables, Mode.ACCESS_EXCLUSIVE))


def _render(state: ProjectState) -> None:
    """Render a state's models with their relations, as Django's `migrate` does before it sends post_migrate."""
    state.clear_delayed_apps_cache()
    rendered = state.apps
    with rendered.bulk_update():
        keys = [(model.app_label, model.name_lower) for model in rendered.real_models]
        for key in keys:
            rendered.unregister_model(*key)
    rendered.render_multiple([ModelState.from_model(installed.get_model(*key)) for key in keys])
