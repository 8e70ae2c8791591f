"""Attributes of a model's instances that belong to a deprecated field."""

import sys
from typing import TYPE_CHECKING, Any

from django.db.models.query import get_prefetcher

from smooth_migrations.helpers.callers import ACCESS

if TYPE_CHECKING:
    from smooth_migrations.helpers.deprecated import DeprecatedField

__all__ = ["Guarded"]

# Of what Django does with an attribute only this was asked for by somebody else.
_ASKED = ("django.template", "django.test")
_DISPLAY = "_get_FIELD_display"
_PREFETCHES = get_prefetcher.__code__


class Guarded:
    """Stands before the descriptor that Django made for a field.

    On the class it is that descriptor: `hasattr(Model, "old")`, `Model.old.field` and `Model.old.through` are as they
    were.

    Args:
        field: the deprecated one.
        plain: what Django put there.
    """

    def __init__(self, field: "DeprecatedField", plain: Any) -> None:  # noqa: ANN401 - a descriptor of any kind
        self._field = field
        self._plain = plain

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:  # noqa: ANN401 - of any field
        if instance is None:
            if sys._getframe(1).f_code is _PREFETCHES:  # noqa: SLF001 - CPython's, as `warnings` uses it
                self._field.smooth_subject.is_used("was named in a query")
            return self._plain.__get__(None, owner)
        return self._plain.__get__(instance, owner) if self._is_used("was read") else None

    def __set__(self, instance: object, value: object) -> None:
        if not self._is_used("was written"):
            return
        if hasattr(self._plain, "__set__"):
            self._plain.__set__(instance, value)
        else:
            instance.__dict__[self._field.attname] = value

    def _is_used(self, how: str) -> bool:
        subject = self._field.smooth_subject
        if not subject.is_refused:
            # The column is selected and saved as ever, which nobody is to be warned of.
            frame = sys._getframe(2)  # noqa: SLF001 - CPython's, as `warnings` uses it
            module = str(frame.f_globals.get("__name__"))
            is_django = module.startswith("django.") and not module.startswith(_ASKED)
            if is_django and frame.f_code.co_name != _DISPLAY:
                return True
        return subject.is_used(how, ACCESS)
