"""Families of threshold tests: how often each says "Q", counted, and their hulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray

Counts = NDArray[np.intp]
Points = tuple[FloatArray, FloatArray]


class Tests(Protocol):
    """A family of tests, from whose counts the points of a curve are made.

    Test k says "Q" to `above_P[k]` of n_P observations of P, and "P" to `below_Q[k]`
    of n_Q observations of Q. `upper_P` and `upper_Q` bound the probability of a tail
    under P and Q by its count, 0 to n: ``count / n`` itself, or an envelope above it.
    """

    n_P: int
    n_Q: int
    tails: int
    thresholds: FloatArray
    above_P: Counts
    below_Q: Counts

    def high(self, upper_P: FloatArray, upper_Q: FloatArray) -> Points:
        """Return type I and II errors of the tests, each bounded from above."""

    def low(self, upper_P: FloatArray, upper_Q: FloatArray) -> Points:
        """Return type I and II errors of the tests, each bounded from below."""


def shares(n: int) -> FloatArray:
    """Return the observed shares 0, 1 / n, ..., 1, in the place of an envelope."""
    return np.arange(n + 1) / n


class OneSided:
    """The tests that say "Q" where a statistic exceeds a threshold.

    Parameters
    ----------
    P, Q : ndarray of shape (n,) and (m,)
        The statistic, all of it observed.
    """

    tails = 1

    def __init__(self, P: FloatArray, Q: FloatArray) -> None:
        values = np.unique(np.concatenate([P, Q]))[::-1]
        self.thresholds = np.append(values, -np.inf)
        self.n_P, self.n_Q = len(P), len(Q)
        self.above_P: Counts = self.n_P - np.searchsorted(
            np.sort(P), self.thresholds, side="right"
        )
        self.below_Q: Counts = np.searchsorted(
            np.sort(Q), self.thresholds, side="right"
        )

    def high(self, upper_P: FloatArray, upper_Q: FloatArray) -> Points:
        """Return type I and II errors of the tests, each bounded from above."""
        return upper_P[self.above_P], upper_Q[self.below_Q]

    def low(self, upper_P: FloatArray, upper_Q: FloatArray) -> Points:
        """Return type I and II errors of the tests, each bounded from below."""
        return (1 - upper_P[::-1])[self.above_P], (1 - upper_Q[::-1])[self.below_Q]


@dataclass(frozen=True)
class _Pairs:
    """Where ``left[:, i] + right[:, j]`` has a vertex, over cuts i and j in order."""

    left: FloatArray
    right: FloatArray

    def vertices(self) -> tuple[Counts, Counts]:
        """Return the pairs of cuts on the lower convex hull, from left to right."""
        found = [self._least(0.0, 1.0), self._least(1.0, 0.0)]
        found.sort(key=lambda cuts: self._point(cuts)[0])
        place = 0
        while place < len(found) - 1:
            between = self._below(found[place], found[place + 1])
            if between is None:
                place += 1
            else:
                found.insert(place + 1, between)
        i, j = np.array(found).T
        return i, j

    def _point(self, cuts: tuple[int, int]) -> FloatArray:
        return np.asarray(self.left[:, cuts[0]] + self.right[:, cuts[1]])

    def _least(self, weight_x: float, weight_y: float) -> tuple[int, int]:
        """Return the cuts, the left one not beyond the right, of the least sum."""
        weights = np.array([weight_x, weight_y])
        left, right = weights @ self.left, weights @ self.right
        least = np.minimum.accumulate(left)
        # Cut i of the left tail is at the value of cut i - 1 of the right one.
        reach = np.minimum(np.arange(len(right)) + 1, len(left) - 1)
        j = int(np.argmin(least[reach] + right))
        return int(np.argmin(left[: reach[j] + 1])), j

    def _below(
        self, start: tuple[int, int], end: tuple[int, int]
    ) -> tuple[int, int] | None:
        """Return the cuts furthest below the chord between two, if any are."""
        a, b = self._point(start), self._point(end)
        weights = np.array([a[1] - b[1], b[0] - a[0]])
        cuts = self._least(*weights)
        return cuts if weights @ (self._point(cuts) - a) < -1e-12 else None


class TwoSided:
    """The tests that say "Q" below one threshold and above another.

    Parameters
    ----------
    P, Q : ndarray of shape (n,) and (m,)
        The statistic, all of it observed.
    """

    tails = 2

    def __init__(self, P: FloatArray, Q: FloatArray) -> None:
        values = np.unique(np.concatenate([P, Q]))
        self.n_P, self.n_Q = len(P), len(Q)
        self._cuts = np.append(-np.inf, values), np.append(values, np.inf)
        self._left = [np.searchsorted(np.sort(x), self._cuts[0]) for x in (P, Q)]
        self._right = [
            len(x) - np.searchsorted(np.sort(x), self._cuts[1], side="right")
            for x in (P, Q)
        ]
        i, j = self._hull(shares(self.n_P), shares(self.n_Q)).vertices()
        self.thresholds = np.column_stack([self._cuts[0][i], self._cuts[1][j]])
        self.above_P: Counts = self._left[0][i] + self._right[0][j]
        self.below_Q: Counts = self.n_Q - self._left[1][i] - self._right[1][j]

    def high(self, upper_P: FloatArray, upper_Q: FloatArray) -> Points:
        """Return type I and II errors of the tests, each bounded from above."""
        alpha, beta = self._points(upper_P, 1 - upper_Q[::-1])
        return np.minimum(alpha, 1.0), beta

    def low(self, upper_P: FloatArray, upper_Q: FloatArray) -> Points:
        """Return type I and II errors of the tests, each bounded from below."""
        return above_zero(*self._points(1 - upper_P[::-1], upper_Q))

    def _hull(self, of_P: FloatArray, of_Q: FloatArray) -> _Pairs:
        left = np.stack([of_P[self._left[0]], -of_Q[self._left[1]]])
        right = np.stack([of_P[self._right[0]], -of_Q[self._right[1]]])
        # Nothing lies beyond infinity, and everything beyond both cuts of no gap.
        left[:, 0] = right[:, -1] = 0.0
        return _Pairs(left, right)

    def _points(self, of_P: FloatArray, of_Q: FloatArray) -> Points:
        hull = self._hull(of_P, of_Q)
        i, j = hull.vertices()
        alpha, missed = hull.left[:, i] + hull.right[:, j]
        return alpha, 1 + missed


def above_zero(alpha: FloatArray, beta: FloatArray) -> Points:
    """Return a falling curve with what lies below zero on either axis cut off.

    Parameters
    ----------
    alpha, beta : ndarray of shape (n_vertices,)
        Ascending and descending.

    Returns
    -------
    alpha, beta : ndarray of shape (n_vertices,)
        The vertices at or above zero, and where the curve meets the axes.
    """
    at_start = np.maximum(np.interp(0.0, alpha, beta), 0.0)
    at_end = np.maximum(np.interp(0.0, beta[::-1], alpha[::-1]), 0.0)
    inside = (alpha >= 0) & (beta >= 0)
    start = [0.0] if alpha[0] < 0 else []
    end = [0.0] if beta[-1] < 0 else []
    return (
        np.concatenate([start, alpha[inside], [at_end] * len(end)]),
        np.concatenate([[at_start] * len(start), beta[inside], end]),
    )
