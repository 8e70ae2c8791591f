"""The reference page of the plan, made of the models that read it."""

import builtins
import json
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, Protocol, get_args, get_origin, runtime_checkable

from annotated_types import Ge, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from docs_build.markdown import code, table
from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.schema import json_schema

__all__ = ["page"]

_HEAD: Final = """\
# The plan

`deploy.toml`, or whatever file is given to the commands as PLAN: which databases are moved, in which order, and how
carefully. It is TOML. `smooth-orchestrate init` writes a first one, [`configs/deploy.toml`](../../configs/deploy.toml)
and [`configs/shards.toml`](../../configs/shards.toml) are two with comments, and `smooth-orchestrate schema` prints a
JSON Schema, by which editors complete and check one.

Unknown keys, wrong types, names that are not there, databases in no phase or in two, two names for one database and
durations that are none are exit code 2: every mistake is listed at once, with its place in the file, and nothing has
been connected to. A duration is a whole number and one of `ms`, `s`, `min`, `h` and `d`, in quotation marks: `"15min"`.
In a glob, `*` stands for any characters, `?` for one, and `[ab]` for one of these.

"""

_SECRETS: Final = """
Secrets stand in the environment, never in a plan: `${NAME}` is read from there in the values of `env`, in `journal`
and in `queue_url`, and a name that is not set is exit code 2.
"""

_KINDS: Final[Mapping[object, str]] = {bool: "`true` or `false`", int: "an integer", str: "a text", SecretStr: "a text"}

# What goes without saying: a NUL character is in no path, no name and no argument.
_OF_EVERY_TEXT: Final = " without NUL characters"

# How the header of a table is written whose name is the user's.
_NAMES: Final[Mapping[str, str]] = {"projects": "NAME", "databases": "NAME", "servers": '"HOST:PORT"'}


@runtime_checkable
class _Ruled(Protocol):
    """What tells, in words, what may be written."""

    @property
    def rule(self) -> str: ...


def page() -> str:
    """Return it."""
    top = PlanFile.model_fields
    tables = {name: model for name, field in top.items() if (model := _model_of(field.annotation)) is not None}
    keys = {name: field for name, field in top.items() if name not in tables}
    properties = json_schema()["properties"]
    sections = [f"## At the top\n\n{_keys(keys, properties)}"]
    for name, model in tables.items():
        said = top[name].description or ""
        about = " ".join(filter(None, [(model.__doc__ or "").strip(), said]))
        sections.append(f"## {_header(name, top[name])}\n\n{about}\n\n{_keys(model.model_fields, _properties(model))}")
    return _HEAD + "\n".join(sections) + _SECRETS


def _header(name: str, field: FieldInfo) -> str:
    if name in _NAMES:
        return code(f"[{name}.{_NAMES[name]}]")
    return code(f"[[{name}]]" if get_origin(field.annotation) is tuple else f"[{name}]")


def _properties(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = json_schema()["$defs"][model.__name__]["properties"]
    return properties


def _model_of(annotation: object) -> type[BaseModel] | None:
    """Return the model of a table, of an array of tables, or of tables by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for each in get_args(annotation) if (model := _model_of(each)) is not None), None)


def _keys(fields: Mapping[str, FieldInfo], properties: Mapping[str, Any]) -> str:
    rows = (
        [
            code(name),
            _type(field.annotation, field.metadata),
            _default(field, properties[name]),
            field.description or "",
        ]
        for name, field in fields.items()
    )
    return table(["key", "what is written", "default", "meaning"], rows)


def _default(field: FieldInfo, written: Mapping[str, Any]) -> str:
    if field.is_required():
        return "must be given"
    # TOML writes these as JSON does.
    return code(json.dumps(written["default"])) if "default" in written else ""


def _type(annotation: Any, metadata: list[Any] | None = None) -> str:  # noqa: ANN401 - whatever a field's type may be
    """Return in words what a key takes."""
    ruled = next((each.rule for each in metadata or () if isinstance(each, _Ruled)), None)
    if ruled is not None:
        return ruled.removesuffix(_OF_EVERY_TEXT)
    within = get_args(annotation)
    match get_origin(annotation):
        case typing.Annotated:
            return _type(within[0], list(annotation.__metadata__))
        case typing.Union | types.UnionType:
            return _type(next(each for each in within if each is not types.NoneType))
        case builtins.tuple:
            return f"an array; each is {_type(within[0])}"
        case builtins.dict:
            return f"a table: {_type(within[0])} = {_type(within[1])}"
    return _simple(annotation, metadata or [])


def _simple(annotation: type, metadata: list[Any]) -> str:
    if issubclass(annotation, Enum):
        return " or ".join(code(f'"{each.value}"') for each in annotation)
    return " ".join([_KINDS[annotation], *_bounds(metadata)])


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for each in metadata:
        if isinstance(each, Ge):
            yield f"from {each.ge}"
        elif isinstance(each, Le):
            yield f"to {each.le}"
