"""The plan that `migrate` makes of its arguments, for those who want to know it without running it.

Django's command keeps it to itself. What stands here follows `django.core.management.commands.migrate` of Django 5.2 to
6.1, without its refusals, which that command has made before.
"""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor

__all__ = ["plan_of"]


def plan_of(connection: BaseDatabaseWrapper, options: dict[str, Any]) -> list[tuple[Migration, bool]]:
    """Return (migration, backwards) in order. Only reads.

    Args:
        connection: the target's.
        options: `app_label` and `migration_name` as parsed, which are right.
    """
    executor = MigrationExecutor(connection)
    return executor.migration_plan(_targets(executor, options["app_label"], options["migration_name"]))


def _targets(executor: MigrationExecutor, app_label: str | None, name: str | None) -> list[tuple[str, str | None]]:
    loader = executor.loader
    if app_label is None:
        return [*loader.graph.leaf_nodes()]
    if name is None:
        return [key for key in loader.graph.leaf_nodes() if key[0] == app_label]
    if name == "zero":
        return [(app_label, None)]
    key = (app_label, loader.get_migration_by_prefix(app_label, name).name)
    # A squash that is applied in part is not in the graph; the last that it replaces is.
    if key not in loader.graph.nodes and key in loader.replacements:
        key = loader.replacements[key].replaces[-1]
    return [key]
