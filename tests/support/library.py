"""A small project in three releases: the old one, the one that has the helpers, and the one after it."""

import json
from pathlib import Path
from typing import Any, Final

from tests.support.histories import Database
from tests.support.small_project import SmallProject

__all__ = ["Library"]

_FILES: Final = Path(__file__).parents[1] / "projects" / "library"
_SEED: Final = """
from demo.models import Atlas, Author, Book, Cover, Loan, Publisher, Tag

publisher = Publisher.objects.create(name="p")
red, blue = Cover.objects.create(colour="red"), Cover.objects.create(colour="blue")
book = Book.objects.create(title="first", summary="s", rating=1, publisher=publisher, cover=red, shelf=3)
book.tags.add(Tag.objects.create(name="t"))
Atlas.objects.create(title="atlas", summary="s", rating=2, publisher=publisher, cover=blue, shelf=3)
Loan.objects.create(author=Author.objects.create(name="a"))
"""
_SCHEMA: Final = """
import json
from django.db import connection

with connection.cursor() as cursor:
    columns = connection.introspection.get_table_description(cursor, "demo_book")
    constraints = connection.introspection.get_constraints(cursor, "demo_book").values()
kinds = ("columns", "primary_key", "unique", "foreign_key", "check")
print(json.dumps([
    *(str([column.name, str(column.type_code), column.null_ok, column.default]) for column in columns),
    *(str([constraint[kind] for kind in kinds]) for constraint in constraints),
]))
"""


class Library:
    """The project at one of its releases.

    Args:
        directory: an empty one.
        database: its only one.
    """

    def __init__(self, directory: Path, database: Database) -> None:
        directory.mkdir()
        self.directory = directory
        self.project = SmallProject(
            directory,
            {"default": database.django},
            {"demo.none": ""},
            installed=["django.contrib.contenttypes", "django.contrib.auth"],
        )
        (directory / "demo/migrations/none.py").unlink()

    def check_out(self, release: int) -> None:
        """Have the code of a release, with the migrations that there are."""
        self.project.write("demo/models.py", (_FILES / f"release{release}.py").read_text())

    def make(self, release: int) -> list[str]:
        """Have the code of a release, and make its migration; return what that one does, as Django says it."""
        self.check_out(release)
        told = self.project.succeed("makemigrations", "demo", "--name", f"release{release}", "--no-input")
        return [line.strip() for line in told.splitlines() if line.startswith("    ")]

    def deploy(self, release: int) -> None:
        """Have a release, and its schema in the database."""
        self.make(release)
        self.project.succeed("migrate", "--verbosity", "0", "--no-input")

    def deploy_models(self) -> None:
        """Have the schema of whatever models there are in the database."""
        self.project.succeed("makemigrations", "demo", "--no-input")
        self.project.succeed("migrate", "--verbosity", "0")

    def seed(self) -> None:
        """Write rows as the old release does."""
        self.run("seed", _SEED)

    def run(self, name: str, code: str = "", **arguments: object) -> Any:  # noqa: ANN401 - JSON of every shape
        """Run a module of the project and return the JSON that it prints.

        Args:
            name: the module's.
            code: its source, or that of the file of this name beside the releases.
            arguments: written in front of it as assignments.
        """
        given = "".join(f"{key} = {value!r}; " for key, value in arguments.items())
        self.project.write(f"{name}.py", given + (code or (_FILES / f"{name}.py").read_text()))
        told = self.project.succeed("shell", "--verbosity", "0", "--command", f"import {name}")
        return json.loads(told) if told.strip() else None

    def warn_only(self) -> None:
        """Have the second release's code with `on_use="warn"` everywhere."""
        source = (_FILES / "release2.py").read_text()
        source = source.replace("@deprecated_model\n", '@deprecated_model(on_use="warn")\n')
        partial = 'from functools import partial\ndeprecated_field = partial(deprecated_field, on_use="warn")\n'
        before, after, rest = source.partition("class Publisher")
        self.project.write("demo/models.py", before + partial + after + rest)

    def schema(self) -> list[str]:
        """Return the columns and constraints of the table of books, by the catalogue, in whatever order they stand."""
        return sorted(self.run("schema", _SCHEMA))

    def operations(self, release: int) -> str:
        """Return the source of what a release's migration does, to the letter."""
        [file] = (self.directory / "demo/migrations").glob(f"*_release{release}.py")
        return file.read_text().partition("operations = [")[2]
