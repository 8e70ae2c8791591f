"""What using something deprecated, or leaving something new empty, raises."""

from smooth_migrations.errors import SmoothMigrationsError

__all__ = [
    "FieldDeprecatedException",
    "ModelDeprecatedException",
    "NotNullableFieldException",
    "SmoothMigrationsDeprecated",
]


class _Misuse(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """Something of a model was used as the next release will not allow.

    Args:
        message: in the user's words, with the place.
        model: `app.Model`.
        field: its field's name, where it is about one.
        place: file and line of the code that did it; None where nobody can tell.
        hint: what to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        field: str | None = None,
        place: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.model = model
        self.field = field
        self.place = place


class SmoothMigrationsDeprecated(_Misuse):
    """Something deprecated was used; it goes with the next release."""


class FieldDeprecatedException(SmoothMigrationsDeprecated):
    """A field under `deprecated_field` was read, written, or named in a query."""


class ModelDeprecatedException(SmoothMigrationsDeprecated):
    """A model under `deprecated_model` was asked for rows, or an instance of it was saved."""


class NotNullableFieldException(_Misuse):
    """A row was about to be written without a value for a field under `new_field`."""
