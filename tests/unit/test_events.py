import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from smooth_orchestrator.events import EventName, json_schema, schema_text

PUBLISHED = Path(__file__).parents[2] / "docs/reference/events.schema.json"

# The public contract, word for word: names may be added to it, and none taken away.
PROMISED = """
deploy.started preflight.passed preflight.failed lease.acquired lease.lost phase.started phase.finished
migration.started migration.applied migration.failed migration.unapplied migration.unapply_failed
lock.waiting lock.retry gate.started gate.passed gate.failed
database.prepared deploy.decided database.committed database.rolled_back
deploy.committed deploy.rolled_back deploy.needs_operator contract.queued contract.applied
finalise.started finalise.not_due finalise.refused finalise.finished recover.started recover.settled
"""

LINE: dict[str, Any] = {
    "timestamp": "2026-03-01T12:00:00.000001Z",
    "level": "info",
    "event": "migration.applied",
    "run_id": "r1",
    "deploy": "shop",
    "phase": "canary",
    "database": "primary",
    "app": "orders",
    "migration": "0007_total",
    "direction": "forwards",
    "duration_ms": 31.0,
}
ERROR = {"type": "IntegrityError", "message": "no", "sqlstate": "23505", "traceback": None}


def _mistakes(line: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema()).iter_errors(line)]


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_text() == schema_text(), "run: python -m smooth_orchestrator.events > docs/reference/…"


def test_the_schema_is_valid_and_plain_json() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert json.loads(schema_text()) == json_schema()


def test_every_promised_event_has_a_name() -> None:
    assert set(PROMISED.split()) <= set(EventName)


def test_a_line_as_promised_is_valid() -> None:
    assert _mistakes(LINE) == []
    assert _mistakes(LINE | {"event": "migration.failed", "error": ERROR | {"hint": "h", "causes": [ERROR]}}) == []


@pytest.mark.parametrize("key", ["timestamp", "level", "event", "run_id", "deploy", "database", "migration"])
def test_a_missing_key_is_a_mistake(key: str) -> None:
    assert _mistakes({name: value for name, value in LINE.items() if name != key})


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ["x"]},
        {"unheard_of": 1},
        {"event": "migration.exploded"},
        {"event": "migration.failed"},
        {"timestamp": "2026-03-01T12:00:00Z"},
        {"timestamp": "2026-03-01T12:00:00.000001+02:00"},
        {"level": "warn"},
        {"duration_ms": "31"},
        {"migration": "orders.0007_total"},
        {"direction": "up"},
        {"tier": "best"},
        {"outcome": "fine"},
        {"error": "no"},
        {"event": "migration.failed", "error": {"type": "x", "message": "y"}},
        {"event": "migration.failed", "error": ERROR | {"dsn": "z"}},
    ],
    ids=str,
)
def test_a_stray_key_or_a_wrong_value_is_a_mistake(change: dict[str, Any]) -> None:
    assert _mistakes(LINE | change)


@pytest.mark.parametrize("name", EventName)
def test_every_event_has_keys_of_its_own_and_refuses_strays(name: EventName) -> None:
    assert any("'unheard_of'" in mistake for mistake in _mistakes(LINE | {"event": name, "unheard_of": 1}))
