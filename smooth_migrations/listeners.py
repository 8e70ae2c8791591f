"""Who hears Django's signals beside Django itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ReferenceType

from django.dispatch import Signal

__all__ = ["has_others_receivers", "hearing_first"]


def has_others_receivers(signal: Signal) -> bool:
    """Return whether a signal has receivers that are neither Django's nor the product's. Calls none of them."""
    # Django's public methods tell of a sender's alone.
    found = (entry[1] for entry in signal.receivers)
    receivers = (each() if isinstance(each, ReferenceType) else each for each in found)
    return any(
        each is not None and not str(getattr(each, "__module__", "")).startswith(("django.", "smooth_migrations."))
        for each in receivers
    )


@contextmanager
def hearing_first(signal: Signal, receiver: Callable[..., Any]) -> Iterator[None]:
    """Have a receiver called before all others that are there, for a context."""
    signal.connect(receiver)
    # In their order they are called; nothing has been sent since.
    signal.receivers.insert(0, signal.receivers.pop())
    try:
        yield
    finally:
        signal.disconnect(receiver)
