"""Programs of Debian's packages: where they are installed, or unpacked where two packages exclude each other."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Program", "Unavailable", "installed", "unpacked"]

# Debian keeps daemons where only root's PATH looks.
_PLACES: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
_DOWNLOAD_TIMEOUT_S: Final = 120


class Unavailable(Exception):  # noqa: N818 - named by what it says of a program
    """A program is not here, for the reason that it gives."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be started.

    Args:
        path: of its file.
        root: the directory that stands for / where its package is unpacked.
        environment: what it needs beside that of this process.
    """

    path: Path
    root: Path = Path("/")
    environment: dict[str, str] = field(default_factory=dict)


def installed(name: str, package: str) -> Program:
    """Return a program that is installed.

    Raises:
        Unavailable: it is not.
    """
    path = shutil.which(name, path=_PLACES)
    if path is None:
        raise Unavailable(f"{name} not found: install it (Debian: {package}), then `make test`")
    return Program(Path(path))


def unpacked(name: str, package: str, libraries: str) -> Program:
    """Return a program of a package that excludes one which the tests need too: unpacked into this environment, once.

    Args:
        name: its path in the package.
        package: which.
        libraries: the directory of its own libraries in the package.

    Raises:
        Unavailable: it cannot be downloaded, or lacks a library of another package.
    """
    home = Path(sys.prefix) / "debian" / package
    home.parent.mkdir(exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        # Several processes of one test run ask at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            _unpack(package, home)
    program = Program(home / name, home, {"LD_LIBRARY_PATH": str(home / libraries)})
    started = subprocess.run(
        [program.path, "--help"], env=os.environ | program.environment, capture_output=True, text=True, check=False
    )
    if started.returncode:
        raise Unavailable(f"{package} cannot be run here: {started.stderr.strip()}")
    return program


def _unpack(package: str, home: Path) -> None:
    if shutil.which("apt-get") is None:
        raise Unavailable(f"apt-get, by which {package} is downloaded, is not installed")
    with tempfile.TemporaryDirectory(dir=home.parent) as name:
        draft = Path(name)
        done = subprocess.run(
            ["apt-get", "--quiet", "download", package],
            cwd=draft,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_DOWNLOAD_TIMEOUT_S,
        )
        archives = [*draft.glob("*.deb")]
        if done.returncode or not archives:
            raise Unavailable(f"apt-get could not download {package}: {done.stderr.strip()}")
        subprocess.run(["dpkg", "--extract", archives[0], draft / "root"], check=True)
        (draft / "root").rename(home)
