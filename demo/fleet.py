"""The stage: two PostgreSQL servers and a SQLite file with a shop in each of five databases."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.support.dump import dump
from tests.support.postgres_server import PostgresServer
from tests.support.shop import manage

__all__ = ["LAST", "Fleet", "Place"]

LAST = "shards:shard_3"

_ROWS = """
INSERT INTO catalog_product (sku, name, price) VALUES ('kite', 'A red kite', 12.50), ('ball', 'A ball', 4.00);
INSERT INTO orders_customer (email, name) VALUES ('ada@example.com', 'Ada'), ('bob@example.com', 'Bob');
INSERT INTO orders_order (customer_id, placed_at, paid)
  SELECT id, '2026-01-31 12:00:00+00:00', TRUE FROM orders_customer;
INSERT INTO orders_orderline (order_id, product_id, quantity)
  SELECT orders_order.id, catalog_product.id, 2 FROM orders_order, catalog_product;
"""
_DUPLICATE = "INSERT INTO orders_customer (email, name) VALUES ('ada@example.com', 'Ada, once more');"


@dataclass(frozen=True, slots=True)
class Place:
    """One database of the fleet.

    Args:
        alias: its name in the shop's settings.
        where: for a person to read.
        source: a PostgreSQL URL or the path of a SQLite file.
        django: its value in `settings.DATABASES`.
    """

    alias: str
    where: str
    source: str
    django: Mapping[str, Any]

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file rather than a database on a server."""
        return str(self.django["ENGINE"]).endswith("sqlite3")

    def execute(self, statements: str) -> None:
        """Run statements that return nothing, in one transaction."""
        if self.is_sqlite:
            with closing(sqlite3.connect(self.source)) as connection:
                connection.executescript(f"BEGIN; {statements} COMMIT;")
        else:
            with psycopg.connect(self.source) as session:
                session.execute(statements.encode())

    def migrations(self) -> set[str]:
        """Return the recorded migrations, as `app.name`, straight from the table."""
        query = "SELECT app || '.' || name FROM django_migrations"
        if self.is_sqlite:
            with closing(sqlite3.connect(self.source)) as connection:
                return {name for (name,) in connection.execute(query)}
        with psycopg.connect(self.source) as session:
            return {name for (name,) in session.execute(query)}


@dataclass(frozen=True, slots=True)
class Fleet:
    """The five databases, by the names that the plan gives them."""

    places: Mapping[str, Place]

    @classmethod
    @contextmanager
    def started(cls, directory: Path) -> Iterator["Fleet"]:
        """Start the servers and create empty databases; everything ends with the block."""
        with ExitStack() as stack:
            servers = [stack.enter_context(PostgresServer(auth="scram")) for _ in range(2)]
            places = {}
            for name, alias, database, server in [
                ("primary", "default", "shop", servers[0]),
                ("shards:shard_1", "shard_1", "shop_1", servers[0]),
                ("shards:shard_2", "shard_2", "shop_2", servers[1]),
                (LAST, "shard_3", "shop_3", servers[1]),
            ]:
                server.create_database(database)
                where = f"PostgreSQL, port {server.port}, {database}"
                places[name] = Place(alias, where, server.dsn(database), server.django(database))
            path = str(directory / "kiosk.sqlite3")
            settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": path}
            places["kiosk"] = Place("kiosk", "SQLite, kiosk.sqlite3", path, settings)
            yield cls({name: places[name] for name in ("primary", "kiosk", *sorted(places)) if name in places})

    @property
    def databases(self) -> dict[str, Mapping[str, Any]]:
        """The shop's `settings.DATABASES`."""
        return {place.alias: place.django for place in self.places.values()}

    def open_for_business(self, name: str, project: Path) -> None:
        """Migrate one database with stock `migrate`, and fill it with a few products, customers and orders."""
        place = self.places[name]
        manage(project, self.databases, "migrate", "--database", place.alias)
        place.execute(_ROWS)

    def plant_duplicate(self) -> None:
        """Give the last database a customer whose address another one has."""
        self.places[LAST].execute(_DUPLICATE)

    def dumps(self) -> dict[str, str]:
        """Write every database down whole, without the product's own tables.

        The positions of PostgreSQL's sequences are left out: the server never takes those back with a transaction.
        """
        return {name: dump(place.source, sequences=place.is_sqlite) for name, place in self.places.items()}
