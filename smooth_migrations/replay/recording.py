"""Record what the migrations of a plan do to a database of PostgreSQL, while Django's own command runs them.

The statements of an operation tell all of it if it is one of Django's that are schema alone, if each of them came from
the schema editor, and if another database answers the same to what was asked meanwhile: then they are the same for
every database in the same state. Other operations run for real on each.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.apps.registry import Apps
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState
from django.db.models import Model
from django.db.models.signals import post_migrate, pre_migrate

from smooth_migrations.contract_queue import Queued, add, strike_out
from smooth_migrations.errors import is_lock_failure
from smooth_migrations.fingerprint import take
from smooth_migrations.halves import placed_of
from smooth_migrations.listeners import hearing_first
from smooth_migrations.locks.modes import Locks
from smooth_migrations.locks.taking import LocksFirst
from smooth_migrations.protocol.findings import Question
from smooth_migrations.questions import Questions
from smooth_migrations.replay.aside import ask_aside
from smooth_migrations.replay.judging import is_djangos, is_steady, is_told_by_statements
from smooth_migrations.replay.real import Real, without_models
from smooth_migrations.replay.receivers import digest_of_received
from smooth_migrations.replay.rendered import Rendered
from smooth_migrations.replay.script import Part, Plan, Script, WayBack
from smooth_migrations.replay.signature import signature_of
from smooth_migrations.reversibility import can_hold

if TYPE_CHECKING:
    from django.db.models import Field

__all__ = ["Recorder"]

# Each is half a megabyte in a project with 200 models.
_MOST_KEPT: Final = 100
_MARKS: Final = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")
_TOLD: Final = ("verbosity", "interactive", "stdout")


class Recorder:
    """Records one run of a plan.

    Args:
        connection: of the database that is migrated.
        locks: of the call.
        may_commit: whether the call may commit in between, as it must for a migration that no transaction holds.

    Attributes:
        was_held_up: whether others' locks kept something from being asked, so that another time it may be recorded.
    """

    def __init__(self, connection: BaseDatabaseWrapper, locks: LocksFirst, *, may_commit: bool = False) -> None:
        self._connection = connection
        self._locks = locks
        self._may_commit = may_commit
        self._running: Plan = ()
        self._told: dict[str, Any] = {}
        self._state: ProjectState | None = None
        self._models: Rendered | None = None
        self._parts: list[Part] = []
        self._telling: object = None
        self._is_telling = False
        self._is_within = False
        self._is_real = False
        self._is_rest_real = False
        self._last: Real | None = None
        self._left: list[object] = []
        self._kept: list[Rendered] = []
        self._before = ""
        self._is_sound = True
        self._goes_back = False
        self._signature: Hashable = None
        self.was_held_up = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what Django's command does within."""
        editor_class = self._connection.SchemaEditorClass
        with ExitStack() as stack:
            self._connection.SchemaEditorClass = _expecting(_telling(editor_class, self), self)
            stack.callback(setattr, self._connection, "SchemaEditorClass", editor_class)
            stack.enter_context(self._connection.execute_wrapper(self._hear))
            stack.enter_context(hearing_first(pre_migrate, self._hear_before))
            # Before others do anything with the models.
            stack.enter_context(hearing_first(post_migrate, self._hear_after))
            try:
                yield
            finally:
                for migration, backwards in self._running:
                    vars(migration).pop("unapply" if backwards else "apply", None)

    def script(self) -> Script | None:
        """Return what was recorded, if all of the plan has run and may be replayed. Only reads."""
        return None if self._state is None else self._script(self._state, None)

    def way_back(
        self, state: ProjectState, locks: Locks, tables: AbstractSet[str], asked: Sequence[Question]
    ) -> Script | None:
        """Return what was recorded of a plan that went backwards, as `script` does.

        Args:
            state: the project's before.
            locks: that were taken together.
            tables: that were locked, because they lose something.
            asked: what was asked of these, to know that nothing is lost.
        """
        return self._script(without_models(state), WayBack(locks, tables, asked))

    def _script(self, state: ProjectState, back: WayBack | None) -> Script | None:
        migrations = [migration for migration, _backwards in self._running]
        if (
            not (migrations and self._is_sound)
            or [part.migration for part in self._parts] != migrations
            or self._models is None
            or any(backwards is (back is None) for _migration, backwards in self._running)
        ):
            return None
        return ask_aside(self._connection, partial(self._written, state, self._models, back), self._fail)

    def _written(self, state: ProjectState, models: Rendered, back: WayBack | None) -> Script:
        return Script(
            plan=self._running,
            parts=tuple(self._parts),
            told=self._told,
            state=state,
            models=models,
            locks=self._locks.plan,
            records=tuple(MigrationRecorder(self._connection).migration_qs.order_by("id").values_list("app", "name")),
            received=digest_of_received(self._connection),
            fingerprint=self._fingerprint(),
            back=back,
            before=self._before,
        )

    def _fingerprint(self) -> str:
        return take(self._connection).packed()

    # --- what the schema editor does --------------------------------------------------------------------------------

    @contextmanager
    def telling(
        self, statement: object = None, composed: str | None = None, queued: Queued | None = None
    ) -> Iterator[None]:
        """Take down what the schema editor does, and pass over whatever else it takes to do that.

        Args:
            statement: that it is about to run, as the editor has it.
            composed: the same as text, with its parameters.
            queued: a contract half that it holds back, or does no more.
        """
        if self._is_real or any(statement is left for left in self._left):
            yield
            return
        if queued is not None and self._parts:
            self._parts[-1].queued.append(queued)
        self._telling = composed
        self._is_telling = True
        try:
            yield
        finally:
            self._telling = None
            self._is_telling = False

    def doubt(self) -> None:
        """Take note that the operation at work may do something else the next time."""
        self._is_sound = self._is_sound and self._is_real

    def _fail(self, error: DatabaseError) -> None:
        self._is_sound = False
        self.was_held_up = self.was_held_up or is_lock_failure(error)

    def _hear(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: Sequence[object] | None,
        many: object,
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        is_mark = str(sql).startswith(_MARKS)
        if self._is_real:
            pass
        elif self._is_within and not self._is_telling and not is_mark:
            with self.telling():
                self._note(sql, params)
        elif self._telling is not None and self._parts:
            if sql is self._telling:
                self._parts[-1].statements.append(sql)
            # Forwards it is for the locks that anything else is sent beside a statement.
            elif self._goes_back and not is_mark:
                self._note(sql, params)
        return execute(sql, params, many, context)

    def _note(self, sql: str, params: Sequence[object] | None) -> None:
        """Take down what is asked before a statement, on which that may depend."""
        statement, self._telling = self._telling, None
        question = ask_aside(self._connection, partial(Questions(self._connection).ask, sql, params), self._fail)
        self._telling = statement
        if question is None:
            self.doubt()
        else:
            self._parts[-1].statements.append(question)

    # --- what Django's command does ---------------------------------------------------------------------------------

    def _hear_before(self, *, plan: Plan, using: str, **told: Any) -> None:  # noqa: ANN401 - whatever Django tells
        if using != self._connection.alias or self._told:
            return
        self._told = {key: told[key] for key in _TOLD if key in told}
        self._running = [*plan]
        is_held = all(can_hold(migration, self._connection) for migration, _backwards in plan)
        if not (is_held or self._may_commit):
            self.doubt()
        self._signature = signature_of(plan)
        if self._is_sound and not (is_held and all(map(is_told_by_statements, _operations(plan)))):
            self._before = ask_aside(self._connection, self._fingerprint, self._fail) or ""
        for migration, backwards in plan:
            self._goes_back = self._goes_back or backwards
            name = "unapply" if backwards else "apply"
            setattr(migration, name, self._recording(migration, getattr(migration, name)))

    def _hear_after(self, *, using: str, apps: Apps, **_told: object) -> None:
        if using == self._connection.alias and self._models is None:
            self._models = Rendered(apps)

    def _recording(self, migration: Migration, move: Callable[..., ProjectState]) -> Callable[..., ProjectState]:
        def recorded(
            state: ProjectState,
            schema_editor: BaseDatabaseSchemaEditor,
            collect_sql: bool = False,  # noqa: FBT001, FBT002 - Django's
        ) -> ProjectState:
            if not self._parts and signature_of(self._running) != self._signature:
                self.doubt()
            if self._state is None:
                self._state = without_models(state)
            self._parts.append(Part(migration))
            # Outside a transaction it is noted of each operation how far it has come.
            self._is_rest_real = not can_hold(migration, self._connection)
            self._last, self._left = None, []
            kind = type(migration)
            if (kind.apply, kind.unapply) != (Migration.apply, Migration.unapply):
                self.doubt()
            with ExitStack() as stack:
                for operation in migration.operations:
                    name = "database_backwards" if self._goes_back else "database_forwards"
                    setattr(operation, name, self._recording_of(operation, getattr(operation, name)))
                    stack.callback(vars(operation).pop, name)
                return move(state, schema_editor, collect_sql)

        return recorded

    def _recording_of(self, operation: Operation, move: Callable[..., None]) -> Callable[..., None]:
        is_told = is_told_by_statements(operation)

        def recorded(
            app_label: str, editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
        ) -> None:
            if self._is_rest_real or not is_told:
                self._run(operation, move, app_label, editor, from_state, to_state)
                return
            self._last = None
            self._is_within = True
            try:
                move(app_label, editor, from_state, to_state)
            finally:
                self._is_within = False

        return recorded

    def _run(
        self,
        operation: Operation,
        move: Callable[..., None],
        app_label: str,
        editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Run an operation that is to run for real on each database."""
        if not self._is_sound or self._goes_back or placed_of(operation) is not None:
            self.doubt()
            move(app_label, editor, from_state, to_state)
            return
        try:
            real = Real.of(operation, from_state, to_state, follows=self._last)
        except Exception:  # noqa: BLE001 - Django makes models one by one, and bears a relation to one that is not there
            self.doubt()
            move(app_label, editor, from_state, to_state)
            return
        self._parts[-1].statements.append(real)
        deferred = [*editor.deferred_sql]
        self._is_real = True
        try:
            real.run(move, app_label, editor)
        finally:
            self._is_real = False
        self._last = real
        self._kept += [models for models in real.models if models not in self._kept]
        if len(self._kept) > _MOST_KEPT:
            self.doubt()
        # It does so on each database, and whatever comes after it in the migration may change it there.
        left = [each for each in editor.deferred_sql if not any(each is earlier for earlier in deferred)]
        self._left += left
        self._is_rest_real = self._is_rest_real or bool(left)


def _operations(plan: Plan) -> Iterator[Operation]:
    for migration, _backwards in plan:
        yield from migration.operations


def _telling(kind: type[BaseDatabaseSchemaEditor], recorder: Recorder) -> type[BaseDatabaseSchemaEditor]:
    class Telling(kind):  # type: ignore[valid-type, misc]
        def execute(self, sql: object, params: Sequence[object] | None = ()) -> None:
            # As PostgreSQL's own does with the parameters.
            statement = str(sql) if params is None else self.connection.ops.compose_sql(str(sql), params)
            with recorder.telling(sql, statement):
                super().execute(statement, None)

        def hold_back(self, queued: Queued) -> None:
            with recorder.telling(queued=queued):
                add(self.connection, queued)

        def strike_out(self, queued: Queued) -> None:
            with recorder.telling(queued=queued):
                strike_out(self.connection, queued)

        def effective_default(self, field: "Field[Any, Any]") -> Any:  # noqa: ANN401 - a value of the field's
            if not is_steady(field):
                recorder.doubt()
            return super().effective_default(field)

    return Telling


def _expecting(kind: type[BaseDatabaseSchemaEditor], recorder: Recorder) -> type[BaseDatabaseSchemaEditor]:
    """Doubt what going back makes again of others' fields, indexes and constraints: no operation has it."""

    def expect_djangos(*parts: object) -> None:
        if not all(map(is_djangos, parts)):
            recorder.doubt()

    class Expecting(kind):  # type: ignore[valid-type, misc]
        def alter_field(self, model: type[Model], old_field: object, new_field: object, *strict: bool) -> None:
            expect_djangos(old_field, new_field)
            super().alter_field(model, old_field, new_field, *strict)

        def add_constraint(self, model: type[Model], constraint: object) -> None:
            expect_djangos(constraint)
            super().add_constraint(model, constraint)

        def add_index(self, model: type[Model], index: object, **how: bool) -> None:
            expect_djangos(index)
            super().add_index(model, index, **how)

    return Expecting
