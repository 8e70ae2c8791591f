"""Tables of which nobody says whether they hold rows: those that were there before are taken to hold some."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.state import ProjectState

from smooth_migrations.losses import Tables

if TYPE_CHECKING:
    from django.db.models import Field

    _Field = Field[Any, Any]

__all__ = ["PresumedTables"]


class PresumedTables(Tables):
    """The tables of a project, without its database.

    Args:
        connection: the database's. Nothing is asked of it but what it can do.
        state: the project's.
        existing: the models that have tables there.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, state: ProjectState, existing: Iterable[tuple[str, str]]
    ) -> None:
        super().__init__(connection, state)
        self._before = {self._names[key] for key in existing}

    def have_rows(self, key: tuple[str, str], condition: str = "TRUE") -> bool:
        """Return whether a model's table was there before."""
        del condition
        return self._names.get(key) in self._before

    def lose(self, key: tuple[str, str], name: str, old: "_Field", new: "_Field", state: ProjectState) -> bool:
        """Return whether values might not come back; they might not where that is for the server to say."""
        try:
            return super().lose(key, name, old, new, state)
        except Error:
            return self.have_rows(key)
