"""What a plan consists of, to notice that a receiver of `pre_migrate` has changed it."""

from collections.abc import Hashable
from typing import Any

from django.db.migrations.operations.base import Operation
from django.db.models.signals import pre_migrate
from django.utils.functional import cached_property

from smooth_migrations.halves import placed_of
from smooth_migrations.listeners import has_others_receivers
from smooth_migrations.replay.script import Plan

__all__ = ["signature_of"]


def signature_of(plan: Plan) -> Hashable:
    """Return what differs once a plan was changed: which migrations, with which operations of what. Pure.

    That an operation is placed to run in halves is no change, nor is a renaming of a content type, which a receiver of
    Django's puts beside that of its model: whatever the database holds, and it runs for real.
    """
    in_files = [
        (
            migration,
            backwards,
            [
                placed.operation if (placed := placed_of(each)) else each
                for each in operations
                if not _is_renaming(each)
            ],
        )
        for migration, backwards in plan
        for operations in [migration.operations]
    ]
    shallow = tuple((id(migration), backwards, tuple(map(id, parts))) for migration, backwards, parts in in_files)
    if not has_others_receivers(pre_migrate):
        return shallow
    return shallow, tuple(_of(_attributes(each)) for _migration, _backwards, parts in in_files for each in parts)


def _is_renaming(operation: Operation) -> bool:
    kind = type(operation)
    return (kind.__module__, kind.__name__) == ("django.contrib.contenttypes.management", "RenameContentType")


def _attributes(operation: Operation) -> dict[str, Any]:
    # What is worked out when it is first asked for is no part of it.
    kind = type(operation)
    return {n: value for n, value in vars(operation).items() if not isinstance(getattr(kind, n, None), cached_property)}


def _of(value: Any) -> Hashable:  # noqa: ANN401 - whatever an operation is made of
    if isinstance(value, dict):
        return tuple((str(name), _of(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_of, value))
    if not isinstance(value, type) and hasattr(value, "deconstruct"):
        return id(value), _of(value.deconstruct())
    return repr(value) if isinstance(value, str | int | float | bytes | None) else id(value)
