"""Managers of a deprecated model: they are what they were, and give out no rows."""

from copy import copy
from typing import TYPE_CHECKING, Any

from smooth_migrations.helpers.subclassing import add_mixin
from smooth_migrations.helpers.use import Subject

if TYPE_CHECKING:
    from django.db.models import Manager, Model, QuerySet

    _Base = Manager[Any]
else:
    _Base = object

__all__ = ["guard_managers"]


class DeprecatedManager(_Base):
    """What `deprecated_model` puts before a manager's class."""

    def get_queryset(self) -> "QuerySet[Any]":
        """Return the rows, to whoever may still see them.

        Raises:
            ModelDeprecatedException: the model is refused.
        """
        # By the model, because Django makes managers of related rows from this class.
        subject: Subject = self.model.smooth_deprecated
        subject.is_used("was asked for rows")
        return super().get_queryset()


def guard_managers(model: "type[Model]", subject: Subject) -> None:
    """Give a model guarded copies of its managers, also of inherited ones; its base manager, Django's own, stays."""
    model.smooth_deprecated = subject  # type: ignore[attr-defined]  # of ours
    options = model._meta  # noqa: SLF001 - Django's public name for it
    managers = [*options.managers]
    options.local_managers.clear()
    for manager in managers:
        guarded = add_mixin(copy(manager), DeprecatedManager)
        # Which is the default one goes by this, and theirs would be mixed: some were inherited.
        guarded._set_creation_counter()  # type: ignore[attr-defined]  # noqa: SLF001 - as Django's does
        model.add_to_class(manager.name, guarded)
