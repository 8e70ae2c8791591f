"""Move one Django database forwards and, exactly, back."""

__all__ = ["__version__"]

__version__ = "0.3.0"
