"""What two releases of one project are, and the way of a deploy between them while both serve."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.support.histories import Database, SqliteDatabase
from tests.support.mariadb_database import MariadbDatabase
from tests.support.serving import Serving
from tests.support.skew.schema import schema_of
from tests.support.small_project import SmallProject, migration

__all__ = ["ByCommand", "Releases", "Skew", "Way", "assert_both_serve", "assert_refused"]

_MODELS = """\
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Lower, Upper


class Row(models.Model):
    by = models.CharField(max_length=8)
    stamp = models.IntegerField()

    class Meta:
        abstract = True


"""
# Who reads first and would then write is refused at once where somebody else writes; and nobody will miss the data.
_OF_SQLITE = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA synchronous = OFF"}
_SERVE = Path(__file__).with_name("serve.py")


@dataclass(frozen=True, slots=True)
class Skew:
    """Two releases of an app.

    Args:
        old: source of its models; each that has a table is a `Row`.
        new: the same for the next release.
        operations: source of what leads from one to the other.
        own: by release, `old` or `new`, fields such as `Item.price` that it alone knows.
    """

    old: str
    new: str
    operations: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Releases:
    """The projects of both releases.

    Args:
        directory: an empty one.
        skew: what they are.
        *databases: theirs, all alike; the first is the one called default.
        installed: apps beside their own.
    """

    def __init__(
        self,
        directory: Path,
        skew: Skew,
        *databases: Database,
        installed: Sequence[str] = ("django.contrib.contenttypes",),
    ) -> None:
        self.directory = directory
        self._installed = installed
        self.databases = {f"shard_{number}" if number else "default": each for number, each in enumerate(databases)}
        self._skew = skew
        self.old = self._project("deploys_old", skew.old, {})
        self.old.succeed("makemigrations", "demo", "--name", "first", "--verbosity=0")
        first = (directory / "deploys_old/demo/migrations/0001_first.py").read_text()
        second = migration(*skew.operations, after=[("demo", "0001_first")])
        self.new = self._project("deploys_new", skew.new, {"demo.0001_first": first, "demo.0002_second": second})

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Their `settings.DATABASES`."""
        return {alias: _settings(database) for alias, database in self.databases.items()}

    @property
    def adds_fields(self) -> bool:
        """Whether the new one has values that the old one has no place for."""
        return bool(self._skew.own.get("new"))

    def migrate(self) -> None:
        """Make the tables of the old one in every database."""
        for alias in self.databases:
            self.old.succeed("migrate", "--verbosity=0", f"--database={alias}")

    def schemas(self) -> list[str]:
        """Return what every database holds but for rows: the app's are deleted."""
        return [schema_of(database) for database in self.databases.values()]

    def _project(self, name: str, models: str, migrations: Mapping[str, str]) -> SmallProject:
        project = SmallProject(
            self.directory / name,
            self.settings,
            migrations or {"demo.0001_none": ""},
            installed=[*self._installed],
        )
        if not migrations:
            (self.directory / name / "demo/migrations/0001_none.py").unlink()
        project.write("demo/models.py", f"{_MODELS}{models}")
        return project

    @contextmanager
    def serving(self, label: str) -> Iterator[Serving]:
        """Let one of them serve for the length of a block; `new` and `last` are the next one."""
        release = "new" if label in {"new", "last"} else "old"
        directory = self.directory / label
        project = self._project(label, getattr(self._skew, release), {})
        given: dict[str, Any] = {
            "label": label,
            "own": self._skew.own.get(release, []),
            "is_alone": label in {"old", "last"},
        }
        project.write("given", json.dumps(given))
        project.write("serve.py", _SERVE.read_text())
        with project.start("shell", "--verbosity", "0", "--command", "import serve") as process:
            try:
                yield Serving(directory, process)
            finally:
                (directory / "stop").touch()


class Way(Protocol):
    """How a release is deployed."""

    def deploy(self) -> None:
        """Deploy the new one, and hold back what would harm the old one."""

    def roll_back(self) -> None:
        """Take that back."""

    def finalise(self) -> None:
        """Do what was held back."""


class ByCommand:
    """By the commands for one database.

    Args:
        releases: which.
    """

    def __init__(self, releases: Releases) -> None:
        self._new = releases.new
        is_mariadb = any(isinstance(database, MariadbDatabase) for database in releases.databases.values())
        # Nobody there but a time limit ends a change of a table and a transaction that wait for each other's locks.
        self._limits = ("--lock-timeout=1s", "--lock-retries=20") if is_mariadb else ()
        # A failure on the way back would not bring the new release's own values back, where it cannot roll DDL back.
        self._back = ("--allow-irreversible",) if is_mariadb else ()

    def deploy(self) -> None:
        """Deploy it in halves."""
        self._new.succeed("apply_migrations", "--expand", *self._limits)

    def roll_back(self) -> None:
        """Go back to the old one's migration."""
        self._new.succeed("apply_migrations", "demo", "0001", *self._limits, *self._back)

    def finalise(self) -> None:
        """Do the other halves."""
        self._new.succeed("finalise_migrations")


def _settings(database: Database) -> dict[str, Any]:
    return {**database.django, "OPTIONS": _OF_SQLITE} if isinstance(database, SqliteDatabase) else database.django


def _assert_same(wanted: str, schemas: list[str]) -> None:
    for found in schemas:
        differences = difflib.unified_diff(wanted.splitlines(), found.splitlines(), lineterm="", n=1)
        text = "\n".join(differences)
        assert text == "", text


def assert_both_serve(releases: Releases, way: Way, stock: Releases) -> None:
    """Deploy, go back, deploy again and finalise, while all that are supported serve; end where `migrate` does."""
    stock.migrate()
    [before] = stock.schemas()
    stock.new.succeed("migrate", "--verbosity=0")
    [after] = stock.schemas()
    releases.migrate()
    with releases.serving("old") as old:
        old.go_on()
        way.deploy()
        releases.new.succeed("makemigrations", "--check", "--dry-run")
        with releases.serving("new") as new:
            new.go_on()
            old.go_on()
            new.stop()
        way.roll_back()
        old.go_on()
        old.stop()
    _assert_same(before, releases.schemas())
    with releases.serving("back") as back:
        back.go_on()
        way.deploy()
        with releases.serving("last") as last:
            last.go_on()
            back.go_on()
            back.stop()
            way.finalise()
            last.go_on()
            last.stop()
    _assert_same(after, releases.schemas())


def assert_refused(releases: Releases, message: str) -> None:
    """Refuse to deploy what has no halves, by its name, and leave the old release what it has."""
    releases.migrate()
    before = releases.schemas()

    refused = releases.new.run("apply_migrations", "--expand")

    assert refused.returncode == 3
    assert f"Refused: {message} (set expand_contract = false for this database, or" in refused.stderr
    assert releases.schemas() == before
