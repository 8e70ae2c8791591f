"""A migration's file: where each operation stands, and what its comments allow."""

import ast
import inspect
import re
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.db.migrations import Migration

__all__ = ["Comment", "Source", "path_of", "tree_of"]

_ADDRESSED = re.compile(r"#\s*smooth:")
_ALLOWS = re.compile(r"#\s*smooth:\s*allow\s+(?P<codes>\w+(?:\s*,\s*\w+)*)\s+because\s+(?P<reason>\S.*)")


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment that begins with `# smooth:`.

    Args:
        line: where, from 1.
        codes: what it allows; none where it is not written as it should be.
        reason: why.
    """

    line: int
    codes: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A migration's file.

    Args:
        path: absolute.
        line: of the migration's class.
        operations: the line of each operation; none where they are not written as one list.
        comments: those that speak to this program.
    """

    path: Path
    line: int
    operations: tuple[int, ...]
    comments: tuple[Comment, ...]

    @classmethod
    def of(cls, migration: Migration) -> "Source":
        """Read the file of a migration."""
        path = path_of(migration)
        node = next(
            (
                node
                for node in ast.walk(tree_of(path))
                if isinstance(node, ast.ClassDef) and node.name == type(migration).__name__
            ),
            None,
        )
        lines = tuple(_operations(node)) if node is not None else ()
        return cls(
            path,
            node.lineno if node is not None else 1,
            lines if len(lines) == len(migration.operations) else (),
            tuple(_comments(path)),
        )

    def line_of(self, number: int) -> int:
        """Return the line of an operation by its number, from 0; that of the class where it is not known."""
        return self.operations[number] if self.operations else self.line

    @property
    def allowed(self) -> Mapping[str, str]:
        """The codes that are allowed, with the reason."""
        return {code: comment.reason for comment in self.comments for code in comment.codes}


def path_of(migration: Migration) -> Path:
    """Return where a migration's file is."""
    with suppress(TypeError):
        return Path(inspect.getsourcefile(type(migration)) or "").resolve()
    return Path()


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a file's syntax tree; that of an empty one where it cannot be read or is no Python."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _operations(node: ast.ClassDef) -> Iterator[int]:
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "operations" for target in targets):
            value = statement.value if isinstance(statement, ast.Assign) else None
            yield from (item.lineno for item in value.elts) if isinstance(value, ast.List | ast.Tuple) else ()


def _comments(path: Path) -> Iterator[Comment]:
    if not path.is_file():
        return
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT and _ADDRESSED.match(token.string):
                allows = _ALLOWS.match(token.string)
                codes = tuple(re.split(r"\s*,\s*", allows["codes"])) if allows else ()
                yield Comment(token.start[0], codes, allows["reason"].strip() if allows else "")
