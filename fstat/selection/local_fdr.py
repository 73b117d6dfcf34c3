"""The null learnt from the pairs themselves: two groups and local fdr."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.stats import kstest, norm
from sklearn.linear_model import PoissonRegressor

from .._validation import FloatArray, numeric, option
from .._warnings import warn
from .warnings import EmpiricalNullWarning

LEAST_PAIRS = 500

# In robust standard deviations (interquartile range / 1.349) from the median: where
# the density ends, how far apart its knots are; and in fitted standard deviations
# how far the centre reaches on either side, to which the null is fitted.
_WINDOW, _SPACING, _CENTRE = 8.0, 1.5, 1.5
_BINS, _ROUNDS = 120, 5
# A prior worth a thousandth of a count a knot: without it the logarithm of the
# density in a gap between the bulk and far outliers would run to minus infinity.
_RIDGE = 1e-3


@dataclass(frozen=True, repr=False)
class LocalFDR:
    """A normal null fitted to the centre of many scores, and the local fdr.

    Parameters
    ----------
    pi0 : float
        Estimated share of null pairs, at most 1. An overestimate where non-null
        scores reach into the centre.
    mean, sd : float
        The null: normal, in the units of the scores.
    scores : ndarray of shape (n_pairs,)
        What it was fitted to; NaN where a pair has none.
    centre_distance : float
        Kolmogorov-Smirnov distance of the scores in the centre (within 1.5 `sd` of
        `mean`) from the fitted normal.
    tails : tuple of (float, float)
        Scores more than 2 `sd` below and above `mean`, over their number expected
        of the nulls. Well below 1 cannot be: such a null is not normal.
    grid, log_density : ndarray of shape (n_bins,)
        Bin centres, and the logarithm of the density of all scores there.

    See Also
    --------
    estimate_local_fdr : Makes it.
    """

    pi0: float
    mean: float
    sd: float
    scores: FloatArray
    centre_distance: float
    tails: tuple[float, float]
    grid: FloatArray
    log_density: FloatArray

    @property
    def n(self) -> int:
        """Number of scores that are not NaN."""
        return int((~np.isnan(self.scores)).sum())

    @cached_property
    def values(self) -> FloatArray:
        """Local fdr of each pair; NaN where the score is NaN."""
        return self.local_fdr(self.scores)

    @cached_property
    def _log_fdr(self) -> FloatArray:
        null = np.log(self.pi0) + norm.logpdf(self.grid, self.mean, self.sd)
        ratio = np.minimum(null - self.log_density, 0.0)
        # The wiggles of a fitted density are no reason to trust a farther score less.
        split = int(np.searchsorted(self.grid, self.mean))
        ratio[split - 1 : split + 1] = ratio[split - 1 : split + 1].max()
        ratio[split:] = np.minimum.accumulate(ratio[split:])
        ratio[:split] = np.minimum.accumulate(ratio[:split][::-1])[::-1]
        return np.asarray(ratio)

    def local_fdr(self, scores: ArrayLike) -> FloatArray:
        """Return the probability that pairs of these scores are null.

        Parameters
        ----------
        scores : array-like
            Scores, on the scale of those that were fitted.

        Returns
        -------
        ndarray
            ``pi0 f0 / f``, at most 1 and not increasing away from `mean`; beyond the
            grid, that of its end.
        """
        return np.exp(np.interp(numeric(scores, "scores"), self.grid, self._log_fdr))

    def pvalue(self, scores: ArrayLike, alternative: str = "two-sided") -> FloatArray:
        """Return p-values under the fitted null.

        Parameters
        ----------
        scores : array-like
            Scores, on the scale of those that were fitted.
        alternative : {"two-sided", "greater", "less"}, default="two-sided"
            Which scores speak against the null.

        Returns
        -------
        ndarray
            P-values.

        Raises
        ------
        ValueError
            If `alternative` is not an option.
        """
        option(alternative, "alternative", ("two-sided", "greater", "less"))
        with np.errstate(over="ignore"):
            z = (numeric(scores, "scores") - self.mean) / self.sd
        if alternative == "two-sided":
            return np.asarray(2 * norm.sf(np.abs(z)))
        return np.asarray(norm.sf(z) if alternative == "greater" else norm.cdf(z))

    def complaints(self) -> list[str]:
        """Return what speaks against the assumptions, as clauses with numbers.

        Returns
        -------
        list of str
            Empty where nothing does.
        """
        n = self.n
        found = []
        if self.pi0 < 0.9:
            found.append(f"{self.pi0:.2f} of the pairs are null, below 0.9")
        # 1.2 is exceeded by one normal null in a thousand; a distance below 0.02
        # does not matter, whatever the number of pairs.
        inside = n * self.pi0 * (norm.cdf(_CENTRE) - norm.cdf(-_CENTRE))
        allowed = max(1.2 / sqrt(inside), 0.02)
        if self.centre_distance > allowed:
            found.append(
                f"the centre is {self.centre_distance:.3f} away from a normal "
                f"distribution, more than {allowed:.3f}"
            )
        # 30 / sqrt(n): three standard deviations of the count over its expectation,
        # the error of `sd` included.
        short = min(self.tails)
        if short < min(0.5, 1 - 30 / sqrt(n)):
            side = "below" if short == self.tails[0] else "above"
            found.append(
                f"{short:.2f} of the nulls expected beyond two standard deviations "
                f"{side} the centre are there"
            )
        return found

    def __repr__(self) -> str:
        return (
            f"LocalFDR(pi0={self.pi0:.3f}, mean={self.mean:.4g}, sd={self.sd:.4g}, "
            f"{self.n} scores)"
        )


def estimate_local_fdr(scores: ArrayLike, *, method: str = "likelihood") -> LocalFDR:
    r"""Fit the two-group model to many scores.

    A share pi0 of the pairs is null, with density f0 = N(mean, sd^2), and the mixture
    of all has density f. A pair of score z is null with probability
    :math:`\pi_0 f_0(z) / f(z)`, its local false discovery rate.

    Parameters
    ----------
    scores : array-like of shape (n_pairs,)
        Scores, normal in the centre; NaN is left out. Scale and origin do not matter.
    method : {"likelihood", "matching"}, default="likelihood"
        How the null is fitted. `"likelihood"`: a truncated normal, to the scores
        within 1.5 of its standard deviations. `"matching"`: a parabola, to log f
        between the quartiles; noisier, and less close to the truth for many pairs.

    Returns
    -------
    LocalFDR
        The fit, and the local fdr of each pair.

    Raises
    ------
    ValueError
        If there are fewer than 500 scores, half of them are one number, or their
        centre is not bell-shaped.

    Warns
    -----
    EmpiricalNullWarning
        If the estimates speak against the assumptions.

    See Also
    --------
    fstat.select : Selects by it, with ``null="empirical"``.

    Notes
    -----
    The model is identified by its assumptions: most pairs (0.9 or more) are null, and
    the null is *normal*. That is checked in the centre and, where a tail is thinner
    than the null would have it, in the tail. It cannot be checked that a fat tail is
    signal rather than null: with skewed scores of the null it is mostly null. A
    monotone transform that makes the null normal is then part of the model (a score
    above 0 that is a product of many factors has a normal logarithm; z-values need
    none), has to be chosen for what is known of the null, and decides the result.

    f is estimated by Lindsey's method [2]_: a Poisson regression of the counts in 120
    bins on a natural cubic spline, with knots 1.5 robust standard deviations apart and
    not seven degrees of freedom whatever the range, as in locfdr. Scores more than 8
    such deviations from the median are left out of it and get the local fdr of the
    end. Local fdr is made monotone away from the centre.

    Over normal nulls the standard deviation of the estimates is near ``1.8 sd /
    sqrt(n)`` for `sd`, ``1.4 sd / sqrt(n)`` for `mean` and ``0.9 / sqrt(n)`` for
    `pi0`. With 500 pairs that of `sd` is 8 %, which changes f0 at three standard
    deviations by a factor of two: hence the least number of pairs.

    References
    ----------
    .. [1] B. Efron, "Large-scale simultaneous hypothesis testing: the choice of a null
       hypothesis", Journal of the American Statistical Association 99(465), 2004,
       96-104.
    .. [2] B. Efron, "Large-Scale Inference", Cambridge University Press, 2010,
       chapters 5 and 6.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat.selection import estimate_local_fdr
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(0.3, 1.4, 5000)
    >>> z[:250] += 5
    >>> fit = estimate_local_fdr(z)
    >>> round(fit.pi0, 2), round(fit.mean, 1), round(fit.sd, 1)
    (0.97, 0.3, 1.4)
    >>> fit.local_fdr([0.3, 4.0, 6.0]).round(2)
    array([0.98, 0.43, 0.01])
    """
    option(method, "method", ("likelihood", "matching"))
    given = numeric(scores, "scores")
    if given.ndim != 1:
        raise ValueError(f"`scores` must have shape (n_pairs,), got {given.shape}.")
    z = given[~np.isnan(given)]
    if len(z) < LEAST_PAIRS:
        raise ValueError(
            f"`scores` must be of {LEAST_PAIRS} pairs for an empirical null, which "
            f"needs at least {LEAST_PAIRS} pairs, got {len(z)}: with "
            "fewer the standard error of its width exceeds 8 %, which changes its "
            "density at three standard deviations by more than a factor of two."
        )
    low, median, high = np.quantile(z, [0.25, 0.5, 0.75])
    if not 0 < high - low < np.inf:
        raise ValueError(
            f"`scores` must spread: their quartiles are {low:g} and {high:g}."
        )
    unit = float((high - low) / 1.349)
    u = (z - median) / unit
    grid, log_density = _log_density(u)
    fit = _likelihood(u) if method == "likelihood" else _matching(u, grid, log_density)
    if fit is None:
        raise ValueError(
            "The centre of `scores` is not bell-shaped, so no normal null can be "
            "fitted to it: transform the scores, or give a `reference`."
        )
    pi0, mean, sd = fit
    result = LocalFDR(
        pi0=pi0,
        mean=float(median + unit * mean),
        sd=unit * sd,
        scores=given,
        centre_distance=_centre_distance(u, mean, sd),
        tails=_tails(u, pi0, mean, sd),
        grid=median + unit * grid,
        log_density=log_density - np.log(unit),
    )
    complaints = result.complaints()
    if complaints:
        warn(EmpiricalNullWarning.of(complaints))
    return result


def _log_density(u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return bin centres and log f there, by Lindsey's method."""
    low, high = max(u.min(), -_WINDOW), min(u.max(), _WINDOW)
    counts, edges = np.histogram(u, np.linspace(low, high, _BINS + 1))
    x = (edges[:-1] + edges[1:]) / 2
    knots = np.linspace(x[0], x[-1], max(6, round((high - low) / _SPACING) + 1))
    basis = CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(x)
    model = PoissonRegressor(
        alpha=_RIDGE / _BINS,
        fit_intercept=False,
        solver="newton-cholesky",
        tol=1e-8,
    ).fit(basis, counts)
    width = (high - low) / _BINS
    return x, basis @ model.coef_ - np.log(len(u) * width)


