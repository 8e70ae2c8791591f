"""What `check` says of the helpers, and what `show_migration_changes` lists."""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.support.histories import SqliteDatabase
from tests.support.library import Library
from tests.support.new_databases import NewDatabases

LISTED: Final = """\
New fields:
  demo.Book.editor
  demo.Book.isbn
  demo.Book.pages
Backward compatible models:
  demo.Book
Deprecated fields:
  demo.Book.cover
  demo.Book.note
  demo.Book.publisher
  demo.Book.rating
  demo.Book.shelf
  demo.Book.stock
  demo.Book.summary
  demo.Book.tags
Deprecated models:
  demo.Loan
"""
IMPORTS: Final = """\
from django.db import models
from smooth_migrations.fields import deprecated_field, new_field
from smooth_migrations.models import backward_compatible_model, deprecated_model

"""


@pytest.fixture
def library(every_database: NewDatabases, tmp_path: Path) -> Library:
    """The first release."""
    library = Library(tmp_path / "library", every_database.new())
    library.deploy(1)
    return library


@pytest.fixture
def small(tmp_path: Path) -> Library:
    """A project with whatever models a test writes, over an empty file."""
    return Library(tmp_path / "small", SqliteDatabase(tmp_path / "small.sqlite3"))


def _checked(library: Library, *options: str) -> list[tuple[str, str]]:
    """Return each message and its hint."""
    result = library.project.run("check", *options)
    told: list[tuple[str, str]] = []
    for line in result.stderr.splitlines():
        if "(smooth." in line:
            told.append((line.partition(": ")[2], ""))
        elif line.startswith("\tHINT: ") and told:
            told[-1] = (told[-1][0], line.removeprefix("\tHINT: "))
    return told


def _said_of(small: Library, models: str) -> list[tuple[str, str]]:
    small.project.write("demo/models.py", IMPORTS + models)
    return _checked(small)


@pytest.mark.long_on("mysql", "postgresql")
def test_it_lists_what_is_held_back(library: Library) -> None:
    library.deploy(2)
    assert library.project.succeed("show_migration_changes") == LISTED
    report = json.loads(library.project.succeed("show_migration_changes", "--json"))
    assert report == {
        "version": 1,
        "command": "show_migration_changes",
        "new_fields": ["demo.Book.editor", "demo.Book.isbn", "demo.Book.pages"],
        "backward_compatible_models": ["demo.Book"],
        "deprecated_fields": [f"demo.Book.{name}" for name in _deprecated()],
        "deprecated_models": ["demo.Loan"],
        "databases": [{"alias": "default", "contract_pending": []}],
    }
    library.check_out(3)
    assert library.project.succeed("show_migration_changes", "--database", "default") == ""


def _deprecated() -> list[str]:
    return ["cover", "note", "publisher", "rating", "shelf", "stock", "summary", "tags"]


@pytest.mark.long_on("mysql", "postgresql")
def test_the_database_tells_what_the_next_migration_is_to_do_and_what_has_had_its_time(library: Library) -> None:
    library.make(2)
    assert _checked(library, "--database", "default") == []
    library.project.succeed("migrate", "--verbosity", "0")
    hint = "Once no older release runs, take new_field away: makemigrations then makes it NOT NULL."
    assert _checked(library) == []
    assert _checked(library, "--database", "default") == [
        (f"(smooth.W006) demo.Book.{name} is under new_field, and its column has come to default.", hint)
        for name in ("editor", "isbn", "pages")
    ]
    library.deploy(3)
    library.check_out(2)
    gone = "Take it out of the code: its time is over."
    named = ("shelf", "summary", "rating", "publisher", "cover", "stock", "note")
    text = "(smooth.W005) demo.Book.{} is deprecated, and its column is gone from default."
    assert sorted(_checked(library, "--database", "default")) == sorted(
        [(text.format(name), gone) for name in named]
        + [("(smooth.W005) demo.Loan is deprecated, and its table is gone from default.", gone)]
        + [
            (
                f"(smooth.W005) demo.Book.{name} is under new_field, and NOT NULL in default already.",
                "Take new_field away.",
            )
            for name in ("pages", "isbn", "editor")
        ]
    )


def test_what_is_used_as_it_should_be_is_not_spoken_of(library: Library) -> None:
    library.check_out(2)
    assert _checked(library) == []


def test_an_abstract_model_passes_the_duty_on_to_those_that_have_its_fields(small: Library) -> None:
    models = """
@backward_compatible_model
class Base(models.Model):
    new = new_field(models.IntegerField())

    class Meta:
        abstract = True

class Item(Base):
    pass

class Special(Item):
    pass
"""
    assert _said_of(small, models) == []
    assert small.project.succeed("show_migration_changes") == (
        "New fields:\n  demo.Item.new\nBackward compatible models:\n  demo.Item\n"
    )
    small.deploy_models()
    uses = """
import json
from demo.models import Item, Special

told = []
for model in (Item, Special):
    told.append(model.objects.create(new=1).new)
    try:
        model.objects.create()
    except Exception as error:
        told.append(str(error).partition(" (")[0])
print(json.dumps(told))
"""
    assert small.run("use", uses) == [1, "demo.Item.new must have a value", 1, "demo.Item.new must have a value"]


