"""Bands that cover a trade-off curve at all type I errors at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ..tradeoff import PiecewiseLinearTradeOff
from .allocations import allocations
from .envelopes import Envelope, dkw, equal_level
from .levy import levy_distance_between
from .regions import OneSided, Points, Tests, above_zero, shares

ENVELOPES: dict[str, Envelope] = {"equal_level": equal_level, "dkw": dkw}
# The levels of the first are costly to find.
_CELLS = {"equal_level": 8, "dkw": 16}


class ConfidenceBand(NamedTuple):
    """Two trade-off functions with the true curve between them.

    Parameters
    ----------
    low, high : PiecewiseLinearTradeOff
        Lower and upper end, as functions of the type I error.
    """

    low: PiecewiseLinearTradeOff
    high: PiecewiseLinearTradeOff


def hull(points: Points) -> PiecewiseLinearTradeOff:
    """Return the trade-off function of some tests, mixed at random.

    Parameters
    ----------
    points : tuple of two ndarray of shape (n_tests,)
        Type I and II errors. The tests that ignore the data are added.

    Returns
    -------
    PiecewiseLinearTradeOff
        The lower convex hull.
    """
    # Errors bounded by a sum may be out of order, and out of [0, 1] by a rounding.
    alpha, beta = (np.clip(errors, 0.0, 1.0) for errors in points)
    order = np.argsort(alpha, kind="stable")
    return PiecewiseLinearTradeOff(
        np.concatenate([[0.0], alpha[order], [1.0]]),
        np.concatenate([[1.0], beta[order], [0.0]]),
        convexify=True,
    )


def highest(curves: Sequence[PiecewiseLinearTradeOff]) -> PiecewiseLinearTradeOff:
    """Return a trade-off function that none of several exceeds.

    Parameters
    ----------
    curves : sequence of PiecewiseLinearTradeOff
        The curves.

    Returns
    -------
    PiecewiseLinearTradeOff
        Straight between the vertices of all, where it is the largest of them.
    """
    alpha = np.concatenate([[0.0, 1.0], *(curve.alpha for curve in curves)])
    alpha = np.unique(np.clip(alpha, 0.0, 1.0))
    beta = np.max([curve.f(alpha) for curve in curves], axis=0)
    return PiecewiseLinearTradeOff(alpha, beta, convexify=True)


def high_points(
    tests: Tests, miss: float, method: str, *, independent: bool
) -> list[Points]:
    """Return upper bounds on both errors of all tests at once.

    Parameters
    ----------
    tests : OneSided or TwoSided
        The tests.
    miss : float
        Probability that any bound fails.
    method : {"equal_level", "dkw"}
        The envelope.
    independent : bool
        Whether P and Q are independent of each other.

    Returns
    -------
    list of tuple of two ndarray of shape (n_tests,)
        Bounds on type I and II errors, all of which hold for one item of the list.
    """
    envelope, tails = ENVELOPES[method], tests.tails
    return [
        tests.high(envelope(tests.n_P, p / tails), envelope(tests.n_Q, q / tails))
        for p, q in allocations(miss, independent=independent, cells=_CELLS[method])
    ]


def envelope_band(
    tests: Tests, level: float, method: str, *, independent: bool
) -> ConfidenceBand:
    """Return the band of all curves whose errors lie within envelopes.

    Parameters
    ----------
    tests : OneSided or TwoSided
        The tests.
    level : float
        Confidence level; at least that for any distributions.
    method : {"equal_level", "dkw"}
        The envelope.
    independent : bool
        Whether P and Q are independent of each other.

    Returns
    -------
    ConfidenceBand
        The lower convex hulls of the lower and of the upper corners.
    """
    envelope, parts = ENVELOPES[method], 2 * tests.tails
    low, high = [], []
    shared = allocations(1 - level, independent=independent, cells=_CELLS[method])
    for p, q in shared:
        upper = envelope(tests.n_P, p / parts), envelope(tests.n_Q, q / parts)
        low.append(tests.low(*upper))
        high.append(hull(tests.high(*upper)))
    alpha, beta = (np.concatenate(errors) for errors in zip(*low, strict=True))
    return ConfidenceBand(hull((alpha, beta)), highest(high))


def bootstrap_band(
    P: FloatArray,
    Q: FloatArray,
    level: float,
    *,
    paired: bool,
    n_resamples: int,
    rng: np.random.Generator,
) -> ConfidenceBand:
    """Return the band of all curves within a Levy distance of the observed one.

    Parameters
    ----------
    P, Q : ndarray of shape (n,) and (m,)
        The statistic that is thresholded, all of it observed.
    level : float
        Quantile of the distance of resampled curves from the observed one.
    paired : bool
        Whether rows are resampled together.
    n_resamples : int
        Number of resamples.
    rng : numpy Generator
        Source of the resamples.

    Returns
    -------
    ConfidenceBand
        The hulls of the observed curve moved by the distance along both axes.
    """
    tests = OneSided(P, Q)
    alpha, beta = tests.high(shares(len(P)), shares(len(Q)))
    places = [_place(sample, tests.thresholds) for sample in (P, Q)]
    distances = np.empty(n_resamples)
    for draw in range(n_resamples):
        rows = rng.integers(len(P), size=len(P))
        rows_Q = rows if paired else rng.integers(len(Q), size=len(Q))
        resampled = (
            _share_above(places[0][rows], len(alpha)),
            1 - _share_above(places[1][rows_Q], len(alpha)),
        )
        distances[draw] = levy_distance_between((alpha, beta), resampled)
    gamma = float(np.quantile(distances, level, method="higher"))
    above = np.minimum(alpha + gamma, 1.0), np.minimum(beta + gamma, 1.0)
    return ConfidenceBand(hull(above_zero(alpha - gamma, beta - gamma)), hull(above))


def _place(sample: FloatArray, thresholds: FloatArray) -> NDArray[np.intp]:
    """Return the first threshold, of descending ones, that each value exceeds."""
    return np.asarray(np.searchsorted(-thresholds, -sample, side="right"))


def _share_above(places: NDArray[np.intp], n_thresholds: int) -> FloatArray:
    counts = np.bincount(places, minlength=n_thresholds)
    return np.cumsum(counts)[:n_thresholds] / len(places)
