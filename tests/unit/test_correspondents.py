import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from smooth_orchestrator import correspondents
from smooth_orchestrator.asking import ask
from smooth_orchestrator.correspondents import Correspondent
from smooth_orchestrator.leisure import run_beside
from tests.support.collector import collecting, collecting_by_grpc

_HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for one that answers as if it were gone, or the other way round, waits for ever."""
    monkeypatch.setattr(correspondents, "PATIENCE_S", _HOUR_S)


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def _url(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def _never() -> None:
    pytest.fail("it was told")


def test_one_that_takes_connections_and_keeps_silent_is_not_waited_for_nor_told_and_asked_once(
    deaf: socket.socket,
) -> None:
    correspondent = Correspondent("far", _url(deaf))
    asked, _ = deaf.accept()
    with asked:
        assert asked.recv(3) == b"GET"
        assert not correspondent.tell(_never)
        assert not correspondent.has_answered
        deaf.setblocking(False)  # noqa: FBT003 - the standard library's
        with pytest.raises(BlockingIOError):
            deaf.accept()


def test_one_that_is_not_there_is_not_waited_for_nor_told(deaf: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    # Since it is known to be away, and is so when it is asked again.
    for name in ("_MOMENT_S", "_SILENCE_S"):
        monkeypatch.setattr(correspondents, name, _HOUR_S)
    url = _url(deaf)
    deaf.close()
    correspondent = Correspondent("far", url)
    assert not correspondent.tell(_never)
    assert isinstance(correspondent.error, OSError)
    assert "refused" in str(correspondent.error)


@pytest.mark.parametrize("is_over", [False, True], ids=["while the command goes on", "when it ends"])
def test_one_that_has_come_up_since_is_told(monkeypatch: pytest.MonkeyPatch, *, is_over: bool) -> None:
    for name in ("_MOMENT_S", "_SILENCE_S"):
        monkeypatch.setattr(correspondents, name, _HOUR_S)
    monkeypatch.setattr(correspondents, "_PAUSE_S", _HOUR_S if is_over else 0.01)
    was_missed, is_up, told = threading.Event(), threading.Event(), threading.Event()

    def ask_if_up(url: str, timeout_s: float) -> None:
        if not is_up.is_set():
            was_missed.set()
            raise OSError("away")
        ask(url, timeout_s)

    monkeypatch.setattr("smooth_orchestrator.asking.ask", ask_if_up)
    with collecting() as collected:
        correspondent = Correspondent("far", collected.endpoint)
        was_missed.wait()
        is_up.set()
        if not is_over:
            correspondent.wait()
        assert correspondent.tell(told.set)
    assert told.is_set()
    assert correspondent.error is None


def test_one_that_has_answered_is_waited_for() -> None:
    with collecting() as collected:
        correspondent = Correspondent("far", collected.endpoint)
        correspondent.wait()
        is_known, released = threading.Event(), threading.Event()

        def tell() -> None:
            is_known.set()
            released.wait()

        def release() -> None:
            is_known.wait()
            released.set()

        run_beside("release", release)
        assert correspondent.tell(tell)


def test_one_that_answers_at_last_while_it_is_waited_for_is_told(
    deaf: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correspondents, "_SILENCE_S", _HOUR_S)
    correspondent = Correspondent("far", _url(deaf))
    asked, _ = deaf.accept()

    def answer() -> None:
        with asked:
            asked.sendall(b"HTTP/1.1 404 Nothing here\r\nContent-Length: 0\r\n\r\n")

    told = threading.Event()
    run_beside("answer", answer)
    assert correspondent.tell(told.set)
    assert told.is_set()


def _answering(deaf: socket.socket, words: bytes) -> None:
    def answer() -> None:
        asked, _ = deaf.accept()
        with asked:
            asked.recv(9999)
            asked.sendall(words)

    run_beside("answer", answer)


@pytest.mark.parametrize("words", [b"", b"no HTTP", b"HTTP/1.1 405 Post it\r\n\r\n", b"HTTP/1.1 302 Go\r\n\r\n"])
def test_whatever_is_answered_is_an_answer(deaf: socket.socket, words: bytes) -> None:
    _answering(deaf, words)
    ask(_url(deaf), _HOUR_S)


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_proxy_that_answers_for_one_that_is_away_is_none(deaf: socket.socket, code: int) -> None:
    _answering(deaf, f"HTTP/1.1 {code} Nobody is there\r\nContent-Length: 0\r\n\r\n".encode())
    with pytest.raises(OSError, match="Nobody is there"):
        ask(_url(deaf), _HOUR_S)


def test_collectors_answer_however_they_are_named() -> None:
    with collecting() as collected:
        ask(collected.endpoint, _HOUR_S)
        ask(collected.endpoint.replace("http://", "http://shop:hunter22@"), _HOUR_S)
        ask(collected.endpoint.replace("http:", "https:"), _HOUR_S)
    with collecting_by_grpc() as collected:
        ask(collected.endpoint, _HOUR_S)
        ask(collected.endpoint.removeprefix("http://"), _HOUR_S)


def test_nobody_is_where_nobody_listens(deaf: socket.socket) -> None:
    url = _url(deaf)
    deaf.close()
    for each in (url, f"{url.replace('http:', 'https:')}/metrics", "http://collector.invalid:4318"):
        with pytest.raises(OSError, match=r"refused|resolution|not known|No address"):
            ask(each, _HOUR_S)


@pytest.mark.parametrize(
    "url", ["", "http://", "http://[::1", "unix:/run/x", "dns:///c:1", "\x1b", "http://a b/", "ü" * 99]
)
def test_a_url_that_means_nothing_raises_nothing_but_that_nobody_is_there(url: str) -> None:
    with suppress(OSError):
        ask(url, _HOUR_S)
