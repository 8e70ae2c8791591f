"""The migration operation that fills columns batch by batch."""

from collections.abc import Mapping
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import Q

from smooth_migrations.backfill.arguments import check, model_of

__all__ = ["Backfill"]


class Backfill(Operation):
    """Fill columns of a large table in short transactions, one after the other along its primary key.

    In a migration with `atomic = False`. Each batch commits by itself, together with how far it has come, so that after
    a kill the next call goes on from there. In an atomic migration, or in somebody else's transaction, everything is
    filled in that one, by one statement and without a pause. Its reverse does nothing: what is filled stays filled. So
    does what a failed call has filled: running it again does what is left.

    Takes row locks on one batch at a time, and on PostgreSQL SHARE UPDATE EXCLUSIVE for an ANALYZE at the beginning.
    Safe to repeat, also after a crash; with a `where` of your own, as far as that no longer holds for filled rows.

    Args:
        model: its name, or `app.Model` for one of another app.
        values: an expression, or a value, for each field, as `QuerySet.update` takes them.
        where: which rows are filled. Without it those in which one of the fields is NULL, and no value that is there
            is written over.
        batch_size: rows of the first batch. What follows is measured.
        max_batch_size: the most rows of a batch.
        batch_ms: how long a batch is to take, in milliseconds.
        rows_per_second: fills no more than that.
        max_replication_lag_s: pauses while a standby of PostgreSQL is further behind; refused on MySQL and MariaDB.
        max_load: (query, limit): pauses while the number that the query returns is above the limit.
        elidable: whether squashing may leave it out.

    Raises:
        BadBackfill: an argument is wrong; of a model or field that is not there, when it is run.
    """

    reduces_to_sql = False
    reversible = True

    def __init__(  # noqa: PLR0913 - each is named where it is used
        self,
        model: str,
        values: Mapping[str, Any],
        *,
        where: Q | None = None,
        batch_size: int = 1000,
        max_batch_size: int = 50_000,
        batch_ms: float = 100.0,
        rows_per_second: float | None = None,
        max_replication_lag_s: float | None = None,
        max_load: tuple[str, float] | None = None,
        elidable: bool = False,
    ) -> None:
        self.model = model
        self.values = dict(values)
        self.where = where
        self.batch_size = batch_size
        self.max_batch_size = max_batch_size
        self.batch_ms = batch_ms
        self.rows_per_second = rows_per_second
        self.max_replication_lag_s = max_replication_lag_s
        self.max_load = max_load
        self.elidable = elidable  # type: ignore[misc]  # as Django's RunPython does
        check(self)

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Fill what is to be filled."""
        from smooth_migrations.backfill.filling import Filling  # noqa: PLC0415 - a file of migrations is read often

        del to_state
        from_state.clear_delayed_apps_cache()
        model = model_of(self, app_label, from_state.apps)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            Filling(self, model, schema_editor.connection).run()

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Leave what is filled as it is."""

    def describe(self) -> str:
        """Return what it does, in words."""
        return f"Fill {', '.join(self.values)} of {self.model} in batches"

    @property
    def migration_name_fragment(self) -> str:
        """What `makemigrations` would call a migration of it."""
        return "_".join(["fill", self.model.rpartition(".")[2], *self.values]).lower()
