"""The worker's main loop: one command at a time, what can wait for nobody beside it."""

import os
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import replace

from django.db import Error, connections

from smooth_migrations import protocol
from smooth_migrations.errors import describe
from smooth_migrations.files import digest_of_all
from smooth_migrations.undo.prepared import settle_prepared
from smooth_migrations.worker.channel import Channel, mark_output
from smooth_migrations.worker.copying import copy
from smooth_migrations.worker.inspection import inspect
from smooth_migrations.worker.known import Library
from smooth_migrations.worker.moves import Moves
from smooth_migrations.worker.standing import standing

__all__ = ["serve"]


def serve(connection: socket.socket, hello: protocol.Hello) -> None:
    """Say hello and obey until the coordinator says stop or is gone; then roll back what is held.

    It returns in each copy of the process that it was told to make, too.
    """
    library = Library()
    speaking: socket.socket | None = connection
    while speaking is not None:
        speaking = _Loop(speaking, library).run(replace(hello, pid=os.getpid()))


# A coordinator's workers are gone within five seconds of its death.
_OBEDIENCE_S = 4.0


class _Loop:
    def __init__(self, connection: socket.socket, library: Library) -> None:
        self._channel = Channel(connection, beside=self._beside, ended=self._end)
        self._moves = Moves(self._channel.say)
        self._library = library

    def run(self, hello: protocol.Hello) -> socket.socket | None:
        """Serve to the end; in a copy, which has everything before it yet, return its own end of its connection."""
        for alias in connections:
            # With AUTOCOMMIT off in a project's settings nobody would commit what a migration does.
            connections[alias].settings_dict["AUTOCOMMIT"] = True
        signal.signal(signal.SIGUSR1, lambda _number, _frame: self._moves.strike())
        self._channel.say(hello)
        self._channel.start()
        while (command := self._channel.next()) is not None and not isinstance(command, protocol.Stop):
            answer = copy(command, self._channel) if isinstance(command, protocol.Copy) else self._obey(command)
            if isinstance(answer, socket.socket):
                return answer
            self._channel.say(answer)
        self._moves.rollback_all()
        connections.close_all()
        return None

    def _obey(self, command: protocol.Command) -> protocol.Event:
        mark_output(command.database, None)
        try:
            return self._answer(command)
        except Exception as error:  # noqa: BLE001 - a worker answers every command
            return protocol.Failed(id=command.id, error=describe(error), restored=False)
        finally:
            mark_output(None, None)
            self._close(command.alias)

    def _close(self, alias: str) -> None:
        """Give a session back that holds nothing: a server has fewer of them than a fleet has databases."""
        if alias in connections.settings and not self._moves.holds(alias):
            with suppress(Error):
                connections[alias].close()

    def _answer(self, command: protocol.Command) -> protocol.Event:
        answer: protocol.Event
        match command:
            case protocol.Apply():
                answer = self._moves.apply(command)
            case protocol.Prepare():
                answer = self._moves.prepare(command)
            case protocol.SettlePrepared():
                settle_prepared(connections[command.alias], command.gid, commits=command.commits)
                answer = protocol.Done(id=command.id)
            case protocol.Commit():
                answer = self._moves.commit(command)
            case protocol.Rollback():
                answer = self._moves.rollback(command)
            case protocol.Undo():
                answer = self._moves.undo(command)
            case _:
                answer = self._tell(command)
        return answer

    def _tell(self, command: protocol.Command) -> protocol.Event:
        """Answer what changes nothing."""
        match command:
            case protocol.Inspect():
                return inspect(command, connections[command.alias], self._library)
            case protocol.AskCode():
                return protocol.Code(id=command.id, digest=digest_of_all())
            case protocol.Lint():
                return _lint(command)
            case protocol.Look():
                return standing(command, connections[command.alias])
            case _:
                error = protocol.ErrorInfo("unknown_command", f"a worker does not know {command.type}")
                return protocol.Failed(id=command.id, error=error)

    # --- in the reading thread --------------------------------------------------------------------------------------

    def _beside(self, command: protocol.Command) -> bool:
        match command:
            case protocol.Fetch():
                self._channel.say(_fetch(command))
            case protocol.Cancel():
                self._moves.interrupt(command.cancels)
                self._strike()
            case _:
                return False
        return True

    def _end(self) -> None:
        self._moves.interrupt(None)
        self._strike()
        timer = threading.Timer(_OBEDIENCE_S, self._leave)
        timer.daemon = True
        timer.start()

    @staticmethod
    def _leave() -> None:
        # A migration that swallows every exception would hold its locks for ever, one that hangs when it is imported
        # its session, and a way back that waits for others the lease. What is open dies with us; what is committed is
        # in the database's journal, for whoever recovers.
        os._exit(1)

    def _strike(self) -> None:
        # Python code of a migration notices no thread, but a signal.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def _lint(command: protocol.Lint) -> protocol.Event:
    from smooth_migrations.lint.linting import lint  # noqa: PLC0415 - no deploy needs it

    report = lint(
        connections[command.alias], since=command.since, everything=command.everything, expands=command.expands
    )
    return protocol.Linted(id=command.id, report=report)


def _fetch(command: protocol.Fetch) -> protocol.Event:
    # Django's connections belong to a thread, so this is one beside the main thread's.
    try:
        with connections[command.alias].cursor() as cursor:
            cursor.execute(command.sql)
            names = [column[0] for column in cursor.description or ()]
            rows = tuple(dict(zip(names, row, strict=True)) for row in cursor.fetchall())
    except Error as error:
        return protocol.Failed(id=command.id, error=describe(error))
    finally:
        connections[command.alias].close()
    return protocol.Rows(id=command.id, rows=rows)
