"""The part of many cases that the short run takes, and the part of the short run that one run takes."""

from collections.abc import Iterable
from typing import Protocol
from zlib import crc32

import pytest
from _pytest.mark import ParameterSet

__all__ = ["in_share", "one_in"]


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def one_in(number: int, cases: Iterable[_Named | str]) -> list[ParameterSet]:
    """Return the cases as parameters, of which the last of each `number` is run always, the others in the long run."""
    return [
        pytest.param(
            case,
            id=case if isinstance(case, str) else case.id,
            marks=() if place % number == number - 1 else pytest.mark.long,
        )
        for place, case in enumerate(cases)
    ]


def in_share(node_id: str, share: str, *, is_of_first: bool = False) -> bool:
    """Return whether a test is of a share, such as 1/2; what needs no server and no process is of each.

    Args:
        node_id: what pytest calls it.
        share: its number, from 1, and how many there are.
        is_of_first: whether it is of the first share, whatever it is called.
    """
    number, shares = (int(part) for part in share.split("/"))
    if node_id.startswith("tests/unit/"):
        return True
    return number == 1 if is_of_first else crc32(node_id.encode()) % shares == number % shares
