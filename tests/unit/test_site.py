"""The site that MkDocs makes of the documentation."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

ROOT: Final = Path(__file__).parents[2]
ELSEWHERE: Final = re.compile(r"[a-z]+:|//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return directory


def _pages(site: Path) -> Iterator[tuple[Path, str]]:
    for page in site.rglob("*.html"):
        if page.name != "404.html":  # served at any depth: its links begin at the server's root
            yield page, page.read_text(encoding="utf-8")


def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not (site / page.parent / page.name.replace("README", "index")).is_file()] == []


def test_every_link_of_the_site_leads_to_a_page_or_file_of_it(site: Path) -> None:
    links = [
        (page, unquote(link).partition("#")[0])
        for page, text in _pages(site)
        for link in re.findall(r'(?:href|src)="?([^"\s>]+)', text)
        if not ELSEWHERE.match(link)
    ]
    assert links
    assert [(str(page), link) for page, link in links if not (page.parent / link).exists()] == []


def test_what_the_pages_link_to_in_the_repository_is_in_the_site(site: Path) -> None:
    assert (site / "repository/configs/deploy.toml").read_bytes() == (ROOT / "configs/deploy.toml").read_bytes()
    assert "What it promises" in (site / "repository/index.html").read_text(encoding="utf-8")


def test_a_page_asks_no_other_host_for_anything(site: Path) -> None:
    asked = r'<(?:script|img|iframe)[^>]*\ssrc="?([^"\s>]+)|<link[^>]*\shref="?([^"\s>]+)'
    found = {src or href for _, text in _pages(site) for src, href in re.findall(asked, text)}
    assert found
    assert [each for each in found if ELSEWHERE.match(each) and not each.startswith("data:")] == []
