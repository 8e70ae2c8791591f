"""A clock that a test moves."""

__all__ = ["Clock"]


class Clock:
    """Tells the time that it was given.

    Attributes:
        now_s: that time.
    """

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now_s
