"""The files of migrations."""

import hashlib
import inspect
from contextlib import suppress
from pathlib import Path

from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader

__all__ = ["digest_of", "digest_of_all"]


def digest_of(migration: Migration) -> str:
    """Return the SHA-256 of a migration's file; empty where there is no file to be read."""
    with suppress(OSError, TypeError):
        file = inspect.getsourcefile(type(migration))
        if file is not None:
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return ""


def digest_of_all() -> str:
    """Return a digest of all migrations of the project's apps, by name and file; connects to no database."""
    loader = MigrationLoader(None, load=False)
    loader.load_disk()
    entries = sorted((*key, digest_of(migration)) for key, migration in loader.disk_migrations.items())
    return hashlib.sha256("\n".join("/".join(entry) for entry in entries).encode()).hexdigest()
