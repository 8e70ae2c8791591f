"""What a coordinator and a session say to each other beside the protocol of workers, whose lines they carry."""

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

__all__ = [
    "Asked",
    "Begun",
    "Joined",
    "Killed",
    "Left",
    "Message",
    "MessageError",
    "Printed",
    "Refused",
    "Said",
    "Stopped",
    "decode",
    "encode",
]


class MessageError(Exception):
    """A text that is no message between a coordinator and a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Base of these."""

    kind: ClassVar[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Message):
    """The coordinator has a command for the worker; its line, and whether an answer is waited for."""

    kind: ClassVar[str] = "asked"
    line: str
    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Message):
    """The coordinator needs the worker no more."""

    kind: ClassVar[str] = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(Message):
    """The coordinator has given the worker up: it is to be ended at once."""

    kind: ClassVar[str] = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun(Message):
    """A machine has taken the session up: the first that it says, by which one alone goes on of two that have."""

    kind: ClassVar[str] = "begun"
    machine: str
    turn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined(Message):
    """The worker is there: its Django is set up, and of the release that is wanted."""

    kind: ClassVar[str] = "joined"
    machine: str
    pid: int
    python: str
    django: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Message):
    """There will be no worker; why, and what to do about it."""

    kind: ClassVar[str] = "refused"
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Message):
    """The worker has said something: the line of its event."""

    kind: ClassVar[str] = "said"
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed(Message):
    """The worker has printed a line."""

    kind: ClassVar[str] = "printed"
    stream: Literal["stdout", "stderr"]
    line: str
    database: str | None
    migration: str | None
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Left(Message):
    """The worker has ended, and how."""

    kind: ClassVar[str] = "left"
    message: str


_KINDS = {each.kind: each for each in (Asked, Stopped, Killed, Begun, Joined, Refused, Said, Printed, Left)}
_HINTS = {kind: {each.name: get_type_hints(kind)[each.name] for each in fields(kind)} for kind in _KINDS.values()}


def encode(message: Message) -> str:
    """Return a message as JSON. Pure."""
    body = {each.name: getattr(message, each.name) for each in fields(message)}
    return json.dumps({"kind": message.kind, **body}, separators=(",", ":"))


def decode(text: str) -> Message:
    """Read one back; a field that this version does not know is left out. Pure.

    Raises:
        MessageError: it is none.
    """
    try:
        body = json.loads(text)
        kind = _KINDS[body["kind"]]
        hints = _HINTS[kind]
        known: dict[str, Any] = {key: _checked(value, hints[key]) for key, value in body.items() if key in hints}
        message: Message = kind(**known)
        if isinstance(message, Asked | Said):
            # Half of a surrogate pair is no text that could go the worker's wire.
            message.line.encode()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MessageError(f"no message of a fleet: {text[:200]!r}") from error
    return message


def _checked(value: object, hint: Any) -> object:  # noqa: ANN401 - whatever a field declares
    fits = value in get_args(hint) if get_origin(hint) is Literal else isinstance(value, hint)
    if not fits:
        raise TypeError(value)
    return value
