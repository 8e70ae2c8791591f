"""What would run on a database and what stands in its way. Reads only."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from django.db import Error, NotSupportedError, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from smooth_migrations.backends import why_not_undone
from smooth_migrations.classification import Effects, effects
from smooth_migrations.contract_queue import Queued, read_queue
from smooth_migrations.errors import SmoothMigrationsError, sqlstate_of
from smooth_migrations.finalising import CannotFinalise, Pending
from smooth_migrations.groundwork import Groundwork
from smooth_migrations.halves import expanded, install, is_split, is_void, split_of
from smooth_migrations.locks.entries import Touched, existing_relations, lock_entries, touch
from smooth_migrations.losses import Tables, irreversible_operations
from smooth_migrations.operations import CannotSplit
from smooth_migrations.operations.base import NotAtOnce
from smooth_migrations.plan_groundwork import plan_groundwork
from smooth_migrations.protocol import Back, Inspect, MigrationFinding, PendingMigration, Question, TargetReport
from smooth_migrations.questions import Questions, asking
from smooth_migrations.reaching import connect
from smooth_migrations.reversibility import can_hold, is_online
from smooth_migrations.session import limited_transaction
from smooth_migrations.splitting import place_forwards
from smooth_migrations.unapplying import back_findings, plan_back
from smooth_migrations.undo.emptiness import look_before
from smooth_migrations.undo.prepared import not_endable, prepared_on_server
from smooth_migrations.undo.transaction import Limits
from smooth_migrations.worker.blame import with_place
from smooth_migrations.worker.known import Known, Library
from smooth_migrations.worker.left import left_in
from smooth_migrations.worker.physical import missing_file, physical_of

__all__ = ["inspect"]


def inspect(command: Inspect, connection: BaseDatabaseWrapper, library: Library) -> TargetReport:
    """Describe one database: what is recorded, what is pending, and every finding at once.

    Args:
        command: that asked.
        connection: the alias to look at. Only reads; takes no lock beyond those of SELECT, and leaves no file behind.
        library: what is known of the project's migrations; more of it is known afterwards.
    """
    path = missing_file(connection)
    try:
        found = _inspect(command, connection, library)
        # What a file system calls a file that goes again it calls the next one that comes.
        return found if path is None else replace(found, is_missing=True, physical="")
    finally:
        # SQLite makes a file of no bytes when it first looks.
        if path is not None and path.exists() and path.stat().st_size == 0:
            connection.close()
            path.unlink()


def _inspect(command: Inspect, connection: BaseDatabaseWrapper, library: Library) -> TargetReport:
    vendor = connection.vendor
    try:
        connect(connection)
        version = ".".join(str(part) for part in connection.get_database_version())
    except (Error, NotSupportedError) as error:
        finding = MigrationFinding("unreachable", _first_line(error), sqlstate=sqlstate_of(error))
        return TargetReport(id=command.id, vendor=vendor, server_version="", findings=(finding,))
    findings: list[MigrationFinding] = []
    try:
        with _within_limits(command, connection):
            findings += _server_findings(connection)
            return _look(command, connection, library, version, findings)
    except SmoothMigrationsError as error:
        findings.append(MigrationFinding("unloadable", error.message, hint=error.hint))
        return TargetReport(id=command.id, vendor=vendor, server_version=version, findings=tuple(findings))
    except Exception as error:  # noqa: BLE001 - migrations are the user's code: importing them may raise anything
        message = with_place(f"{type(error).__name__}: {_first_line(error)}", error)
        findings.append(MigrationFinding("unloadable", message, sqlstate=sqlstate_of(error)))
        return TargetReport(id=command.id, vendor=vendor, server_version=version, findings=tuple(findings))


@contextmanager
def _within_limits(command: Inspect, connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let nobody's lock keep us waiting for ever; in a transaction, so that a pooler's session keeps nothing of it."""
    if connection.vendor != "postgresql":
        yield
        return
    with limited_transaction(connection, Limits(command.lock_timeout_ms, command.statement_timeout_ms)):
        yield


