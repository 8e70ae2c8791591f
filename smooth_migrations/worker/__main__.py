"""`python -m smooth_migrations.worker --fd N`: started by a coordinator, in the project's directory."""

import argparse
import gc
import os
import platform
import resource
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from smooth_migrations import __version__, protocol
from smooth_migrations.worker.blame import with_place
from smooth_migrations.worker.channel import end_if_copy

__all__ = ["main"]

# A database that is held takes a file or two, and systems let a process have 1,024 unless it asks for more.
_FILES: Final = 16_384


def main() -> int:
    """Set Django up, say hello, and serve until the coordinator is gone."""
    # What the start makes stays to the end, and is not looked through for garbage.
    gc.disable()
    _have_files()
    parser = argparse.ArgumentParser(prog="smooth_migrations.worker")
    parser.add_argument("--fd", type=int, required=True)
    connection = socket.socket(fileno=parser.parse_args().fd)
    connection.set_inheritable(False)
    # The coordinator decides what a Ctrl-C or a SIGTERM means; it tells the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pid = os.getpid()
    heard, up = os.pipe()
    watch = threading.Thread(target=_end_with_coordinator, args=(connection, heard), daemon=True)
    watch.start()
    try:
        directory = str(Path.cwd())
        if directory not in sys.path:  # PYTHONSAFEPATH leaves it out
            sys.path.insert(0, directory)
        _greet_early(connection)
        hello = _set_up()
        end_if_copy(pid)
    except BaseException as error:  # noqa: BLE001 - settings are the user's code: importing them may raise anything
        end_if_copy(pid)
        connection.sendall(protocol.encode(_cannot_start(error)))
        return 3
    os.write(up, b"\n")
    watch.join()
    for descriptor in (heard, up):
        os.close(descriptor)
    gc.freeze()
    gc.enable()
    from smooth_migrations.worker.loop import serve  # noqa: PLC0415 - needs Django, which is set up by now

    serve(connection, hello)
    return 0


def _have_files() -> None:
    """Have room for as many databases as the system's administrator allows."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if least != resource.RLIM_INFINITY and least < wanted:
        with suppress(OSError, ValueError):  # a limit of the system's own is lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _end_with_coordinator(connection: socket.socket, up: int) -> None:
    """End a worker whose settings hang, which cannot hear that its coordinator is gone.

    Args:
        connection: to the coordinator.
        up: can be read from as soon as Django is set up: from then on the worker hears that itself, and may have
            something to take back.
    """
    told = select.poll()
    told.register(connection, 0)  # the other end is closed: that is told unasked (poll(2))
    told.register(up, select.POLLIN)
    if up not in dict(told.poll()):
        os._exit(1)


def _greet_early(connection: socket.socket) -> None:
    """Say what the settings alone tell, while the apps are still to be loaded; nothing where they do not tell it."""
    pid = os.getpid()
    try:
        line = protocol.encode(_hello(is_set_up=False))
    except Exception:  # noqa: BLE001 - settings or a backend may need what is not there yet: setting up says so, if need be
        return
    finally:
        end_if_copy(pid)
        _forget_databases()
    connection.sendall(line)


def _forget_databases() -> None:
    """Let an app still change which databases there are, as if nobody had asked before."""
    db = sys.modules.get("django.db")
    if db is not None:
        for alias in vars(db.connections).get("settings", ()):
            with suppress(AttributeError):  # it was not asked for
                del db.connections[alias]
        vars(db.connections).update(_settings=None)
        vars(db.connections).pop("settings", None)


def _set_up() -> protocol.Hello:
    import django  # noqa: PLC0415 - the project's interpreter may lack it, and that is an answer

    django.setup()
    return _hello(is_set_up=True)


def _hello(*, is_set_up: bool) -> protocol.Hello:
    import django  # noqa: PLC0415 - as above

    from smooth_migrations.worker.facts import database_facts, has_routers, secrets  # noqa: PLC0415 - needs settings

    return protocol.Hello(
        protocol=protocol.PROTOCOL,
        pid=os.getpid(),
        python=platform.python_version(),
        django=django.get_version(),
        version=__version__,
        databases=database_facts(),
        has_routers=has_routers(),
        secrets=secrets(),
        is_set_up=is_set_up,
        knows_copy=True,
    )


def _cannot_start(error: BaseException) -> protocol.Failed:
    settings = repr(os.environ.get("DJANGO_SETTINGS_MODULE", ""))
    hint = None
    if isinstance(error, ModuleNotFoundError) and error.name == "django":
        message = f"the interpreter {sys.executable} has no Django"
        hint = f"{sys.executable} -m pip install smooth-orchestrator"
    else:
        what = f"Django could not be set up by the settings {settings}"
        if not _has_settings():
            what = f"the settings {settings} could not be loaded"
        said = ": ".join(part for part in (what, type(error).__name__, str(error)) if part)
        message = with_place(said, error)
    return protocol.Failed(id=0, error=protocol.ErrorInfo("worker_cannot_start", message, hint=hint))


def _has_settings() -> bool:
    """Return whether the settings have been read to their end: what fails then is in an app, or what they say."""
    conf = sys.modules.get("django.conf")
    return conf is not None and bool(conf.settings.configured)


def _run() -> NoReturn:
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that a project started must not keep the worker alive.
    os._exit(code)


if __name__ == "__main__":
    _run()
