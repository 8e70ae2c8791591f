"""The types of single values in a plan: names, texts, secrets from the environment, URLs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from smooth_orchestrator.errors import BadValue
from smooth_orchestrator.references import expand, without_references
from smooth_orchestrator.suggestions import did_you_mean, listed, quoted

__all__ = [
    "LONGEST_QUEUE",
    "Choice",
    "DatabaseName",
    "DeployName",
    "EnvName",
    "EnvValue",
    "JournalUrl",
    "ModuleName",
    "PhaseName",
    "PlanVersion",
    "QueueName",
    "QueueUrl",
    "Surroundings",
    "Text",
    "kind_of",
]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a plan is read against.

    Args:
        directory: what relative paths are relative to.
        environ: where `${NAME}` is looked up.
    """

    directory: Path
    environ: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Like:
    """Makes pydantic hold a string to a pattern, and say so in words of ours."""

    pattern: str
    rule: str

    def check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise BadValue(f"{quoted(value)} must be {self.rule}" if value else f"must be {self.rule}, not empty")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's signature
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}


class Choice:
    """Makes pydantic read a member of the enumeration it stands beside from the member's value."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's signature
        return core_schema.no_info_before_validator_function(partial(_member, source), handler(source))


def _member(choices: type[StrEnum], value: object) -> StrEnum:
    if not isinstance(value, str):
        raise BadValue(f"must be a string, not {kind_of(value)}")
    try:
        return choices(value)
    except ValueError:
        options = [str(choice) for choice in choices]
        raise BadValue(f"{quoted(value)} is not one of {listed(options)}", did_you_mean(value, options)) from None


_KINDS: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction",
    str: "a string",
    dict: "a table",
    list: "an array",
}


def kind_of(value: object) -> str:
    """Return the kind of a TOML value, with its article."""
    return _KINDS.get(type(value), "a date or time")


DeployName = Annotated[str, _Like("[a-z0-9-]+", "small letters, digits and -")]
# Not ":" and no glob character: those have a meaning in a phase's databases.
DatabaseName = Annotated[str, _Like("[A-Za-z0-9_-]{1,63}", "at most 63 letters, digits, - and _")]
PhaseName = Annotated[str, _Like(r"[^\u0000-\u001f\u007f]{1,100}", "one line of at most 100 characters")]
ModuleName = Annotated[str, _Like(r"[^\W\d]\w*(\.[^\W\d]\w*)*", 'the dotted name of a module, such as "shop.settings"')]
EnvName = Annotated[str, _Like(r"[^=\u0000]+", "the name of an environment variable")]
Text = Annotated[str, _Like(r"[^\u0000]+", "a text without NUL characters")]

LONGEST_QUEUE: Final = 40
"""How many bytes the name of a queue may have: Procrastinate puts 23 in front of it for a channel's name, and a server
refuses those of more than 63 (PostgreSQL manual, pg_notify)."""


def _queue_name(value: str) -> str:
    if len(value.encode()) > LONGEST_QUEUE:
        raise BadValue(f"{quoted(value)} is too long", f"at most {LONGEST_QUEUE} bytes")
    return value


QueueName = Annotated[Text, AfterValidator(_queue_name), Field(json_schema_extra={"maxLength": LONGEST_QUEUE})]


def _version(value: int) -> int:
    if value != 1:
        raise BadValue(f"this program reads version 1, not {value}")
    return value


PlanVersion = Annotated[int, AfterValidator(_version), WithJsonSchema({"const": 1})]


def _environ(info: ValidationInfo) -> Mapping[str, str]:
    return info.context.environ if isinstance(info.context, Surroundings) else {}


def _secret(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever a TOML value may be
    return SecretStr(expand(value, _environ(info))) if isinstance(value, str) else value


def _journal_url(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever a TOML value may be
    if not isinstance(value, str):
        return value
    _refuse_password(value)
    url = expand(value, _environ(info))
    if url.startswith("sqlite:"):
        _check_sqlite(url)
    else:
        _check_postgresql(
            url, 'sqlite:///FILE or postgresql://USER@HOST/DATABASE, such as "sqlite:///.smooth/journal.db"'
        )
    return SecretStr(url)


def _queue_url(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever a TOML value may be
    if not isinstance(value, str):
        return value
    _refuse_password(value)
    url = expand(value, _environ(info))
    _check_postgresql(url, "postgresql://USER@HOST/DATABASE")
    return SecretStr(url)


def _check_sqlite(url: str) -> None:
    file = unquote(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or not file or file.endswith("/"):
        raise BadValue("names no file", 'relative to the plan file: "sqlite:///.smooth/journal.db"')
    if file == ":memory:":
        raise BadValue("must be a file: the journal outlives the process", '"sqlite:///.smooth/journal.db"')


def _check_postgresql(url: str, forms: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadValue("is not a URL", f"write {forms}") from None
    if parts.scheme != "postgresql" or not url.startswith("postgresql://"):
        raise BadValue("is not a URL that is understood here", f"write {forms}")
    if not parts.path.strip("/"):
        raise BadValue("names no database", "postgresql://USER@HOST/DATABASE")


def _refuse_password(written: str) -> None:
    """Refuse a password that stands in the plan itself, rather than a `${NAME}` or nothing."""
    if not written.startswith("postgres"):
        return
    try:
        parts = urlsplit(written)
        passwords = [parts.password, *(value for key, value in parse_qsl(parts.query) if key == "password")]
    except ValueError:
        return  # no URL, which is said by the check that follows
    if any(without_references(password) for password in passwords if password):
        raise BadValue(
            "holds a password, and a plan is no place for secrets",
            "write ${NAME} for it, or leave it out and set PGPASSFILE or PGPASSWORD",
        )


_STRING = WithJsonSchema({"type": "string"})
EnvValue = Annotated[SecretStr, BeforeValidator(_secret), _STRING]
JournalUrl = Annotated[SecretStr, BeforeValidator(_journal_url), _STRING]
QueueUrl = Annotated[SecretStr, BeforeValidator(_queue_url), _STRING]
