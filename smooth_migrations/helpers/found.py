"""Which helpers stand in a project's models."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smooth_migrations.helpers.deprecated import DeprecatedField
from smooth_migrations.helpers.filled import NewField

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.models import Field, Model

__all__ = ["Found", "fields_of", "is_backward_compatible", "is_deprecated"]


@dataclass(frozen=True, slots=True)
class Found:
    """Models and fields under a helper, by name and sorted.

    Args:
        new_fields: as `app.Model.field`.
        backward_compatible_models: as `app.Model`.
        deprecated_fields: as `app.Model.field`.
        deprecated_models: as `app.Model`.
    """

    new_fields: list[str]
    backward_compatible_models: list[str]
    deprecated_fields: list[str]
    deprecated_models: list[str]

    @classmethod
    def among(cls, models: "Iterable[type[Model]]") -> "Found":
        """Look through these models."""
        models = [*models]
        fields = [field for model in models for field in fields_of(model)]
        return cls(
            sorted(str(field) for field in fields if isinstance(field, NewField)),
            sorted(model._meta.label for model in models if is_backward_compatible(model)),  # noqa: SLF001 - public name
            sorted(str(field) for field in fields if isinstance(field, DeprecatedField)),
            sorted(model._meta.label for model in models if is_deprecated(model)),  # noqa: SLF001 - public name
        )


def fields_of(model: "type[Model]") -> "Iterator[Field[Any, Any]]":
    """Return the fields that a model has itself."""
    options = model._meta  # noqa: SLF001 - Django's public name for it
    yield from options.local_fields
    yield from options.local_many_to_many
    yield from (field for field in options.private_fields if field.model is model)


def is_backward_compatible(model: "type[Model]") -> bool:
    """Tell whether a model, or an abstract one that its new fields are from, is under `backward_compatible_model`."""
    name = "smooth_is_backward_compatible"
    return name in vars(model) or (hasattr(model, name) and any(isinstance(f, NewField) for f in fields_of(model)))


def is_deprecated(model: "type[Model]") -> bool:
    """Tell whether a model itself is under `deprecated_model`."""
    return "smooth_deprecated" in vars(model)