@pytest.mark.parametrize(
    ("models", "message", "hint"),
    [
        pytest.param(
            """
class Item(models.Model):
    old = deprecated_field(models.IntegerField())

    class Meta:
        ordering = ["-old"]
""",
            "(smooth.E001) demo.Item.old is deprecated, and the Meta of demo.Item uses it.",
            "Take it out of ordering, get_latest_by and order_with_respect_to: queries may not name it.",
            id="ordering",
        ),
        pytest.param(
            """
class Kind(models.Model):
    pass

class Item(models.Model):
    old = deprecated_field(models.ForeignKey(Kind, models.CASCADE))

    class Meta:
        order_with_respect_to = "old"
""",
            "(smooth.E001) demo.Item.old is deprecated, and the Meta of demo.Item uses it.",
            "Take it out of ordering, get_latest_by and order_with_respect_to: queries may not name it.",
            id="order_with_respect_to",
        ),
        pytest.param(
            """
class Kind(models.Model):
    pass

@backward_compatible_model
class Item(models.Model):
    new = new_field(models.ForeignKey(Kind, models.SET_NULL))
""",
            "(smooth.E002) demo.Item.new is new and to be NOT NULL in the end, and deletes would set it to NULL.",
            "Choose another on_delete, or say null=True and leave new_field out.",
            id="set-null",
        ),
        pytest.param(
            """
class Item(models.Model):
    pk = models.CompositePrimaryKey("shop", "old")
    shop = models.IntegerField()
    old = deprecated_field(models.IntegerField())
""",
            "(smooth.E003) demo.Item.old is deprecated, and part of the primary key of demo.Item.",
            "Every row is known by it: make another primary key first.",
            id="composite-primary-key",
        ),
        pytest.param(
            """
class Item(models.Model):
    new = new_field(models.IntegerField())
""",
            "(smooth.W001) demo.Item.new is under new_field, and nothing makes this release fill it.",
            "Decorate Item with backward_compatible_model.",
            id="undecorated",
        ),
        pytest.param(
            """
@backward_compatible_model
class Item(models.Model):
    pass
""",
            "(smooth.W002) demo.Item is under backward_compatible_model and has no new field.",
            "Take the decorator away.",
            id="nothing-new",
        ),
        pytest.param(
            """
@backward_compatible_model
class Item(models.Model):
    new = new_field(models.IntegerField(null=True))
""",
            "(smooth.W003) demo.Item.new is under new_field and nullable anyway.",
            "Leave new_field out: a nullable column disturbs no release.",
            id="nullable",
        ),
        pytest.param(
            """
@deprecated_model
class Kind(models.Model):
    pass

class Item(models.Model):
    kind = models.ForeignKey(Kind, models.CASCADE)
""",
            "(smooth.W004) demo.Item.kind refers to demo.Kind, which is deprecated.",
            "Put it under deprecated_field: the table that it refers to goes with the next release.",
            id="refers-to-deprecated",
        ),
    ],
)
def test_a_helper_that_helps_nobody_is_told(small: Library, models: str, message: str, hint: str) -> None:
    assert _said_of(small, models) == [(message, hint)]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        pytest.param(
            "class Item(models.Model):\n    id = deprecated_field(models.AutoField(primary_key=True))",
            "ValueError: a primary key can be neither new nor deprecated: every row is known by it",
            id="primary-key",
        ),
        pytest.param(
            "class Item(models.Model):\n    x = new_field(deprecated_field(models.IntegerField()))",
            "ValueError: a field can be under new_field or deprecated_field once",
            id="twice",
        ),
        pytest.param(
            "class Item(models.Model):\n    x = new_field(models.ManyToManyField('self'))",
            "ValueError: new_field: a ManyToManyField has no column; it needs no wrapper",
            id="many-to-many",
        ),
        pytest.param(
            "class Item(models.Model):\n    x = deprecated_field(models.IntegerField(), on_use='shout')",
            "ValueError: 'shout' is not a valid OnUse",
            id="on_use",
        ),
        pytest.param(
            "@deprecated_model\nclass Item(models.Model):\n    class Meta:\n        abstract = True",
            "ValueError: Item is abstract: deprecate the models that have its fields",
            id="abstract",
        ),
    ],
)
def test_what_cannot_be_wrapped_is_refused_where_it_stands(small: Library, models: str, message: str) -> None:
    small.project.write("demo/models.py", IMPORTS + models + "\n")
    assert small.project.run("check").stderr.splitlines()[-1] == message
