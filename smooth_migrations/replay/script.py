"""What was recorded of a plan's migrations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.migrations import Migration

from smooth_migrations.locks.modes import Locks

__all__ = ["Part", "Script"]

Plan = Sequence[tuple[Migration, bool]]


@dataclass(frozen=True, slots=True)
class Part:
    """One migration.

    Args:
        migration: which.
        statements: what the schema editor was given, with its parameters merged.
    """

    migration: Migration
    statements: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Script:
    """A plan, as it was run on one database.

    Args:
        plan: as `pre_migrate` had it.
        parts: its migrations, in order.
        before: what receivers of `pre_migrate` were told beside the plan and the database.
        after: likewise of `post_migrate`.
        locks: the strong ones that each migration takes.
        records: the migrations that were recorded afterwards, as (app, name).
        received: digest of its content types and permissions afterwards.
        fingerprint: of the schema afterwards.
    """

    plan: Plan
    parts: tuple[Part, ...]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    locks: Sequence[tuple[Migration, Locks]]
    records: frozenset[tuple[str, str]]
    received: str
    fingerprint: str
