"""What pydantic finds wrong, in the user's words."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from smooth_orchestrator.config.tables import (
    DatabaseTable,
    DeployTable,
    FinaliseTable,
    FleetTable,
    PhaseTable,
    PlanFile,
    ProjectTable,
)
from smooth_orchestrator.config.values import kind_of
from smooth_orchestrator.errors import BadValue
from smooth_orchestrator.places import Found, Location
from smooth_orchestrator.suggestions import did_you_mean, quoted

__all__ = ["shape_mistakes"]

_TABLES: Mapping[str, type[BaseModel]] = {
    "deploy": DeployTable,
    "finalise": FinaliseTable,
    "projects": ProjectTable,
    "databases": DatabaseTable,
    "phases": PhaseTable,
    "fleet": FleetTable,
}
_HEADERS = {"projects": "[projects.NAME]", "databases": "[databases.NAME]", "phases": "[[phases]]"}

_WANTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "bool_type": "true or false",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}


def shape_mistakes(error: ValidationError) -> Iterator[Found]:
    """Yield each of the error's findings, without any value that may be secret."""
    for detail in error.errors(include_url=False):
        # A table's key that breaks a rule is reported one level below itself.
        location = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
        message, hint = _words(detail, location)
        yield Found(location, message, hint)


def _words(detail: ErrorDetails, location: Location) -> tuple[str, str | None]:
    context = detail.get("ctx", {})
    message, hint = detail["msg"], None
    match detail["type"]:
        case "missing":
            message = "is required"
        case "extra_forbidden":
            message = "is not a key of a plan" if len(location) == 1 else "is not a key of this table"
            hint = _nearest_key(location)
        case "value_error" if isinstance(context["error"], BadValue):
            message, hint = context["error"].message, context["error"].hint
        case "greater_than_equal":
            message = f"must be at least {context['ge']}"
        case "less_than_equal":
            message = f"must be at most {context['le']}"
        case kind if kind in _WANTED:
            message, hint = _wrong_type(_WANTED[kind], location, detail["input"])
    return message, hint


def _wrong_type(wanted: str, location: Location, value: object) -> tuple[str, str | None]:
    message = f"must be {wanted}, not {kind_of(value)}"
    if location == ("phases",):
        return f"must be an array of tables, not {kind_of(value)}", "write [[phases]]"
    if wanted == "an array" and isinstance(value, str):
        return message, f"write [{quoted(value)}]"
    if wanted == "a table":
        header = _HEADERS.get(str(location[0]), f"[{location[0]}]")
        return message, f"write {header}"
    return message, None


def _nearest_key(location: Location) -> str | None:
    key = str(location[-1])
    near = did_you_mean(key, _table(location).model_fields)
    if near:
        return near
    homes = [_HEADERS.get(name, f"[{name}]") for name, table in _TABLES.items() if key in table.model_fields]
    return f"it belongs in {' or '.join(homes)}" if homes else None


def _table(location: Location) -> type[BaseModel]:
    return PlanFile if len(location) == 1 else _TABLES[str(location[0])]
