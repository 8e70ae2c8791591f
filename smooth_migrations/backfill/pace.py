"""How many rows the next batch has, by how long the last one took."""

__all__ = ["Pace"]

_LEAST = 10
# One batch that was quick because it was in memory, or slow because of a checkpoint, says little of the next.
_STEP = 2.0


class Pace:
    """Grows and shrinks batches towards a duration.

    Args:
        size: rows of the first batch.
        most: the most rows of one.
        batch_s: how long one is to take, in seconds.

    Attributes:
        size: rows of the next one.
    """

    def __init__(self, size: int, most: int, batch_s: float) -> None:
        self._least, self._most, self._batch_s = min(_LEAST, size, most), most, batch_s
        self.size = min(size, most)

    def learn(self, duration_s: float, *, is_full: bool) -> None:
        """Take note of how long a batch took; one with fewer rows than it might have had lets none grow."""
        factor = min(max(self._batch_s / max(duration_s, 1e-6), 1 / _STEP), _STEP)
        if is_full or factor < 1:
            self._resize(factor)

    def shrink(self) -> None:
        """Take note that a batch was in the way of others."""
        self._resize(1 / _STEP)

    def _resize(self, factor: float) -> None:
        self.size = min(max(round(self.size * factor), self._least), self._most)
