"""Messages between a coordinator and its sessions survive the way, and anything else is refused by name."""

import json

import pytest

from smooth_orchestrator.remote import messages


@pytest.mark.parametrize(
    "message",
    [
        messages.Asked(line='{"type":"stop"}\n', answers=False),
        messages.Stopped(),
        messages.Begun(machine="one:7", turn="a1"),
        messages.Joined(machine="one:7", pid=9, python="3.11", django="5.2", version="1"),
        messages.Refused(message="no such project"),
        messages.Printed(stream="stderr", line="\0 \ud800 ☠", database=None, migration="demo.0001_item", pid=7),
    ],
    ids=lambda message: message.kind,
)
def test_a_message_is_read_back_as_it_was_written(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "[]",
        "{}",
        '{"kind":[]}',
        '{"kind":"nothing"}',
        '{"kind":"left"}',
        '{"kind":"asked","line":5,"answers":true}',
        '{"kind":"asked","line":"\\ud800","answers":true}',
        '{"kind":"said","line":"\\ud800"}',
        '{"kind":"printed","stream":"stdin","line":"","database":null,"migration":null,"pid":1}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_a_text_that_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(messages.MessageError, match="no message of a fleet"):
        messages.decode(text)


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    text = json.dumps({"kind": "left", "message": "has ended", "invented_later": 1})

    assert messages.decode(text) == messages.Left(message="has ended")
