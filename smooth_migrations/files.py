"""The files of migrations."""

import hashlib
import inspect
from contextlib import suppress
from pathlib import Path

from django.db.migrations import Migration

__all__ = ["digest_of"]


def digest_of(migration: Migration) -> str:
    """Return the SHA-256 of a migration's file; empty where there is no file to be read."""
    with suppress(OSError, TypeError):
        file = inspect.getsourcefile(type(migration))
        if file is not None:
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return ""
