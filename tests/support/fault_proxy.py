"""Stand between clients and a PostgreSQL server, see each statement and its answer, and do harm at a chosen one.

It speaks as much of the wire protocol (PostgreSQL manual, "Message Formats") as it takes to know which statement is
about to be executed, by a simple query or by Execute, and when it has been answered, by ReadyForQuery.
"""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self

__all__ = ["Fault", "FaultProxy", "Harm"]

_SSL, _GSS = 80877103, 80877104
_SYNC = b"S\x00\x00\x00\x04"
_PATIENCE_S = 20.0


class Harm(Enum):
    """What befalls a statement.

    `REQUEST_LOST`: the connection is cut before the server hears of it. `REPLY_LOST`: when the server has done it,
    before the client hears so. `HALF_CLOSED`: the same, but what the client goes on sending reaches the server.
    `REQUEST_LATE`: the connection to the client is cut, and the statement reaches the server all the same, later.
    `DELAYED`: it takes longer to reach the server. `REPLY_DELAYED`: its answer takes longer.
    """

    REQUEST_LOST = auto()
    REPLY_LOST = auto()
    HALF_CLOSED = auto()
    REQUEST_LATE = auto()
    DELAYED = auto()
    REPLY_DELAYED = auto()


_AT_THE_REPLY = {Harm.REPLY_LOST, Harm.HALF_CLOSED, Harm.REPLY_DELAYED}


@dataclass(slots=True)
class Fault:
    """Harm that is done once.

    Args:
        statement: a regular expression, looked for in each statement, whatever the case of its letters; the values of
            its parameters follow the statement.
        harm: what is done.
        nth: to which of the statements that match, from 1.
        after: those alone count that come after one which matches this.
        meanwhile: called in the connection's thread: where a reply is concerned when the server has answered, where a
            request is, before it goes on or is lost. What is delayed is delayed for as long as this takes.
        done: set when all of that has happened.
    """

    statement: str
    harm: Harm
    nth: int = 1
    after: str = ""
    meanwhile: Callable[[], object] = lambda: None
    done: threading.Event = field(default_factory=threading.Event)
    _seen: int = 0
    _is_due: bool = False

    def strikes(self, sql: bytes) -> bool:
        """Return whether a statement is the one."""
        self._is_due = self._is_due or _matches(self.after, sql)
        if self._seen >= self.nth or not (self._is_due and _matches(self.statement, sql)):
            return False
        self._seen += 1
        return self._seen == self.nth

    def wait(self) -> None:
        """Wait until it has happened."""
        assert self.is_over(), f"no statement was struck by {self}"

    def is_over(self) -> bool:
        """Wait until it has happened, or for too long, and return whether it has."""
        return self.done.wait(_PATIENCE_S)


def _matches(pattern: str, sql: bytes) -> bool:
    return re.search(pattern.encode(), sql, re.IGNORECASE | re.DOTALL) is not None


