"""The tutorial is followed as a reader does, from an empty directory to the end, and shows what a terminal does."""

import os
import site
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.followed_page import Shell

pytestmark = pytest.mark.timeout(240)

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/tutorial/first-deploy.md").read_text(encoding="utf-8")
# What is installed here under these names is this checkout, not what a reader installs.
_OWN: Final = ("smooth", "_smooth", "_editable", "__editable")


def _others(directory: Path) -> Path:
    """Return a directory with every package of this environment but the product."""
    directory.mkdir()
    for packages in site.getsitepackages():
        for path in Path(packages).iterdir():
            if not path.name.startswith(_OWN) and path.suffix != ".pth":
                (directory / path.name).symlink_to(path)
    return directory


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A reader's, in a directory with a checkout.

    The product is built from it into a wheel, and installed into the environment that the page makes. What it depends
    on is this environment's, since downloading all of it would take longer than the rest of the page.
    """
    start = tmp_path / "start"
    start.mkdir()
    (start / "smooth-orchestrator").symlink_to(ROOT)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SMOOTH_", "OTEL_", "COLUMNS", "LINES"))
    }
    environment |= {
        "PYTHONPATH": str(_others(tmp_path / "packages")),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
        "DJANGO_COLORS": "nocolor",
        "LC_ALL": "C.UTF-8",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        # Which is how pip reads "without build isolation" from the environment.
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    with Shell.started(start, environment, errors=tmp_path, window=(40, 130)) as started:
        yield started


@pytest.mark.long
def test_the_tutorial_shows_what_a_reader_who_follows_it_sees(shell: Shell) -> None:
    codes = shell.follow(PAGE)
    # Of all commands one fails: the deploy over a row that is there twice, whose code is the next one's output.
    assert [code for code in codes if code] == [1]
    code, where = shell.run(
        "python -c 'import smooth_migrations as m, smooth_orchestrator as o; print(m.__file__, o.__file__)'"
    )
    assert code == 0
    assert [".venv" in each for each in where.split()] == [True, True], "the page was followed with what it installed"
