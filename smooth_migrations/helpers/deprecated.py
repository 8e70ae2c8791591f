"""A field that the next release will not have: its column stays, and this release leaves it alone."""

from collections.abc import Mapping, Sequence
from copy import copy
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Final

from django.db import models

from smooth_migrations.helpers.access import Guarded
from smooth_migrations.helpers.callers import RAW, RELATED, is_on_behalf_of
from smooth_migrations.helpers.options import guard_when_prepared
from smooth_migrations.helpers.use import OnUse, Subject

if TYPE_CHECKING:
    _Base = models.Field[Any, Any]
else:
    _Base = object

__all__ = ["DeprecatedField"]

# Forms, serializers and validation are to pass it by.
_PASSED_BY: Final = {
    "blank": True,
    "editable": False,
    "serialize": False,
    "unique_for_date": None,
    "unique_for_month": None,
    "unique_for_year": None,
}


class DeprecatedField(_Base):
    """What `deprecated_field` puts before a field's class."""

    smooth_plain: "type[models.Field[Any, Any]]"
    smooth_on_use: OnUse
    smooth_declared: Mapping[str, object]
    smooth_on_delete: object
    smooth_column: str | None

    def smooth_begin(self, on_use: OnUse) -> None:
        """Become deprecated: nullable where nothing else lets a row be inserted without it.

        Args:
            on_use: with WARN all but the column's being nullable stays as it is.
        """
        self.smooth_on_use = on_use
        if not (self.many_to_many or self.generated or self.has_db_default()):
            self.null = True
        self.smooth_declared, self.smooth_on_delete = {}, None
        if on_use is OnUse.WARN:
            return
        self.smooth_declared = {name: getattr(self, name) for name in _PASSED_BY}
        vars(self).update(_PASSED_BY)
        on_delete = getattr(self.remote_field, "on_delete", None)
        # What the database does at a delete it goes on doing; what Django does, it now does to the reference alone.
        if self.null and isfunction(on_delete) and on_delete is not models.DO_NOTHING:
            self.smooth_on_delete = on_delete
            vars(self.remote_field)["on_delete"] = models.SET_NULL

    @property
    def smooth_subject(self) -> Subject:
        """What a use is told of."""
        return Subject(self.smooth_on_use, self.model._meta.label, self.name)  # noqa: SLF001 - Django's public name

    @property
    def _is_refused(self) -> bool:
        return self.smooth_on_use is OnUse.RAISE

    # --- what migrations see: the field as it was declared, and nullable -----------------------------------------

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        """Return what the plain field would."""
        plain = copy(self)
        plain.__class__ = self.smooth_plain  # type: ignore[assignment]  # made from it
        vars(plain).update(self.smooth_declared)
        if self.smooth_on_delete is not None:
            plain.remote_field = copy(self.remote_field)
            vars(plain.remote_field)["on_delete"] = self.smooth_on_delete
        return self.smooth_plain.deconstruct(plain)

    def clone(self) -> Any:  # noqa: ANN401 - of the plain class
        """Return a plain field."""
        _, _, args, kwargs = self.deconstruct()
        return self.smooth_plain(*args, **kwargs)

    # --- what this release sees: nothing that is to be selected, saved or returned -------------------------------

    @property
    def column(self) -> Any:  # noqa: ANN401 - Django's
        """The column; None to `raw()`, which would take what a statement returns of it for another field's value."""
        return None if self._is_refused and is_on_behalf_of(RAW) else self.smooth_column

    @column.setter
    def column(self, column: str | None) -> None:
        self.smooth_column = column

    @property
    def db_returning(self) -> bool:
        """Whether an INSERT is to return it."""
        return super().db_returning and not self._is_refused

    def get_default(self) -> Any:  # noqa: ANN401 - of any field
        """Have a new instance do without it, rather than be written to."""
        return models.DEFERRED if self._is_refused else super().get_default()

    def contribute_to_class(self, cls: type[models.Model], name: str, **kwargs: Any) -> None:  # type: ignore[override]  # noqa: ANN401 - a ManyToManyField has no `private_only`
        """Stand before the attributes that the plain field makes on its model."""
        guard_when_prepared()
        super().contribute_to_class(cls, name, **kwargs)
        if self._is_refused and hasattr(self, "from_fields"):
            # Which is what "self" stands for there. Django 6.1 reads it of whatever relation is not selected.
            self.from_fields = [self.attname]
        for attribute in {self.name, self.attname}:
            self._guard(cls, attribute)

    # --- relations -----------------------------------------------------------------------------------------------

    def contribute_to_related_class(self, cls: type[models.Model], related: Any) -> None:  # noqa: ANN401 - Django's
        """Stand before the attribute that the plain field makes on the model it refers to."""
        super().contribute_to_related_class(cls, related)  # type: ignore[misc]  # of relations alone
        accessor = related.get_accessor_name()
        if accessor:
            self._guard(cls._meta.concrete_model or cls, accessor)

    @property
    def reverse_path_infos(self) -> Any:  # noqa: ANN401 - Django's
        """Be named in a query by the other side."""
        self._is_named()
        return super().reverse_path_infos  # type: ignore[misc]  # of relations alone

    def get_reverse_path_info(self, filtered_relation: Any = None) -> Any:  # noqa: ANN401 - Django's
        """Be named in a query by the other side."""
        self._is_named()
        return super().get_reverse_path_info(filtered_relation)  # type: ignore[misc]  # of relations alone

    def _is_named(self) -> None:
        # To have come to a manager of related rows was the use; how that finds them is its own affair.
        if not is_on_behalf_of(RELATED):
            self.smooth_subject.is_used("was named in a query")

    def _guard(self, cls: type[models.Model], attribute: str) -> None:
        if attribute in vars(cls):
            setattr(cls, attribute, Guarded(self, vars(cls)[attribute]))
