import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from smooth_orchestrator.config import load
from smooth_orchestrator.schema import json_schema
from tests.unit.bad_plans import CASES, BadPlan, make
from tests.unit.test_config import EXAMPLE

CONFIGS = Path(__file__).parents[2] / "configs"
PLANS = sorted(CONFIGS.glob("*.toml"))
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "plan", SCHEMA
    for name, definition in SCHEMA["$defs"].items():
        if "properties" in definition:
            yield name, definition


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in SCHEMA


def test_every_key_is_described_or_is_a_table_that_is() -> None:
    bare = [
        f"{name}.{key}"
        for name, table in tables()
        for key, value in table["properties"].items()
        if "description" not in value and "description" not in SCHEMA["$defs"][value["$ref"].rpartition("/")[2]]
    ]
    assert bare == []


def test_every_default_is_valid_where_it_stands() -> None:
    for name, table in tables():
        for key, value in table["properties"].items():
            if "default" in value:
                errors = list(Draft202012Validator({**value, "$defs": SCHEMA["$defs"]}).iter_errors(value["default"]))
                assert errors == [], f"{name}.{key}"


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_plan_in_configs_obeys_the_schema_and_loads(plan: Path, tmp_path: Path) -> None:
    text = plan.read_text()
    VALIDATOR.validate(tomllib.loads(text))
    file = load(make(BadPlan("", text, ()), tmp_path), {"SHOP_DB_PASSWORD": "hunter2"})
    assert file.databases


def test_there_are_plans_in_configs() -> None:
    assert {plan.name for plan in PLANS} >= {"deploy.toml", "shards.toml"}


def test_the_reference_example_obeys_the_schema() -> None:
    VALIDATOR.validate(tomllib.loads(EXAMPLE))


# What a schema cannot see: other tables, other files, the environment, what this version can do.
BEYOND = (
    "already", "there is no", "in no phase", "no database", "does not exist", "is not a directory", "executable",
    "not set in", "${", "URL", "names no", "must be a file", "password", "yet", "too long", "twice", "no phase can",
    "is missing",
)  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if not case.needs_django
        and "{plan}" not in case.expected[0]
        and not all(any(word in line for word in BEYOND) for line in case.expected)
    ],
    ids=lambda case: case.id,
)
def test_an_editor_sees_what_is_wrong_with_a_single_value(case: BadPlan) -> None:
    assert isinstance(case.content, str)
    assert not VALIDATOR.is_valid(tomllib.loads(case.content))