def _look(
    command: Inspect,
    connection: BaseDatabaseWrapper,
    library: Library,
    version: str,
    findings: list[MigrationFinding],
) -> TargetReport:
    known, executor = library.of(connection)
    if not known.has_sound_history:
        history = [*_history_findings(executor, connection)]
        known.has_sound_history = not history
        findings += history
    touched: list[list[Touched]] = []
    queue, asked = read_queue(connection), None
    if command.back is not None:
        with asking(connection) as questions:
            findings += back_findings(connection, executor, command.back)
            pending = tuple(_pending_back(executor, command.back, connection))
            entries = _lock_entries(touched, connection)
        asked = _asked(pending, questions)
    elif command.finalises is not None:
        halves = Pending.of(connection, command.finalises)
        readied = False
        try:
            readied = bool(halves.groundwork().grounds)
        except CannotFinalise as error:
            findings.append(MigrationFinding("cannot_finalise", error.message, hint=error.hint))
        pending = tuple(_pending_halves(halves, readied=readied))
        entries = _lock_entries(touched, connection)
    else:
        with asking(connection) as questions:
            pending = _forwards(command, connection, (known, executor), (queue, touched, findings))
            entries = _lock_entries(touched, connection)
        asked = None if queue else _asked(pending, questions)
    return TargetReport(
        id=command.id,
        vendor=connection.vendor,
        server_version=version,
        fresh=not known.recorded,
        before=look_before(connection),
        physical=physical_of(connection),
        applied=tuple(sorted(f"{app}.{name}" for app, name in known.recorded)),
        pending=pending,
        findings=tuple(findings),
        lock_entries=entries[0],
        lock_entries_each=entries[1],
        prepared_slots=_prepared_slots(connection),
        prepared=prepared_on_server(connection),
        contract_pending=tuple(item.told() for item in queue),
        sessions=_sessions(connection) if command.finalises is not None else (),
        left=left_in(connection),
        asked=asked,
    )


def _asked(pending: Sequence[PendingMigration], questions: Questions) -> tuple[Question, ...] | None:
    # Routers may treat each alias otherwise.
    return questions.told() if pending and not router.routers else None


def _forwards(
    command: Inspect,
    connection: BaseDatabaseWrapper,
    project: tuple[Known, MigrationExecutor],
    noted: tuple[Sequence[Queued], list[list[Touched]], list[MigrationFinding]],
) -> tuple[PendingMigration, ...]:
    known, executor = project
    queue, touched, findings = noted
    plan = [migration for migration, _backwards in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    refusals: list[tuple[Migration, CannotSplit]] = []
    placed = place_forwards(
        connection, plan, expands=command.expands, executor=executor, refusals=refusals, queue=queue
    )
    install(placed, run_id="")
    ground = plan_groundwork(connection, plan, executor) if command.expands else Groundwork()
    waiting = {migration: error.message for migration, error in refusals if _is_readied(error, ground)}
    findings += _split_findings(each for each in refusals if not _is_readied(each[1], ground))
    pending = (
        replace(each, readied=migration in ground.migrations, only_readied=waiting.get(migration, ""))
        for migration, each in zip(plan, _pending(known, plan, connection, touched), strict=True)
    )
    return tuple(pending) or tuple(_to_be_recorded(known, executor.loader))


def _to_be_recorded(known: Known, loader: MigrationLoader) -> Iterator[PendingMigration]:
    """Yield what replaces migrations all of which are applied: Django's `migrate` records it whatever else it does.

    Without its record it would be pending once it says no more what it replaces.
    """
    for app, name in sorted((loader.replacements.keys() & loader.applied_migrations.keys()) - known.recorded):
        yield PendingMigration(migration=f"{app}.{name}", atomic=True)


def _sessions(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """Return the application names of others; every role may read these (PostgreSQL manual, pg_stat_activity)."""
    if connection.vendor != "postgresql":
        return ()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT application_name FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> '' ORDER BY 1"
        )
        return tuple(str(name) for (name,) in cursor.fetchall())


def _is_readied(error: CannotSplit, ground: Groundwork) -> bool:
    return isinstance(error, NotAtOnce) and (error.table, error.name) in [each.place for each in ground.shadows]


def _split_findings(refusals: Iterable[tuple[Migration, CannotSplit]]) -> Iterator[MigrationFinding]:
    for migration, error in refusals:
        yield MigrationFinding(
            "cannot_split",
            f"{migration.app_label}.{migration.name} would break the release still running: {error.message}",
            hint=error.hint,
        )


def _pending_halves(halves: Pending, *, readied: bool) -> Iterator[PendingMigration]:
    for item in halves.queue:
        yield PendingMigration(
            migration=f"{item.app}.{item.name}",
            atomic=True,
            operations=(item.description,),
            contract=(item.description,),
            readied=readied,
        )


def _prepared_slots(connection: BaseDatabaseWrapper) -> int:
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('max_prepared_transactions')::int")
        return int((cursor.fetchone() or (0,))[0])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _server_findings(connection: BaseDatabaseWrapper) -> Iterator[MigrationFinding]:
    try:
        connection.check_database_version_supported()
    except NotSupportedError as error:
        yield MigrationFinding("unsupported_version", _first_line(error))
    if reason := why_not_undone(connection):
        yield MigrationFinding("unsupported_backend", reason)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, "
                "current_schema(), current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE')"
            )
            read_only, schema, may_create = cursor.fetchone() or (False, None, True)
        if read_only:
            yield MigrationFinding("read_only", "the server accepts no writes", hint="name the primary in DATABASES")
        elif not may_create:
            user = connection.settings_dict["USER"]
            yield MigrationFinding(
                "unprivileged",
                f"the role {user!r} may not create tables in the schema {schema or '(none)'!r}",
                hint=f"GRANT CREATE ON SCHEMA {schema or 'public'} TO {user}",
            )
        for gid, owner, role in not_endable(connection):
            message = f"{gid} was prepared by the role {owner}, and {role} may not end it"
            yield MigrationFinding("foreign_prepared", message, hint=f"connect as {owner}, or assume that role")
    elif connection.vendor == "sqlite":
        path = Path(str(connection.settings_dict["NAME"]))
        if path.is_absolute() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            yield MigrationFinding("read_only", f"{path} or its directory is not writable")


