"""The migrations that come of the helpers, and two releases at work on one database."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.dump import dump
from tests.support.histories import Database
from tests.support.library import Library
from tests.support.new_databases import NewDatabases

SECOND: Final = [
    "+ Add field editor to book",
    "+ Add field isbn to book",
    "+ Add field pages to book",
    "~ Alter field cover on book",
    "~ Alter field publisher on book",
    "~ Alter field rating on book",
    "~ Alter field shelf on book",
    "~ Alter field summary on book",
]
SECOND_FIELDS: Final = [
    (
        "models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='edited', "
        "to='demo.author')"
    ),
    "models.CharField(blank=True, max_length=13, null=True)",
    "models.IntegerField(null=True)",
    "models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, to='demo.cover')",
    (
        "models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='books', "
        "to='demo.publisher')"
    ),
    (
        "models.IntegerField(choices=[(1, 'poor'), (2, 'good')], db_column='stars', default=demo.models.some_rating, "
        "null=True, unique=True, validators=[django.core.validators.MinValueValidator(1)])"
    ),
    "models.IntegerField(null=True)",
    "models.CharField(max_length=40, null=True)",
]
THIRD: Final = [
    "- Remove field cover from book",
    "- Remove field note from book",
    "- Remove field publisher from book",
    "- Remove field rating from book",
    "- Remove field shelf from book",
    "- Remove field stock from book",
    "- Remove field summary from book",
    "- Remove field tags from book",
    "~ Alter field editor on book",
    "~ Alter field isbn on book",
    "~ Alter field pages on book",
    "- Delete model Loan",
]
THIRD_FIELDS: Final = [
    "models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='edited', to='demo.author')",
    "models.CharField(blank=True, max_length=13)",
    "models.IntegerField()",
]
ELSEWHERE: Final = """
import io, json, sys
from django.core.management import call_command

def made(argv):
    sys.argv = argv
    out = io.StringIO()
    call_command("makemigrations", "demo", dry_run=True, verbosity=3, stdout=out, interactive=False)
    return [line for line in out.getvalue().splitlines() if not line.startswith("# Generated")]

programs = [["gunicorn", "shop.wsgi"], ["manage.py", "migrate"], ["manage.py", "makemigrations"], ["celery", "worker"]]
print(json.dumps([made(program) for program in programs]))
"""
OLD: Final = """
import json
from demo.models import Book, Cover, Loan, Publisher, Author, Tag

book, _ = Book.objects.get_or_create(
    title="old", defaults={"summary": "by old", "rating": 5, "shelf": 4, "publisher": Publisher.objects.get(),
    "cover": Cover.objects.create(colour="green")}
)
book.tags.add(Tag.objects.get())
for new in Book.objects.filter(title="new"):
    new.row = 8
    new.save()
Loan.objects.create(author=Author.objects.get())
print(json.dumps([list(Book.objects.order_by("title").values_list(
    "title", "summary", "rating", "shelf", "stock", "publisher_id", "row"))]))
"""
NEW: Final = """
import json
from demo.models import Author, Book

Book.objects.get_or_create(title="new", defaults={"pages": 3, "isbn": "1", "editor": Author.objects.get()})
old = Book.objects.get(title="old")
old.row = 6
old.save(update_fields=["row"])
Book.objects.filter(title="old").update(row=7)
print(json.dumps([list(Book.objects.order_by("title").values_list("title", "pages", "isbn", "row"))]))
"""


@pytest.fixture
def database(every_database: NewDatabases) -> Database:
    """An empty one."""
    return every_database.new()


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    """The first release, with its rows."""
    library = Library(tmp_path / "library", database)
    library.deploy(1)
    library.seed()
    return library


def _fields(source: str) -> list[str]:
    lines = [line.strip() for line in source.splitlines()]
    return [line.removeprefix("field=").removesuffix(",") for line in lines if line.startswith("field=")]


@pytest.mark.long_on("mysql", "postgresql")
def test_wrapping_makes_columns_nullable_and_taking_the_wrappers_away_finishes(
    library: Library, every_database: NewDatabases, tmp_path: Path
) -> None:
    assert library.make(2) == SECOND
    assert _fields(library.operations(2)) == SECOND_FIELDS
    library.project.succeed("migrate", "--verbosity", "0")
    library.project.succeed("makemigrations", "--check")
    library.project.succeed("migrate", "--check")

    assert library.make(3) == THIRD
    assert _fields(library.operations(3)) == THIRD_FIELDS
    fill = "from demo.models import *; Book.objects.update(pages=1, isbn='', editor=Author.objects.get())"
    library.run("fill", fill)
    library.project.succeed("migrate", "--verbosity", "0")

    fresh = Library(tmp_path / "fresh", every_database.new())
    fresh.deploy(3)
    assert library.schema() == fresh.schema()


@pytest.mark.long_on("mysql", "postgresql")
def test_the_migration_is_the_same_from_every_program(library: Library) -> None:
    library.check_out(2)
    told = library.run("elsewhere", ELSEWHERE)
    assert [line for line in told[0] if line.startswith("    ")]
    assert all(made == told[0] for made in told)


@pytest.mark.long_on("mysql", "sqlite")
def test_the_old_release_works_on_beside_the_new_one(library: Library, database: Database, tmp_path: Path) -> None:
    new = Library(tmp_path / "new", database)
    new.deploy(1)
    new.deploy(2)
    assert library.run("old", OLD) == [
        [
            ["atlas", "s", 2, 3, 7, 1, 1],
            ["first", "s", 1, 3, 7, 1, 1],
            ["old", "by old", 5, 4, 7, 1, 1],
        ]
    ]
    assert new.run("new", NEW) == [
        [["atlas", None, None, 1], ["first", None, None, 1], ["new", 3, "1", 1], ["old", None, None, 7]]
    ]
    assert library.run("old", OLD)[0][2:] == [
        ["new", None, None, None, 7, None, 8],
        ["old", "by old", 5, 4, 7, 1, 7],
    ]
    assert new.run("new", NEW)[0][2:] == [["new", 3, "1", 8], ["old", None, None, 7]]
    assert "by old" in dump(database.dsn)
