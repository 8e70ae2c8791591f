"""`report --html` over runs of the installed program."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.browser import Browser
from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.small_project import migration

UNIQUE: Final = migration(
    "migrations.AlterField('item', 'name', models.CharField(max_length=40, unique=True))", after=[("demo", "0002_note")]
)


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """A fleet before a release of two migrations, of which the last one can be made to fail."""
    release = {"demo.0002_note": NOTE, "demo.0003_unique": UNIQUE}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as found:
        yield found


def _fail(fleet: Fleet) -> None:
    with fleet.last.connect() as session:
        session.execute("INSERT INTO demo_item (name) VALUES ('kite')")
    assert fleet.deploy().exit_code == 1


def _titles(page: Path) -> list[str]:
    return re.findall(r"<title>([^<]+)</title></rect>", page.read_text(encoding="utf-8"))


def test_the_page_of_a_deploy_that_failed_tells_when_what_happened_and_stdout_has_the_report(
    fleet: Fleet, chromium: Browser
) -> None:
    _fail(fleet)
    page = fleet.directory / "report.html"

    shown = fleet.run("report", "--html", str(page))

    plain = fleet.run("report")
    assert (shown.exit_code, shown.report) == (1, plain.report)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    titles = _titles(page)
    # What had been done to another database was tried on the last one, which Django then migrated once more.
    assert sum(title.startswith("demo.0002_note applied: ") for title in titles) == 4
    assert sum(title.startswith("demo.0003_unique failed: ") for title in titles) == 1
    assert sum(title.startswith("rolled back: at ") for title in titles) == 3
    assert sum(title.startswith("held for the decision: ") for title in titles) == 2
    seen = chromium.look(
        page.as_uri(),
        ("axe", ""),
        ("ask", "document.querySelector('.errors li').textContent"),
        ("ask", "[...document.querySelectorAll('#fleet tbody tr')].map((row) => row.dataset.o)"),
        ("ask", "document.querySelectorAll('tbody .time svg').length"),
    )
    found, first_error, outcomes, lanes = seen.answers
    assert found["violations"] == []
    assert (seen.told, seen.requested) == ([], [page.as_uri()])
    told = ("first cause", "IntegrityError", LAST, "demo.0003_unique", "23505 unique violation", "0003_unique.py:")
    assert all(words in first_error for words in (*told, "Alter field name on item"))
    assert (outcomes, lanes) == (["rolled_back", "rolled_back", "failed"], 3)


def test_a_lock_that_was_waited_for_is_on_the_page_with_who_held_it(fleet: Fleet) -> None:
    fleet.plan(deploy='expand_contract = false\nlock_timeout = "15s"')
    with fleet.last.connect() as session:
        session.execute("BEGIN")
        session.execute("SET LOCAL application_name = 'nightly export'")
        session.execute("SELECT FROM demo_item")
        with fleet.running() as run:
            run.wait_for("lock.waiting", database=LAST)
            session.execute("COMMIT")
            assert run.finish().exit_code == 0
    page = fleet.directory / "report.html"

    assert fleet.run("report", "--html", str(page)).exit_code == 0

    [waited] = [title for title in _titles(page) if title.startswith("waited")]
    assert waited.startswith("waited for a lock of nightly export (pid ")
    assert "Decided to <b>commit</b>" in page.read_text(encoding="utf-8")


def test_a_run_that_was_cut_off_and_settled_has_a_page_by_the_journals_records(fleet: Fleet) -> None:
    fleet.kill("deploy", "decide.after")
    assert fleet.run("recover").exit_code == 0
    page = fleet.directory / "report.html"

    shown = fleet.run("report", "--html", str(page))

    assert shown.report["outcome"] == "committed"
    text = page.read_text(encoding="utf-8")
    assert "The journal tells no more of when what happened" in text
    titles = _titles(page)
    assert sum(title.startswith("at work: ") for title in titles) == 3
    # The last resource had committed before the decision was written down.
    assert sum(title.startswith("held for the decision: ") for title in titles) == 2
    assert "Decided to <b>commit</b>" in text


@pytest.mark.parametrize(
    ("place", "why"),
    [
        pytest.param("missing/report.html", "No such file or directory", id="no-directory"),
        pytest.param(".", "no regular file", id="directory"),
    ],
)
def test_a_page_that_cannot_be_written_is_exit_code_2_with_the_reason_and_the_report(
    fleet: Fleet, place: str, why: str
) -> None:
    _fail(fleet)
    (fleet.directory / "report.html").write_text("an older page")
    before = sorted(fleet.directory.iterdir())

    shown = fleet.run("report", "--html", place)

    assert (shown.exit_code, shown.report["outcome"]) == (2, "rolled_back")
    [line] = [line for line in shown.named("log.message") if line["level"] == "error"]
    assert line["message"].startswith(f"--html {place}: the page could not be written: ")
    assert why in line["message"]
    assert (fleet.directory / "report.html").read_text() == "an older page"
    assert sorted(fleet.directory.iterdir()) == before


def test_of_a_run_that_there_is_not_no_page_is_written(fleet: Fleet) -> None:
    page = fleet.directory / "report.html"
    assert fleet.run("report", "--run", "nobodys", "--html", str(page)).exit_code == 3
    assert not page.exists()
