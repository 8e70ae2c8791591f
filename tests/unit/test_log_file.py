import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smooth_orchestrator.log_file import LogFile
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


@pytest.fixture
def file(path: Path, clock: Clock) -> Iterator[LogFile]:
    opened = LogFile(path, clock)
    yield opened
    opened.close()


def test_lines_go_to_a_new_file_of_the_owners_a_second_after_the_old_one_was_moved(
    path: Path, file: LogFile, clock: Clock
) -> None:
    file.write("a")
    moved = path.rename(path.with_suffix(".1"))
    file.write("b")
    assert not path.exists()
    clock.now_s += 1.0
    file.write("c")
    file.write("d")

    assert (moved.read_text(), path.read_text()) == ("a\nb\n", "c\nd\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_moved_is_left_at_once_by_who_is_told_to_look(path: Path, file: LogFile) -> None:
    file.write("a")
    moved = path.rename(path.with_suffix(".1"))
    file.look_again()
    file.write("b")

    assert (moved.read_text(), path.read_text()) == ("a\n", "b\n")


def test_no_line_is_written_to_a_file_that_was_removed(path: Path, file: LogFile) -> None:
    file.write("a")
    path.unlink()
    file.write("b")

    assert path.read_text() == "b\n"


def test_a_file_that_somebody_else_has_put_there_meanwhile_is_appended_to_with_its_mode(
    path: Path, file: LogFile
) -> None:
    file.write("a")
    path.rename(path.with_suffix(".1"))
    path.write_text("theirs\n")
    path.chmod(0o640)
    file.look_again()
    file.write("b")

    assert path.read_text() == "theirs\nb\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_was_truncated_in_its_place_is_written_from_its_beginning(path: Path, file: LogFile) -> None:
    file.write("a")
    os.truncate(path, 0)
    file.write("b")

    assert path.read_bytes() == b"b\n"


def test_where_no_new_file_can_be_made_the_old_one_gets_the_lines(path: Path, file: LogFile, clock: Clock) -> None:
    file.write("a")
    directory = path.parent.rename(path.parent.with_name("elsewhere"))
    clock.now_s += 1.0
    file.write("b")
    path.parent.mkdir()
    clock.now_s += 1.0
    file.write("c")

    assert ((directory / path.name).read_text(), path.read_text()) == ("a\nb\n", "c\n")


def test_a_relative_path_means_the_directory_of_the_beginning(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = LogFile(Path("log.jsonl"), clock)
    monkeypatch.chdir("/")
    (tmp_path / "log.jsonl").unlink()
    file.write("a")
    file.close()

    assert (tmp_path / "log.jsonl").read_text() == "a\n"


def test_nothing_is_written_to_whose_descriptor_has_the_number_of_a_closed_file(path: Path, clock: Clock) -> None:
    file = LogFile(path, clock)
    file.close()
    other = path.with_suffix(".other")
    with other.open("w"), pytest.raises(OSError, match="Bad file descriptor"):
        file.write("a")

    assert other.read_text() == ""


def _open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_files_are_not_left_open(path: Path, file: LogFile) -> None:
    before = _open_files()
    for _ in range(3):
        path.unlink()
        file.write("a")

    assert _open_files() == before


def test_a_line_that_a_full_disk_has_cut_takes_no_other_with_it(path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from smooth_orchestrator.log_file import LogFile
from tests.support.clock import Clock

file = LogFile(Path({str(path)!r}))
file.write("first")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, {resource.RLIM_INFINITY}))
for _ in range(2):
    try:
        file.write("second")
    except OSError as error:
        print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))
file.write("third")
file.write("fourth")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["OSError", "OSError"]
    assert path.read_text().splitlines() == ["first", "seco", "third", "fourth"]
