"""Has links that lead out of `docs/`, as one reads them in the repository, lead somewhere in the site too.

What they lead to is a part of the site, under `repository/`: pages such as the README, and files as they are. MkDocs
calls the functions by their names.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

__all__ = ["on_files", "on_page_markdown"]

_ROOT: Final = Path(__file__).parents[1]
_DOCS: Final = "docs/"
_ELSEWHERE: Final = "repository/"
# A link's target without its anchor; no URL, and no anchor alone.
_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)[^)#\s]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to outside `docs/`, and what that links to."""
    to_read = [f"{_DOCS}{file.src_uri}" for file in files.documentation_pages()]
    known = {*to_read}
    while to_read:
        page = to_read.pop()
        for path in _linked(page, (_ROOT / page).read_text(encoding="utf-8")):
            if path in known or path.startswith(_DOCS) or (_ROOT / path).is_dir():
                continue
            known.add(path)
            files.append(File.generated(config, f"{_ELSEWHERE}{path}", abs_src_path=str(_ROOT / path)))
            if path.endswith(".md"):
                to_read.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its links as they are in the site."""
    del config, files
    place = page.file.src_uri
    source = place.removeprefix(_ELSEWHERE) if place.startswith(_ELSEWHERE) else f"{_DOCS}{place}"

    def moved(link: re.Match[str]) -> str:
        path = _path(source, link[0])
        return link[0] if path is None else relpath(_in_site(path), dirname(place) or ".")

    return _LINK.sub(moved, markdown)


def _linked(page: str, text: str) -> Iterator[str]:
    for link in _LINK.findall(text):
        if (path := _path(page, link)) is not None:
            yield path


def _path(page: str, link: str) -> str | None:
    """Return what a link of a page leads to, from the root of the repository; None where there is nothing."""
    path = normpath(join(dirname(page), link))
    return None if path.startswith("..") or not (_ROOT / path).exists() else path


def _in_site(path: str) -> str:
    return path.removeprefix(_DOCS) if path.startswith(_DOCS) else f"{_ELSEWHERE}{path}"
