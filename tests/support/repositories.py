"""The repository of a plan and its project, in which releases have tags."""

import subprocess
from pathlib import Path

__all__ = ["tag"]


def tag(directory: Path, name: str) -> None:
    """Keep the plan and the project, as they are, in a repository under a tag.

    Args:
        directory: of the plan.
        name: the tag.
    """
    identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    commands = (
        ["init", "--quiet"],
        ["add", "deploy.toml", "project"],
        ["commit", "--quiet", "-m", name],
        ["tag", name],
    )
    for command in commands:
        subprocess.run(["git", *identity, *command], cwd=directory, check=True)
