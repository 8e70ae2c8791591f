"""Which migrations are looked at, and which of them are deployed together."""

import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader

from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.lint.source import path_of
from smooth_migrations.reaching import connect

__all__ = ["CannotLint", "Chosen", "Deployed", "choose"]

_INSTALLED = frozenset({"site-packages", "dist-packages"})


class CannotLint(SmoothMigrationsError):  # noqa: N818 - named by what is so
    """What was asked for cannot be looked at: there is no such revision, or settings or files are wrong."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """Migrations that are deployed together.

    Args:
        migrations: in order.
        told: those of them that are looked at.
    """

    migrations: tuple[Migration, ...]
    told: frozenset[Migration]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A project's history, deploy by deploy.

    Args:
        basis: what is looked at, and why that, in words.
        deploys: in order.
        unmigrated: apps without migrations.
        is_read: whether the database was read, so that its server may be asked what it can do.
    """

    basis: str
    deploys: tuple[Deployed, ...]
    unmigrated: frozenset[str]
    is_read: bool = False


def choose(connection: BaseDatabaseWrapper, *, apps: Collection[str], since: str | None, everything: bool) -> Chosen:
    """Return what is to be looked at: what is pending where the database says so, else every migration by itself.

    Args:
        connection: the database's. Only its table of migrations is read, unless one of these is given; where it cannot
            be read, no error is raised, and no file is made.
        apps: the labels of these apps alone; of all where there are none.
        since: what was changed or added since this revision of Git.
        everything: every migration by itself, though some are applied.

    Raises:
        CannotLint: Git knows no such revision, or is not there; or the migrations cannot be imported.
    """
    loader, doubt = (_load(None), None) if since or everything else _loaded(connection)
    history = [*_history(loader)]
    wanted = [migration for migration in history if not apps or migration.app_label in apps]
    unmigrated = frozenset(loader.unmigrated_apps)
    if since is not None:
        changed = _changed(since)
        told = frozenset(migration for migration in wanted if path_of(migration) in changed)
        return Chosen(f"changed since {since}", tuple(_together(history, told, loader)), unmigrated)
    if not everything and doubt is None:
        pending = frozenset(
            migration for migration in wanted if (migration.app_label, migration.name) not in loader.applied_migrations
        )
        deploys = tuple(_together(history, pending, loader))
        return Chosen(f"pending in {connection.alias}", deploys, unmigrated, is_read=True)
    own = frozenset(migration for migration in wanted if apps or not _INSTALLED & {*path_of(migration).parts})
    basis = "every migration, each as a deploy by itself" + (f", since {doubt}" if doubt else "")
    return Chosen(basis, tuple(Deployed((each,), own & {each}) for each in history), unmigrated)


def _loaded(connection: BaseDatabaseWrapper) -> tuple[MigrationLoader, str | None]:
    """Return the migrations, with what is applied, or why that is not known."""
    if connection.vendor == "sqlite" and not Path(str(connection.settings_dict["NAME"])).is_file():
        return _load(None), f"the file of {connection.alias} is not there"
    was_open = connection.connection is not None
    try:
        connect(connection)
        loader = _load(connection)
    except Error as error:
        return _load(None), f"{connection.alias} cannot be read ({type(error).__name__})"
    finally:
        if not was_open:
            connection.close()
    return loader, None if loader.applied_migrations else f"nothing is applied in {connection.alias}"


def _load(connection: BaseDatabaseWrapper | None) -> MigrationLoader:
    try:
        return MigrationLoader(connection)
    except Error:
        raise
    except Exception as error:
        # Migrations are the user's code: importing them may raise anything.
        raise CannotLint(
            f"the migrations cannot be read: {type(error).__name__}: {error}", hint="see that they can be imported"
        ) from error


def _history(loader: MigrationLoader) -> Iterator[Migration]:
    """Yield all migrations in the order in which a new database runs them."""
    graph = loader.graph
    keys = dict.fromkeys(key for leaf in graph.leaf_nodes() for key in graph.forwards_plan(leaf))
    yield from (graph.nodes[key] for key in keys)


def _together(history: Sequence[Migration], told: frozenset[Migration], loader: MigrationLoader) -> Iterator[Deployed]:
    """Yield what has gone before, and then what is told with what stands on it, as one deploy."""
    late: set[tuple[str, str]] = set()
    for migration in history:
        key = (migration.app_label, migration.name)
        if migration in told or any(parent.key in late for parent in loader.graph.node_map[key].parents):
            late.add(key)
    before = [migration for migration in history if (migration.app_label, migration.name) not in late]
    yield Deployed(tuple(before), frozenset())
    yield Deployed(tuple(migration for migration in history if migration not in {*before}), told)


def _changed(since: str) -> frozenset[Path]:
    """Return the files that were changed or added since a revision parted from this one, committed or not."""
    top = Path(_git("rev-parse", "--show-toplevel").strip())
    base = _git("merge-base", since, "HEAD").strip()
    names = _git("diff", "--name-only", "-z", "--no-renames", base) + _git(
        "ls-files", "--others", "--exclude-standard", "--full-name", "-z", ":/"
    )
    return frozenset((top / name).resolve() for name in names.split("\0") if name)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607 - on PATH
    except OSError as error:
        raise CannotLint(f"git cannot be run: {error.strerror}", hint="install it, or use --all") from error
    if done.returncode:
        reason = (done.stderr.strip() or "no such revision").splitlines()[0]
        raise CannotLint(f"git {arguments[0]}: {reason}", hint="name a revision that was fetched, or use --all")
    return done.stdout
