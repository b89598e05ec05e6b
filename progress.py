"""`Progress`: tells how much of a piece of work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Progress:
    """Tells the share of a piece of work that is done.

    Who wants to know makes one of a function, and each step of the work gets its part of it.

    Args:
        tell: called with the share of the whole that is done, in [0, 1]; what it raises ends the work. By default
            nobody is told.
        low, high: the shares of the whole at which this work begins and ends.
    """

    def __init__(self, tell: Callable[[float], object] | None = None, low: float = 0.0, high: float = 1.0) -> None:
        self._tell = tell
        self._low = low
        self._high = high

    def __call__(self, share: float) -> None:
        """Tells the share of this work that is done, in [0, 1]."""
        if self._tell is not None:
            self._tell(self._low + (self._high - self._low) * share)

    def part(self, low: float, high: float) -> Progress:
        """The progress of a step that takes this work from one share to another."""
        width = self._high - self._low
        return Progress(self._tell, self._low + width * low, self._low + width * high)

    def over(self, items: Sequence[Item]) -> Iterator[tuple[Progress, Item]]:
        """Yields each item with its part of this work, and tells when it is done. All parts are alike."""
        for number, item in enumerate(items):
            part = self.part(number / len(items), (number + 1) / len(items))
            yield part, item
            part(1.0)


# For work whose progress nobody follows.
UNTOLD = Progress()
