"""Messages survive the wire, and anything else is refused by name."""

import pytest

from smooth_migrations import protocol


@pytest.mark.parametrize(
    "message",
    [
        protocol.Apply(
            id=1, database="shards:a", alias="a", deploy="s", run_id="r", epoch=2, digest="d", lock_timeout_ms=5
        ),
        protocol.Undo(
            id=2,
            database="x",
            alias="default",
            deploy="s",
            run_id="r",
            epoch=3,
            steps=(protocol.Step("app", "0001_initial"),),
        ),
        protocol.Failed(
            id=3,
            error=protocol.ErrorInfo("E", "no\nway ☠", causes=(protocol.ErrorInfo("F", "either"),)),
            remaining=(protocol.Step("app", "0002_x", backwards=True),),
        ),
        protocol.Hello(
            protocol=1,
            pid=7,
            python="3.11",
            django="5.2",
            version="0",
            databases=(protocol.DatabaseFacts("default", "sqlite", "/db", asyncpg={"host": "h", "port": 1}),),
            has_routers=False,
        ),
    ],
    ids=lambda message: message.type,
)
def test_a_message_is_read_back_as_it_was_written(message: protocol.Command | protocol.Event) -> None:
    line = protocol.encode(message)

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert protocol.decode(line) == message


@pytest.mark.parametrize(
    "line",
    [b"hello", b"{}", b'{"type":"nothing"}', b'{"type":"done"}', b"[]", b"[" * 100_000],
    ids=lambda line: line[:20].decode(),
)
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(protocol.ProtocolError, match="not a message of protocol 1"):
        protocol.decode(line)


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    line = b'{"type":"done","id":4,"invented_later":1}'

    assert protocol.decode(line) == protocol.Done(id=4)


def test_credentials_do_not_show_in_a_repr() -> None:
    facts = protocol.DatabaseFacts("default", "postgresql", "h:1/d", asyncpg={"password": "hunter2"})

    assert "hunter2" not in repr(facts)
