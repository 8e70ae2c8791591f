"""What a vendor's module offers."""

from collections.abc import Iterable
from typing import Protocol, TypeAlias

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["PREFIX", "Descriptions", "Vendor", "description_of_migration"]

Descriptions: TypeAlias = Iterable[tuple[str, str | None]]
"""Of what, and what is to be said of it."""

PREFIX = "smooth_"
"""What the names of the product's own tables begin with."""


class Vendor(Protocol):
    """Reads the schemas of one vendor's databases."""

    def describe(self, connection: BaseDatabaseWrapper) -> Descriptions:
        """Describe everything in the schema, in any order; only reads, in a transaction or outside."""


def description_of_migration(app: str, name: str) -> tuple[str, None]:
    """Describe a recorded migration; when it was applied does not matter."""
    return f"migration {app}.{name}", None
