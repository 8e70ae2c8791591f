"""Pictures of a run's page and of a terminal for the documents: `python -m tests.support.screenshots docs/images`."""

import sys
import tempfile
from pathlib import Path
from typing import Final, Literal

from smooth_orchestrator.page.document import page_of
from tests.support.browser import browser
from tests.support.pages import failed
from tests.support.terminal_pictures import take

_SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


def _take(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "report.html"
        page.write_text(page_of(failed(), "deploy.toml"), encoding="utf-8")
        for scheme in _SCHEMES:
            picture = directory / f"report-{scheme}.png"
            browser().look(page.as_uri(), ("picture", str(picture)), size=(1200, 860), scheme=scheme)


if __name__ == "__main__":
    _take(Path(sys.argv[1]))
    take(Path(sys.argv[1]))
