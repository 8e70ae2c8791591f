"""What a directory says of the Django project in it. Its files are read, and none of its code is run."""

import ast
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from smooth_orchestrator.errors import Mistake, PlanInvalid
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.suggestions import listed, quoted

__all__ = ["find_project", "is_text", "slug"]

_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_VARIABLE: Final = "DJANGO_SETTINGS_MODULE"
_PYTHON: Final = Path(".venv/bin/python")
# No file that names a settings module is longer.
_LARGEST: Final = 1_000_000
# Where those who test or check a project have to know its settings too.
_TABLES: Final = (
    ("pytest", "ini_options", _VARIABLE),
    ("pytest", _VARIABLE),
    ("django-stubs", "django_settings_module"),
)
_HINT: Final = "name it: --settings shop.settings"


def find_project(path: Path, settings: str | None) -> Project:
    """Return the project in a directory: its settings module, and the interpreter in its `.venv` if there is one.

    Args:
        path: the directory that is put on sys.path, which is the one with `manage.py`.
        settings: its settings module; what `manage.py` names unless given, else what `pyproject.toml` does.

    Raises:
        PlanInvalid: there is no such directory, or nobody can tell which settings are its.
    """
    try:
        if not path.is_dir():
            message = "is not a directory" if path.exists() else "does not exist"
            raise _mistake(path, message, "name the directory that holds the project's manage.py")
        entries = sorted(entry.name for entry in path.iterdir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _mistake(path, f"cannot be read: {reason}") from None
    if not is_text(str(path)):
        raise _mistake(path, "has a name that no plan can hold", "give it one in UTF-8")
    if settings is not None:
        if not _MODULE.fullmatch(settings):
            hint = 'write its dotted name, such as "shop.settings"'
            raise PlanInvalid([Mistake("--settings", f"{quoted(settings)} is not the name of a module", hint)])
    else:
        settings = _settings_in(path, entries)
    # Not resolved: the symbolic link is what makes it the environment's own.
    python = path / _PYTHON
    is_there = python.is_file() and os.access(python, os.X_OK)
    return Project(slug(path.resolve().name) or "project", path, settings, python if is_there else None)


def is_text(name: str) -> bool:
    """Return whether a name of the system's, or of the settings', can be written in UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def slug(text: str) -> str:
    """Return a text as a name of a plan, as far as its letters allow; it may be empty."""
    return re.sub("[^A-Za-z0-9_-]+", "-", text).strip("-")[:40]


def _mistake(path: Path, message: str, hint: str | None = None) -> PlanInvalid:
    return PlanInvalid([Mistake(str(path), message, hint)])


def _settings_in(path: Path, entries: list[str]) -> str:
    named = {
        name: sorted(set(find(text)))
        for name, find in (("manage.py", _in_manage), ("pyproject.toml", _in_pyproject))
        if (text := _read(path / name)) is not None
    }
    for name, modules in named.items():
        if len(modules) > 1:
            raise _mistake(path / name, f"names several settings modules: {listed(modules)}", _HINT)
        for module in modules:
            return module
    if "manage.py" in named:
        raise _mistake(path / "manage.py", f"names no settings module in {_VARIABLE} that can be read", _HINT)
    below = [name for name in entries if (path / name / "manage.py").is_file()]
    hint = f"there is one in {listed(below)}" if below else f"where it has none, {_HINT}"
    raise _mistake(path, "is not a Django project: it has no manage.py", hint)


def _read(path: Path) -> str | None:
    """Return the text of a file, or None where it is none that could be read here."""
    try:
        if not path.is_file():  # nor a pipe, at which we would wait for a writer
            return None
        with path.open("rb") as file:
            return file.read(_LARGEST).decode(errors="replace")
    except (OSError, ValueError):
        return None


def _in_manage(text: str) -> Iterator[str]:
    """Yield what `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "…")` and assignments like it name."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Call(args=[ast.Constant(value=key), ast.Constant(value=str() as module)]) if key == _VARIABLE:
                pass
            case ast.Assign(
                targets=[ast.Subscript(slice=ast.Constant(value=key))], value=ast.Constant(value=str() as module)
            ) if key == _VARIABLE:
                pass
            case _:
                continue
        if _MODULE.fullmatch(module):
            yield module


def _in_pyproject(text: str) -> Iterator[str]:
    try:
        tools = tomllib.loads(text).get("tool")
    except (ValueError, RecursionError):
        return
    for keys in _TABLES:
        value: Any = tools
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and _MODULE.fullmatch(value):
            yield value
