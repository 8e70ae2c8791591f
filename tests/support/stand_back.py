"""Bring an empty database to where it stood some migrations ago, with Django's own executor.

Run as a script in a project's directory, with its settings named in the environment. The one argument is a JSON object:
how many of an application's newest migrations are left out, by label. What depends on one of those is left out too.
"""

import json
import sys
from pathlib import Path

import django
from django.core.management.sql import emit_post_migrate_signal
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.migrations.executor import MigrationExecutor

__all__: list[str] = []


def _stand_back(newest: dict[str, int]) -> None:
    executor = MigrationExecutor(connection)
    graph = executor.loader.graph
    plan = executor.migration_plan(graph.leaf_nodes(), clean_start=True)
    left_out: set[tuple[str, str]] = set()
    for label, count in newest.items():
        names = [migration.name for migration, _ in plan if migration.app_label == label]
        for name in names[-count:]:
            left_out.update(graph.backwards_plan((label, name)))
    kept = [(migration, False) for migration, _ in plan if (migration.app_label, migration.name) not in left_out]
    state = executor.migrate(None, kept)
    state.clear_delayed_apps_cache()
    emit_post_migrate_signal(0, False, DEFAULT_DB_ALIAS, apps=state.apps, plan=kept)  # noqa: FBT003 - Django's signature


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    django.setup()
    _stand_back(json.loads(sys.argv[1]))
