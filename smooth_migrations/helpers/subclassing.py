"""Subclasses that pass for the class they are made from: in migrations, in registries by name, in messages."""

from typing import Final, TypeVar

__all__ = ["add_mixin"]

T = TypeVar("T")

_MADE: Final[dict[tuple[type, type], type]] = {}


def add_mixin(instance: object, mixin: type[T]) -> T:
    """Turn an object into one of a subclass that has `mixin` before its class, and the same module and name.

    Args:
        instance: changed in place.
        mixin: finds the plain class in its attribute `smooth_plain`.

    Returns:
        the same object.
    """
    instance.__class__ = _subclass(type(instance), mixin)
    assert isinstance(instance, mixin)  # noqa: S101 - by the line above
    return instance


def _subclass(plain: type, mixin: type) -> type:
    if (plain, mixin) in _MADE:
        return _MADE[plain, mixin]
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "smooth_plain": plain}
    return _MADE.setdefault((plain, mixin), type(plain.__name__, (mixin, plain), names))
