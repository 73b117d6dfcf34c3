"""When a run takes snapshots by itself: at the ends of passes over its examples.

How long a run is nobody knows. Moments are evenly spaced all the same, and few: when
there are as many as there may be, every other one is let go, and from then on twice as
many passes go by between two of them.
"""

from __future__ import annotations

MOST = 12  # moments
ENOUGH = 4  # of which a standard error can be told
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
        self._apart = 1  # passes between two moments

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
        """Whether there is a moment: the next update would go beyond a pass' end."""
        return bool(self._end) and self.visits + self._batch > self._end

    def passed(self, n: int) -> None:
        """Begin another pass, over n examples."""
        self._end = self.visits + self._apart * n

    def thinned(self) -> None:
        """Let twice as many passes go by between two moments, from the last one on."""
        self._end += self._end - self.visits
        self._apart *= 2

    def state(self) -> list[int]:
        """Return what a checkpoint needs."""
        return [self.visits, self._batch, self._counted, self._end, self._apart]

    def load(self, state: list[int]) -> None:
        """Go on from a checkpoint."""
        self.visits, self._batch, self._counted, self._end, self._apart = state
