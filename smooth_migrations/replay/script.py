"""What was recorded of a plan's migrations."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db.migrations import Migration
from django.db.migrations.state import ProjectState

from smooth_migrations.contract_queue import Queued
from smooth_migrations.locks.modes import Locks
from smooth_migrations.protocol.findings import Question
from smooth_migrations.replay.real import Real
from smooth_migrations.replay.rendered import Rendered

__all__ = ["Part", "Script"]

Plan = Sequence[tuple[Migration, bool]]


@dataclass(frozen=True, slots=True)
class Part:
    """One migration.

    Args:
        migration: which.
        statements: what the schema editor has run, with its parameters merged, what was asked in between, and the
            operations that run for real.
        queued: the contract halves that it has held back, or backwards those that it holds back no more.
    """

    migration: Migration
    statements: list[str | Question | Real] = field(default_factory=list)
    queued: list[Queued] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WayBack:
    """What is done before migrations are unapplied.

    Args:
        locks: that are taken together.
        tables: that lose something, and are locked before anybody looks at them.
        asked: what was asked of these, to know that nothing is lost.
    """

    locks: Locks
    tables: AbstractSet[str]
    asked: Sequence[Question]


@dataclass(frozen=True)
class Script:
    """A plan, as it was run on one database.

    Args:
        plan: as `pre_migrate` had it.
        parts: its migrations, in order.
        told: what receivers of `pre_migrate` and `post_migrate` were told beside the plan, the database and models.
        state: before, with no models made.
        models: afterwards.
        locks: the strong ones that each migration takes.
        records: the migrations that were recorded afterwards, as (app, name), in order.
        received: digest of its content types and permissions afterwards.
        fingerprint: of the schema afterwards.
        back: what was done before migrations went backwards; None where they went forwards.
        before: fingerprint of the schema before, where an operation runs for real; empty where none does.
    """

    plan: Plan
    parts: tuple[Part, ...]
    told: Mapping[str, Any]
    state: ProjectState
    models: Rendered
    locks: Sequence[tuple[Migration, Locks]]
    records: tuple[tuple[str, str], ...]
    received: str
    fingerprint: str
    back: "WayBack | None" = None
    before: str = ""

    @cached_property
    def _models_before(self) -> Rendered:
        return Rendered(self.state.apps)

    def models_before(self) -> Rendered:
        """Return models of the state before, which few receivers ask for: they are made when they are."""
        return self._models_before
