"""Second columns that are made, filled and indexed before the transaction that finds them ready."""

from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AddField
from django.db.migrations.state import ProjectState
from django.db.models import F, TextField

from smooth_migrations.backfill import Backfill
from smooth_migrations.backfill.filling import Filling
from smooth_migrations.groundwork import Ground
from smooth_migrations.operations.base import ModelKey
from smooth_migrations.operations.shadow import Shadow
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.session import limited_transaction
from smooth_migrations.undo.ground import GroundPlace, ground_found
from smooth_migrations.undo.indexes import Limited
from smooth_migrations.undo.transaction import Limits

__all__ = ["ShadowGround"]


@dataclass(frozen=True, slots=True, eq=False)
class ShadowGround:
    """One of them.

    Args:
        shadow: what it is.
        table: whose, quoted.
        key: of the model.
        field: the name of the column whose values it has, to the model.
        state: that of the tables, before anything that runs.
    """

    shadow: Shadow
    table: str
    key: ModelKey
    field: str
    state: ProjectState

    @property
    def place(self) -> GroundPlace:
        """Where it is."""
        return self.table, self.shadow.name

    def lay(self, connection: BaseDatabaseWrapper, limits: Limits, limited: Limited) -> None:
        """Make it. Safe to repeat, also after a crash.

        Takes ACCESS EXCLUSIVE on the table, for a change of the catalogue, and SHARE UPDATE EXCLUSIVE while it reads
        all of it; rows are filled batch by batch, and each index waits for transactions that use the table.

        Args:
            connection: the database's, in autocommit.
            limits: time-outs of each statement in a transaction.
            limited: ends what else waits for too long.

        Raises:
            DatabaseError: others did not let go of a lock.
        """
        if not ground_found(connection, [self.place]):
            with passing("lay"), limited_transaction(connection, limits), connection.cursor() as cursor:
                for statement in self.shadow.making(connection):
                    cursor.execute(statement)
        self._filling(connection).run()
        for name, build in self.shadow.indexing(connection):
            Ground(self.table, name, (build,), (), is_index=True, is_optional=True).lay(connection, limits, limited)
        for name, making in self.shadow.constraining(connection):
            Ground(self.table, name, making, (), is_optional=True).lay(connection, limits, limited)
        Ground(self.table, self.shadow.check, self.shadow.checking(connection), ()).lay(connection, limits, limited)
        with passing("lay"), limited_transaction(connection, limits), connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {self.table} ({self.shadow.name})")

    def _filling(self, connection: BaseDatabaseWrapper) -> Filling:
        after = self.state.clone()
        # Of what type it is matters to nothing that fills it.
        AddField(self.key[1], self.shadow.name, TextField(null=True)).state_forwards(self.key[0], after)
        model = after.apps.get_model(*self.key)
        return Filling(Backfill(".".join(self.key), {self.shadow.name: F(self.field)}), model, connection)
