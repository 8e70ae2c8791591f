"""Deploy schema changes to every Django database at once, or to none."""

__all__ = ["__version__"]

__version__ = "0.3.0"
