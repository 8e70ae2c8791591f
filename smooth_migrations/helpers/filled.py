"""A field that the previous release does not know: its column is nullable, and this release fills it."""

from copy import copy
from typing import TYPE_CHECKING, Any

from smooth_migrations.exceptions import NotNullableFieldException
from smooth_migrations.helpers.callers import LOADING, caller, is_on_behalf_of, place_of

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field

    _Base = Field[Any, Any]
else:
    _Base = object

__all__ = ["NewField"]


class NewField(_Base):
    """What `new_field` puts before a field's class."""

    smooth_plain: "type[Field[Any, Any]]"
    smooth_is_checked = False
    """Whether an empty one is refused: in a model under `backward_compatible_model`."""
    smooth_was_nullable = False
    """Whether it was declared with `null=True`, so that there is nothing to come."""

    def smooth_begin(self) -> None:
        """Become nullable."""
        self.smooth_was_nullable = self.null
        self.null = True

    def clone(self) -> Any:  # noqa: ANN401 - of the plain class
        """Return a plain field, nullable."""
        _, _, args, kwargs = self.deconstruct()
        return self.smooth_plain(*args, **kwargs)

    def formfield(self, **kwargs: Any) -> Any:  # noqa: ANN401 - Django's
        """Return the form's field of a column that is not nullable: text that is left empty is empty text."""
        plain = copy(self)
        plain.null = self.smooth_was_nullable
        return super(NewField, plain).formfield(**kwargs)

    def get_db_prep_save(self, value: Any, connection: "BaseDatabaseWrapper") -> Any:  # noqa: ANN401 - Django's
        """Return the value for an INSERT or UPDATE, which each way of writing it comes to.

        Raises:
            NotNullableFieldException: there is none. Rows that are loaded from a fixture may be the old release's.
        """
        prepared = super().get_db_prep_save(value, connection)
        if prepared is None and self.smooth_is_checked and not is_on_behalf_of(LOADING):
            model, place = self.model._meta.label, place_of(caller())  # noqa: SLF001 - Django's public name
            raise NotNullableFieldException(
                f"{model}.{self.name} must have a value ({place or 'the place is unknown'})",
                model=model,
                field=self.name,
                place=place,
                hint="give it one; rows of the old release may do without until something else than other fields is "
                "saved of them",
            )
        return prepared
