"""Django's own tests, which its wheel leaves out, from the source distribution of the installed version."""

import fcntl
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django

__all__ = ["unpacked_tests"]


@contextmanager
def unpacked_tests() -> Iterator[Path]:
    """Unpack Django's `tests/` for as long as the block runs, and yield that directory.

    The archive is downloaded by pip, from the index that pip is set up for, once for all runs of this user.
    """
    archive = _archive(_cache())
    with tempfile.TemporaryDirectory(prefix="smooth-django-suites-") as name, tarfile.open(archive) as packed:
        root = archive.name.removesuffix(".tar.gz")
        members = [member for member in packed.getmembers() if member.name.startswith(f"{root}/tests/")]
        packed.extractall(name, members, filter="data")
        yield Path(name) / root / "tests"


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    directory = (Path(home) if home else Path.home() / ".cache") / "smooth-orchestrator"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _archive(cache: Path) -> Path:
    version = django.get_version()
    archive = cache / f"django-{version}.tar.gz"
    with archive.with_suffix(".lock").open("w") as lock:
        # Several processes of one test run ask at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            with tempfile.TemporaryDirectory(dir=cache) as draft:
                _download(version, Path(draft)).rename(archive)
    return archive


def _download(version: str, directory: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-binary=django", f"--dest={directory}", f"django=={version}"],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"pip could not download the source distribution of Django {version}:\n{done.stdout}")
    [archive] = directory.glob("*.tar.gz")
    return archive
