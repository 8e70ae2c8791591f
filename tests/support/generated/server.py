"""A process that configures Django once and then runs commands for one history after another.

Each line of its standard input is a request in JSON, each line of its standard output the answer.
"""

import importlib
import io
import json
import shutil
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from tests.support.generated.world import APPS


def main() -> None:
    """Answer requests until the end of the input."""
    directory = Path(sys.argv[1])
    for label in APPS:
        app = directory / label
        app.mkdir()
        (app / "__init__.py").touch()
        # An app without models hears no pre_migrate and no post_migrate.
        (app / "models.py").touch()
    sys.path.insert(0, str(directory))
    sys.dont_write_bytecode = True
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "smooth_migrations", *APPS],
        DATABASES={"default": {"ENGINE": "django.db.backends.dummy"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        MIGRATION_MODULES={},
        USE_TZ=True,
    )
    django.setup()
    for number, line in enumerate(sys.stdin):
        print(json.dumps(_answer(directory, number, json.loads(line))), flush=True)  # noqa: T201 - the protocol


def _answer(directory: Path, number: int, request: Mapping[str, Any]) -> dict[str, Any]:
    package = f"history_{number}"
    _write(directory / package, request["migrations"])
    settings.MIGRATION_MODULES = {label: f"{package}.{label}" for label in APPS}
    _connect(request["database"])
    output = io.StringIO()
    error = None
    try:
        call_command(request["command"], interactive=False, no_color=True, stdout=output, stderr=output)
    except Exception as caught:  # noqa: BLE001 - it is the answer
        error = {
            "type": type(caught).__name__,
            "message": str(caught),
            "returncode": getattr(caught, "returncode", 1),
            "traceback": traceback.format_exc(),
        }
    finally:
        connections["default"].close()
        for name in [name for name in sys.modules if name.startswith(package)]:
            del sys.modules[name]
        shutil.rmtree(directory / package)
    return {"error": error, "output": output.getvalue()}


def _write(directory: Path, migrations: Mapping[str, str]) -> None:
    for label in APPS:
        (directory / label).mkdir(parents=True)
        (directory / label / "__init__.py").touch()
    (directory / "__init__.py").touch()
    for key, source in migrations.items():
        label, _, name = key.partition(".")
        (directory / label / f"{name}.py").write_text(source)
    importlib.invalidate_caches()


def _connect(database: Mapping[str, Any]) -> None:
    if connections.all(initialized_only=True):
        del connections["default"]
    connections.settings = connections.configure_settings({"default": {**database}})


if __name__ == "__main__":
    main()
