"""The pages of Django's admin, asked by its test client over real databases."""

import html
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.admin_site import HOSTILE, PAGES, admin_site, left_by_runs
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_project import SmallProject, migration

PAGE: Final = (Path(__file__).parents[2] / "docs/how-to/see-it-in-the-admin.md").read_text(encoding="utf-8")
[GIVEN] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# Asks for each path, as each of the users in turn, and prints what came.
ASK: Final = """\
import json
import sys

from django.contrib.auth.models import Group, User
from django.test import Client

User.objects.create_superuser("root")
User.objects.create_user("clerk", is_staff=True)
reader = User.objects.create_user("reader", is_staff=True)
reader.groups.add(Group.objects.create(name="operators"))
{given}
found = {{}}
for name, path in {asked!r}:
    client = Client()
    client.force_login(User.objects.get(username=name))
    answer = client.get("/admin/" + path)
    found[f"{{name}} {{path}}"] = [answer.status_code, answer.content.decode()]
print(json.dumps(found))
"""
SETTINGS_AFTER: Final = """
from django.db import connections
print(json.dumps([connections["other"].settings_dict["OPTIONS"], connections["other"].connection is None]))
"""
MODELS: Final = """\
from django.db import models


class Item(models.Model):
    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=9)
    old = models.CharField(max_length=9)
"""
GOES: Final = migration("migrations.RemoveField('item', 'old')", after=[("demo", "0001_item")])
MARKER, JOURNAL, CONTRACT = PAGES
ROUTED: Final = 'DATABASE_ROUTERS = ["routes.Everything"]'
ROUTER: Final = """\
class Everything:
    def db_for_read(self, model, **hints):
        return "only"

    db_for_write = db_for_read
"""


class Site:
    """A project with an admin, and two databases."""

    def __init__(self, directory: Path, databases: NewDatabases) -> None:
        self.first, self.second = databases.new(), databases.new()
        aliases = {"default": self.first.django, "other": self.second.django}
        self.project = admin_site(directory / "project", aliases, *aliases)

    def ask(self, *asked: tuple[str, str]) -> dict[str, Any]:
        """Return status and text of each path, as that user gets it."""
        done = self.project.succeed("shell", "--verbosity", "0", "--command", ASK.format(asked=asked, given=GIVEN))
        found: dict[str, Any] = json.loads(done.splitlines()[-1])
        return found


@pytest.fixture
def site(tmp_path: Path, databases: NewDatabases) -> Site:
    return Site(tmp_path, databases)


def test_before_the_first_deploy_the_pages_are_empty(site: Site) -> None:
    found = site.ask(*(("root", path) for path in ("", MARKER, JOURNAL, CONTRACT, f"{CONTRACT}?database=other")))
    assert {status for status, _text in found.values()} == {200}
    assert "Operations held back" in found["root "][1]
    assert "0 operations held back" in found[f"root {CONTRACT}"][1]


def test_what_a_database_keeps_is_shown_by_alias(site: Site) -> None:
    site.project.write_migration("demo.0002_goes", GOES)
    site.project.succeed("apply_migrations", "--expand", "--database", "other", "--verbosity", "0")
    left_by_runs(site.second)
    found = site.ask(
        *(
            ("root", f"{path}?database={alias}")
            for path in (MARKER, JOURNAL, CONTRACT)
            for alias in ("default", "other")
        )
    )
    assert {status for status, _text in found.values()} == {200}
    for path, shown in ((MARKER, "friday"), (JOURNAL, "0002_goes"), (CONTRACT, "0002_goes")):
        assert shown in found[f"root {path}?database=other"][1]
        assert shown not in found[f"root {path}?database=default"][1]
    page = found[f"root {MARKER}?database=other"][1]
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    assert "a row" not in found[f"root {JOURNAL}?database=other"][1]


def test_nobody_sees_a_page_without_its_permission_and_nobody_can_change_anything(site: Site) -> None:
    left_by_runs(site.first)
    pages = [MARKER, JOURNAL, CONTRACT]
    forms = ["add/", "friday/change/", "friday/delete/", "friday/history/"]
    found = site.ask(
        *(("clerk", path) for path in ["", *pages]),
        *(("reader", path) for path in ["", *pages]),
        *(("root", f"{MARKER}{path}") for path in forms),
        ("root", f"{MARKER}?database=none"),
        ("root", MARKER),
    )
    assert "held back" not in found["clerk "][1]
    assert [found[f"clerk {path}"][0] for path in pages] == [403, 403, 403]
    assert [found[f"reader {path}"][0] for path in pages] == [403, 403, 200]
    assert [found[f"root {MARKER}{path}"][0] for path in forms] == [404] * 4
    assert "friday" in found[f"root {MARKER}?database=none"][1]
    page = found[f"root {MARKER}"][1]
    assert "Add run" not in page
    assert 'name="action"' not in page


