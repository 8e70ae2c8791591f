"""The contract halves of one database: what is in their way, and their end."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.contract_queue import VERSION, Queued, read_queue, remove
from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.files import digest_of
from smooth_migrations.groundwork import Ground, groundwork, standing_on
from smooth_migrations.halves import Placed
from smooth_migrations.locks.foreseen import locks_between
from smooth_migrations.locks.modes import Locks, together
from smooth_migrations.locks.taking import take_together
from smooth_migrations.operations import CannotSplit, Obstacle
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

    def refuse(self) -> None:
        """Make sure that every contract half can be done. Only reads.

        Raises:
            CannotFinalise: with everything that is in the way.
        """
        reasons = [str(reason) for reason in self._reasons()]
        if reasons:
            raise CannotFinalise("; ".join(reasons), hint="nothing was changed; mend the rows and finalise again")

    def _reasons(self) -> Iterator[str]:
        later = [item for item in self.queue if item.version != VERSION]
        if later:
            raise CannotFinalise(
                f"{later[0]} was held back by a later version of this program",
                hint="finalise with that version, or a newer one",
            )
        for item, placed, schema, project in self._steps():
            self._refuse_other_file(item, placed)
            if placed.split is not None:
                for obstacle in placed.split.validate(self.connection, schema, project):
                    yield self._described(item, obstacle)

    @staticmethod
    def _described(item: Queued, obstacle: Obstacle) -> str:
        return f"{item.app}.{item.name}: {obstacle}"

    @staticmethod
    def _refuse_other_file(item: Queued, placed: Placed) -> None:
        if item.digest and digest_of(placed.migration) not in {"", item.digest}:
            raise CannotFinalise(
                f"the file of {item.app}.{item.name} has been changed since its expand half ran",
                hint="finalise with the release that deployed it",
            )

    def run(self, tell: Callable[[Queued], None]) -> None:
        """Do every contract half, inside the transaction that is open, and forget them.

        Takes ACCESS EXCLUSIVE on each table that it changes, for changes of the catalogue alone where groundwork was
        laid. Repeating it does nothing.

        Args:
            tell: told of each when it is done.

        Raises:
            CannotFinalise: something is in the way.
        """
        self.refuse()
        connection = self.connection
        grounds = self.groundwork()
        take_together(connection, together(self._locks()))
        with standing_on(connection, grounds):
            self._contract(tell)

    def _contract(self, tell: Callable[[Queued], None]) -> None:
        connection = self.connection
        for item, placed, schema, project in self._steps():
            halves = placed.split.contract(schema, project) if placed.split is not None else ()
            with passing("contract"), connection.schema_editor(atomic=False) as editor:
                for operation, before, after in _between(halves, item.app, schema):
                    operation.database_forwards(item.app, editor, before, after)
                for statement in editor.deferred_sql:
                    editor.execute(statement)
                editor.deferred_sql.clear()
            remove(connection, [item])
            tell(item)

    def groundwork(self) -> dict[str, Ground]:
        """Return what can be made ready before, by the statements that find it so. Only reads.

        Raises:
            CannotFinalise: a file is missing, or was changed.
        """
        return groundwork(self.connection, self._operations())

    def _locks(self) -> Iterator[Locks]:
        for app_label, operation, before, after in self._operations():
            yield locks_between(operation, app_label, before, after, self.connection)

    def _operations(self) -> Iterator[tuple[str, Operation, ProjectState, ProjectState]]:
        """Yield the operations of all contract halves, each with its app and the states before and after it."""
        for item, placed, schema, project in self._steps():
            halves = placed.split.contract(schema, project) if placed.split is not None else ()
            for operation, before, after in _between(halves, item.app, schema):
                yield item.app, operation, before, after

    def _steps(self) -> Iterator[tuple[Queued, Placed, ProjectState, ProjectState]]:
        """Yield each contract half with its operation, the tables' state before it and the project's."""
        if not self.queue:
            return
        executor = MigrationExecutor(self.connection)
        nodes = executor.loader.graph.nodes
        applied = executor.loader.applied_migrations
        missing = [item for item in self.queue if (item.app, item.name) not in nodes.keys() & applied.keys()]
        if missing:
            raise CannotFinalise(
                f"{missing[0].app}.{missing[0].name}, half of which is held back, is not applied, or has no file",
                hint="finalise with the release that deployed it",
            )
        wanted = {nodes[item.app, item.name] for item in self.queue}
        try:
            walk, placed = Walk.to_now(self.connection, executor, read_queue(self.connection), wanted)
        except CannotSplit as error:
            raise CannotFinalise(error.message, hint=error.hint) from error
        # The one way to this state that Django's own migrate takes.
        project = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
        by_key = {item.key: item for item in placed}
        schema = walk.schema
        for item in self.queue:
            found = by_key[item.key]
            yield item, found, schema, project
            halves = found.split.contract(schema, project) if found.split is not None else ()
            schema = [schema, *(after for _, _, after in _between(halves, item.app, schema))][-1]


def _between(
    operations: Sequence[Operation], app_label: str, state: ProjectState
) -> Iterator[tuple[Operation, ProjectState, ProjectState]]:
    """Yield each operation with the states of the tables before and after it."""
    for operation in operations:
        after = state.clone()
        operation.state_forwards(app_label, after)
        yield operation, state, after
        state = after
