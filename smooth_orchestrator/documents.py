"""A plan's file as a TOML document. What its tables mean needs pydantic, for which no file that is none waits."""

import stat
import tomllib
from pathlib import Path
from typing import Any

from smooth_orchestrator.errors import BadValue, Mistake, PlanInvalid

__all__ = ["read_document"]

_LARGEST = 1_000_000
# The parser's memory grows with the square of a dotted key's length: one of 100 kB took gigabytes.
_MOST_DOTS = 5_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_document(path: Path) -> dict[str, Any]:
    """Return what a plan's file holds, whatever that is.

    Args:
        path: of the plan file.

    Raises:
        PlanInvalid: it cannot be read, or is no TOML.
    """
    try:
        return _parse(_read(path))
    except BadValue as error:
        raise PlanInvalid([Mistake(str(path), error.message, error.hint)]) from None


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadValue("is a directory, not a plan")
        if not stat.S_ISREG(mode):
            raise BadValue("is not a regular file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise BadValue("does not exist") from None
    except OSError as error:
        raise BadValue(f"cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise BadValue("is larger than 1 MB, and no plan is")
    if content.startswith(_BYTE_ORDER_MARK):
        raise BadValue("begins with a byte order mark", "save it as UTF-8 without one")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadValue(f"is not UTF-8 (at line {line})") from None


def _parse(text: str) -> dict[str, Any]:
    if sum(line.count(".") ** 2 for line in text.splitlines()) > _MOST_DOTS**2:
        raise BadValue("is not TOML that can be read: nested too deeply")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Only at its end does the parser name no line.
        end = f"at line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}"
        raise BadValue(f"is not TOML: {str(error).replace('at end of document', end)}") from None
    except RecursionError:
        raise BadValue("is not TOML that can be read: nested too deeply") from None
    except ValueError:  # an integer of thousands of digits, a date that is none
        raise BadValue("is not TOML that can be read: a value is out of range") from None
    if not document:
        raise BadValue("is empty", "a plan begins with version = 1 and [deploy]")
    return document
