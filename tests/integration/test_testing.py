"""The helpers for projects' own tests, as the page about them shows them, under Django's runner and under pytest."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.small_project import Result, SmallProject, migration

PAGE: Final = (Path(__file__).parents[2] / "docs/how-to/test-your-migrations.md").read_text(encoding="utf-8")
TESTS, PARAMETRISED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[SHOWN] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
ORDER: Final = migration(
    "migrations.CreateModel('Order', [('id', models.BigAutoField(primary_key=True)), "
    "('email', models.CharField(max_length=100)), ('total', models.IntegerField())])"
)
AFTER: Final = [("shop", "0001_order")]
NOTE: Final = migration(
    "migrations.AddField('order', 'note', models.CharField(max_length=9, default='none'))", after=AFTER
)
# Comes back as it was where there are no rows.
SHOUT: Final = migration(
    "migrations.RunSQL('UPDATE shop_order SET email = upper(email)', migrations.RunSQL.noop)",
    after=[("shop", "0002_note")],
)
INDEX: Final = migration(
    "migrations.RunSQL('CREATE INDEX lost ON shop_order (total)', migrations.RunSQL.noop)",
    after=[("shop", "0002_note")],
)
ROW: Final = migration(
    "migrations.RunSQL(\"INSERT INTO shop_order (email, total, note) VALUES ('x', 1, 'n')\", migrations.RunSQL.noop)",
    after=[("shop", "0002_note")],
)
ONE_WAY: Final = migration("migrations.RunSQL('SELECT 1')", after=[("shop", "0003_last")])
# What pytest-django does, of which the environment of these tests has none.
CONFTEST: Final = """
import os

import django
import pytest

os.environ["DJANGO_SETTINGS_MODULE"] = "small_settings"
django.setup()

from django.test.utils import setup_databases, setup_test_environment, teardown_databases


def pytest_configure(config):
    config.addinivalue_line("markers", "django_db(transaction): has the test's database")


@pytest.fixture(scope="session", autouse=True)
def database():
    setup_test_environment()
    created = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(created, verbosity=0)
"""


def _project(tmp_path: Path, databases: NewDatabases, **more: str) -> SmallProject:
    migrations = {"shop.0001_order": ORDER, "shop.0002_note": NOTE}
    migrations |= {f"shop.{name}": source for name, source in more.items()}
    return SmallProject(tmp_path / "project", {"default": databases.new().django}, migrations)


def _test(project: SmallProject, body: str) -> Result:
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    head = TESTS.partition("class MigrationTests")[0]
    project.write("shop/tests.py", f"{head}class Tests(TransactionTestCase):\n    def test_it(self):\n{lines}\n")
    return project.run("test", "--no-input", "shop")


def test_the_tests_of_the_page_pass(tmp_path: Path, databases: NewDatabases) -> None:
    project = _project(tmp_path, databases)
    project.write("shop/tests.py", TESTS)
    done = project.run("test", "--no-input", "shop")
    assert "Ran 3 tests" in done.stderr
    assert done.stderr.endswith("OK\nDestroying test database for alias 'default'...\n"), done.stderr


def test_rows_that_do_not_come_back_are_shown_as_the_page_does(tmp_path: Path, databases: NewDatabases) -> None:
    project = _project(tmp_path, databases)
    project.write_migration("shop.0003_shout", SHOUT.replace("0002_note", "0001_order"))
    project.write_migration("shop.0002_note", NOTE.replace("0001_order", "0003_shout"))
    done = _test(project, "assert_reversible('shop', '0003', fill=one_order)")
    assert SHOWN in done.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("assert_all_reversible()", "undone, leaves the database otherwise than it was:"),
        ("assert_all_reversible('shop', skip=['shop.0004_one_way'])", "undone, leaves the database otherwise than it"),
        ("assert_reversible('shop', '0003_last')", "cannot be applied where it was undone:"),
    ],
)
def test_a_schema_that_does_not_come_back_is_told_by_migration(
    tmp_path: Path, databases: NewDatabases, body: str, message: str
) -> None:
    more = {"0004_one_way": ONE_WAY} if "skip" in body else {}
    done = _test(_project(tmp_path, databases, **{"0003_last": INDEX}, **more), body)
    assert done.returncode == 1
    assert re.search(f"AssertionError: shop.0003_last,? {message}", done.stderr), done.stderr
    assert "0004_one_way," not in done.stderr
    assert "lost" in done.stderr


@pytest.mark.parametrize("body", ["assert_all_reversible('shop')", "assert_reversible('shop', '0002')"])
def test_a_migration_without_a_way_back_is_told(tmp_path: Path, databases: NewDatabases, body: str) -> None:
    one_way = ONE_WAY.replace("0003_last", "0002_note")
    done = _test(_project(tmp_path, databases, **{"0003_one_way": one_way}), body)
    assert "AssertionError: there is no way back: " in done.stderr
    assert "shop.0003_one_way is not reversible" in done.stderr


def test_the_database_is_where_it_was_whatever_has_failed(tmp_path: Path, databases: NewDatabases) -> None:
    body = """\
from django.db import connection
from smooth_migrations.fingerprint import take
before = take(connection)
with self.assertRaises(AssertionError):
    assert_all_reversible()
with self.assertRaises(AssertionError):
    assert_reversible('shop', '0001', fill=lambda apps: self.fail())
with self.assertRaises(ZeroDivisionError), two_releases('shop', '0002'):
    1 / 0
assert_reversible('shop', '0002')
self.assertEqual(take(connection).differences(before), ())
"""
    project = _project(tmp_path, databases, **{"0003_last": ROW})
    done = _test(project, body)
    assert done.returncode == 0, done.stderr


def test_within_a_transaction_it_says_what_to_use(tmp_path: Path, databases: NewDatabases) -> None:
    project = _project(tmp_path, databases)
    done = _test(
        project, "from django.db import transaction\nwith transaction.atomic():\n    assert_reversible('shop', '0002')"
    )
    assert "RuntimeError: migrations cannot be tested within a transaction: use TransactionTestCase" in done.stderr


def test_what_is_no_tests_database_is_not_emptied(tmp_path: Path, databases: NewDatabases) -> None:
    project = _project(tmp_path, databases)
    project.succeed("migrate", "--verbosity", "0")
    program = "from smooth_migrations.testing import assert_all_reversible; assert_all_reversible()"
    done = project.run("shell", "--verbosity", "0", "--command", program)
    assert "it runs in a test environment alone" in done.stderr
    assert "[X] 0002_note" in project.succeed("showmigrations", "shop")


def test_each_migration_is_a_test_of_its_own_under_pytest(tmp_path: Path, databases: NewDatabases) -> None:
    project = _project(tmp_path, databases)
    project.write("conftest.py", CONFTEST)
    project.write("test_migrations.py", PARAMETRISED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_migrations.py"],
        cwd=tmp_path / "project",
        env=project._environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout
