"""Models of which two releases see a different half: `backward_compatible_model` and `deprecated_model`.

There are none in here: this is the module of that name which Django loads for each application.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

from django.db.models import Model

from smooth_migrations.helpers.filled import NewField
from smooth_migrations.helpers.managers import guard_managers
from smooth_migrations.helpers.use import OnUse, Subject

__all__ = ["backward_compatible_model", "deprecate_model", "deprecated_model"]

M = TypeVar("M", bound=type[Model])


def backward_compatible_model(model: M) -> M:
    """Have this release fill the fields under `new_field`, which the database takes empty.

    Every way of writing such a field (`save`, `bulk_create`, `bulk_update`, `update` and those that use them, also the
    asynchronous ones) raises `NotNullableFieldException` where it has no value. A row of the old release may stay
    without one while other fields are saved by `update_fields`. Values that the database computes are not looked at.

    Args:
        model: a class; an abstract one passes it on.

    Returns:
        the same class.
    """
    model.smooth_is_backward_compatible = True  # type: ignore[attr-defined]  # of ours
    for field in model._meta.local_fields:  # noqa: SLF001 - Django's public name for it
        if isinstance(field, NewField):
            field.smooth_is_checked = not field.smooth_was_nullable
    return model


@overload
def deprecated_model(model: M) -> M: ...
@overload
def deprecated_model(*, on_use: Literal["raise", "warn"] = "raise") -> Callable[[M], M]: ...
def deprecated_model(model: M | None = None, *, on_use: Literal["raise", "warn"] = "raise") -> M | Callable[[M], M]:
    """Keep a model's table for the release still running, and have this release do without it.

    Its managers and the `save()` of its instances raise. Deletes of what its rows refer to still take these rows along,
    or whatever else their `on_delete` says. In the release after this one take the class away, and `makemigrations`
    drops the table.

    Args:
        model: a class.
        on_use: "warn" gives a `DeprecationWarning` instead of an error, and leaves the model working.

    Returns:
        the same class.

    Raises:
        ValueError: it is abstract and so has no table, or `on_use` is something else.
    """
    chosen = OnUse(on_use)

    def deprecate(model: M) -> M:
        if model._meta.abstract:  # noqa: SLF001 - Django's public name for it
            raise ValueError(f"{model.__name__} is abstract: deprecate the models that have its fields")
        subject = Subject(chosen, model._meta.label)  # noqa: SLF001 - Django's public name for it
        guard_managers(model, subject)
        save = model.save

        @functools.wraps(save)
        def guarded(self: Model, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - save's
            subject.is_used("was saved")
            save(self, *args, **kwargs)

        model.save = guarded  # type: ignore[method-assign]  # of this class alone
        return model

    return deprecate if model is None else deprecate(model)


deprecate_model = deprecated_model
