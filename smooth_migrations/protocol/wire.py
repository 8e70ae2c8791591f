"""Messages to lines and back."""

import json
import types
import typing
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from smooth_migrations.protocol.commands import Command
from smooth_migrations.protocol.events import Event

__all__ = ["PROTOCOL", "ProtocolError", "decode", "encode"]

PROTOCOL = 1


class ProtocolError(Exception):
    """A line that is no message of this protocol."""


_MESSAGES: dict[str, type[Command] | type[Event]] = {
    cls.type: cls for base in (Command, Event) for cls in base.__subclasses__()
}


def encode(message: Command | Event) -> bytes:
    """Return the message as one line of JSON, newline included."""
    body = {"type": message.type, **_shallow(message)}
    return json.dumps(body, default=_plain, separators=(",", ":")).encode() + b"\n"


def _shallow(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """Return a dataclass's values by name; nothing of them is copied, as `asdict` would."""
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _plain(value: object) -> object:
    return _shallow(value) if is_dataclass(value) else str(value)


def decode(line: bytes) -> Command | Event:
    """Read one line back.

    Raises:
        ProtocolError: it is not JSON, of no known type, or lacks a field.
    """
    try:
        body = json.loads(line)
        cls = _MESSAGES[body.pop("type")]
        return typing.cast("Command | Event", _build(cls, body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL}: {line[:200]!r}") from error


def _build(cls: type, body: dict[str, Any]) -> object:
    hints = _hints(cls)
    return cls(**{key: _value(hints[key], value) for key, value in body.items() if key in hints})


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {item.name: hints[item.name] for item in fields(cls)}


def _value(hint: Any, value: Any) -> Any:  # noqa: ANN401 - a JSON value of whatever type the field declares
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if value is None:
        return None
    if origin in (types.UnionType, typing.Union):
        return _value(next(arg for arg in args if arg is not types.NoneType), value)
    if origin is tuple:
        return tuple(_value(args[0], item) for item in value)
    if isinstance(hint, type) and is_dataclass(hint):
        return _build(hint, value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return value
