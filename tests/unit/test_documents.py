import os
import re
from pathlib import Path
from typing import Final

import pytest

from smooth_orchestrator.cli import main
from smooth_orchestrator.config import load

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS: Final = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_the_readmes_plan_is_ten_lines_and_valid(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "shop").mkdir()
    file = tmp_path / "deploy.toml"
    file.write_text(text, encoding="utf-8")
    assert len(text.splitlines()) == 10
    assert [phase.name for phase in load(file, {}).phases] == ["canary", "fleet"]


def test_the_readme_lists_the_commands_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    _, _, shown = capsys.readouterr().out.partition("Commands:\n")
    commands = re.findall(r"^  ([a-z]+)  ", shown.partition("\n\n")[0], re.MULTILINE)
    assert commands
    assert re.findall(r"^\| `smooth-orchestrate ([a-z]+)", README, re.MULTILINE) == commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_documents_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_document_names_no_host_of_a_registry(document: Path) -> None:
    # A package is known by its name, and by where its source is.
    assert not re.search(r"\bpypi\.org|pythonhosted\.org|npmjs\.", document.read_text(encoding="utf-8"))


@pytest.mark.parametrize("picture", sorted((ROOT / "docs/images").glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_of_a_terminal_asks_for_nothing_and_names_nothing_of_the_machine_that_drew_it(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    assert not re.search(r"@import|@font-face|\bhref=|\bsrc=|url\((?!#)", text)
    assert not [word for word in (os.uname().nodename, str(Path.home()), "/tmp", "/home/") if f" {word}" in text]  # noqa: S108
    assert any(picture.name in document.read_text(encoding="utf-8") for document in DOCUMENTS)


def test_every_runbook_is_found_by_its_exit_code() -> None:
    runbooks = ROOT / "docs/runbooks"
    rows = re.findall(r"^\| ([^|]+) \| .*\]\((.+)\) \|$", (runbooks / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(page for _code, page in rows) == sorted(
        path.name for path in runbooks.glob("*.md") if path.name != "README.md"
    )
    assert [page for code, page in rows if not page.startswith(f"exit-{code.partition(',')[0]}-")] == []
