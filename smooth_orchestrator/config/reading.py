"""From a file to the shape of a plan, or to every mistake in it."""

import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smooth_orchestrator.config.crosschecks import cross_mistakes
from smooth_orchestrator.config.mistakes import shape_mistakes
from smooth_orchestrator.config.tables import PlanFile
from smooth_orchestrator.config.values import Surroundings
from smooth_orchestrator.errors import BadValue, Mistake, PlanInvalid
from smooth_orchestrator.places import Found, in_file_order

__all__ = ["load"]

_LARGEST = 1_000_000
# The parser's memory grows with the square of a dotted key's length: one of 100 kB took gigabytes.
_MOST_DOTS = 5_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def load(path: Path, environ: Mapping[str, str]) -> PlanFile:
    """Read a plan and check all that can be checked without Django.

    Args:
        path: of the plan file.
        environ: where `${NAME}` is looked up.

    Raises:
        PlanInvalid: with every mistake, in the order of the file.
    """
    try:
        document = _parse(_read(path))
    except BadValue as error:
        raise PlanInvalid([Mistake(str(path), error.message, error.hint)]) from None
    surroundings = Surroundings(path.parent.resolve(), environ)
    found: list[Found] = []
    plan = None
    try:
        plan = PlanFile.model_validate(document, context=surroundings)
    except ValidationError as error:
        found.extend(shape_mistakes(error))
    found.extend(cross_mistakes(document, surroundings.directory))
    # Raised out here, so that no exception with a plan's values inside hangs on to it.
    if plan is None or found:
        raise PlanInvalid(item.mistake() for item in in_file_order(found, document))
    return plan


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
