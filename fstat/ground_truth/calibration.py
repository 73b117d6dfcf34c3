"""From mu of one run to mu of retraining, with intervals that hold for new subsets."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from .._validation import FloatArray, confidence, no_infinity, numeric, option, shown
from .._warnings import warn
from ..intervals import ConfidenceInterval
from ..observations import Observations
from ._runs import Runs, full_mu
from .multi_run import MultiRunInfluence


class ExtrapolationWarning(UserWarning):
    """Estimates lie far outside of those that a calibration was learnt from."""


class CalibratedInfluence(BaseEstimator):
    r"""Mu of retraining, predicted from mu of one run.

    A few subsets are retrained without; what one run says of them is set against what
    retraining says, and the same is expected of further subsets.

    Parameters
    ----------
    method : {"linear", "isotonic"}, default="linear"
        How mu of retraining depends on mu of one run: by a line, or by any
        non-decreasing function.
    normalize : bool, default=True
        Whether intervals widen with the size of mu: errors are divided by
        :math:`\sqrt{a + b x^2}`, a and b at least 0 and fitted to their squares.

    Attributes
    ----------
    slope_, intercept_ : float
        Of the line, with ``method="linear"``; NaN with the other.
    n_subsets_ : int
        Number of subsets learnt from.
    quantity_ : str
        What is predicted and what intervals cover.

    See Also
    --------
    agreement : How well the estimates agree before and after.

    Notes
    -----
    The noise of one run belongs to what is predicted from: the regression of the truth
    on it, and no line corrected for that noise, has the least error for further mu of
    the same kind [2]_. Predict from estimates of other precision, such as averages of
    several runs, only after fitting to such.

    Intervals are those of the jackknife+ [1]_ with whole subsets left out, since
    targets of one subset depend on each other; each subset has the same weight, and
    one further subset is taken to lie at infinity [3]_. If subsets are exchangeable
    with those learnt from (drawn in the same way), the interval covers with a
    probability, over subsets and targets, of at least ``2 * confidence_level - 1``,
    and about `confidence_level` in practice. Fewer than ``1 / (1 -
    confidence_level) - 1`` subsets give infinite intervals.

    What is covered is mu as estimated by as many retrainings as were learnt from, its
    noise included. The true mu, which has none, is covered at least as often where the
    noise is symmetric, and the interval is the wider the fewer retrainings there were.

    References
    ----------
    .. [1] R. F. Barber, E. J. Candes, A. Ramdas, R. J. Tibshirani, "Predictive
       inference with the jackknife+", Annals of Statistics 49(1), 2021.
    .. [2] R. J. Carroll, D. Ruppert, L. A. Stefanski, C. M. Crainiceanu, "Measurement
       error in nonlinear models", 2nd edition, Chapman and Hall, 2006, section 2.6.
    .. [3] Y. Lee, R. F. Barber, R. Willett, "Distribution-free inference with
       hierarchical data", arXiv:2306.06342, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat.ground_truth import CalibratedInfluence
    >>> rng = np.random.default_rng(0)
    >>> mu = rng.normal(size=(40, 5))
    >>> one_run = 0.3 * mu + 0.1 * rng.normal(size=(40, 5))
    >>> calibrated = CalibratedInfluence().fit(one_run, mu)
    >>> calibrated.predict([0.3]).round(1)
    array([0.9])
    >>> low, high = calibrated.predict_interval([0.3], confidence_level=0.9)
    >>> low.round(1), high.round(1)
    (array([0.4]), array([1.5]))
    """

    # The data of these methods are no metadata to be routed.
    __metadata_request__fit: ClassVar = dict.fromkeys(("estimate", "truth"), UNUSED)
    __metadata_request__predict: ClassVar = {"estimate": UNUSED}

    def __init__(self, *, method: str = "linear", normalize: bool = True) -> None:
        self.method = method
        self.normalize = normalize

    def fit(self, estimate: ArrayLike, truth: object) -> CalibratedInfluence:
        """Learn from subsets that were retrained without.

        Parameters
        ----------
        estimate : array-like of shape (n_subsets, n_targets)
            Mu of one run; NaN where not observed.
        truth : Observations, MultiRunInfluence or array-like
            What retraining gave for the same subsets and targets: observations of
            `retrain`, the estimator fitted to them, or mu of shape (n_subsets,
            n_targets).

        Returns
        -------
        CalibratedInfluence
            This estimator.

        Raises
        ------
        ValueError
            If shapes differ, fewer than 3 subsets are given, the estimates of all
            pairs, or of all subsets but one, are the same, or `method` is not an
            option.
        """
        option(self.method, "method", ("linear", "isotonic"))
        option(self.normalize, "normalize", (True, False))
        x = numeric(estimate, "estimate")
        no_infinity(x, "estimate")
        y, runs = _truth(truth)
        if x.ndim == 2 and x.shape == y.shape:
            observed = ~np.isnan(x).all(axis=1)
            x, y = x[observed], y[observed]
        if x.ndim != 2 or x.shape != y.shape or len(x) < 3:
            raise ValueError(
                "`estimate` and `truth` must be of the same subsets, at least 3 of "
                f"them observed, and targets, got shapes {x.shape} and {y.shape}."
            )
        sizes = np.abs(np.concatenate([x[~np.isnan(x)], y.ravel()]))
        if not (sizes < _LARGEST).all():
            raise ValueError(
                f"`estimate` and `truth` must be finite, below {_LARGEST:g}, got "
                "others."
            )
        self._curve = _fit_curve(self.method, x, y)
        slope, intercept = self._curve if isinstance(self._curve, tuple) else _UNKNOWN
        self.slope_, self.intercept_ = float(slope), float(intercept)
        self._leave_out(x, y)
        self._range = float(np.nanmin(x)), float(np.nanmax(x))
        self.n_subsets_ = len(x)
        self.quantity_ = (
            f"mu of retraining, predicted from one run by {len(x)} retrained subsets; "
            f"intervals cover mu as estimated by {runs} for new subsets"
        )
        return self

    def predict(self, estimate: ArrayLike) -> FloatArray:
        """Return the mu of retraining that goes with mu of one run.

        Parameters
        ----------
        estimate : array-like
            Mu of one run, of any shape; NaN gives NaN.

        Returns
        -------
        ndarray
            Predictions of the same shape.

        Warns
        -----
        ExtrapolationWarning
            If an estimate lies further outside of those learnt from than the width of
            their range.
        """
        check_is_fitted(self, "n_subsets_")
        x = numeric(estimate, "estimate")
        no_infinity(x, "estimate")
        self._warn_outside(x)
        return _at(self._curve, x)

    def predict_interval(
        self, estimate: ArrayLike, confidence_level: float = 0.95
    ) -> ConfidenceInterval:
        """Return prediction intervals for the mu of retraining without new subsets.

        Parameters
        ----------
        estimate : array-like
            Mu of one run, of any shape; NaN gives NaN.
        confidence_level : float, default=0.95
            Level, on average over new subsets and their targets.

        Returns
        -------
        ConfidenceInterval
            Ends of the same shape; infinite where there are too few subsets.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.

        Warns
        -----
        ExtrapolationWarning
            As `predict`: nothing is known of the coverage there.
        """
        check_is_fitted(self, "n_subsets_")
        level = confidence(confidence_level)
        x = numeric(estimate, "estimate")
        no_infinity(x, "estimate")
        if (np.abs(x) >= _LARGEST).any():
            raise ValueError(
                f"`estimate` must be below {_LARGEST:g} in size, got {shown(estimate)}."
            )
        self._warn_outside(x)
        flat = x.ravel()
        centres = np.stack([_at(curve, flat) for curve in self._curves])
        spread = np.stack([_spread_at(spread, flat) for spread in self._spreads])
        reach = self._scores[:, :, None] * spread[:, None]
        known = ~np.isnan(self._scores)
        weight = (known / np.maximum(known.sum(axis=1, keepdims=True), 1)).ravel()
        high = _weighted_quantile(centres[:, None] + reach, weight, level)
        low = -_weighted_quantile(reach - centres[:, None], weight, level)
        # At low levels the ends, which are quantiles of other sets, may cross.
        low, high = np.minimum(low, high), np.maximum(low, high)
        unknown = np.isnan(flat)
        low, high = np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
        return ConfidenceInterval(low.reshape(x.shape), high.reshape(x.shape))

    def _warn_outside(self, x: FloatArray) -> None:
        low, high = self._range
        room = high - low
        outside = int(((x < low - room) | (x > high + room)).sum())
        if outside:
            warn(
                f"{outside} of {x.size} estimates lie far outside of those learnt "
                f"from, {low:.3g} to {high:.3g}: what is predicted there extends the "
                "fitted curve, and its intervals promise nothing. Learn from subsets "
                "like these.",
                ExtrapolationWarning,
            )

    def _leave_out(self, x: FloatArray, y: FloatArray) -> None:
        """Fit without each subset, and see how far off its own targets are."""
        without = [np.arange(len(x)) != s for s in range(len(x))]
        self._curves = [_fit_curve(self.method, x[w], y[w]) for w in without]
        self._spreads = [
            _fit_spread(x[w], y[w] - _at(curve, x[w]), bool(self.normalize))
            for w, curve in zip(without, self._curves, strict=True)
        ]
        fits = zip(self._curves, self._spreads, x, y, strict=True)
        self._scores = np.stack(
            [np.abs(b - _at(curve, a)) / _spread_at(s, a) for curve, s, a, b in fits]
        )


_UNKNOWN = (np.nan, np.nan)
_LARGEST = 1e70  # whose fourth power is a float


def _truth(truth: object) -> tuple[FloatArray, str]:
    if isinstance(truth, Observations | MultiRunInfluence | tuple):
        runs = Runs.of(truth)
        n, m = len(runs.Q), runs.P.shape[1]
        return full_mu(runs), f"{n} runs with all data and {m} without the subset"
    return numeric(truth, "truth"), "`truth`"  # type: ignore[arg-type]


def _fit_curve(method: str, x: FloatArray, y: FloatArray) -> Any:
    seen = ~np.isnan(x)
    centred = x[seen] - x[seen].mean()
    square = float(centred @ centred)
    if not square > 0:
        raise ValueError(
            "`estimate` must differ between pairs, whichever subset is left out, got "
            "one value."
        )
    if method == "isotonic":
        return IsotonicRegression(out_of_bounds="clip").fit(x[seen], y[seen])
    slope = float(centred @ y[seen]) / square
    return slope, float(y[seen].mean() - slope * x[seen].mean())


def _at(curve: Any, x: FloatArray) -> FloatArray:
    if isinstance(curve, tuple):
        with np.errstate(over="ignore"):  # infinite, where it is out of range
            return np.asarray(curve[1] + curve[0] * x)
    seen = ~np.isnan(x)
    found = np.full(x.shape, np.nan)
    if seen.any():
        found[seen] = curve.predict(x[seen])
    return found


def _fit_spread(
    x: FloatArray, residual: FloatArray, normalize: bool
) -> tuple[float, float]:
    """Return a and b of the variance ``a + b x**2`` of residuals; 1 and 0 if not."""
    if not normalize:
        return 1.0, 0.0
    seen = ~np.isnan(residual)
    squares, target = x[seen] ** 2, residual[seen] ** 2
    design = np.stack([np.ones_like(squares), squares], axis=1)
    constant, square = nnls(design, target)[0]
    # Residuals near 0 must not make intervals of no width.
    constant = max(constant, 0.01 * float(target.mean()), np.finfo(float).tiny)
    return float(constant), float(square)


def _spread_at(spread: tuple[float, float], x: FloatArray) -> FloatArray:
    return np.sqrt(spread[0] + spread[1] * x**2)


def _weighted_quantile(
    values: FloatArray, weight: FloatArray, level: float
) -> FloatArray:
    """Return the quantiles of subsets of weight 1, and of one more at infinity."""
    flat = values.reshape(len(weight), -1)
    flat = np.where(np.isnan(flat), np.inf, flat)
    order = np.argsort(flat, axis=0)
    mass = np.cumsum(weight[order], axis=0)
    needed = level * (round(weight.sum()) + 1)
    place = (mass < needed - 1e-9).sum(axis=0)
    ends = np.take_along_axis(flat, order, axis=0)
    ends = np.concatenate([ends, np.full((1, flat.shape[1]), np.inf)])
    return np.take_along_axis(ends, place[None], axis=0)[0]
