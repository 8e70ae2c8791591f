"""The sample shop in its releases, and the stock commands that a user would run on it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RELEASES", "check_out", "manage"]

RELEASES = (1, 2, 3)

_SHOP = Path(__file__).parents[1] / "projects" / "shop"


def check_out(release: int, directory: Path) -> Path:
    """Write the shop as it stood at a release into a directory and return that; a later release may go over it."""
    for number in range(1, release + 1):
        shutil.copytree(
            _SHOP / f"release{number}", directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    return directory


def manage(project: Path, databases: Mapping[str, Mapping[str, Any]], *arguments: str) -> str:
    """Run a stock `manage.py` command in a checked-out shop and return what it printed.

    Args:
        project: where the shop is checked out.
        databases: its `settings.DATABASES`.
        arguments: the command and its options.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        check=False,
        cwd=project,
        env=os.environ | {"SHOP_DATABASES": json.dumps(databases)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}")
    return done.stdout
