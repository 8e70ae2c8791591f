"""What a project's settings say about its databases, without connecting to any."""

import os
import re
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any
from urllib.parse import unquote

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from smooth_migrations.backends import why_not_undone
from smooth_migrations.identity import identity
from smooth_migrations.listeners import has_others_receivers
from smooth_migrations.protocol import DatabaseFacts

__all__ = ["database_facts", "has_routers", "secrets"]

# psycopg's OPTIONS that mean nothing to the server's answers to us.
_IGNORED = frozenset(
    {"assume_role", "isolation_level", "pool", "server_side_binding", "client_encoding", "prepare_threshold"}
)
_PORTS = 65_536
_PASSWORDS = ("password", "passwd", "sslpassword")
_NAMES_SECRET = re.compile(
    "(?:password|passwd|passphrase|secret|pass|_pwd|token|credentials?"
    "|(?:secret|api|access|account|private|signing|encryption)_?key)$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"://[^\s:/@]*:([^\s@]+)@")
_SSL = frozenset({"sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl"})
_PLAIN_BACKENDS = frozenset({"django.db.backends.postgresql", "django.contrib.gis.db.backends.postgis"})
# What libpq takes from a worker's environment where the settings are silent (PostgreSQL manual, 34.15).
_VARIABLES = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD"}
# What it takes from there whatever they say.
_STRONG_VARIABLES = frozenset({"PGHOSTADDR", "PGOPTIONS", "PGSERVICE", "PGSERVICEFILE"})


def database_facts() -> tuple[DatabaseFacts, ...]:
    """Describe each entry of `settings.DATABASES`."""
    return tuple(_facts())


def has_routers() -> bool:
    """Return whether the project has DATABASE_ROUTERS."""
    return bool(settings.DATABASE_ROUTERS)


def secrets() -> tuple[str, ...]:
    """Return what the settings hold that nobody may be shown: by their names, and the passwords of URLs."""
    values = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS, os.environ.get("PGPASSWORD")]
    for alias in connections:
        entry = connections[alias].settings_dict
        values += [entry.get("PASSWORD"), *(entry.get("OPTIONS", {}).get(key) for key in _PASSWORDS)]
    values += _named({name: getattr(settings, name) for name in dir(settings) if name.isupper()})
    return tuple(dict.fromkeys(str(value) for value in values if value))


def _named(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, str | bytes) and _NAMES_SECRET.search(str(key)):
                yield item.decode(errors="replace") if isinstance(item, bytes) else item
            yield from _named(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _named(item)
    elif isinstance(value, str):
        yield from (unquote(match[1]) for match in _URL_PASSWORD.finditer(value))


def _facts() -> Iterator[DatabaseFacts]:
    for alias in connections:
        connection = connections[alias]
        yield DatabaseFacts(
            alias=alias,
            vendor=connection.vendor,
            identity=identity(connection),
            mirror=bool(connection.settings_dict.get("TEST", {}).get("MIRROR")),
            asyncpg=(translated := _asyncpg(connection)),
            is_plain=translated is not None and _is_plain(connection),
            role=str(connection.settings_dict.get("OPTIONS", {}).get("assume_role") or ""),
            refusal=why_not_undone(connection) or "",
        )


def _is_plain(connection: BaseDatabaseWrapper) -> bool:
    """Return whether nothing but the settings decides what a session of Django's sees in a database of PostgreSQL."""
    values = connection.settings_dict
    module = type(connection).__module__.removesuffix(".base")
    return (
        module in _PLAIN_BACKENDS
        and all(values.get(key) for key in ("HOST", "NAME", "USER"))
        and bool(values.get("PORT") or "PGPORT" not in os.environ)
        and not _STRONG_VARIABLES & os.environ.keys()
        and _is_as_django_has_it(type(connection))
        and not has_others_receivers(connection_created)
    )


def _is_as_django_has_it(kind: type[BaseDatabaseWrapper]) -> bool:
    """Return whether no function of a backend was put there by somebody else."""
    functions = (value for base in kind.__mro__ for value in vars(base).values() if isinstance(value, FunctionType))
    return all(function.__module__.startswith("django.") for function in functions)


def _is_address(host: str, port: str) -> bool:
    """Return whether this is a directory or one address, not several (PostgreSQL manual, 34.1.1.3) or none."""
    if host.startswith("/"):
        return port.isdecimal()
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return "," not in host and port.isdecimal() and int(port) < _PORTS


def _asyncpg(connection: BaseDatabaseWrapper) -> dict[str, Any] | None:
    """Translate for `asyncpg.connect`, or return None where an option has no like there."""
    if connection.vendor != "postgresql":
        return None
    values = connection.settings_dict
    options = {key: value for key, value in values.get("OPTIONS", {}).items() if key not in _IGNORED}
    if "service" in options or "passfile" in options or options.keys() & (_SSL - {"sslmode"}):
        return None
    told = {key: str(values.get(key) or os.environ.get(name, "")) for key, name in _VARIABLES.items()}
    if {"PGHOSTADDR", "PGSERVICE"} & os.environ.keys():
        return None  # they have no like in asyncpg
    if not _is_address(told["HOST"], told["PORT"] or "0"):
        return None
    translated: dict[str, Any] = {
        "host": told["HOST"] or None,
        "port": int(told["PORT"]) if told["PORT"] else None,
        "database": str(values.get("NAME") or "postgres"),
        "user": told["USER"] or None,
        "password": told["PASSWORD"] or None,
        "ssl": str(options.pop("sslmode", None) or os.environ.get("PGSSLMODE", "")) or None,
    }
    options.pop("connect_timeout", None)
    options.pop("application_name", None)
    if switches := options.pop("options", None):
        translated["server_settings"] = {"options": str(switches)}
    return None if options else {key: value for key, value in translated.items() if value is not None}
