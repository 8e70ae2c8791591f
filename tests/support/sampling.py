"""The part of many cases that the short run takes."""

from collections.abc import Iterable
from typing import Protocol

import pytest
from _pytest.mark import ParameterSet

__all__ = ["one_in"]


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
