"""A plan as text, with comments for whoever goes on with it. Pure."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from smooth_orchestrator.initial.discovery import slug
from smooth_orchestrator.initial.entries import Entry, LeftOut, without_first
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.suggestions import quoted

__all__ = ["plan_text"]

_PARALLEL: Final = 8
# Up to here a list of names is read more easily than one a line.
_WIDTH: Final = 90
# More than these nobody reads.
_MOST_LEFT_OUT: Final = 20
_HEAD: Final = """\
# What smooth-orchestrate deploys, as `smooth-orchestrate init` has found it in the project's settings: read it, and
# change what is to be otherwise. Everything that is commented out shows its default. It holds no secrets: passwords
# are read by the project's settings, as they always are.

version = 1

[deploy]
name = {name}  # in logs, journal and leases
# journal = "sqlite:///.smooth/journal.db"   # relative to this file; or postgresql://user@host/database
# atomicity = "auto"                         # the best that each database can do
# minimum_atomicity = "compensated"          # refuse when a database cannot reach this tier
# commit = "deploy"                          # one decision for all phases; "phase": each commits by itself
# on_failure = "rollback"
# expand_contract = true                     # hold back what would break the release still running, for `finalise`
# lock_timeout = "2s"                        # then roll back, wait a little, try again
# statement_timeout = "15min"
# max_lock_hold = "30s"

[finalise]
# bake_time = "24h"                          # how long after a deploy `finalise` does what is held back
# gate = ["./bin/ready-to-finalise"]         # a command: anything but exit code 0 refuses
# forbid_sessions = ["shop-v1*"]             # not while a session has such an application_name

[projects.{project}]
path = {path}  # the directory with manage.py, relative to this file
settings = {settings}
"""
_OWN_PYTHON: Final = "python = {python}  # its own interpreter; smooth-orchestrator must be installed there too\n"
_ANY_PYTHON: Final = '# python = ".venv/bin/python"                # without it: the one that runs smooth-orchestrate\n'
_ENV: Final = '# env = {{ DB_PASSWORD = "${{SHOP_DB_PASSWORD}}" }}   # what its settings need beside your environment\n'
_ROUTERS: Final = """
# The project has DATABASE_ROUTERS: while a database is migrated, "default" stays what the settings say. A migration
# whose code reaches another database than its own fails; `other_aliases = "allow"` in a database's table lets it.
"""
_NO_ROUTERS: Final = """
# The project has no DATABASE_ROUTERS: while a database is migrated, "default" is that database, so that code which
# forgets its alias writes nowhere else; `bind_default = false` in a database's table ends that.
"""


def plan_text(
    project: Project, entries: Sequence[Entry], left_out: Sequence[LeftOut], *, has_routers: bool, directory: Path
) -> str:
    """Return the text of a plan.

    Args:
        project: the project.
        entries: its databases; at least one.
        left_out: aliases of which the plan says in a comment why it does not name them.
        has_routers: whether the project has DATABASE_ROUTERS.
        directory: of the plan, without symbolic links.
    """
    python = None if project.python is None else _quote(_relative(project.python, directory))
    return "".join(
        (
            _HEAD.format(
                name=_quote(slug(project.name).replace("_", "-").lower().strip("-") or "project"),
                project=project.name,
                path=_quote(_relative(project.path, directory)),
                settings=_quote(project.settings),
            ),
            _ANY_PYTHON if python is None else _OWN_PYTHON.format(python=python),
            _ENV.format(),
            _ROUTERS if has_routers else _NO_ROUTERS,
            *(_table(entry, project) for entry in entries),
            *_left_out(left_out),
            *_phases(entries),
        )
    )


def _quote(text: str) -> str:
    """Return a text as TOML writes it: as JSON does, but DEL is not allowed bare."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _relative(path: Path, directory: Path) -> str:
    # Upwards from a directory that is no symbolic link; downwards by the names that were given.
    return os.path.relpath(path, directory)


def _table(entry: Entry, project: Project) -> str:
    which = f"alias = {_quote(entry.aliases[0])}"
    if entry.glob is not None:
        shown = f"{quoted(entry.aliases[0])} to {quoted(entry.aliases[-1])}"
        which = f"aliases = {_quote(entry.glob)}  # {len(entry.aliases)} of them, {shown}; each is {entry.name}:ALIAS"
    return f"\n[databases.{entry.name}]\nproject = {_quote(project.name)}\n{which}\n"


def _left_out(left_out: Sequence[LeftOut]) -> Iterator[str]:
    if left_out:
        yield "\n# Not in this plan:\n"
        for each in left_out[:_MOST_LEFT_OUT]:
            yield f"#   {quoted(each.alias)}: {each.reason}\n"
        if more := left_out[_MOST_LEFT_OUT:]:
            yield f"#   and {len(more)} more\n"


def _phases(entries: Sequence[Entry]) -> Iterator[str]:
    first, *rest = entries
    one, others = first.pattern, [entry.pattern for entry in rest]
    if first.glob is not None:
        exact = without_first(first)
        if exact is None:
            one, others = "", [entry.pattern for entry in entries]
        else:
            one, others = exact[0], [*exact[1], *others]
    if not one or not others:
        yield "\n# All of them together; further [[phases]] begin when the ones before have come as far.\n"
        yield _phase("all", [one] if one else others)
        return
    yield "\n# One database first: what fails there has kept nobody waiting elsewhere. Take what matters least.\n"
    yield _phase("canary", [one])
    yield "\n" + _phase("fleet", others)


def _phase(name: str, patterns: Sequence[str]) -> str:
    listed = [_quote(pattern) for pattern in patterns]
    line = f"[{', '.join(listed)}]"
    if len(line) > _WIDTH:
        line = "[\n" + "".join(f"  {pattern},\n" for pattern in listed) + "]"
    lines = [f"[[phases]]\nname = {_quote(name)}\ndatabases = {line}\n"]
    if name != "canary":
        lines.append(f"parallel = {_PARALLEL}  # how many are worked on at a time\n")
    lines.append(
        '# gate = ["./bin/smoke-test"]                # a command, run after this phase: a failure fails the deploy\n'
    )
    return "".join(lines)
