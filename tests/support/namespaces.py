"""Network namespaces, each joined to this machine by a cable that can be pulled: Linux's, made by `ip` of iproute2."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from shutil import which
from typing import Final

__all__ = ["Namespace", "namespace", "why_not"]

_BITS_OF_HOST: Final = 30


class Namespace:
    """A network of its own, with nothing in it but one end of a cable.

    Args:
        number: tells it from others of this process.
    """

    def __init__(self, number: int) -> None:
        self.name = f"smooth-{os.getpid()}-{number}"
        # An interface's name has 15 characters at the most.
        self.cable = f"sm{os.getpid()}h{number}"
        self.far_end = f"sm{os.getpid()}f{number}"
        self._network = f"10.{128 + os.getpid() // 256 % 128}.{os.getpid() % 256}"
        self._first = 4 * number

    @property
    def host(self) -> str:
        """This machine's address, as seen from there."""
        return f"{self._network}.{self._first + 1}"

    @property
    def address(self) -> str:
        """Its own address."""
        return f"{self._network}.{self._first + 2}"

    @property
    def within(self) -> tuple[str, ...]:
        """The command line under which a program runs in it."""
        return ("ip", "netns", "exec", self.name)

    def pull(self) -> None:
        """Let nothing through any more; neither side is told."""
        _ip("link", "set", self.cable, "down")

    def plug_in(self) -> None:
        """Let everything through again."""
        _ip("link", "set", self.cable, "up")


@contextmanager
def namespace(number: int) -> Iterator[Namespace]:
    """Make one, which is gone with the block; its processes are the caller's to end."""
    made = Namespace(number)
    with ExitStack() as stack:
        _ip("netns", "add", made.name)
        stack.callback(_ip, "netns", "delete", made.name)
        _ip("link", "add", made.cable, "type", "veth", "peer", "name", made.far_end, "netns", made.name)
        stack.callback(_ip, "link", "delete", made.cable)
        _ip("address", "add", f"{made.host}/{_BITS_OF_HOST}", "dev", made.cable)
        _ip("-n", made.name, "address", "add", f"{made.address}/{_BITS_OF_HOST}", "dev", made.far_end)
        _ip("-n", made.name, "link", "set", "lo", "up")
        _ip("-n", made.name, "link", "set", made.far_end, "up")
        made.plug_in()
        yield made


def why_not() -> str | None:
    """Return why none can be made here."""
    if which("ip") is None:
        return "iproute2 is not installed"
    try:
        with namespace(0):
            return None
    except subprocess.CalledProcessError as error:
        return f"this machine lets nobody make network namespaces: {error.stderr.strip()}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
