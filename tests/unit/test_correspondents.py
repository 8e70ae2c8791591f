import socket
import threading
from collections.abc import Iterator

import pytest

from smooth_orchestrator import correspondents
from smooth_orchestrator.asking import is_there
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


def test_one_that_takes_connections_and_keeps_silent_is_not_waited_for_and_asked_once(deaf: socket.socket) -> None:
    correspondent = Correspondent("far", _url(deaf))
    asked, _ = deaf.accept()
    with asked:
        assert asked.recv(3) == b"GET"
        gone_home = threading.Event()
        assert not correspondent.tell(gone_home.wait)
        assert not correspondent.has_answered
        gone_home.set()
        deaf.setblocking(False)  # noqa: FBT003 - the standard library's
        with pytest.raises(BlockingIOError):
            deaf.accept()


def test_one_that_is_not_there_is_not_waited_for_but_told_in_case_it_has_come_up(deaf: socket.socket) -> None:
    url = _url(deaf)
    deaf.close()
    correspondent = Correspondent("far", url)
    told, gone_home = threading.Event(), threading.Event()

    def tell() -> None:
        told.set()
        gone_home.wait()

    assert not correspondent.tell(tell)
    assert told.wait(_HOUR_S)
    gone_home.set()


def test_one_that_has_answered_is_waited_for() -> None:
    with collecting() as collected:
        correspondent = Correspondent("far", collected.endpoint)
        is_known, released = threading.Event(), threading.Event()

        def tell() -> None:
            is_known.set()
            released.wait()

        def release() -> None:
            is_known.wait()
            while not correspondent.has_answered:
                pass
            released.set()

        run_beside("release", release)
        assert correspondent.tell(tell)


def test_one_that_answers_at_last_while_it_is_waited_for_is_waited_for_longer(deaf: socket.socket) -> None:
    correspondent = Correspondent("far", _url(deaf))
    asked, _ = deaf.accept()

    def answer() -> None:
        asked.sendall(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
        asked.close()
        while not correspondent.has_answered:
            pass

    assert correspondent.tell(answer)


def test_whatever_is_answered_is_an_answer(deaf: socket.socket) -> None:
    with collecting() as collected:
        assert is_there(collected.endpoint, _HOUR_S)
        assert is_there(collected.endpoint.replace("http://", "http://shop:hunter22@"), _HOUR_S)
        assert is_there(collected.endpoint.replace("http:", "https:"), _HOUR_S)
    with collecting_by_grpc() as collected:
        assert is_there(collected.endpoint, _HOUR_S)
        assert is_there(collected.endpoint.removeprefix("http://"), _HOUR_S)
    url = _url(deaf)
    deaf.close()
    assert not is_there(url, _HOUR_S)
    assert not is_there(f"{url.replace('http:', 'https:')}/metrics", _HOUR_S)
    assert not is_there("http://collector.invalid:4318", _HOUR_S)


@pytest.mark.parametrize(
    "url", ["", "http://", "http://[::1", "unix:/run/x", "dns:///c:1", "\x1b", "http://a b/", "ü" * 99]
)
def test_a_url_that_means_nothing_raises_nothing(url: str) -> None:
    assert is_there(url, _HOUR_S) in {True, False}
