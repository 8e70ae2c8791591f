"""Imports that nothing waits for: they are done while a command waits anyway, for its first worker to set up Django."""

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Final

__all__ = ["begin", "import_at_leisure", "run_beside", "wait"]

_has_begun: Final = threading.Event()


def begin() -> None:
    """Let what waits for it begin: this thread has nothing to do for a while, or cannot wait any longer. Idempotent."""
    _has_begun.set()


def wait() -> None:
    """Return once there is leisure."""
    _has_begun.wait()


def import_at_leisure(name: str, after: Callable[[], object] | None = None) -> None:
    """Start a thread that imports a module once there is leisure; who needs it sooner imports it.

    Args:
        name: the module's. One that cannot be imported is for who needs it to find out.
        after: returns when it is known that the module will be needed.
    """

    def wait_and_import() -> None:
        if after is not None:
            after()
        wait()
        try:
            import_module(name)
        except Exception:  # noqa: BLE001 - see above
            return

    run_beside("leisure", wait_and_import)


def run_beside(name: str, work: Callable[[], object]) -> threading.Thread:
    """Start a thread for which the process does not wait when it ends.

    Args:
        name: its name.
        work: what it does.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
