"""Histories of migrations that nobody wrote: valid ones, cut somewhere, with a failure planted behind the cut.

Each is a `Skeleton` (what hypothesis draws and shrinks) turned into sources by a model of what exists at each point, so
that the next operation is always possible. Rows are moved both ways exactly; what has no way back stands mostly where
one transaction covers it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from tests.support.generated.intents import KINDS, Intent, MigrationIntent, PlantIntent, Skeleton, skeletons
from tests.support.generated.world import Choices, Context, Operation, World
from tests.support.histories import Vendor

__all__ = ["PLANTED", "GeneratedHistory", "generated_histories", "interpret"]

PLANTED = "planted failure"
"""What stands in the message of every planted failure."""

_SOURCE = """\
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from django.contrib.postgres.operations import (
    AddConstraintNotValid, AddIndexConcurrently, RemoveIndexConcurrently,
)
from django.db import migrations, models, transaction
from django.db.models.functions import Upper


{functions}class Migration(migrations.Migration):
    initial = {initial}
    atomic = {atomic}
    dependencies = {dependencies}
    replaces = {replaces}
    operations = [{operations}]
"""
_OF_ROWS = frozenset({"insert", "update", "link", "raw_rows", "raw_update"})
_SOMETIMES = 64  # of 256: what one transaction may not take, stock's no more than ours
_FAILURES = (
    Operation(
        "migrations.RunPython(fail, migrations.RunPython.noop)",
        f"def fail(apps, editor):\n    raise ValueError('{PLANTED}')\n\n\n",
    ),
    Operation(f"migrations.RunSQL('SELECT * FROM \"{PLANTED}\"', migrations.RunSQL.noop)"),
    Operation(
        "migrations.RunPython(fail, migrations.RunPython.noop)",
        "def fail(apps, editor):\n"
        "    with editor.connection.cursor() as cursor:\n"
        "        cursor.execute('CREATE TABLE left_over (a integer)')\n"
        "        cursor.execute('DROP TABLE left_over')\n"
        f"    raise KeyError('{PLANTED}')\n\n\n",
    ),
)


@dataclass(frozen=True, slots=True)
class _Migration:
    app: str
    name: str
    atomic: bool
    dependencies: tuple[tuple[str, str], ...]
    operations: tuple[Operation, ...]
    replaces: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.app, self.name

    @property
    def source(self) -> str:
        return _SOURCE.format(
            functions="".join(dict.fromkeys(operation.functions for operation in self.operations)),
            initial=not any(app == self.app for app, _name in self.dependencies),
            atomic=self.atomic,
            dependencies=[*self.dependencies],
            replaces=[*self.replaces],
            operations="".join(f"\n        {operation.source}," for operation in self.operations),
        )


@dataclass(frozen=True, slots=True)
class GeneratedHistory:
    """A history, cut in two.

    Args:
        vendor: of the databases that it is for.
        applied: sources of what was applied long ago, by `app.name`.
        everything: sources of all.
        planted: the same with a failure in one of those that are pending.
        one_transaction: whether all that is pending is atomic.
    """

    vendor: Vendor
    applied: Mapping[str, str] = field(repr=False)
    everything: Mapping[str, str] = field(repr=False)
    planted: Mapping[str, str] = field(repr=False)
    one_transaction: bool

    def __str__(self) -> str:
        """Return it as a person wants to read it."""
        parts = [f"{self.vendor}, applied:", *self._texts(self.applied), "pending, with the failure:"]
        pending = {name: source for name, source in self.planted.items() if name not in self.applied}
        return "\n".join([*parts, *self._texts(pending)])

    @staticmethod
    def _texts(sources: Mapping[str, str]) -> Iterator[str]:
        for name, source in sources.items():
            body = source.partition("import Upper\n\n\n")[2]
            yield f"--- {name}\n{body}"


def generated_histories(vendor: Vendor) -> st.SearchStrategy[GeneratedHistory]:
    """Return a strategy of histories for one kind of database."""
    return skeletons().map(lambda skeleton: interpret(skeleton, vendor))


def interpret(skeleton: Skeleton, vendor: Vendor) -> GeneratedHistory:
    """Make a history of what is wanted, leaving out what is not possible."""
    wanted = skeleton.migrations
    applied = skeleton.applied % len(wanted)
    squashed = _squashed(skeleton)
    atomic = _atomicity(wanted, squashed, applied)
    last_outside = max((index for index, each in enumerate(atomic) if not each and index >= applied), default=-1)
    world = World()
    migrations: list[_Migration] = []
    for index, intent in enumerate(wanted):
        # The cut itself and a database that was empty need no way back.
        free = index < applied or index > last_outside or applied == 0
        context = Context(intent.app, vendor, atomic[index], free, applied=index < applied)
        migrations.append(_migration(world, intent, context, migrations))
    plant = replace(skeleton.plant, migration=applied + skeleton.plant.migration % (len(wanted) - applied))
    return GeneratedHistory(
        vendor=vendor,
        applied=_sources(migrations[:applied], range(0)),
        everything=_sources(migrations, squashed),
        planted=_sources(_planted(migrations, plant), squashed),
        one_transaction=all(atomic[applied:]),
    )


def _squashed(skeleton: Skeleton) -> range:
    """Return which migrations a squashed one replaces: some of one app that follow each other."""
    if skeleton.squash is None:
        return range(0)
    apps = [migration.app for migration in skeleton.migrations]
    start = skeleton.squash[0] % len(apps)
    end = start
    while end < len(apps) and end - start < skeleton.squash[1] and apps[end] == apps[start]:
        end += 1
    return range(start, end) if end - start > 1 else range(0)


def _atomicity(wanted: Sequence[MigrationIntent], squashed: range, applied: int) -> list[bool]:
    atomic = [migration.atomic for migration in wanted]
    if squashed and squashed.start >= applied:
        together = all(atomic[index] for index in squashed)
        for index in squashed:
            atomic[index] = together
    return atomic


def _migration(world: World, intent: MigrationIntent, context: Context, before: Sequence[_Migration]) -> _Migration:
    operations: list[Operation] = []
    for each in intent.intents:
        if not _fits(operations, each, context):
            continue
        choices = Choices(each.data)
        wrapped = choices.chance(7)
        operation = KINDS[each.kind](world, choices, context)
        if operation is None and not world.of_app(context.app):
            operation = KINDS["create_model"](world, choices, context)
        if operation is not None:
            operations.append(_wrapped(operation) if wrapped and not operation.moves_rows else operation)
    own = [migration for migration in before if migration.app == intent.app]
    dependencies = dict.fromkeys(migration.key for migration in (*own[-1:], *before[-1:]))
    return _Migration(
        intent.app, f"{len(own) + 1:04}_generated", context.atomic, tuple(dependencies), tuple(operations)
    )


def _fits(operations: Sequence[Operation], intent: Intent, context: Context) -> bool:
    """Tell whether a transaction of PostgreSQL takes an operation behind these.

    It alters no table that has pending trigger events, and Django makes the indexes of foreign keys at the end.
    """
    if not operations or not context.atomic or context.vendor is not Vendor.POSTGRESQL:
        return True
    if intent.kind in _OF_ROWS:
        return operations[-1].moves_rows or (not context.applied and intent.data[-1] < _SOMETIMES)
    return not operations[-1].moves_rows


def _wrapped(operation: Operation) -> Operation:
    halves = f"[{operation.source}], [{operation.source}]"
    return replace(operation, source=f"migrations.SeparateDatabaseAndState({halves})")


def _planted(migrations: Sequence[_Migration], plant: PlantIntent) -> list[_Migration]:
    broken = list(migrations)
    chosen = broken[plant.migration]
    at = plant.operation % (len(chosen.operations) + 1)
    failure = _FAILURES[plant.kind % len(_FAILURES)]
    operations = (*chosen.operations[:at], failure, *chosen.operations[at:])
    broken[plant.migration] = replace(chosen, operations=operations)
    return broken


def _sources(migrations: Sequence[_Migration], squashed: range) -> dict[str, str]:
    sources = {f"{migration.app}.{migration.name}": migration.source for migration in migrations}
    parts = [migrations[index] for index in squashed]
    if parts:
        keys = tuple(part.key for part in parts)
        squash = _Migration(
            parts[0].app,
            f"{parts[0].name}_to_{parts[-1].name[:4]}",
            all(part.atomic for part in parts),
            tuple(key for key in dict.fromkeys(key for part in parts for key in part.dependencies) if key not in keys),
            tuple(operation for part in parts for operation in part.operations),
            keys,
        )
        sources[f"{squash.app}.{squash.name}"] = squash.source
    return sources