def _history_findings(executor: MigrationExecutor, connection: BaseDatabaseWrapper) -> Iterator[MigrationFinding]:
    loader = executor.loader
    for app, names in sorted(loader.detect_conflicts().items()):
        yield MigrationFinding(
            "conflict",
            f"the migrations of {app} have several leaves: {', '.join(sorted(names))}",
            hint="manage.py makemigrations --merge",
        )
    try:
        loader.check_consistent_history(connection)
    except InconsistentMigrationHistory as error:
        yield MigrationFinding("inconsistent_history", str(error))
    replaced = {key for migration in loader.disk_migrations.values() for key in migration.replaces}
    missing = sorted(set(loader.applied_migrations) - set(loader.disk_migrations) - replaced)
    held = {(item.app, item.name) for item in read_queue(connection)} if missing else set()
    for app, name in missing:
        if app in loader.migrated_apps:
            yield MigrationFinding(
                "missing_file",
                f"{app}.{name} is recorded as applied, and its file is missing",
                hint=(
                    "deploy the release that has it: half of it is held back"
                    if (app, name) in held
                    else f"deploy the release that has it, or manage.py migrate {app} --prune"
                ),
            )


def _pending(
    known: Known, plan: list[Migration], connection: BaseDatabaseWrapper, touched: list[list[Touched]]
) -> Iterator[PendingMigration]:
    if not plan:
        return
    state = known.state()
    existing = set(state.models)
    tables = Tables(connection, state)
    for migration in plan:
        effect = Effects()
        touched.append([])
        before = state.clone()
        for operation in migration.operations:
            if not (is_split(operation) or is_void(operation)):
                effect += effects(operation, migration.app_label, state, existing)
            if connection.vendor == "postgresql":
                touched[-1] += touch(operation, migration.app_label, state, connection)
            else:
                operation.state_forwards(migration.app_label, state)
        yield PendingMigration(
            migration=f"{migration.app_label}.{migration.name}",
            atomic=can_hold(migration, connection),
            operations=tuple(operation.describe() for operation in migration.operations),
            destructive=effect.destructive,
            unsafe=effect.unsafe,
            irreversible=tuple(irreversible_operations(migration, before, tables)),
            locks=(*effect.locks, *(lock for half in split_of(migration) for lock in half.explain().locks)),
            expand=tuple(part.describe() for part in expanded(migration)) if [*split_of(migration)] else None,
            contract=tuple(half.description for half in split_of(migration)),
            online=connection.vendor == "postgresql" and is_online(migration),
        )


def _pending_back(
    executor: MigrationExecutor, back: Back, connection: BaseDatabaseWrapper
) -> Iterator[PendingMigration]:
    for migration in plan_back(executor, back):
        yield PendingMigration(
            migration=f"{migration.app_label}.{migration.name}",
            atomic=can_hold(migration, connection),
            operations=tuple(f"{operation.describe()}, taken back" for operation in reversed(migration.operations)),
        )


def _lock_entries(touched: list[list[Touched]], connection: BaseDatabaseWrapper) -> tuple[int, int]:
    """Return what all migrations take in one transaction, and what the greatest takes in one of its own."""
    # Only PostgreSQL's lock table has an end that a deploy may reach.
    if connection.vendor != "postgresql" or not touched:
        return 0, 0
    existing = existing_relations(connection)
    each = max(lock_entries(parts, existing) for parts in touched)
    return lock_entries(itertools.chain.from_iterable(touched), existing), each
