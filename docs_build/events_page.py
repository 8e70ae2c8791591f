"""The reference page of the log's events, made of the JSON Schema that every line obeys."""

from typing import Any, Final

from docs_build.markdown import code, table
from smooth_orchestrator.events import json_schema

__all__ = ["page"]

_HEAD: Final = """\
# Events of the log

Each line of the log is a JSON object with an `event` of those below. [`events.schema.json`](events.schema.json) is the
JSON Schema that every line obeys, and tests validate lines against it: a line carries no key that its event does not
have. Names and keys are public: there may be more of them in a later version, and none gets another meaning.
[How to keep, ship and read the log](../how-to/ship-the-log.md).

"""

_FORMS: Final = {"integer": "whole number", "number": "number", "string": "text", "object": "object", "null": "`null`"}


def page() -> str:
    """Return it."""
    schema = json_schema()
    always = [*schema["required"]]
    events = {each["if"]["properties"]["event"]["const"]: each["then"] for each in schema["allOf"]}
    shared = [key for key in schema["properties"] if all(key in _allowed(each) for each in events.values())]
    context = [key for key in shared if key not in always]
    rows = []
    for name, each in events.items():
        own = [key for key in _allowed(each) if key not in each["required"] and key not in shared]
        rows.append([code(name), each["description"], _listed(each["required"]), _listed(own)])
    return (
        f"{_HEAD}Every line has {_listed(always)}. Any may have {_listed(context)}, where they apply.\n\n"
        + table(["event", "says", "has", "may have"], rows)
        + "\n## Keys\n\nA key means the same wherever it stands.\n\n"
        + table(["key", "form", "says"], _keys(schema["properties"]))
        + f"\n`error` is an object with {_listed(schema['$defs']['error']['required'])}, and where they apply "
        + f"{_listed([key for key in _error(schema) if key not in schema['$defs']['error']['required']])}.\n"
    )


def _error(schema: dict[str, Any]) -> list[str]:
    return [*schema["$defs"]["error"]["properties"]]


def _allowed(event: dict[str, Any]) -> list[str]:
    allowed: list[str] = event["propertyNames"]["enum"]
    return allowed


def _listed(keys: list[str]) -> str:
    return ", ".join(map(code, keys))


def _keys(properties: dict[str, Any]) -> list[list[str]]:
    return [[code(name), _form(name, key), key["description"]] for name, key in properties.items()]


def _form(name: str, key: dict[str, Any]) -> str:
    if name == "event":
        return "one of the names above"
    if "$ref" in key:
        return "object"
    if "enum" in key:
        return " ".join(map(code, key["enum"]))
    if key["type"] == "array":
        items = key["items"]
        return f"array of {'objects' if items['type'] == 'object' else 'texts'}"
    if key.get("pattern", "").startswith(r"^\d{4}"):
        return "RFC 3339"
    kinds = [key["type"]] if isinstance(key["type"], str) else key["type"]
    return " or ".join(_FORMS[kind] for kind in kinds)
