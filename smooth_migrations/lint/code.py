"""What the code of a migration asks of another database than the one that it is run for.

Read, and never run. What cannot be read so is passed over: a query whose alias nobody can tell is no finding.
"""

import ast
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from django.db import connection

from smooth_migrations.lint.source import tree_of

__all__ = ["Blind", "blind_queries"]

_MANAGERS = frozenset({"objects", "_default_manager", "_base_manager"})
_CHOOSING = frozenset({"using", "db_manager"})
_SAVING = frozenset({"save", "asave"})
_CURSORS = frozenset({"cursor", "schema_editor"})
_ROUTED = frozenset({"allow_migrate", "allow_migrate_model"})

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Blind:
    """Queries of a function that go wherever the routers say, which is `default` without any.

    Args:
        file: absolute.
        line: in it, of the first of them.
        text: its code.
        more: how many follow.
    """

    file: Path
    line: int
    text: str
    more: int


def blind_queries(code: object) -> Iterator[Blind]:
    """Yield what queries without an alias: a function for RunPython, and those that it calls in the same file.

    Args:
        code: the function. One that looks at the alias before it does anything is taken to know what it does.
    """
    seen: set[FunctionType] = set()
    waiting = [code]
    while waiting:
        function = _plain(waiting.pop())
        if function is None or function in seen:
            continue
        seen.add(function)
        body = _Body.of(function)
        if body is None or body.looks_at_alias():
            continue
        if queries := sorted(body.blind(), key=lambda node: (node.lineno, node.col_offset)):
            yield Blind(body.path, queries[0].lineno, ast.unparse(queries[0]), len(queries) - 1)
        waiting += body.called()


def _plain(code: object) -> FunctionType | None:
    while isinstance(code, functools.partial):
        code = code.func
    code = inspect.unwrap(code) if callable(code) else code
    return code if isinstance(code, FunctionType) else None


class _Body:
    """The syntax tree of a function."""

    def __init__(self, function: FunctionType, path: Path, node: _Function) -> None:
        self._globals = function.__globals__
        self.path = path
        self._nodes = [*ast.walk(node)]
        self._parents = {child: parent for parent in self._nodes for child in ast.iter_child_nodes(parent)}
        self._bindings = [*_bindings(self._nodes)]

    @classmethod
    def of(cls, function: FunctionType) -> "_Body | None":
        """Return it; None where it stands in no file."""
        path = Path(function.__code__.co_filename).resolve()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, _Function) and _first_line(node) == function.__code__.co_firstlineno:
                return cls(function, path, node)
        return None

    def looks_at_alias(self) -> bool:
        """Return whether what it does depends on the alias, or on what routers say of it."""
        aliases = self._bound_to(lambda value: isinstance(value, ast.Attribute) and value.attr == "alias")
        return any(
            (isinstance(part, ast.Attribute) and part.attr in {"alias", *_ROUTED})
            or (isinstance(part, ast.Name) and part.id in aliases)
            for node in self._nodes
            if isinstance(node, ast.If | ast.IfExp)
            for part in ast.walk(node.test)
        )

    def called(self) -> Iterator[object]:
        """Yield the functions of the same file that it calls by their names."""
        for node in self._nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found = self._globals.get(node.func.id)
                if isinstance(found, FunctionType) and Path(found.__code__.co_filename).resolve() == self.path:
                    yield found

    def blind(self) -> Iterator[ast.Attribute]:
        """Yield its own queries without an alias."""
        models = self._bound_to(_is_model)
        fresh = self._bound_to(lambda value: _makes(value, models))
        cursors = {name for name, value in self._globals.items() if value is connection} | _imported(self._nodes)
        for node in self._nodes:
            if not isinstance(node, ast.Attribute):
                continue
            blind = (
                (node.attr in _MANAGERS and not self._is_chosen(node))
                or (node.attr in _SAVING and self._saves_blindly(node, models, fresh))
                or (node.attr in _CURSORS and isinstance(node.value, ast.Name) and node.value.id in cursors)
            )
            if blind:
                yield node

    def _bound_to(self, fits: Callable[[ast.expr], bool]) -> set[str]:
        return {name for name, value in self._bindings if fits(value)}

    def _saves_blindly(self, node: ast.Attribute, models: set[str], fresh: set[str]) -> bool:
        call = self._parents.get(node)
        is_fresh = (isinstance(node.value, ast.Name) and node.value.id in fresh) or _makes(node.value, models)
        return isinstance(call, ast.Call) and is_fresh and not _names_using(call)

    def _is_chosen(self, node: ast.Attribute) -> bool:
        """Return whether a manager's query is told its alias: by itself, by its name, or by what it is a part of."""
        top = self._top(node)
        if _chooses(top):
            return True
        parent = self._parents.get(top)
        if top is node and not isinstance(parent, ast.Assign | ast.NamedExpr):
            return True  # handed on to whoever asks it
        names = {name for name, value in self._bindings if value is top}
        if any(
            isinstance(part, ast.Attribute)
            and part.attr in _CHOOSING
            and isinstance(part.value, ast.Name)
            and part.value.id in names
            for part in self._nodes
        ):
            return True
        while parent is not None:
            if isinstance(parent, ast.Call) and _chooses(self._top(parent)):
                return True
            parent = self._parents.get(parent)
        return False

    def _top(self, node: ast.expr) -> ast.expr:
        """Return the whole chain of attributes and calls that an expression begins."""
        while True:
            parent = self._parents.get(node)
            if not (
                (isinstance(parent, ast.Attribute | ast.Subscript) and parent.value is node)
                or (isinstance(parent, ast.Call) and parent.func is node)
            ):
                return node
            node = parent


def _first_line(node: _Function) -> int:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _bindings(nodes: list[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    for node in nodes:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.NamedExpr):
            yield node.target.id, node.value


def _chooses(chain: ast.expr) -> bool:
    """Return whether a chain names an alias anywhere: `.using(…)`, `.db_manager(…)`, `using=…`."""
    node: ast.expr = chain
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        if (isinstance(node, ast.Attribute) and node.attr in _CHOOSING) or _names_using(node):
            return True
        node = node.func if isinstance(node, ast.Call) else node.value
    return False


def _names_using(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and any(keyword.arg in {"using", None} for keyword in node.keywords)


def _is_model(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "get_model"


def _makes(value: ast.expr, models: set[str]) -> bool:
    """Return whether an expression makes a new instance of a model."""
    if not isinstance(value, ast.Call):
        return False
    return _is_model(value.func) or (isinstance(value.func, ast.Name) and value.func.id in models)


def _imported(nodes: list[ast.AST]) -> set[str]:
    return {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "django.db"
        for alias in node.names
        if alias.name == "connection"
    }
