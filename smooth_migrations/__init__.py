"""Move one Django database forwards and, exactly, back."""

from smooth_migrations.hooks import on_rollback

__all__ = ["__version__", "on_rollback"]

__version__ = "0.3.0"
