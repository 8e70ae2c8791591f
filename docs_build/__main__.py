"""`python -m docs_build`: write every generated page into `docs/`."""

from docs_build.pages import DOCS, PAGES

__all__: list[str] = []

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
