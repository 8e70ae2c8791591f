"""Operations that run on each database, between models that the worker has made once.

What code does depends on the database, so it is not recorded. What takes the time is to make the models that it is
given: Django makes all of a project's anew before each RunPython that follows on a change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.contrib.postgres.operations import CreateExtension
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import RunPython, RunSQL
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.replay.receivers import without_receivers_of
from smooth_migrations.replay.rendered import Rendered

__all__ = ["Real", "without_models"]

# They are given states, and look at no model of them.
_BLIND: Final = (RunSQL, CreateExtension)


@dataclass(frozen=True, slots=True)
class Real:
    """An operation that runs for real, and the project's states around it.

    The models of each state have a registry of their own: Django's are shared by the states of a plan, and know only
    the last one's relations.

    Args:
        operation: which.
        before: the state before it.
        after: the state after it; that before where nobody looks at it.
        models: of these states; none where the operation looks at none.
    """

    operation: Operation
    before: ProjectState
    after: ProjectState
    models: tuple[Rendered, ...]

    @classmethod
    def of(
        cls, operation: Operation, before: ProjectState, after: ProjectState, *, follows: "Real | None" = None
    ) -> "Real":
        """Return an operation to be run, with states that nothing changes any more.

        Args:
            operation: which.
            before: the state before it, as Django gives it.
            after: the state after it.
            follows: the operation right before it, if that is run for real too.
        """
        if type(operation) in _BLIND:
            state = without_models(before)
            return cls(operation, state, state, ())
        if follows is not None and follows.models:
            first, models = follows.after, follows.models[-1]
        else:
            first = without_models(before)
            models = Rendered(first.apps)
        kind = type(operation)
        if (kind.state_forwards, kind.database_forwards) == (RunPython.state_forwards, RunPython.database_forwards):
            return cls(operation, first, first, (models,))
        last = without_models(after)
        return cls(operation, first, last, (models, Rendered(last.apps)))

    def run(self, move: Callable[..., None], app_label: str, editor: BaseDatabaseSchemaEditor) -> None:
        """Run it; its models are as if they had just been made.

        Args:
            move: the operation's `database_forwards`.
            app_label: of its migration.
            editor: of the database.
        """
        for models in self.models:
            models.as_new()
        with without_receivers_of(self.models):
            move(app_label, editor, self.before, self.after)


def without_models(state: ProjectState) -> ProjectState:
    """Return a copy of a state of which no model is made yet."""
    return ProjectState({key: model.clone() for key, model in state.models.items()}, real_apps=state.real_apps)
