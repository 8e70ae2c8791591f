"""Find the Pythons that are installed. As a script: print the first of the versions given that there is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["interpreter"]

_VERSION = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:2])))"


def interpreter(version: str) -> str | None:
    """Return a Python of a version such as 3.12 that can make environments, or None."""
    for candidate in _candidates(version):
        try:
            found = subprocess.run([candidate, "-c", _VERSION], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        if found.strip() == version:
            return candidate
    return None


def _candidates(version: str) -> Iterator[str]:
    yield f"python{version}"
    yield from map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))


def _main(versions: list[str]) -> int:
    for version in versions:
        found = interpreter(version)
        if found:
            sys.stdout.write(f"{found}\n")
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
