"""Samples of some pairs, and what is estimated of them: mu with its error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._ties import merge_ties
from .._units import Exponents, column_exponents, in_units
from .._validation import FloatArray, no_infinity
from .dependence import Labels, SamplingDesign
from .running import inflated
from .sampling_error import SamplingError

Pairs = NDArray[np.intp] | slice


class Samples(NamedTuple):
    """The observations of some pairs that count, in units of ``2**exponent``."""

    P: FloatArray
    Q: FloatArray
    exponent: Exponents


@dataclass
class Part:
    """Some of the pairs, dense, with the clusters of their rows.

    Parameters
    ----------
    pairs : ndarray of int or slice
        Which of all pairs.
    P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
        Observations, NaN for unobserved.
    design : SamplingDesign
        How they belong together.
    labels : pair of ndarray of int, optional
        Clusters of the rows.
    ties : bool, default=False
        Whether to make values equal that are equal to within rounding, for methods
        that look at their order.
    """

    pairs: Pairs
    P: FloatArray
    Q: FloatArray
    design: SamplingDesign
    labels: Labels | None = None
    ties: bool = False

    @cached_property
    def samples(self) -> Samples:
        """The observations that count, in units of their own size."""
        no_infinity(self.P, "P")
        no_infinity(self.Q, "Q")
        P, Q = self.design.together(self.P, self.Q)
        exponent = column_exponents(P, Q)
        P, Q = in_units(P, exponent), in_units(Q, exponent)
        if self.ties:
            P, Q = merge_ties(P, Q)
        return Samples(P, Q, exponent)


@dataclass
class Fit:
    """What is known of each pair, arrays of shape (n_pairs,).

    Parameters
    ----------
    mu : ndarray
        Estimates; NaN for pairs that could not be estimated.
    error : SamplingError
        Their sampling error.
    n_P, n_Q : ndarray
        Numbers of observations.
    units_P, units_Q : ndarray
        Numbers of independent units: rows, clusters, or effective rows of a series.
    separated : ndarray
        1 where P and Q do not overlap and the method has no finite estimate.
    slope : ndarray
        Standard deviation of P over that of Q; NaN where the method does not know.
    """

    mu: FloatArray
    error: SamplingError
    n_P: FloatArray
    n_Q: FloatArray
    units_P: FloatArray
    units_Q: FloatArray
    separated: FloatArray
    slope: FloatArray

    @classmethod
    def empty(cls, n_pairs: int) -> Fit:
        """Return a fit of nothing, to be filled with `put`."""
        mu, slope, *error = np.full((6, n_pairs), np.nan)
        n_P, n_Q, units_P, units_Q, separated = np.zeros((5, n_pairs))
        known = SamplingError(*error)
        return cls(mu, known, n_P, n_Q, units_P, units_Q, separated, slope)

    def put(self, where: Pairs, part: Fit) -> None:
        """Copy `part` to the pairs `where`."""
        for mine, theirs in ((self, part), (self.error, part.error)):
            for name, values in vars(theirs).items():
                if name != "error":
                    getattr(mine, name)[where] = values

    def of_series(self, inflation: FloatArray, paired: bool) -> Fit:
        """Return the fit with the error of series instead of independent rows."""
        fewer = np.minimum(self.n_P, self.n_Q)
        error, of_mean = inflated(self.error, fewer, inflation[0], inflation[1], paired)
        units_P, units_Q = self.n_P / of_mean, self.n_Q / of_mean
        return replace(self, error=error, units_P=units_P, units_Q=units_Q)
