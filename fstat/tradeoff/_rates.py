"""What trade-off functions answer with: errors of a test, and how two curves lie."""

from __future__ import annotations

from typing import NamedTuple

from .._validation import FloatArray


class ErrorRates(NamedTuple):
    """The four probabilities of a test, each accurate relative to its own size.

    Parameters
    ----------
    alpha, power : ndarray
        Probabilities of rejecting P where P, and where Q, is the truth.
    specificity, beta : ndarray
        Probabilities of not rejecting P where P, and where Q, is the truth:
        ``1 - alpha`` and ``1 - power``, without cancellation.
    """

    alpha: FloatArray
    power: FloatArray
    specificity: FloatArray
    beta: FloatArray

    def swapped(self) -> ErrorRates:
        """Return the errors of the opposite decisions, with P and Q swapped.

        Returns
        -------
        ErrorRates
            The test that rejects Q where this one keeps P.
        """
        return ErrorRates(self.beta, self.specificity, self.power, self.alpha)


class Comparison(NamedTuple):
    """How one trade-off function lies to another.

    Parameters
    ----------
    relation : {"equal", "above", "below", "incomparable"}
        "above" is nowhere lower and somewhere higher: harder to tell apart.
    above_at, below_at : float or None
        Levels alpha where the first is higher, and where it is lower, each by the
        largest vertical gap; None where there is no such level.
    """

    relation: str
    above_at: float | None
    below_at: float | None
