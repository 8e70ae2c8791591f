import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from smooth_orchestrator.whole_file import write_whole


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_whole(page, "é")
    assert (page.read_text(encoding="utf-8"), _mode(page)) == ("é", 0o600)
    assert [*tmp_path.iterdir()] == [page]


def test_a_file_that_was_there_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old and longer")
    page.chmod(0o644)
    before = page.stat().st_ino
    write_whole(page, "new")
    assert (page.read_text(), _mode(page)) == ("new", 0o644)
    assert page.stat().st_ino != before, "whoever reads the old one reads it to its end"


def test_a_link_stays_one(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "page.html"
    target.parent.mkdir()
    (tmp_path / "page.html").symlink_to(target)
    write_whole(tmp_path / "page.html", "new")
    assert (tmp_path / "page.html").is_symlink()
    assert target.read_text() == "new"


def test_a_link_to_itself_is_no_defect_of_this_program(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.symlink_to(page)
    write_whole(page, "new")
    assert page.read_text() == "new"


def test_a_file_that_others_are_to_read_is_made_so_whatever_the_umask(tmp_path: Path) -> None:
    strict = os.umask(0o077)
    try:
        write_whole(tmp_path / "page.html", "new", mode=0o644)
    finally:
        os.umask(strict)
    assert _mode(tmp_path / "page.html") == 0o644


def test_a_device_a_pipe_and_a_directory_are_left_as_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (Path(os.devnull), pipe, tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            write_whole(place, "page")
    assert [*tmp_path.iterdir()] == [pipe]
    assert pipe.is_fifo()


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "page.html", "page")


def test_where_there_is_no_room_nothing_is_left_of_the_attempt(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    program = "import sys; from pathlib import Path; from smooth_orchestrator.whole_file import write_whole; "
    program += "write_whole(Path(sys.argv[1]), 'x' * 9000)"
    words = ["prlimit", "--fsize=4096", sys.executable, "-c", program, str(page)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert page.read_text() == "old"
    assert [*tmp_path.iterdir()] == [page]
