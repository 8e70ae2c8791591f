"""A run's page as Chromium shows it; skipped, with the reason, where that is not installed."""

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Literal

import pytest

from smooth_orchestrator.page.account import Account
from smooth_orchestrator.page.document import page_of
from tests.support.browser import Browser
from tests.support.pages import committed, failed, hostile

DESK: Final = (1280, 900)
PHONE: Final = (360, 740)
ACCOUNTS: Final[dict[str, Callable[[], Account]]] = {
    "failed": failed,
    "three": lambda: committed(3),
    "hostile": hostile,
}
NAMES: Final = "[...document.querySelectorAll('#fleet tbody tr:not([hidden]) th')].map((cell) => cell.textContent)"
FOCUSED: Final = "document.activeElement.textContent"
IS_WIDER: Final = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of the page of an account, by its name or its number of databases."""
    account = ACCOUNTS[request.param]() if isinstance(request.param, str) else committed(request.param)
    page = tmp_path / "report.html"
    page.write_text(page_of(account, "deploy.toml"), encoding="utf-8")
    return page.as_uri()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the same page on a web server, which a browser asks for more than a file."""
    (tmp_path / "report.html").write_text(page_of(failed(), "deploy.toml"), encoding="utf-8")
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/report.html"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.mark.parametrize(
    ("url", "size", "scheme"),
    [
        pytest.param("failed", DESK, "light", id="failed-desk-light"),
        pytest.param("failed", PHONE, "dark", id="failed-phone-dark"),
        pytest.param("three", DESK, "dark", id="three-desk-dark"),
        pytest.param("three", PHONE, "light", id="three-phone-light"),
        pytest.param("hostile", DESK, "dark", id="hostile-desk-dark"),
        pytest.param("hostile", PHONE, "light", id="hostile-phone-light"),
        pytest.param(100, DESK, "light", id="hundred-desk-light"),
        pytest.param(1_000, PHONE, "dark", id="thousand-phone-dark", marks=pytest.mark.long),
    ],
    indirect=["url"],
)
def test_a_page_keeps_nobody_out_asks_for_nothing_and_does_nothing(
    chromium: Browser, url: str, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    seen = chromium.look(url, ("axe", ""), ("ask", IS_WIDER), size=size, scheme=scheme)
    found, is_wider = seen.answers
    assert found["violations"] == []
    assert not is_wider
    assert seen.told == []
    assert seen.requested == [url]


def test_a_page_on_a_web_server_asks_for_nothing_else(chromium: Browser, served: str) -> None:
    seen = chromium.look(served)
    assert (seen.told, seen.requested) == ([], [served])


@pytest.mark.parametrize("url", ["hostile"], indirect=True)
def test_a_hostile_page_has_no_element_of_its_own(chromium: Browser, url: str) -> None:
    strange = (
        "document.querySelectorAll('img, iframe, textarea, [onload], [onmouseover], [onerror], a[href^=java]').length"
    )
    shown = "document.querySelector('#fleet tbody th').textContent"
    seen = chromium.look(url, ("ask", strange), ("ask", shown), ("ask", "document.scripts.length"))
    assert seen.answers == [0, "<script>alert(1)</script><img src=x onerror=alert(2)>", 1]


@pytest.mark.parametrize("url", [3], indirect=True)
def test_the_style_and_the_script_are_let_through_and_no_other_is(chromium: Browser, url: str) -> None:
    intrude = """
        (() => {
          const script = document.createElement("script");
          script.textContent = "window.intruded = true";
          document.body.append(script);
          document.body.setAttribute("style", "color: red");
          document.body.append(Object.assign(new Image(), { src: "https://example.com/x.png" }));
          return window.intruded === true;
        })()
    """
    colour = "getComputedStyle(document.querySelector('header')).borderLeftWidth"
    seen = chromium.look(url, ("ask", colour), ("ask", "!document.getElementById('controls').hidden"), ("ask", intrude))
    assert seen.answers == ["6px", True, False]
    violated = " ".join(line for line in seen.told if "Content Security Policy" in line)
    assert all(f"{kind}" in violated for kind in ("script-src", "style-src", "img-src"))


@pytest.mark.parametrize("url", ["failed"], indirect=True)
def test_the_keyboard_alone_searches_chooses_and_sorts(chromium: Browser, url: str) -> None:
    focus = ("ask", "document.getElementById('search').focus()")
    status, sorted_by = "document.getElementById('shown').textContent", "document.querySelector('#fleet th').ariaSort"
    seen = chromium.look(
        url,
        focus,
        *(("type", "SHARD_1"), ("ask", NAMES), ("ask", status)),
        *(
            ("press", "Control+a"),
            ("press", "Delete"),
            ("press", "Tab"),
            ("type", "f"),
            ("ask", NAMES),
            ("press", "Home"),
        ),
        *(("press", "Tab"), ("ask", FOCUSED)),
        *(("press", "Enter"), ("ask", NAMES), ("ask", sorted_by)),
        *(("press", "Space"), ("ask", NAMES), ("ask", sorted_by)),
        *(("press", "Enter"), ("ask", NAMES), ("ask", sorted_by)),
    )
    planned = ["primary", "kiosk", "shards:shard_1", "shards:shard_2", "shards:shard_3"]
    assert seen.answers[1:] == [
        ["shards:shard_1"],
        "1 of 5 shown",
        ["shards:shard_3"],
        "Database",
        sorted(planned),
        "ascending",
        sorted(planned, reverse=True),
        "descending",
        planned,
        "none",
    ]


@pytest.mark.parametrize("url", ["failed"], indirect=True)
def test_the_way_to_the_cause_and_to_the_databases_is_short(chromium: Browser, url: str) -> None:
    seen = chromium.look(
        url,
        *(("press", "Tab"), ("ask", FOCUSED), ("press", "Enter"), ("ask", "document.activeElement.id")),
        *(("ask", "document.querySelector('#fleet a[href^=\"#e\"]').focus()"), ("press", "Enter")),
        ("ask", "document.activeElement.id"),
    )
    assert [seen.answers[0], seen.answers[1], seen.answers[3]] == ["Skip to the databases", "databases", "e1"]


@pytest.mark.parametrize("url", ["failed"], indirect=True)
def test_numbers_are_sorted_as_numbers_and_what_is_unknown_comes_last(chromium: Browser, url: str) -> None:
    press = ("ask", "document.querySelector('#fleet .locked button').click()")
    held = "[...document.querySelectorAll('#fleet tbody .locked')].map((cell) => Number(cell.dataset.n))"
    seen = chromium.look(url, press, ("ask", held))
    assert seen.answers[1] == sorted(seen.answers[1])


@pytest.mark.parametrize("url", ["failed"], indirect=True)
def test_without_scripts_the_page_is_complete_and_offers_nothing_that_does_not_work(
    chromium: Browser, url: str
) -> None:
    controls = "getComputedStyle(document.getElementById('controls')).display"
    seen = chromium.look(
        url, ("ask", NAMES), ("ask", controls), ("ask", "document.querySelectorAll('button').length"), scripted=False
    )
    names, display, buttons = seen.answers
    assert (len(names), display, buttons) == (5, "none", 0)


@pytest.mark.parametrize("url", ["failed"], indirect=True)
def test_a_printed_page_has_no_controls_and_the_whole_table(chromium: Browser, url: str) -> None:
    controls = "getComputedStyle(document.getElementById('controls')).display"
    seen = chromium.look(
        url, ("media", "print"), ("ask", controls), ("ask", IS_WIDER), ("ask", NAMES), size=(720, 1000)
    )
    display, is_wider, names = seen.answers
    assert (display, is_wider, len(names)) == ("none", False, 5)


@pytest.mark.parametrize("url", [1_000], indirect=True)
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_thousand_databases_are_searched_and_sorted(chromium: Browser, url: str, size: tuple[int, int]) -> None:
    seen = chromium.look(
        url,
        ("ask", "document.getElementById('search').focus()"),
        *(("type", "shard_99"), ("ask", NAMES), ("ask", "document.getElementById('shown').textContent")),
        *(("press", "Tab"), ("press", "Tab"), ("press", "Enter"), ("press", "Enter"), ("ask", NAMES)),
        ("ask", IS_WIDER),
        size=size,
    )
    _focus, names, told, ordered, is_wider = seen.answers
    expected = ["shards:shard_99", *(f"shards:shard_{number}" for number in range(990, 1_000))]
    assert (names, told) == (expected, "11 of 1,000 shown")
    assert ordered == expected[::-1]
    assert not is_wider
    assert seen.told == []
