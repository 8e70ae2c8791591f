"""The reference page of the lint, made of its rules: `python -m tests.support.lint_page > docs/reference/lint.md`."""

import sys
from typing import Final

from smooth_migrations.lint.rules import RULES

__all__ = ["page"]

_HEAD: Final = """\
# What `lint_migrations` finds

`python manage.py lint_migrations` and `smooth-orchestrate lint PLAN` look at migration files, and need no database.
[How to use them](../how-to/lint-migrations.md). Errors and warnings make the exit code 1, notes do not; a comment
`# smooth: allow CODE because REASON`, anywhere in a migration's file, allows it there. Codes are stable: none gets
another meaning.

| code | level | |
|---|---|---|
"""


def page() -> str:
    """Return it."""
    rules = [rule.told() for rule in RULES]
    rows = "".join(f"| [{rule.code}](#{rule.code.lower()}) | {rule.level} | {rule.title} |\n" for rule in rules)
    sections = "".join(f"\n## {rule.code}\n\n{rule.title}.\n\n{rule.page}\n" for rule in rules)
    return _HEAD + rows + sections


if __name__ == "__main__":
    sys.stdout.write(page())
