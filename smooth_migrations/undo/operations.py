"""What has run of one migration outside a transaction, so that a broken one can be taken back."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration, RunPython
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.errors import FilesGone, is_lock_failure
from smooth_migrations.interruption import Interruption
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Step
from smooth_migrations.reversibility import PLAIN, database_parts
from smooth_migrations.undo.already_made import already_made_left
from smooth_migrations.undo.backwards import drop_hollow_indexes
from smooth_migrations.undo.code import REVERSED, CodeRows, changed_since, is_recordable
from smooth_migrations.undo.indexes import drop_invalid_indexes, existing_indexes, settle_indexes
from smooth_migrations.undo.journal import CallJournal, Entry, EntryState
from smooth_migrations.undo.kinds import defines, is_code, is_rows_alone, name_of
from smooth_migrations.undo.named import Named, named_by
from smooth_migrations.undo.needless import needless_left_out
from smooth_migrations.undo.records import Record, Recording, Writes, keys_of, restore_records
from smooth_migrations.undo.removed import Removed, are_gone, give_back_values, removed_given_back
from smooth_migrations.undo.renames import renames_of
from smooth_migrations.undo.states import rendered_afresh, states_of
from smooth_migrations.undo.tables import restore_tables, take_tables

__all__ = ["OperationLog", "refuse_other_files"]

_BROKEN = "its code was broken off outside a transaction; rows that it had written stay"

_READS = re.compile(r"\s*(SELECT|SHOW|SET)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Ran:
    number: int
    operation: Operation
    backwards: bool
    before: ProjectState
    after: ProjectState
    detail: dict[str, Any]
    named: Named

    @property
    def is_recorded(self) -> bool:
        """Whether it is written down which rows it changes."""
        return bool(self.detail.get("recorded"))


class OperationLog:
    """Which operations of one migration have run, with the states between which each did.

    Where the server can roll DDL back, an operation on the schema alone runs in a transaction of its own together with
    its row in the journal, so that it has run wholly or not at all.

    Args:
        connection: the target's, in autocommit.
        migration: what runs.
        step: the same by name, and in which direction.
        journal: where it is written down.
        interruption: of the call.
        is_watchful: whether the database is looked at before each operation, for the undo.
        records: the rows of `django_migrations` before the call.
        is_elsewhere: whether something was written to the database over another alias.

    Attributes:
        migration: see above.
        step: see above.
        named: the tables that the migration has named.
        left: what its undo could not give back, in words.
        is_parted: whether its undo was broken off within an operation, so that it cannot be repeated.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        migration: Migration,
        step: Step,
        *,
        journal: CallJournal,
        interruption: Interruption,
        records: Sequence[Record],
        is_watchful: bool,
        is_elsewhere: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self.migration = migration
        self.step = step
        self._journal = journal
        self._interruption = interruption
        self._rows = CodeRows(connection, journal, interruption, step, is_elsewhere)
        self._is_watchful = is_watchful
        self._records = records
        self._ran: list[_Ran] = []
        self._at_work: _Ran | None = None
        self._recording = Recording(connection)
        self._writes = Writes(self._record)
        self.named = Named()
        self.left: list[str] = []
        self.is_parted = False
        self._finished = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is to be recalled of the operations that are done."""
        return tuple(Entry(ran.number, EntryState.DONE, ran.detail) for ran in self._ran)

    def recall(self, entries: Sequence[Entry], before: ProjectState, *, is_complete: bool = True) -> None:
        """Take over what was written down of a migration that ran.

        Args:
            entries: the operations that it began, in order.
            before: the project's state before the migration.
            is_complete: whether the migration was recorded.
        """
        self._writes.seen = is_complete
        states = states_of(self.migration, before)
        for entry in entries:
            ends = states[entry.operation], states[entry.operation + 1]
            first, last = reversed(ends) if self.step.backwards else ends
            operation = self.migration.operations[entry.operation]
            named = named_by([operation], self.migration.app_label, ends)
            ran = _Ran(entry.operation, operation, self.step.backwards, first, last, entry.detail, named)
            if entry.state is EntryState.DONE:
                self._ran.append(ran)
            else:
                self._at_work = ran

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note each operation of the migration as it begins and ends."""
        watched = list(self.migration.operations)
        try:
            for number, operation in enumerate(watched):
                self._watch(number, operation, "database_forwards", backwards=False)
                self._watch(number, operation, "database_backwards", backwards=True)
            with self._connection.execute_wrapper(self.named), self._connection.execute_wrapper(self._writes):
                yield
        finally:
            self._recording.roll_back()
            for operation in watched:
                operation.__dict__.pop("database_forwards", None)
                operation.__dict__.pop("database_backwards", None)

    def take_back(self) -> None:
        """Settle the broken operation, and reverse the completed ones, newest first. Safe to repeat, if not parted."""
        if self._writes.seen:
            # First, since how many operations are left no longer tells whether the migration was recorded.
            with passing("restore"):
                restore_records(self._connection, self._records, keys_of(self.migration))
        if self._journal.has_lost(self.step):
            self._leave(_BROKEN)
        if self._at_work is not None and self._is_over(self._at_work):
            self._ran.append(self._at_work)
            self._at_work = None
        if self._at_work is not None:
            with passing("settle"):
                self._settle(self._at_work)
            if not self._give_back(self._at_work):
                if self._is_broken(self._at_work):
                    self._leave(_BROKEN)
                self._journal.forget_operation(self.step, self._at_work.number)
            self._at_work = None
        while self._ran:
            with passing("reverse"):
                self._reverse(self._ran[-1])
        self._journal.forget_step(self.step)

    def _watch(self, number: int, operation: Operation, method: str, *, backwards: bool) -> None:
        run: Callable[..., None] = getattr(operation, method)

        def watched(
            app_label: str, editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
        ) -> None:
            if self._at_work is not None and self._at_work.number == number:
                # Some operations go backwards by calling their own forwards with the states exchanged.
                run(app_label, editor, from_state, to_state)
                return
            with passing("operation"):
                drop_invalid_indexes(self._connection, operation, self._interruption.lock_limited)
                # Django goes on changing the state it handed over, so the log keeps its own.
                states = from_state.clone(), to_state.clone()
                detail = self._detail(operation, backwards=backwards)
                ran = _Ran(number, operation, backwards, *states, detail, Named())
                self._at_work = ran
                if self._is_transactional(operation):
                    with transaction.atomic(self._connection.alias), self._journal.at_turn():
                        with self._connection.execute_wrapper(ran.named):
                            run(app_label, editor, from_state, to_state)
                        self._journal.note_operation(self.step, number, EntryState.DONE, ran.detail)
                else:
                    with self._journal.at_turn():
                        self._journal.note_operation(self.step, number, EntryState.BEGUN, ran.detail)
                    rows = self._rows.recording(number) if ran.is_recorded else nullcontext()
                    window = self._interruption.window() if isinstance(operation, RunPython) else nullcontext()
                    with rows, self._connection.execute_wrapper(ran.named), window:
                        run(app_label, editor, from_state, to_state)
                    with self._interruption.held_back():
                        self._journal.note_state(self.step, number, EntryState.DONE)
                self._ran.append(ran)
                self._at_work = None

        # Operations run their database half by calling this method on the instance; a name on the instance comes
        # before the class's, and is gone again when the migration has ended.
        operation.__dict__[method] = watched

    def keep(self, removed: Removed) -> None:
        """Note what a field had that the operation at work is about to remove."""
        ran = self._at_work
        if ran is not None:
            ran.detail.setdefault("removed", []).append(removed)
            if not self._is_transactional(ran.operation):
                self._journal.note_detail(self.step, ran.number, ran.detail)

    def _record(self) -> None:
        # In one commit, so that what is recorded without being noted here is known to be another process's. It comes
        # when the migration is over: SQLite does not commit while a row that was inserted is still to be returned.
        if self._at_work is None and not self._recording.is_open:
            self._recording.begin(self._journal.at_turn)

    def finish(self, step: Step) -> None:
        """Note that the migration has ended, together with its record.

        Args:
            step: it, as it is known now.
        """
        self._journal.finish_step(step)
        self._recording.commit()

    def _is_transactional(self, operation: Operation) -> bool:
        return self._connection.features.can_rollback_ddl and all(
            type(part).__module__ in PLAIN for part in database_parts(operation)
        )

    def _detail(self, operation: Operation, *, backwards: bool) -> dict[str, Any]:
        """Return what is to be known of the database to settle an operation that may be broken off."""
        if not self._is_watchful:
            return {}
        indexes = existing_indexes(self._connection, operation)
        detail: dict[str, Any] = {"is": name_of(operation), "indexes": indexes}
        if is_code(operation) and not defines(operation, backwards=backwards) and is_recordable(self._connection):
            detail["recorded"] = True
        tables = take_tables(self._connection)
        return detail if tables is None else detail | {"tables": tables}

    def _is_over(self, ran: _Ran) -> bool:
        """Return whether an operation has run wholly, of which that was not heard, or not written down."""
        if self._is_transactional(ran.operation):
            return self._journal.rows_of(self.step, ran.number) is not None
        return are_gone(self._connection, ran.detail.get("removed", ()))

    def _settle(self, ran: _Ran) -> None:
        """Bring what a broken operation has left to where it began."""
        if self._is_transactional(ran.operation):
            return  # it has not run at all
        app_label = self.migration.app_label
        give_back_values(self._connection, ran.detail.get("removed", ()))
        indexes, limited = ran.detail.get("indexes", ()), self._interruption.lock_limited
        settle_indexes(self._connection, ran.operation, app_label, ran.before, indexes, limited)
        if "tables" in ran.detail:
            renames = renames_of(ran.operation, app_label, ran.before, ran.after)
            restore_tables(self._connection, ran.detail["tables"], ran.named, renames)

    def _is_broken(self, ran: _Ran) -> bool:
        """Return whether it is code of which something was committed: nobody knows which rows that has written."""
        atomic = ran.operation.atomic
        is_held = atomic or (self.migration.atomic and atomic is not False)
        # What it was not rolled back with says itself that it was committed early.
        return is_code(ran.operation) and not (is_held and not self._journal.rows_of(self.step, ran.number))

    def _give_back(self, ran: _Ran) -> bool:
        """Give back the rows that code has changed, if it is known which; return whether it is settled by that."""
        kept = self._rows.give_back(ran.number) if ran.is_recorded else None
        if kept:
            self._leave(changed_since(kept))
        return kept is not None

    def _leave(self, what: str) -> None:
        if what not in self.left:
            self.left.append(what)

    def _reverse(self, ran: _Ran) -> None:
        if self._give_back(ran):
            self._ran.pop()
            return
        holds = self._is_transactional(ran.operation)
        # Of what was committed as a whole nobody knows what it began with, and it is tried again from its start.
        if not holds and ran.detail and not is_rows_alone(ran.operation, backwards=not ran.backwards):
            # Half-way back is half-way there: whoever finds it so brings it to where the operation began.
            self._journal.note_state(self.step, ran.number, EntryState.BEGUN)
            self._at_work = self._ran.pop()
        try:
            self._run_back(ran, holds=holds)
        except Exception as error:
            if self._at_work is ran and is_lock_failure(error):
                self._part(ran)
            raise
        self._ran, self._at_work = [other for other in self._ran if other is not ran], None
        if is_code(ran.operation):
            self._leave(REVERSED)

    def _part(self, ran: _Ran) -> None:
        """Find out what a lock in the way of an operation's reversal has left of it."""
        if self._finished == 0:
            self._journal.note_state(self.step, ran.number, EntryState.DONE)
            self._ran.append(ran)
            self._at_work = None
        else:
            # Where no statement commits by itself tables are not put together again from their parts.
            self.is_parted = self._connection.features.can_rollback_ddl

    def _run_back(self, ran: _Ran, *, holds: bool) -> None:
        self._finished = 0
        with (
            rendered_afresh([ran.operation]),
            already_made_left(self._connection),
            removed_given_back(self._connection, ran.detail.get("removed", ())),
            needless_left_out(self.migration, self._connection, ran.detail.get("tables")),
            self._connection.schema_editor(atomic=False) as editor,
            transaction.atomic(self._connection.alias) if holds else nullcontext(),
        ):
            if "tables" in ran.detail:
                drop_hollow_indexes(self._connection, ran.named)
            reverse = ran.operation.database_forwards if ran.backwards else ran.operation.database_backwards
            with self._connection.execute_wrapper(ran.named), self._connection.execute_wrapper(self._count):
                reverse(self.migration.app_label, editor, ran.after, ran.before)
                for statement in editor.deferred_sql:
                    editor.execute(statement)
            editor.deferred_sql.clear()
            if "tables" in ran.detail:
                restore_tables(self._connection, ran.detail["tables"], ran.named)
            self._journal.forget_operation(self.step, ran.number)

    def _count(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        result = execute(sql, params, many, context)
        self._finished += not _READS.match(str(sql))
        return result


def refuse_other_files(
    nodes: Mapping[tuple[str, str], Migration], steps: Sequence[Step], entries: Mapping[Step, Sequence[Entry]]
) -> None:
    """Make sure that the migrations which ran in another process are those that are in the files now.

    Args:
        nodes: those in the files.
        steps: what ran.
        entries: of each, the operations that ran outside a transaction.

    Raises:
        FilesGone: one is missing, or an operation that ran is another one now; nothing was taken back.
    """
    ran = "a call was killed here after it had run"
    if missing := [str(step) for step in steps if (step.app, step.name) not in nodes]:
        raise FilesGone(
            f"{ran} {', '.join(missing)}, of which the files are missing",
            hint="run this with the release that has them",
        )
    for step in steps:
        now = [name_of(operation) for operation in nodes[step.app, step.name].operations]
        for entry in entries[step]:
            was = entry.detail.get("is")
            if now[entry.operation : entry.operation + 1] != [was] and was is not None:
                raise FilesGone(
                    f"{ran} {step}, of which the file has changed since: operation {entry.operation + 1} was {was}",
                    hint="run this with the release that has it as it was",
                )
