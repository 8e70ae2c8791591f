"""Which physical database an alias is, told by its settings alone."""

from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["identity"]

_DEFAULT_PORTS = {"postgresql": "5432", "mysql": "3306"}


def identity(connection: BaseDatabaseWrapper) -> str:
    """Return host, port and name, or a file's real path: the same for two aliases of one database."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        name = str(values["NAME"])
        return f"sqlite:{name}:{connection.alias}" if ":memory:" in name else f"sqlite:{Path(name).resolve()}"
    host, port = values.get("HOST") or "localhost", values.get("PORT") or _DEFAULT_PORTS.get(connection.vendor, "")
    service = values.get("OPTIONS", {}).get("service", "")
    return f"{connection.vendor}:{service}{_canonical(host)}:{port}/{values.get('NAME') or ''}"


def _canonical(host: str) -> str:
    return "localhost" if host in {"127.0.0.1", "::1", "localhost"} else host.lower()
