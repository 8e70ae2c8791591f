"""The contract halves of one database: what is in their way, and their end."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.conflicts import refuse_unrecorded
from smooth_migrations.contract_groundwork import contract_groundwork
from smooth_migrations.contract_queue import Queued, read_queue, remove
from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.files import digest_of
from smooth_migrations.groundwork import Groundwork, standing_on
from smooth_migrations.halves import Placed
from smooth_migrations.locks.foreseen import locks_between
from smooth_migrations.locks.modes import Locks, together
from smooth_migrations.locks.taking import take_together
from smooth_migrations.operations import CannotSplit, Split
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.splitting import Walk

__all__ = ["CannotFinalise", "Pending"]


class CannotFinalise(SmoothMigrationsError):  # noqa: N818 - named by what is so
    """Something is in the way of a contract half; nothing was changed."""


@dataclass(slots=True)
class Pending:
    """What a database waits for.

    Args:
        connection: the database's.
        queue: what is held back there, in order.
    """

    connection: BaseDatabaseWrapper
    queue: tuple[Queued, ...]

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper, runs: Collection[str] | None = None) -> "Pending":
        """Return what is held back now, by these runs or by any. Only reads."""
        queue = read_queue(connection)
        return cls(connection, tuple(item for item in queue if runs is None or item.run_id in runs))

    def groundwork(self) -> Groundwork:
        """Make sure that every contract half can be done, and return what can be made ready for them. Only reads.

        Raises:
            CannotFinalise: with everything that is in the way.
        """
        steps = self._steps()
        self._refuse(self.connection, steps)
        return contract_groundwork(self.connection, _operations(steps))

    @staticmethod
    def _refuse(connection: BaseDatabaseWrapper, steps: Sequence["_Step"]) -> None:
        obstacles = [
            f"{step.item.app}.{step.item.name}: {obstacle}"
            for step in steps
            if step.split is not None
            for obstacle in step.split.validate(connection, step.schema, step.project)
        ]
        if obstacles:
            raise CannotFinalise("; ".join(obstacles), hint="nothing was changed; mend the rows and finalise again")

    @staticmethod
    def _as_deployed(item: Queued, placed: Placed | None) -> Placed:
        if placed is None or (item.digest and digest_of(placed.migration) not in {"", item.digest}):
            raise CannotFinalise(
                f"the file of {item.app}.{item.name} has been changed since its expand half ran",
                hint="its text, comments too, must be as it was: finalise with the release that deployed it",
            )
        return placed

    def run(self, tell: Callable[[Queued], None]) -> float:
        """Do every contract half, inside the transaction that is open, and forget them.

        Takes ACCESS EXCLUSIVE on each table that it changes, for changes of the catalogue alone where groundwork was
        laid. Repeating it does nothing.

        Args:
            tell: told of each when it is done.

        Returns:
            Since when there may be locks, on the monotonic clock.

        Raises:
            CannotFinalise: something is in the way.
        """
        connection = self.connection
        # All that takes long, and longer the larger the project is, comes before the first lock.
        steps = self._steps()
        self._refuse(connection, steps)
        groundwork = contract_groundwork(connection, _operations(steps), is_laid=True)
        began_s = time.monotonic()
        take_together(connection, together(step.locks(connection) for step in steps))
        with standing_on(connection, groundwork):
            for step in steps:
                step.run(connection)
                remove(connection, [step.item])
                tell(step.item)
        return began_s

    def _steps(self) -> list["_Step"]:
        """Return each contract half with the states of the tables around it. Only reads.

        Raises:
            CannotFinalise: what was held back is not what the files say, or cannot be told.
        """
        if not self.queue:
            return []
        executor = MigrationExecutor(self.connection)
        nodes = executor.loader.graph.nodes
        try:
            refuse_unrecorded(self.connection, self.queue)
            for item in self.queue:
                if (item.app, item.name) not in nodes:
                    raise CannotFinalise(
                        f"{item.app}.{item.name}, half of which is held back, has no file",
                        hint="finalise with the release that deployed it",
                    )
            wanted = {nodes[item.app, item.name] for item in self.queue}
            walk, placed = Walk.to_now(self.connection, executor, read_queue(self.connection), wanted)
        except CannotSplit as error:
            raise CannotFinalise(error.message, hint=error.hint) from error
        # The one way to this state that Django's own migrate takes.
        project = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
        by_key = {item.key: item for item in placed}
        schema, steps = walk.schema, list[_Step]()
        for item in self.queue:
            found = self._as_deployed(item, by_key.get(item.key))
            halves = found.split.contract(schema, project) if found.split is not None else ()
            steps.append(_Step(item, found.split, schema, project, tuple(_between(halves, item.app, schema))))
            schema = [schema, *(after for _, _, after in steps[-1].halves)][-1]
        return steps


@dataclass(frozen=True, slots=True)
class _Step:
    """One contract half.

    Args:
        item: what is held back.
        split: the operation that it is half of; None where that is one no more.
        schema: the state of the tables before it.
        project: what they are to be.
        halves: what is to be done, each with the states of the tables before and after it.
    """

    item: Queued
    split: Split | None
    schema: ProjectState
    project: ProjectState
    halves: tuple[tuple[Operation, ProjectState, ProjectState], ...]

    def run(self, connection: BaseDatabaseWrapper) -> None:
        """Do it, inside the transaction that is open."""
        with passing("contract"), connection.schema_editor(atomic=False) as editor:
            for operation, before, after in self.halves:
                operation.database_forwards(self.item.app, editor, before, after)
            for statement in editor.deferred_sql:
                editor.execute(statement)
            editor.deferred_sql.clear()

    def locks(self, connection: BaseDatabaseWrapper) -> Locks:
        """Return the strong locks that it takes. Pure."""
        label = self.item.app
        return together(locks_between(half, label, before, after, connection) for half, before, after in self.halves)


def _operations(steps: Iterable[_Step]) -> Iterator[tuple[str, Operation, ProjectState, ProjectState]]:
    """Yield all operations, each with its app and the states of the tables before and after it."""
    for step in steps:
        for operation, before, after in step.halves:
            yield step.item.app, operation, before, after


def _between(
    operations: Sequence[Operation], app_label: str, state: ProjectState
) -> Iterator[tuple[Operation, ProjectState, ProjectState]]:
    """Yield each operation with the states of the tables before and after it."""
    for operation in operations:
        # A state whose models are there already hands them on; else each one would make all of them.
        state.apps  # noqa: B018
        after = state.clone()
        operation.state_forwards(app_label, after)
        yield operation, state, after
        state = after
