"""The pages of Django's admin as Chromium shows them, of a project's own server over PostgreSQL.

Skipped, with the reason, where there is no Chromium.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus

import pytest

from tests.support.admin_site import HOSTILE, PAGES, admin_site, left_by_runs
from tests.support.browser import Browser, Seen, Step
from tests.support.histories import execute
from tests.support.postgres_database import temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.small_project import migration

AWAY: Final = f"away {HOSTILE}"
SET_UP: Final = """
from django.core.management import call_command
call_command("migrate", "demo", "0001", verbosity=0)
call_command("apply_migrations", expand=True, verbosity=0)

from django.contrib.auth.models import User
User.objects.create_superuser("root", password="root's")
User.objects.create_user("clerk", password="clerk's", is_staff=True)
"""
GOES: Final = migration("migrations.RemoveField('item', 'old')", after=[("demo", "0001_item")])
# Its server is to tell its address at once, through a pipe too.
SETTINGS: Final = """
import sys
sys.stdout.reconfigure(line_buffering=True)
TIME_ZONE = "Asia/Tokyo"
"""
# That of whoever serves pages, who is not whoever deploys.
READER: Final = "DROP ROLE IF EXISTS page_server; CREATE ROLE page_server LOGIN"
# What a page of Django's has none of, so that it would be one that a name has become.
STRANGE: Final = """
    document.querySelectorAll(
        "#content :is(script:not([src]), img:not([src^='/static/admin/']), [onerror], [onload])"
    ).length
"""
ROWS: Final = "[...document.querySelectorAll('#result_list tbody tr')].map((row) => row.innerText.split('\\t'))"
# Whatever could be pressed, filled in or followed, but for the columns' heads.
DOORS: Final = """
    [...document.querySelectorAll("#content :is(button, input:not([type=hidden]), select, textarea, a[href])")]
        .filter((each) => !each.closest("thead"))
        .map((each) => [each.innerText, each.getAttribute("href")])
"""
ABOVE: Final = "[...document.querySelectorAll('.breadcrumbs a')].map((each) => each.innerText)"
MESSAGES: Final = "[...document.querySelectorAll('.messagelist li')].map((each) => [each.className, each.innerText])"
# Django's own before 6.1, on every page of its admin: in the line above links are told from text by colour alone.
DJANGOS: Final = frozenset({"link-in-text-block"})


@dataclass(frozen=True, slots=True)
class Site:
    """A project's server, which has an alias of each kind."""

    url: str

    def seen(self, browser: Browser, user: str, *steps: Step) -> Seen:
        """Log in as one of the users, and take these steps."""
        login = (("type", user), ("press", "Tab"), ("type", f"{user}'s"), ("follow", "[type=submit]"))
        return browser.look(f"{self.url}/admin/login/?next=/admin/", *login, *steps)

    def page(self, path: str, alias: str) -> Step:
        """Return the step to a page of an alias."""
        return "go", f"{self.url}/admin/{path}?database={quote(alias)}"


@pytest.fixture(scope="module")
def site(pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server of a project with aliases that have runs, have none, are away, and may not be read."""
    with ExitStack() as stack:
        first, new, away, unread = (stack.enter_context(temporary_database(pg_server)) for _ in range(4))
        databases = {
            "default": first.django,
            "new": new.django,
            AWAY: away.django,
            "unread": unread.django | {"USER": "page_server"},
        }
        directory = tmp_path_factory.mktemp("admin") / "project"
        project = admin_site(directory, databases, settings=SETTINGS)
        project.write_migration("demo.0002_goes", GOES)
        project.succeed("shell", "--verbosity", "0", "--command", SET_UP)
        left_by_runs(first)
        execute(first, "UPDATE smooth_migrations_marker SET moved_at = '2026-03-01 10:30'")
        execute(first, f"UPDATE smooth_migrations_contract SET description = '{HOSTILE}'")
        left_by_runs(unread)
        execute(unread, READER)
        stack.enter_context(away.away())
        server = stack.enter_context(project.start("runserver", "--noreload", "127.0.0.1:0"))
        stack.callback(server.kill)
        yield Site(_address(server.stdout))


def _address(lines: Iterator[str] | None) -> str:
    found = (re.search(r"server at (http://\S+?)/$", line) for line in lines or ())
    return next(match[1] for match in found if match)


def _violated(found: dict[str, list[str]]) -> set[str]:
    return {each.partition(":")[0] for each in found["violations"]}


def test_what_a_database_keeps_is_text_and_the_only_doors_lead_to_other_databases(
    chromium: Browser, site: Site
) -> None:
    looks = [
        (site.page(path, "default"), *(("ask", asked) for asked in (ROWS, STRANGE, DOORS, ABOVE)), ("axe", ""))
        for path in PAGES
    ]
    seen = site.seen(chromium, "root", *(step for look in looks for step in look))
    runs, steps, held = (seen.answers[start : start + 5] for start in (0, 5, 10))
    assert runs[0] == [["friday", HOSTILE, "deploy", "primary", "7", "March 1, 2026, 7:30 p.m."]]
    assert steps[0] == [["c1", HOSTILE, "0002_goes", "0", "", "", "begun"]]
    assert [row[:4] for row in held[0]] == [["demo", "0002_goes", HOSTILE, "remove_field"]]
    for _rows, strange, doors, above, found in (runs, steps, held):
        assert strange == 0
        assert doors == [
            ["✖ Clear all filters", "?"],
            *([alias, f"?database={quote_plus(alias)}"] for alias in ("default", "new", AWAY, "unread")),
        ]
        assert above == ["Home", "Smooth migrations"]
        assert _violated(found) <= DJANGOS
    assert seen.told == []


def test_a_database_that_is_new_is_empty_and_one_that_does_not_answer_is_told_of(
    chromium: Browser, site: Site, pg_server: PostgresServer
) -> None:
    looks = [
        (site.page(path, alias), ("ask", ROWS), ("ask", MESSAGES), ("ask", STRANGE))
        for alias in ("new", AWAY, "unread")
        for path in PAGES[:2]
    ]
    seen = site.seen(chromium, "root", *(step for look in looks for step in look), ("axe", ""))
    *answers, found = seen.answers
    where = f"{pg_server.django()['HOST']}:{pg_server.port}"
    away, unread = (
        [[["error", f"The database “{alias}” at {where} cannot be asked."]]] * 2 for alias in (AWAY, "unread")
    )
    assert answers[0::3] == [[]] * 6
    assert answers[1::3] == [[], [], *away, *unread]
    assert answers[2::3] == [0] * 6
    assert _violated(found) <= DJANGOS
    assert seen.told == []


@pytest.mark.long
def test_who_lacks_the_permission_finds_no_way_to_a_page_and_is_let_into_none(chromium: Browser, site: Site) -> None:
    index = ("ask", "document.body.innerText.includes('Smooth')")
    title = ("ask", "document.title")
    seen = site.seen(
        chromium, "clerk", index, *(step for path in PAGES for step in (site.page(path, "default"), title))
    )
    assert seen.answers == [False, *["403 Forbidden"] * 3]
