"""CreateModel: the release still running deletes rows that those of the new table refer to, and does not know them."""

from collections.abc import Sequence
from typing import ClassVar, Self

from django.db.migrations.operations import CreateModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.base import Explanation, Place, Split
from smooth_migrations.operations.followed import FollowDeletes, Followed, StopFollowing, followed

__all__ = ["SplitCreateModel"]


class SplitCreateModel(Split):
    """The table comes with triggers that follow the deletes of the release before; later these are dropped."""

    kind: ClassVar[str] = "create_model"

    def __init__(self, operation: CreateModel, keys: Sequence[Followed]) -> None:
        self._operation = operation
        self.keys = keys
        tables = sorted({key.parent for key in keys})
        self._what = f"stop following deletes from {', '.join(tables)} in {keys[0].table}"

    @classmethod
    def of(cls, operation: CreateModel, place: Place) -> Self | None:
        """Return the halves, on PostgreSQL, of a table with foreign keys that are followed."""
        if place.connection.vendor != "postgresql":
            return None
        after = place.schema.clone()
        operation.state_forwards(place.app_label, after)
        model = after.apps.get_model(place.app_label, operation.name)
        if not operation.allow_migrate_model(place.connection.alias, model):
            return None
        keys = followed(model, dict(operation.fields))
        return cls(operation, keys) if keys else None

    @property
    def may_be_whole(self) -> bool:
        """Whether it is split for the sake of deletes alone: it always is."""
        return True

    def expand(self) -> Sequence[Operation]:
        """Make the table, and follow deletes in it."""
        return (self._operation, FollowDeletes(self.keys))

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Follow them no more."""
        del schema, project
        return (StopFollowing(self.keys),)

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        tables = sorted({key.parent for key in self.keys})
        return Explanation(
            locks=tuple(f"SHARE ROW EXCLUSIVE on {table}, for a change of the catalogue" for table in tables),
            rewrites=False,
            old_release="what refers to rows that it deletes goes with them",
            new_release="it uses the table, and deletes what refers to its rows by itself",
        )
