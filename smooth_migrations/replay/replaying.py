"""Do to a database what a script says was done to another one that was in the same state."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from django.apps.registry import Apps
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.signals import post_migrate
from django.utils.functional import SimpleLazyObject

from smooth_migrations.call import Call
from smooth_migrations.contract_queue import add, purge, strike_out
from smooth_migrations.errors import Afresh, is_lock_failure
from smooth_migrations.fingerprint import take
from smooth_migrations.forks import leave_if_forked
from smooth_migrations.listeners import has_others_receivers
from smooth_migrations.locks.taking import take_together
from smooth_migrations.protocol.findings import Question
from smooth_migrations.protocol.values import Back
from smooth_migrations.questions import answer_of
from smooth_migrations.replay.aside import BRIEFLY_MS
from smooth_migrations.replay.real import Real
from smooth_migrations.replay.receivers import digest_of_received, without_makers, without_renaming
from smooth_migrations.replay.script import Part, Script
from smooth_migrations.replay.signature import signature_of
from smooth_migrations.sending import send_together
from smooth_migrations.unapplying import forget, lock_losing

__all__ = ["Differs", "replay"]


class Differs(Afresh):
    """What a script did to this database is not what it did to the first one: all of it is to run for real."""


def replay(script: Script, call: Call, connection: BaseDatabaseWrapper, back: Back | None = None) -> None:
    """Do what a script says, and make sure that the schema is then the one that the first database had.

    The receivers of `pre_migrate` and `post_migrate` are called, with Django's arguments; each migration is recorded,
    and told to the call, as its command does.

    Args:
        script: recorded on a database with the same migrations.
        call: which holds the transaction.
        connection: the database's.
        back: the run that is taken back, where the migrations go backwards.

    Raises:
        Differs: it failed, or the schema is another one, or cannot be compared. The call's transaction is to be rolled
            back.
        DatabaseError: a lock was not to be had that the migrations need.
    """
    try:
        if script.before:
            # Code that has run has used up sequences, whatever is rolled back then.
            _compare(script.before, connection)
        if back is None:
            call.locks.expect(script.locks)
            _forwards(script, call, connection)
        else:
            _backwards(script, call, connection, back)
        _compare(script.fingerprint, connection)
    except Differs:
        raise
    except Exception as error:
        if is_lock_failure(error):
            raise
        # What runs for real says better what is wrong, if it is.
        raise Differs(str(error)) from error


def _forwards(script: Script, call: Call, connection: BaseDatabaseWrapper) -> None:
    connection.prepare_database()
    recorder, records = MigrationRecorder(connection), call.permanent.frame.records
    call.last = script.parts[-1].migration if script.parts else None
    with _signals(script, connection):
        if records is None:
            recorder.ensure_schema()
        applied = {record.key for record in records or ()}
        for part in script.parts:
            call.progress("apply_start", part.migration, fake=False)
            _run_part(part, connection)
            for queued in part.queued:
                add(connection, replace(queued, run_id=call.options.call_id))
            for app, name in _recorded_as(part.migration):
                recorder.migration_qs.create(app=app, name=name)
                applied.add((app, name))
            call.progress("apply_success", part.migration, fake=False)
        # Squashed migrations, all of whose replaced ones are applied by now, or what code has recorded, here too.
        if missing := [key for key in script.records if key not in applied]:
            there = {*recorder.migration_qs.values_list("app", "name")}
            for app, name in missing:
                if (app, name) not in there:
                    recorder.migration_qs.create(app=app, name=name)


def _backwards(script: Script, call: Call, connection: BaseDatabaseWrapper, back: Back) -> None:
    if script.back is None:
        raise Differs("the script goes forwards")
    recorder = MigrationRecorder(connection)
    take_together(connection, script.back.locks)
    lock_losing(connection, script.back.tables)
    for question in script.back.asked:
        _ask(question, connection)
    with _signals(script, connection) as apps:
        for part in script.parts:
            call.progress("unapply_start", part.migration, fake=False)
            _run_part(part, connection)
            for queued in part.queued:
                strike_out(connection, replace(queued, run_id=back.run_id))
            for app, name in _recorded_as(part.migration):
                recorder.migration_qs.filter(app=app, name=name).delete()
            call.progress("unapply_success", part.migration, fake=False)
        purge(connection)
    forget(connection, apps, back)


@contextmanager
def _signals(script: Script, connection: BaseDatabaseWrapper) -> Iterator[Apps]:
    """Send `pre_migrate`, and `post_migrate` after the context; yields the models of afterwards."""
    alias, plan = connection.alias, [*script.plan]
    signature = signature_of(plan)
    # The plan has what that receiver puts in from the first database on.
    with without_renaming():
        before = SimpleLazyObject(lambda: script.models_before().as_new())
        emit_pre_migrate_signal(db=alias, plan=plan, apps=before, **script.told)
    if signature_of(plan) != signature:
        raise Differs("a receiver of pre_migrate has changed the plan")
    after: Any = SimpleLazyObject(script.models.as_new)
    yield after
    # What they would make on the first database, which has it by now, is there.
    is_received = bool(script.received) and digest_of_received(connection) == script.received
    with without_makers() if is_received else nullcontext():
        apps = script.models.as_new() if has_others_receivers(post_migrate) else after
        emit_post_migrate_signal(db=alias, plan=plan, apps=apps, **script.told)


def _run_part(part: Part, connection: BaseDatabaseWrapper) -> None:
    statements: list[str] = []
    with ExitStack() as stack:
        editor: BaseDatabaseSchemaEditor | None = None
        for each in (*part.statements, None):
            if isinstance(each, str):
                statements.append(each)
                continue
            if statements:
                send_together(connection, statements)
                statements.clear()
            if isinstance(each, Real):
                editor = editor or stack.enter_context(connection.schema_editor(atomic=part.migration.atomic))
                _run_real(each, part.migration, editor)
            elif each is not None:
                _ask(each, connection)


def _run_real(each: Real, migration: Migration, editor: BaseDatabaseSchemaEditor) -> None:
    pid = os.getpid()
    # As Migration.apply does.
    is_alone = each.operation.atomic and not editor.atomic_migration
    try:
        with transaction.atomic(editor.connection.alias) if is_alone else nullcontext():
            each.run(each.operation.database_forwards, migration.app_label, editor)
    except BaseException as error:
        leave_if_forked(pid, error)
        raise
    leave_if_forked(pid)


def _compare(fingerprint: str, connection: BaseDatabaseWrapper) -> None:
    try:
        found = take(connection, lock_timeout_ms=BRIEFLY_MS).packed()
    except DatabaseError as error:
        # What runs for real does not ask.
        raise Differs("the schema cannot be compared with that of the first database") from error
    if found != fingerprint:
        raise Differs("the schema is not that of the first database")


def _ask(question: Question, connection: BaseDatabaseWrapper) -> None:
    if answer_of(connection, question.query) != question.answer:
        raise Differs("this database answers otherwise than the first one")


def _recorded_as(migration: Migration) -> Sequence[tuple[str, str]]:
    # As MigrationExecutor.record_migration does.
    return migration.replaces or [(migration.app_label, migration.name)]