def _likelihood(u: FloatArray) -> tuple[float, float, float] | None:
    """Return pi0, mean and sd of the truncated normal likeliest for the centre."""
    mean, sd = 0.0, 1.0
    for _ in range(_ROUNDS):
        low, high = mean - _CENTRE * sd, mean + _CENTRE * sd
        centre = u[(u >= low) & (u <= high)]
        if not centre.size:
            return None
        mean, sd = _truncated_normal(centre, low, high, mean, sd)
        if abs(mean) > 1.99 or not 0.201 < sd < 2.99:
            return None
    mass = norm.cdf((high - mean) / sd) - norm.cdf((low - mean) / sd)
    return min(1.0, float(len(centre) / len(u) / mass)), mean, sd


def _truncated_normal(
    centre: FloatArray, low: float, high: float, mean: float, sd: float
) -> tuple[float, float]:
    """Return mean and sd of the normal likeliest for what lies in low to high."""
    first, second = centre.mean(), np.mean(centre**2)

    def loss(parameters: FloatArray) -> float:
        m, s = parameters[0], np.exp(parameters[1])
        mass = norm.cdf((high - m) / s) - norm.cdf((low - m) / s)
        square = second - 2 * m * first + m**2
        # Where nothing is expected the loss is large, and finite for its gradient.
        return float(0.5 * square / s**2 + parameters[1] + np.log(max(mass, 1e-300)))

    bounds = [(-2.0, 2.0), (np.log(0.2), np.log(3.0))]
    found = minimize(loss, [mean, np.log(sd)], method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), float(np.exp(found[1]))


