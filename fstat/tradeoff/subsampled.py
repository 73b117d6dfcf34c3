"""The trade-off function of a procedure that sees its data now and then."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray, share
from ._atoms import AtomicTradeOff
from .base import ErrorRates, TradeOff, operations
from .gaussian import GaussianTradeOff

_ROUNDING = 4.0  # units in the last place, of a loss


class SubsampledTradeOff(TradeOff):
    r"""The trade-off function ``T(P, (1 - p) P + p Q)``, made by `TradeOff.subsample`.

    Parameters
    ----------
    base : TradeOff
        The trade-off function ``T(P, Q)``.
    p : float
        The probability that the data are seen, above 0 and at most 1.

    Notes
    -----
    :math:`f_p = p f + (1 - p) \mathrm{Id}` with :math:`\mathrm{Id}(\alpha) = 1 -
    \alpha`, and :math:`\delta_{f_p}(\epsilon) = p \delta_f(\log(1 + (e^\epsilon - 1) /
    p))`, without any error but rounding.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> f = GaussianTradeOff(1.0).subsample(0.01)
    >>> f
    SubsampledTradeOff(base=GaussianTradeOff(mu=1), p=0.01)
    >>> f.delta(0.0) / GaussianTradeOff(1.0).delta(0.0)
    0.01
    """

    base: TradeOff
    p: float

    def __init__(self, base: TradeOff, p: float) -> None:
        if not isinstance(base, TradeOff):
            raise ValueError(f"`base` must be a trade-off function, got {base!r:.80}.")
        self._set(base=base, p=share(p, "p"))
        if self.p == 0:
            raise ValueError("`p` must be above 0, got 0.")

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        surely, t = self._base_threshold(threshold)
        mixed = self._mixed(self.base._rates(t, strict))
        everything = (1.0, 1.0, 0.0, 0.0)
        return ErrorRates(
            *(np.where(surely, a, b) for a, b in zip(everything, mixed, strict=True))
        )

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        return self._mixed(self.base._test_of_level(alpha, specificity))

    def _mixed(self, test: ErrorRates) -> ErrorRates:
        p, rest = self.p, 1.0 - self.p
        return ErrorRates(
            test.alpha,
            p * test.power + rest * test.alpha,
            test.specificity,
            p * test.beta + rest * test.specificity,
        )

    def _base_threshold(self, t: FloatArray) -> tuple[NDArray[np.bool_], FloatArray]:
        """Return where ``log(1 - p + p exp(L))`` is above t anyhow, or L's threshold.

        The losses are at least log(1 - p), which they take where L is -inf.
        """
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            ratio = np.expm1(t) / self.p
            near = np.log1p(np.maximum(ratio, -1.0))
            far = t - np.log(self.p) + np.log1p((self.p - 1.0) * np.exp(-t))
        surely, of_base = ratio < -1.0, np.where(t > 30.0, far, near)
        # An atom is met by thresholds that differ by rounding.
        atoms, losses = self._atoms
        if not atoms.size:
            return surely, of_base
        nearest = np.searchsorted((losses[1:] + losses[:-1]) / 2, t)
        with np.errstate(invalid="ignore"):
            apart = np.abs(t - losses[nearest])
            met = apart <= _ROUNDING * np.spacing(np.abs(losses[nearest]))
        return surely & ~met, np.where(met, atoms[nearest], of_base)

    @cached_property
    def _atoms(self) -> tuple[FloatArray, FloatArray]:
        """Losses that L may take with some probability, and what becomes of them."""
        if self._shape():
            return np.empty(0), np.empty(0)
        known = [-np.inf, *self.base._loss_range()]
        if isinstance(self.base, AtomicTradeOff):
            known.extend(self.base._loss)
        atoms = np.unique(known)
        atoms = atoms[atoms < np.inf]
        return atoms, self._loss(atoms)

    def _thresholds(
        self, alpha: FloatArray, specificity: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        low, high = self.base._thresholds(alpha, specificity)
        return self._loss(low), self._loss(high)

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        surely, t = self._base_threshold(epsilon)
        with np.errstate(over="ignore"):
            everything = -np.expm1(epsilon)
        return np.where(surely, everything, self.p * self.base._delta(t))

    def _inverse_delta(self, epsilon: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            left = np.maximum(-np.expm1(epsilon + np.log1p(-self.p)), 0.0)
            t = epsilon + np.log(self.p) - np.log(left)
        some = left > 0
        t = np.where(some, t, np.inf)
        return np.where(some, left * self.base._inverse()._delta(t), 0.0)

    def _auc(self) -> FloatArray:
        return np.asarray(0.5 + self.p * (self.base._auc() - 0.5))

    def _loss_range(self) -> tuple[float, float]:
        # Losses of -inf become log(1 - p).
        low, high = self._loss(np.array(self.base._loss_range()))
        if self.base._rates(np.asarray(-np.inf), True).specificity.any():
            low = np.log1p(-self.p)
        return float(low), float(high)

    def _loss_breaks(self) -> FloatArray:
        inner = self._loss(self.base._loss_breaks())
        return np.unique([*inner, *super()._loss_breaks()])

    def _loss(self, t: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", divide="ignore"):
            near = np.log1p(self.p * np.expm1(t))
            return np.where(t > 30.0, t + np.log(self.p), near)

    def _corners(self) -> ErrorRates:
        return self._mixed(self.base._corners())

    def _tail_mu(self) -> float:
        return self.base._tail_mu()

    def _shape(self) -> tuple[int, ...]:
        return self.base._shape()

    def _curves(
        self, shape: tuple[int, ...], place: NDArray[np.intp]
    ) -> SubsampledTradeOff:
        return SubsampledTradeOff(self.base._curves(shape, place), self.p)


def subsampled(f: TradeOff, p: float) -> TradeOff:
    """Return f where data are seen with probability p; see `TradeOff.subsample`."""
    if p == 0:
        return GaussianTradeOff(np.zeros(f._shape()))
    if isinstance(f, SubsampledTradeOff):
        return SubsampledTradeOff(f.base, f.p * p)
    return SubsampledTradeOff(f, p)


operations.subsample = subsampled
