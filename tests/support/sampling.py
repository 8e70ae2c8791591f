"""What the short run has time for."""

from collections.abc import Iterable
from typing import Protocol

import pytest
from _pytest.mark import ParameterSet

__all__ = ["every_second"]


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def every_second(cases: Iterable[_Named]) -> list[ParameterSet]:
    """Return the cases as parameters, of which the first, the third and so on are left to the long run."""
    return [
        pytest.param(case, id=case.id, marks=() if number % 2 else pytest.mark.long)
        for number, case in enumerate(cases)
    ]
