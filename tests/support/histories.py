"""Applications with long migration histories that were written elsewhere: what each is, and where it is cut."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.support.dump import dump
from tests.support.mariadb_database import MariadbDatabase
from tests.support.postgres_database import PostgresDatabase

__all__ = [
    "HISTORIES",
    "SAME_ORDER",
    "Database",
    "History",
    "Plant",
    "SqliteDatabase",
    "Vendor",
    "execute",
    "vendor_of",
]

SAME_ORDER: Mapping[str, str] = {"PYTHONHASHSEED": "0"}
"""The environment in which Django always puts migrations that do not depend on each other into the same order."""

_PROJECTS = Path(__file__).parents[1] / "projects"


class Vendor(StrEnum):
    """The kinds of database, by Django's names for them."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"
    MYSQL = "mysql"


@dataclass(frozen=True, slots=True)
class SqliteDatabase:
    """A database in a file, in the forms in which the parts under test want to be told of it."""

    path: Path

    @property
    def dsn(self) -> str:
        """What `dump` takes."""
        return str(self.path)

    @property
    def django(self) -> dict[str, Any]:
        """A value of Django's `DATABASES`."""
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self.path)}


Database = PostgresDatabase | MariadbDatabase | SqliteDatabase


@dataclass(frozen=True, slots=True)
class Plant:
    """Something in a database that a migration trips over.

    Args:
        migration: `app.name` of the migration that fails.
        sql: what puts it there.
        sqlstate: PostgreSQL's word for the failure; None elsewhere.
    """

    migration: str
    sql: str
    sqlstate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One application and where its history is cut.

    Args:
        name: of the application; its project is `projects/<name>_site`.
        newest: how many of an application's migrations an older release lacks, by label.
        rows: SQL for rows that the missing migrations have to move.
        plants: what makes the update of the older release fail, by vendor.
        plant_in_empty: what makes the whole history fail in a database that is empty otherwise.
        blank: columns in which every run writes something else.
        cut: tells one cut of an application's history from others.
    """

    name: str
    newest: Mapping[str, int]
    rows: str
    plants: Mapping[Vendor, Plant]
    plant_in_empty: Plant
    blank: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cut: str = ""

    @property
    def label(self) -> str:
        """What is made of it is called after that."""
        return f"{self.name}{self.cut}"

    @property
    def project(self) -> Path:
        """The directory of its project."""
        return _PROJECTS / f"{self.name}_site"

    @property
    def settings(self) -> str:
        """The module of its project's settings."""
        return f"{self.name}_site.settings"

    def dump(self, database: Database, *, sequences: bool = True) -> str:
        """Return what a database holds, without what differs between any two runs of the history."""
        return dump(database.dsn, ignore_applied_times=True, blank=self.blank, sequences=sequences)


def vendor_of(database: Database) -> Vendor:
    """Return a database's kind."""
    match database:
        case SqliteDatabase():
            return Vendor.SQLITE
        case MariadbDatabase():
            return Vendor.MYSQL
        case _:
            return Vendor.POSTGRESQL


def execute(database: Database, statements: str) -> None:
    """Run SQL and commit it."""
    if isinstance(database, SqliteDatabase):
        with closing(sqlite3.connect(database.path)) as connection:
            connection.executescript(statements)
    elif isinstance(database, MariadbDatabase):
        with database.connect() as mariadb, mariadb.cursor() as cursor:
            cursor.execute(statements.strip().removesuffix(";"))
            # An error of a later statement is heard only here.
            while cursor.nextset():
                pass
    else:
        with database.connect() as session:
            session.execute(statements.encode())


HISTORIES = {
    history.name: history
    for history in (
        History(
            name="wagtail",
            newest={
                "wagtailadmin": 3,
                "wagtailcore": 13,
                "wagtaildocs": 3,
                "wagtailimages": 3,
                "wagtailredirects": 1,
                "wagtailsearchpromotions": 6,
                "wagtailusers": 6,
            },
            rows="""
                INSERT INTO wagtailcore_modellogentry
                    (label, action, data, timestamp, content_changed, deleted, object_id)
                VALUES
                    ('Tea', 'wagtail.publish', '{"revision": {"created": "01 Jan 2022 10:00"}}',
                     '2022-01-01 10:00:00', TRUE, FALSE, '1'),
                    ('Jam', 'wagtail.publish', 'null', '2022-01-02 10:00:00', TRUE, FALSE, '2');
            """,
            plants={
                Vendor.POSTGRESQL: Plant(
                    "wagtailusers.0015_userprofile_keyboard_shortcuts",
                    "ALTER TABLE wagtailusers_userprofile ADD COLUMN keyboard_shortcuts boolean",
                    "42701",
                ),
                # A column more would be no obstacle: SQLite's tables are made anew, under such a name.
                Vendor.SQLITE: Plant(
                    "wagtailusers.0010_userprofile_updated_comments_notifications",
                    "CREATE TABLE new__wagtailusers_userprofile (id integer)",
                ),
            },
            plant_in_empty=Plant(
                "wagtailusers.0001_initial", "CREATE TABLE wagtailusers_userprofile (id integer)", "42P07"
            ),
            blank={"wagtailcore_page": ["translation_key"]},
        ),
        History(
            name="oscar",
            newest={
                "address": 2,
                "basket": 3,
                "catalogue": 2,
                "communication": 1,
                "customer": 1,
                "offer": 2,
                "order": 6,
                "partner": 2,
                "reviews": 1,
                "voucher": 2,
                "wishlists": 1,
            },
            rows="""
                INSERT INTO voucher_voucher
                    (name, code, usage, start_datetime, end_datetime, num_basket_additions, num_orders,
                     total_discount, date_created)
                VALUES
                    ('Summer', 'A', 'Single use', '2022-01-01', '2022-02-01', 0, 0, 0, '2022-01-01 10:00:00'),
                    ('Summer', 'B', 'Single use', '2022-01-01', '2022-02-01', 0, 0, 0, '2022-01-01 11:00:00');
            """,
            # The migration before makes the names of vouchers unique, and forgets those of their sets.
            plants=dict.fromkeys(
                Vendor,
                Plant(
                    "voucher.0010_auto_20210224_0712",
                    """
                    INSERT INTO voucher_voucherset
                        (name, count, code_length, description, date_created, start_datetime, end_datetime)
                    VALUES
                        ('Spring', 1, 12, '', '2022-01-01', '2022-01-01', '2022-02-01'),
                        ('Spring', 2, 12, '', '2022-01-01', '2022-01-01', '2022-02-01');
                    """,
                    "23505",
                ),
            ),
            plant_in_empty=Plant(
                "wishlists.0004_auto_20220328_0939",
                "CREATE TABLE wishlists_wishlistsharedemail (id integer)",
                "42P07",
            ),
        ),
        History(
            name="helpdesk",
            newest={"helpdesk": 15},
            rows="INSERT INTO helpdesk_kbcategory (title, slug, description) VALUES ('Printers', 'printers', 'Paper')",
            plants=dict.fromkeys(
                Vendor,
                Plant(
                    "helpdesk.0038_checklist_checklisttemplate_checklisttask",
                    "CREATE TABLE helpdesk_checklisttask (id integer)",
                    "42P07",
                ),
            ),
            plant_in_empty=Plant("sites.0001_initial", "CREATE TABLE django_site (id integer)", "42P07"),
        ),
    )
}
