"""What a method is: from samples to mu and how much each observation moved it.

A method says what mu is and how much each observation moved it; `SamplingDesign` says
how observations belong together; the sampling error follows, the same way for every
method. A further method is a class with `estimate`, in a file of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._choices import Choice
from .._units import ROUNDING, SMALLEST_SCALE, Exponents
from .._validation import FloatArray
from ..intervals import (
    AsymptoticInference,
    Dependence,
    Fit,
    Inference,
    Interval,
    Labels,
    Pairs,
    Part,
    Samples,
    SamplingDesign,
    SamplingError,
)
from .estimate import Estimate


class Method(Choice, ABC):
    """A way to estimate mu, with the parameters that only it has.

    A subclass must have `estimate`. What else it may say has a default.
    """

    sees_order: ClassVar[bool] = True  # near ties among the values are made ties
    needs: ClassVar[str] = (
        "a spread (all values, or all differences, are the same, or their spread "
        f"is below {SMALLEST_SCALE:.0e} of them)"
    )

    @abstractmethod
    def estimate(self, P: FloatArray, Q: FloatArray) -> Estimate:
        """Return mu of each pair and the influence value of each observation.

        Parameters
        ----------
        P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
            Observations, NaN for unobserved.

        Returns
        -------
        Estimate
            One value a pair, and one an observation.
        """

    def check_with(self, dependence: Dependence, interval: Interval) -> None:
        """Refuse dependences and intervals for which the method has no error.

        Parameters
        ----------
        dependence : Dependence
            How observations depend on each other.
        interval : Interval
            Kind of interval.

        Raises
        ------
        ValueError
            If the method has none of this kind.
        """

    def least(self, dependence: Dependence) -> int:
        """Return how many observations of P and of Q an estimate needs.

        Parameters
        ----------
        dependence : Dependence
            How observations depend on each other.

        Returns
        -------
        int
            What the dependence needs, by default.
        """
        return dependence.least

    def known(self, fit: Fit) -> NDArray[np.bool_]:
        """Return where there is an estimate with an error.

        Parameters
        ----------
        fit : Fit
            Of all pairs.

        Returns
        -------
        ndarray of bool of shape (n_pairs,)
            True where mu can be told.
        """
        return (fit.error.constant > 0) & (np.abs(fit.mu) < 1 / SMALLEST_SCALE)

    def of_pairs(
        self, shape: tuple[int, ...], columns: Any = None, scale: Any = None
    ) -> Method:
        """Return the method for these pairs.

        Parameters
        ----------
        shape : tuple
            Of a row of P: () for one pair.
        columns : sequence, optional
            Names of the pairs, by which parameters are matched that have one value for
            each.
        scale : float or ndarray of shape (n_pairs,), optional
            Standard deviation of the statistic, where the observations state one.

        Returns
        -------
        Method
            By default this one.
        """
        return self

    def in_units(self, pairs: Pairs, exponent: Exponents) -> Method:
        """Return the method for some of the pairs, in units of ``2**exponent``.

        Parameters
        ----------
        pairs : ndarray of int or slice
            Which of the pairs of `of_pairs`.
        exponent : ndarray of int of shape (n_pairs,)
            Unit of each.

        Returns
        -------
        Method
            By default this one: mu has no unit.
        """
        return self

    def resampled(self, samples: Samples, pairs: Pairs) -> tuple[Samples, Method]:
        """Return samples, and a method that takes resamples of them as more columns.

        Parameters
        ----------
        samples : Samples
            Observations of some pairs.
        pairs : ndarray of int or slice
            Which of the pairs of `of_pairs`.

        Returns
        -------
        samples : Samples
            By default as given.
        method : Method
            By default this one.
        """
        return samples, self

    def refined(
        self,
        error: SamplingError,
        estimate: Estimate,
        samples: Samples,
        design: SamplingDesign,
    ) -> SamplingError:
        """Return the sampling error with what only this method knows of it.

        Parameters
        ----------
        error : SamplingError
            By the variances of influence values.
        estimate : Estimate
            Whose influence values they are.
        samples : Samples
            Observations.
        design : SamplingDesign
            How they belong together.

        Returns
        -------
        SamplingError
            By default as given.
        """
        return error

    def streams(self, dependence: Dependence, interval: Interval) -> bool:
        """Return whether observations can be taken in without being kept.

        Parameters
        ----------
        dependence : Dependence
            How observations depend on each other.
        interval : Interval
            Kind of interval.

        Returns
        -------
        bool
            False by default.
        """
        return False

    def learner(
        self, n_pairs: int, design: SamplingDesign, interval: Interval
    ) -> Learner:
        """Return what takes in samples, part by part, and gives a `Fit`.

        Parameters
        ----------
        n_pairs : int
            Number of all pairs.
        design : SamplingDesign
            How observations belong together.
        interval : Interval
            Kind of interval.

        Returns
        -------
        Learner
            By influence values, unless a method has another way.
        """
        return Learner(self, n_pairs, design)


class Learner:
    """Takes in samples of some pairs after others, by their influence values.

    Parameters
    ----------
    method : Method
        For these pairs.
    n_pairs : int
        Number of all pairs.
    design : SamplingDesign
        How observations belong together.
    """

    streams = False  # whether `update` can go on from what was added

    def __init__(self, method: Any, n_pairs: int, design: SamplingDesign) -> None:
        self.method, self.design = method, design
        self._fit = Fit.empty(n_pairs)

    def add(self, part: Part) -> None:
        """Take in all observations of some pairs."""
        self._fit.put(part.pairs, fit_part(part, self.method))

    def update(self, P: FloatArray, Q: FloatArray) -> None:
        """Take in further observations of all pairs."""
        raise NotImplementedError

    def fit(self) -> Fit:
        """Return what was learnt of all pairs."""
        return self._fit

    def inference(self, fit: Fit) -> Inference:
        """Return the intervals that belong to the method."""
        return AsymptoticInference(fit, self.design)


def fit_part(part: Part, method: Method) -> Fit:
    """Return what a method learns of some pairs, by its influence values.

    Parameters
    ----------
    part : Part
        Samples of the pairs.
    method : Method
        For all pairs.

    Returns
    -------
    Fit
        One value a pair of `part`.
    """
    samples, design = part.samples, part.design
    P, Q = samples.P, samples.Q
    estimate = method.in_units(part.pairs, samples.exponent).estimate(P, Q)
    seen = ~np.isnan(P), ~np.isnan(Q)
    error, units = _sampling_error(estimate, seen, part.labels, design)
    if estimate.scale_of_P is not None:
        error = design.dependence.of_scale(error, P, Q, units, paired=design.paired)
    error = method.refined(error, estimate, samples, design)
    return Fit(
        estimate.mu, error, estimate.n, estimate.m, *units,
        estimate.separated.astype(float), estimate.slope,
    )  # fmt: skip


def _sampling_error(
    estimate: Estimate,
    seen: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    labels: Labels | None,
    design: SamplingDesign,
) -> tuple[SamplingError, tuple[FloatArray, FloatArray]]:
    """Return the variance of ``sum(A) - mu * sum(B)``, and the independent units."""
    at_zero = estimate.influence_at(0.0)
    of_P, of_Q = [at_zero[0]], [at_zero[1]]
    if estimate.scale_of_P is not None and estimate.scale_of_Q is not None:
        of_P.append(estimate.scale_of_P)
        of_Q.append(estimate.scale_of_Q)
    found = design.covariance(of_P, of_Q, seen, labels)
    # What is left of sums that cancel is rounding.
    size = np.abs(of_P[0]).sum(axis=0) + np.abs(of_Q[0]).sum(axis=0)
    varies = found.values[0][0] > (ROUNDING * size) ** 2
    constant = np.where(varies, found.values[0][0], np.nan)
    linear, quadratic = np.zeros_like(constant), np.zeros_like(constant)
    if len(of_P) > 1:
        linear, quadratic = -2 * found.values[0][1], found.values[1][1]
    units = found.of_P, found.of_Q
    return SamplingError(constant, linear, quadratic, found.df), units
