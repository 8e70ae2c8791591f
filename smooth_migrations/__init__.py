"""Move one Django database forwards and, exactly, back."""

from typing import TYPE_CHECKING, Any

from smooth_migrations.hooks import on_rollback

if TYPE_CHECKING:
    from smooth_migrations.backfill import Backfill

__all__ = ["Backfill", "__version__", "on_rollback"]

__version__ = "0.3.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attributes are of any type
    """Import what needs Django when a migration asks for it: a coordinator reads the messages without."""
    if name != "Backfill":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smooth_migrations.backfill import Backfill  # noqa: PLC0415 - see above

    return Backfill
