"""`_meta` of a model with deprecated fields: it has them all, and Django selects and saves only the others."""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.db.models import Model
from django.db.models.options import Options, make_immutable_fields_list
from django.db.models.signals import class_prepared, pre_init
from django.utils.functional import cached_property

from smooth_migrations.helpers.use import Subject

if TYPE_CHECKING:
    from django.db.models import Field
    from django.db.models.fields.reverse_related import ForeignObjectRel

    _Options = Options[Model]
else:
    _Options = Options

__all__ = ["GuardedOptions", "guard_when_prepared"]

# Where a name that stands in a query becomes a field.
_QUERIES: Final = frozenset({"django.db.models.query", "django.db.models.sql.query", "django.db.models.sql.subqueries"})


class GuardedOptions(_Options):
    """Options whose deprecated fields are found by name, and refused where it is a query that names them."""

    smooth_subjects: Mapping[str, Subject]
    """The deprecated fields, by name and attribute."""

    # Django's properties are computed in one place and expire by name, which holds for these as well.

    @cached_property
    def concrete_fields(self) -> Any:  # noqa: ANN401 - Django's immutable list
        """The fields of which each row is selected."""
        return _seen("concrete_fields", super().concrete_fields)

    @cached_property
    def local_concrete_fields(self) -> Any:  # noqa: ANN401 - as above
        """The fields of which each row is saved."""
        return _seen("local_concrete_fields", super().local_concrete_fields)

    def get_field(self, field_name: Any) -> "Field[Any, Any] | ForeignObjectRel | Any":  # noqa: ANN401 - Django's
        """Return a field by name.

        Raises:
            FieldDeprecatedException: a query names a deprecated one.
        """
        field = super().get_field(field_name)
        subject = getattr(field, "smooth_subject", None)
        if subject is not None:
            frame = sys._getframe(1)  # noqa: SLF001 - CPython's, as `warnings` uses it
            if frame.f_globals.get("__name__") in _QUERIES:
                subject.is_used("was named in a query")
        return field


def guard_when_prepared() -> None:
    """Guard every model that is prepared from here on and has a deprecated field, its own or an inherited one.

    Idempotent. Proxies and subclasses have options of their own, and say themselves when they are prepared.
    """
    class_prepared.connect(_guard, dispatch_uid="smooth_migrations.guard")


def _guard(sender: type[Model], **_: object) -> None:
    options = sender._meta  # noqa: SLF001 - Django's public name for it
    subjects = {
        name: field.smooth_subject
        for field in [*options.fields, *options.many_to_many, *options.private_fields]
        if hasattr(field, "smooth_subject")
        for name in (field.name, getattr(field, "attname", field.name))
    }
    if not subjects:
        return
    options.__class__ = GuardedOptions  # of this one model
    options.smooth_subjects = subjects  # type: ignore[attr-defined]  # as it is one now
    options._expire_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - what was computed held the others as well
    if not hasattr(sender.save, "smooth_is_guarded"):
        sender.save = _guarded(sender.save)  # type: ignore[method-assign]  # of this class, which its subclasses call
    warned = {name: subject for name, subject in subjects.items() if not subject.is_refused}

    def warn(kwargs: Mapping[str, object], **_: object) -> None:
        for name in warned.keys() & kwargs.keys():
            warned[name].is_used("was written")

    if warned:
        pre_init.connect(warn, sender=sender, weak=False)


def _guarded(save: "Callable[..., None]") -> "Callable[..., None]":
    @functools.wraps(save)
    def guarded(self: Model, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - save's
        subjects = self._meta.smooth_subjects  # type: ignore[attr-defined]
        for name in subjects.keys() & {*(kwargs.get("update_fields") or ())}:
            subjects[name].is_used("was written")
        save(self, *args, **kwargs)

    guarded.smooth_is_guarded = True  # type: ignore[attr-defined]  # of ours
    return guarded


def _seen(name: str, fields: "Iterable[Field[Any, Any]]") -> Any:  # noqa: ANN401 - Django's immutable list
    def is_seen(field: "Field[Any, Any]") -> bool:
        subject = getattr(field, "smooth_subject", None)
        return subject is None or not subject.is_refused

    return make_immutable_fields_list(name, [field for field in fields if is_seen(field)])