class FaultProxy:
    """Forward connections to a server on this machine, for the length of a block.

    Args:
        server_port: the server's.

    Attributes:
        port: where clients connect to.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self._server_port = server_port
        self._faults: list[Fault] = []
        self._is_refusing = False
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._serve, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self.port = self._listener.getsockname()[1]
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def arm(self, fault: Fault) -> Fault:
        """Do this harm when its time has come, and return it."""
        self._faults.append(fault)
        return fault

    def disarm(self) -> None:
        """Do no harm any more."""
        self._faults.clear()

    def refuse(self) -> None:
        """Accept no connection, and end those that there are."""
        self._is_refusing = True
        for connection in [*self._connections]:
            connection.cut()

    def accept(self) -> None:
        """Accept connections again."""
        self._is_refusing = False

    def struck(self, sql: bytes) -> Fault | None:
        """Return the harm that is to befall a statement which is about to be executed."""
        with self._lock:
            return next((fault for fault in [*self._faults] if fault.strikes(sql)), None)

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return  # closed
            if self._is_refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                client.close()
                continue
            connection = _Connection(self, client, server)
            self._connections.append(connection)
            connection.start()


class _Connection:
    """One connection, forwarded by a thread for each direction."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._prepared: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        self._awaited: Fault | None = None
        self._is_deaf = False
        self._threads = [
            threading.Thread(target=self._run, args=[way], name="fault-proxy", daemon=True)
            for way in (self._requests, self._answers)
        ]

    def start(self) -> None:
        """Begin to forward."""
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        """End the connection on both sides."""
        for end in (self._client, self._server):
            _shut(end, socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection, once what befalls its statements has happened."""
        self.cut()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        self._client.close()
        self._server.close()

    def _run(self, way: Callable[[], None]) -> None:
        with suppress(OSError, EOFError):
            way()
        self.cut()

    # --- from the client --------------------------------------------------------------------------------------------

    def _requests(self) -> None:
        self._greet()
        while True:
            kind, message = _message(self._client)
            fault = self._proxy.struck(sql) if (sql := self._executed(kind, message[5:])) else None
            if fault is None:
                self._server.sendall(message)
            elif fault.harm in _AT_THE_REPLY:
                self._awaited = fault
                self._server.sendall(message)
            else:
                with _ended(fault):
                    self._strike(fault, kind, message)

    def _strike(self, fault: Fault, kind: bytes, message: bytes) -> None:
        if fault.harm is Harm.REQUEST_LATE:
            self._is_deaf = True
            _shut(self._client, socket.SHUT_RDWR)
        fault.meanwhile()
        if fault.harm is Harm.REQUEST_LOST:
            self.cut()
            return
        self._server.sendall(message)
        if fault.harm is Harm.REQUEST_LATE:
            if kind == b"E":
                self._server.sendall(_SYNC)
            # Until there is an answer, or the session has ended.
            self._threads[1].join(_PATIENCE_S)

    def _greet(self) -> None:
        while True:
            head = _exactly(self._client, 8)
            length, code = struct.unpack("!II", head)
            body = _exactly(self._client, length - 8)
            if code not in {_SSL, _GSS}:
                self._server.sendall(head + body)
                return
            self._client.sendall(b"N")

    def _executed(self, kind: bytes, body: bytes) -> bytes | None:
        """Return the statement, with its parameters, that a message has executed, if it has one executed."""
        if kind == b"Q":
            return body.rstrip(b"\0")
        names = body.split(b"\0", 2)
        if kind == b"P":
            self._prepared[names[0]] = names[1]
        elif kind == b"B":
            self._portals[names[0]] = b" ".join((self._prepared.get(names[1], b""), names[2]))
        elif kind == b"E":
            return self._portals.get(names[0])
        return None

    # --- from the server --------------------------------------------------------------------------------------------

    def _answers(self) -> None:
        while True:
            kind, message = _message(self._server)
            if self._awaited is not None:
                fault, self._awaited = self._awaited, None
                with _ended(fault):
                    self._withhold(fault, kind, message)
            elif not self._is_deaf:
                self._client.sendall(message)
            elif kind == b"Z":
                return

    def _withhold(self, fault: Fault, kind: bytes, message: bytes) -> None:
        answer = message
        # Until the server is ready for the next one, this one is not done with.
        while kind != b"Z":
            kind, message = _message(self._server)
            answer += message
        fault.meanwhile()
        if fault.harm is Harm.REPLY_DELAYED:
            self._client.sendall(answer)
        elif fault.harm is Harm.HALF_CLOSED:
            self._is_deaf = True
            _shut(self._client, socket.SHUT_WR)
        else:
            self.cut()


@contextmanager
def _ended(fault: Fault) -> Iterator[None]:
    try:
        yield
    finally:
        fault.done.set()


def _message(end: socket.socket) -> tuple[bytes, bytes]:
    """Read one message; return its kind and all of it."""
    head = _exactly(end, 5)
    (length,) = struct.unpack("!I", head[1:])
    return head[:1], head + _exactly(end, length - 4)


def _exactly(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = end.recv(count - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def _shut(end: socket.socket, how: int) -> None:
    with suppress(OSError):  # it may have been shut by the other side
        end.shutdown(how)