def test_a_database_that_is_away_is_told_of(tmp_path: Path, databases: NewDatabases) -> None:
    site = Site(tmp_path, databases)
    away = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "no/such/file")}
    site.project._databases = {**site.project._databases, "other": away}
    status, text = site.ask(("root", f"{MARKER}?database=other"))[f"root {MARKER}?database=other"]
    assert status == 200
    assert "The database “other” cannot be asked." in text


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that lets everybody connect, and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_server_that_says_nothing_is_not_waited_for_and_the_settings_stay_as_they_are(
    tmp_path: Path, stepping_databases: NewDatabases, silent: int
) -> None:
    database = stepping_databases.new()
    away = {**database.django, "HOST": "127.0.0.1", "PORT": str(silent)}
    aliases = {"default": database.django, "other": away}
    project = admin_site(tmp_path / "project", aliases, "default")
    left_by_runs(database)
    program = ASK.format(asked=[("root", f"{MARKER}?database=other"), ("root", MARKER)], given="") + SETTINGS_AFTER
    *_, answers, settings = project.succeed("shell", "--verbosity", "0", "--command", program).splitlines()
    (status, told), (_, shown) = json.loads(answers).values()

    assert status == 200
    assert f"The database “other” at 127.0.0.1:{silent} cannot be asked." in told
    assert told.count("cannot be asked") == 1
    assert "friday" in shown
    assert json.loads(settings) == [away.get("OPTIONS", {}), True]


def test_a_table_that_somebody_has_locked_is_not_waited_for(tmp_path: Path, pg_database: PostgresDatabase) -> None:
    project = admin_site(tmp_path / "project", {"default": pg_database.django}, "default")
    left_by_runs(pg_database)
    program = ASK.format(asked=[("root", MARKER), ("root", JOURNAL)], given="")
    with pg_database.connect() as session, session.transaction():
        session.execute("LOCK TABLE smooth_migrations_marker IN ACCESS EXCLUSIVE MODE")
        answers = project.succeed("shell", "--verbosity", "0", "--command", program).splitlines()[-1]
    (status, locked), (_, free) = json.loads(answers).values()

    assert (status, "cannot be asked" in locked, "friday" in locked) == (200, True, False)
    assert "0002_goes" in free


def test_django_makes_nothing_of_the_models(site: Site) -> None:
    site.project.write("demo/models.py", MODELS)
    assert "smooth" not in site.project.succeed("makemigrations", "--name", "as_the_models_are")
    for label in ((), ("smooth_migrations",)):
        assert "No changes detected" in site.project.succeed("makemigrations", "--check", *label)
    site.project.succeed("check")
    program = (
        "from django.contrib.contenttypes.models import ContentType; "
        "print(ContentType.objects.filter(app_label='smooth_migrations').count())"
    )
    assert site.project.succeed("shell", "--verbosity", "0", "--command", program).split() == ["0"]


def test_a_project_without_the_admin_never_imports_the_pages(tmp_path: Path, databases: NewDatabases) -> None:
    project = SmallProject(tmp_path / "project", {"default": databases.new().django}, {"demo.0001_none": ""})
    program = "import sys; print('smooth_migrations.admin' in sys.modules)"
    assert project.succeed("shell", "--verbosity", "0", "--command", program).split() == ["False"]


def test_a_project_without_a_default_database_sees_the_first_that_it_has(
    tmp_path: Path, databases: NewDatabases
) -> None:
    only = databases.new()
    project = admin_site(tmp_path / "project", {"default": {}, "only": only.django}, settings=ROUTED)
    project.write("routes.py", ROUTER)
    project.succeed("migrate", "--database", "only", "--verbosity", "0")
    left_by_runs(only)
    program = ASK.format(asked=[("root", MARKER), ("root", f"{MARKER}?database=default")], given="")
    found = json.loads(project.succeed("shell", "--verbosity", "0", "--command", program).splitlines()[-1])
    for status, text in found.values():
        assert status == 200
        assert "friday" in text
        assert ">default</a>" not in text
