"""For people."""

from collections.abc import Iterator

from smooth_migrations.lint.outputs.linted import Linted
from smooth_migrations.protocol.linting import LintedMigration, LintFinding, LintReport

__all__ = ["text"]


def text(linted: Linted) -> str:
    """Return what was found in lines; a migration of which there is nothing to be said is only counted."""
    return "\n".join(line for report in linted.reports for line in _lines(report, linted))


def _lines(report: LintReport, linted: Linted) -> Iterator[str]:
    yield f"{report.database}: {report.basis}"
    for migration in report.migrations:
        lines = [
            *_meanings(migration),
            *(_line(found, linted) for found in report.findings if found.migration == migration.migration),
        ]
        if lines:
            yield f"\n{migration.migration}"
            yield from (f"  {line}" for line in lines)
    failing = sum(found.fails for found in report.findings)
    allowed = sum(found.allowed is not None for found in report.findings)
    notes = len(report.findings) - failing - allowed
    migrations = _counted(len(report.migrations), "migration")
    yield f"\n{migrations}: {_counted(failing, 'finding')}, {_counted(notes, 'note')}, {allowed} allowed"


def _meanings(migration: LintedMigration) -> Iterator[str]:
    if migration.contract:
        yield from (f"expand: {part}" for part in migration.expand)
        yield from (f"contract: {part}" for part in migration.contract)
    yield from (f"lock: {lock}" for lock in migration.locks)
    yield from (f"rewrite: {part}" for part in migration.rewrites)
    yield from (f"no way back: {part}" for part in migration.irreversible)
    yield from (f"old release: {part}" for part in migration.old_release)
    yield from (f"new release: {part}" for part in migration.new_release)


def _line(found: LintFinding, linted: Linted) -> str:
    place = f"{linted.named(found.file)}:{found.line}: {found.code}"
    if found.allowed is not None:
        return f"{place} allowed because {found.allowed}: {found.message}"
    return f"{place} {found.level}: {found.message}" + (f" ({found.hint})" if found.hint else "")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