def _matching(
    u: FloatArray, grid: FloatArray, log_density: FloatArray
) -> tuple[float, float, float] | None:
    """Return pi0, mean and sd of the parabola through log f between the quartiles."""
    low, high = np.quantile(u, [0.25, 0.75])
    centre = (grid > low) & (grid < high)
    if centre.sum() < 3:
        return None
    c2, c1, c0 = np.polyfit(grid[centre], log_density[centre], 2)
    if c2 >= 0:
        return None
    sd, mean = 1 / sqrt(-2 * c2), -c1 / (2 * c2)
    pi0 = np.exp(c0 - c1**2 / (4 * c2)) * sd * sqrt(2 * pi)
    return min(1.0, float(pi0)), float(mean), float(sd)


def _centre_distance(u: FloatArray, mean: float, sd: float) -> float:
    z = (u - mean) / sd
    centre = z[np.abs(z) <= _CENTRE]
    if not centre.size:  # nothing lies where the null is said to be
        return 1.0
    low, high = norm.cdf([-_CENTRE, _CENTRE])
    uniform = (norm.cdf(centre) - low) / (high - low)
    return float(kstest(uniform, "uniform").statistic)


def _tails(u: FloatArray, pi0: float, mean: float, sd: float) -> tuple[float, float]:
    z = (u - mean) / sd
    expected = len(u) * pi0 * norm.sf(2)
    return float((z < -2).sum() / expected), float((z > 2).sum() / expected)
