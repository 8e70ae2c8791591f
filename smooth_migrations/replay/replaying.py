"""Do to a database what a script says was done to another one that was in the same state."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.recorder import MigrationRecorder
from django.utils.functional import SimpleLazyObject

from smooth_migrations.call import Call
from smooth_migrations.contract_queue import add
from smooth_migrations.errors import Afresh, is_lock_failure
from smooth_migrations.fingerprint import take
from smooth_migrations.replay.receivers import digest_of_received, without_makers, without_renaming
from smooth_migrations.replay.script import Part, Script

__all__ = ["Differs", "replay"]


class Differs(Afresh):
    """What a script did to this database is not what it did to the first one: all of it is to run for real."""


def replay(script: Script, call: Call, connection: BaseDatabaseWrapper) -> None:
    """Do what a script says, and make sure that the schema is then the one that the first database had.

    Django's receivers of `pre_migrate` and `post_migrate` are called, with its arguments; each migration is recorded,
    and told to the call, as its command does.

    Args:
        script: recorded on a database with the same migrations.
        call: which holds the transaction.
        connection: the database's.

    Raises:
        Differs: it failed, or the schema is another one. The call's transaction is to be rolled back.
        DatabaseError: a lock was not to be had.
    """
    call.locks.expect(script.locks)
    try:
        _run(script, call, connection)
    except Exception as error:
        if is_lock_failure(error):
            raise
        # What runs for real says better what is wrong, if it is.
        raise Differs(str(error)) from error


def _run(script: Script, call: Call, connection: BaseDatabaseWrapper) -> None:
    alias = connection.alias
    connection.prepare_database()
    operations = [(migration.operations, [*migration.operations]) for migration, _backwards in script.plan]
    # What was recorded renames no model whose content type was known.
    with without_renaming():
        apps = SimpleLazyObject(lambda: script.models_before().as_new())
        emit_pre_migrate_signal(db=alias, plan=script.plan, apps=apps, **script.told)
    if any(now != before for now, before in operations):
        raise Differs("a receiver of pre_migrate has changed a migration")
    recorder, records = MigrationRecorder(connection), call.permanent.frame.records
    if records is None:
        recorder.ensure_schema()
    applied = {record.key for record in records or ()}
    for part in script.parts:
        call.progress("apply_start", part.migration, fake=False)
        _run_part(part, connection, call.options.call_id)
        applied |= {*_record(recorder, part.migration)}
        call.progress("apply_success", part.migration, fake=False)
    # Squashed migrations, all of whose replaced ones are applied by now.
    for app, name in sorted(script.records - applied):
        recorder.migration_qs.create(app=app, name=name)
    # What they would make on the first database, which has it by now, is there.
    is_received = bool(script.received) and digest_of_received(connection) == script.received
    with without_makers() if is_received else nullcontext():
        apps = SimpleLazyObject(script.models.as_new)
        emit_post_migrate_signal(db=alias, plan=script.plan, apps=apps, **script.told)
    if take(connection).packed() != script.fingerprint:
        raise Differs("the schema is not that of the first database")


def _run_part(part: Part, connection: BaseDatabaseWrapper, run_id: str) -> None:
    if part.statements:
        with connection.cursor() as cursor:
            # One message, one round trip; the server runs one statement after the other.
            cursor.execute(";\n".join(part.statements), None)
    for queued in part.queued:
        add(connection, replace(queued, run_id=run_id))


def _record(recorder: MigrationRecorder, migration: Migration) -> Sequence[tuple[str, str]]:
    # As MigrationExecutor.record_migration does.
    keys = migration.replaces or [(migration.app_label, migration.name)]
    for app, name in keys:
        recorder.migration_qs.create(app=app, name=name)
    return keys
