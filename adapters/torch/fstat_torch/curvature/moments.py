"""When a run takes snapshots by itself: at the ends of passes over its examples."""

from __future__ import annotations

_AGAIN = 1.25  # more visits, after which examples are counted again


class Moments:
    """Counts visits to examples, and says when a pass over them is over.

    A pass is as many visits as there are examples. How many there are is not known
    before some are met again, in the second pass. At the end of the first pass there is
    no moment: gradients are still those of a model that knew nothing.

    Attributes
    ----------
    visits : int
        Examples in the updates so far, one of two updates twice.
    """

    def __init__(self) -> None:
        self.visits = self._batch = 0
        self._counted = 0
        self._end = 0  # of the pass, in visits; 0 for the first, as nobody knows

    def count(self, size: int) -> None:
        """Take note of an update of some examples."""
        self.visits, self._batch = self.visits + size, size

    @property
    def counts(self) -> bool:
        """Whether the examples that were met are to be counted."""
        return not self._end and self.visits >= _AGAIN * self._counted

    def met(self, n: int) -> None:
        """Take note of how many examples were met so far."""
        self._counted = self.visits
        if self.visits > n:
            self._end = 2 * n

    @property
    def due(self) -> bool:
        """Whether a pass is over: the next update would go beyond its end."""
        return bool(self._end) and self.visits + self._batch > self._end

    def passed(self, n: int) -> None:
        """Begin another pass, over n examples."""
        self._end = self.visits + n

    def state(self) -> list[int]:
        """Return what a checkpoint needs."""
        return [self.visits, self._batch, self._counted, self._end]

    def load(self, state: list[int]) -> None:
        """Go on from a checkpoint."""
        self.visits, self._batch, self._counted, self._end = state
