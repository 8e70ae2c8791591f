import re

import pytest
from pydantic import TypeAdapter, ValidationError

from smooth_orchestrator.durations import Duration, Pause, ServerDuration, parse_duration
from smooth_orchestrator.errors import BadValue

DURATION: TypeAdapter[int] = TypeAdapter(Duration)
PAUSE: TypeAdapter[int] = TypeAdapter(Pause)
SERVER: TypeAdapter[int] = TypeAdapter(ServerDuration)

GOOD = {"1ms": 1, "250ms": 250, "2s": 2_000, "15min": 900_000, "24h": 86_400_000, "7d": 604_800_000}
BAD = [
    "",
    "2",
    "s",
    "2 s",
    " 2s",
    "2s\n",
    "2S",
    "1.5s",
    "-2s",
    "+2s",
    "02s",
    "2m",
    "2sec",
    "1h30min",
    "٢s",
    "9" * 5_000 + "s",
]


@pytest.mark.parametrize(("text", "duration_ms"), GOOD.items(), ids=GOOD)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, duration_ms: int) -> None:
    assert parse_duration(text) == DURATION.validate_python(text, strict=True) == duration_ms


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(BadValue, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("value", [2, 2.0, True, None, ["2s"]], ids=repr)
def test_a_number_without_a_unit_is_no_duration(value: object) -> None:
    with pytest.raises(ValidationError, match="must be a duration in quotation marks"):
        DURATION.validate_python(value)


def test_nothing_at_all_is_a_pause_but_no_time_limit() -> None:
    assert PAUSE.validate_python("0s") == 0
    for limit in (DURATION, SERVER):
        with pytest.raises(ValidationError, match="too short"):
            limit.validate_python("0s")


def test_a_duration_ends_where_a_server_s_31_bits_or_ten_years_do() -> None:
    assert SERVER.validate_python("24d") < 2**31
    assert DURATION.validate_python("3650d") == 3650 * 86_400_000
    for adapter, text in ((SERVER, "25d"), (DURATION, "3651d"), (PAUSE, "999999999999d")):
        with pytest.raises(ValidationError, match="too long"):
            adapter.validate_python(text)


@pytest.mark.parametrize("adapter", [DURATION, SERVER, PAUSE], ids=["duration", "server", "pause"])
def test_the_schema_s_pattern_agrees_with_the_parser(adapter: TypeAdapter[int]) -> None:
    schema = adapter.json_schema()
    assert schema["type"] == "string"
    assert all(re.search(schema["pattern"], text) for text in GOOD)
    assert not any(re.search(schema["pattern"], text) for text in BAD if not text.endswith("\n"))
