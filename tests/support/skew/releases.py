"""What two releases of one project are, and the way of a deploy between them while both serve."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.postgres_database import PostgresDatabase
from tests.support.serving import Serving
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import content

__all__ = ["Releases", "Skew", "assert_both_serve"]

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
_ROWS = re.compile(r"^COPY .*?^\\\.$", re.MULTILINE | re.DOTALL)
# What is made unique once more has the name that Django gives when it alters a field, and not PostgreSQL's own.
_UNIQUE = re.compile(r"_[0-9a-f]{8}_uniq\b")
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
        database: theirs.
        skew: what they are.
    """

    def __init__(self, directory: Path, database: PostgresDatabase, skew: Skew) -> None:
        self._directory = directory
        self._database = database
        self._skew = skew
        self.old = self._project("deploys_old", skew.old, {})
        self.old.succeed("makemigrations", "demo", "--name", "first", "--verbosity=0")
        first = (directory / "deploys_old/demo/migrations/0001_first.py").read_text()
        second = migration(*skew.operations, after=[("demo", "0001_first")])
        self.new = self._project("deploys_new", skew.new, {"demo.0001_first": first, "demo.0002_second": second})

    def _project(self, name: str, models: str, migrations: Mapping[str, str]) -> SmallProject:
        project = SmallProject(
            self._directory / name,
            {"default": self._database.django},
            migrations or {"demo.0001_none": ""},
            installed=["django.contrib.contenttypes"],
        )
        if not migrations:
            (self._directory / name / "demo/migrations/0001_none.py").unlink()
        project.write("demo/models.py", f"{_MODELS}{models}")
        return project

    @contextmanager
    def serving(self, label: str) -> Iterator[Serving]:
        """Let one of them serve for the length of a block; `new` and `last` are the next one."""
        release = "new" if label in {"new", "last"} else "old"
        directory = self._directory / label
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


def _schema(database: PostgresDatabase) -> str:
    """Return what is in a database but for rows: the app's it deletes."""
    with database.connect() as session:
        tables = session.execute(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class "
            "WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname !~ '^(smooth|django)_'"
        ).fetchall()
        session.execute(f"TRUNCATE {tables[0][0]}".encode())
    return _UNIQUE.sub("_key", _ROWS.sub("", str(content(database))))


def _assert_same(wanted: str, found: str) -> None:
    differences = difflib.unified_diff(wanted.splitlines(), found.splitlines(), lineterm="", n=1)
    text = "\n".join(differences)
    assert text == "", text


def assert_both_serve(directory: Path, database: PostgresDatabase, stock: PostgresDatabase, skew: Skew) -> None:
    """Deploy, go back, deploy again and finalise, while all that are supported serve; end where `migrate` does."""
    expected = Releases(directory / "stock", stock, skew)
    expected.old.succeed("migrate", "--verbosity=0")
    before = _schema(stock)
    expected.new.succeed("migrate", "--verbosity=0")
    after = _schema(stock)
    releases = Releases(directory / "ours", database, skew)
    releases.old.succeed("migrate", "--verbosity=0")
    with releases.serving("old") as old:
        old.go_on()
        releases.new.succeed("apply_migrations", "--expand")
        releases.new.succeed("makemigrations", "--check", "--dry-run")
        with releases.serving("new") as new:
            new.go_on()
            old.go_on()
            new.stop()
        releases.new.succeed("apply_migrations", "demo", "0001")
        old.go_on()
        old.stop()
    _assert_same(before, _schema(database))
    with releases.serving("back") as back:
        back.go_on()
        releases.new.succeed("apply_migrations", "--expand")
        with releases.serving("last") as last:
            last.go_on()
            back.go_on()
            back.stop()
            releases.new.succeed("finalise_migrations")
            last.go_on()
            last.stop()
    _assert_same(after, _schema(database))
