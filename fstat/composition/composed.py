"""A composition without a closed form: point values, and two curves around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np

from .._validation import FloatArray, integers, number
from .._warnings import warn
from ..tradeoff import ErrorRates, TradeOff
from ..tradeoff.base import several
from ._bent import BentInversion, are_ordinary, is_seldom
from ._certificate import Certificate, by_affinity, gaps
from ._checks import PointValues, Unresolved
from ._contour import Inversion
from ._heavy_tail import windowed
from ._tail_rates import infinite
from ._width import Widths
from ._windowed import Windowed

_ROUNDS = 6


class ToleranceWarning(UserWarning):
    """The two curves around a composition lie farther apart than was asked for."""


class ComposedTradeOff(TradeOff):
    r"""The composition of independent steps, exact and enclosed between two curves.

    Made by `compose`, which looks for a closed form first.

    Parameters
    ----------
    fs : sequence of TradeOff
        Different steps.
    counts : sequence of int
        How often each is taken.
    tolerance : float
        How far apart `lower` and `upper` may lie, relative to what they bound.

    Attributes
    ----------
    lower, upper : TradeOff
        Piecewise linear curves below and above the composition: `lower` bounds delta
        and epsilon from above, `upper` from below. Where P and Q are far apart the
        bound of `lower` on epsilon may be infinite though epsilon is not. Errors of
        discretisation, truncation and rounding are accounted for; what is taken on
        trust is that rates of the steps are accurate to 2^-44 of their size.
    gap : float
        How far apart they lie: the largest relative difference of their powers, at
        type I errors from 1e-15 to 1/2, and of those of their inverses. Where it is
        above `tolerance` it is part of the repr, once it is known.

    Warns
    -----
    ToleranceWarning
        When the curves are first asked for, if they lie farther apart than `tolerance`.

    See Also
    --------
    compose : The way to make one.
    gaussian_limit : What compositions of many steps tend to.

    Notes
    -----
    Point values invert :math:`\prod_i E_{Q_i} e^{z L_i}` by the trapezoidal rule on a
    contour through a saddle point [1]_. Where the losses of rarely seen Gaussian steps
    hardly move, the contour is a hyperbola. Where the sum has atoms, so that the
    transform never dies out, it is seen through a window, and likely atoms near the
    threshold are added exactly. Each value is computed twice, on another contour, with
    half of the nodes or half of the bandwidth: where both do not agree to a relative
    1e-6 an `ArithmeticError` is raised.

    `lower` comes from losses that are spread out to a lattice [2]_, `upper` from
    losses that are drawn together on it; both leave an error of second order in the
    width. They are added up with tilted Fourier transforms. Where no lattice resolves
    the losses, both follow from the affinity of P and Q, a product over steps, and are
    loose: `gap` and a `ToleranceWarning` say so.

    References
    ----------
    .. [1] R. Lugannani, S. Rice, "Saddle point approximation for the distribution of
       the sum of independent random variables", Advances in Applied Probability 12,
       1980.
    .. [2] V. Doroshenko, B. Ghazi, P. Kamath, R. Kumar, P. Manurangsi, "Connect the
       dots: tighter discrete approximations of privacy loss distributions",
       Proceedings on Privacy Enhancing Technologies 2022(4), arXiv:2207.04380.

    Examples
    --------
    >>> from fstat import GaussianTradeOff
    >>> from fstat.composition import compose
    >>> f = compose(GaussianTradeOff(1.0).subsample(0.01), counts=[1000])
    >>> print(f"{f.power(1e-6):.6e}")
    9.367509e-06
    >>> f.lower(0.01) < f(0.01) < f.upper(0.01), f.gap <= f.tolerance
    (True, True)
    """

    fs: tuple[TradeOff, ...]
    counts: tuple[int, ...]
    tolerance: float

    def __init__(
        self, fs: Sequence[TradeOff], counts: Sequence[int], tolerance: float = 1e-4
    ) -> None:
        curves, taken = several(fs), integers(counts, "counts")
        if taken.shape != (len(curves),) or (taken < 1).any():
            raise ValueError(
                "`counts` must be one positive integer for each of `fs`, got "
                f"{counts!r:.80} for {len(curves)}."
            )
        self._set(
            fs=curves,
            counts=tuple(taken.tolist()),
            tolerance=number(tolerance, "tolerance", "(0, inf)"),
        )

    @property
    def lower(self) -> TradeOff:
        """A trade-off curve that is nowhere above the composition."""
        return self._enclosure[0]

    @property
    def upper(self) -> TradeOff:
        """A trade-off curve that is nowhere below the composition."""
        return self._enclosure[1]

    @property
    def gap(self) -> float:
        """Largest relative difference between what `lower` and `upper` say."""
        return self._enclosure[2]

    @property
    def steps(self) -> tuple[tuple[TradeOff, int], ...]:
        """Different steps, and how often each is taken."""
        return tuple(zip(self.fs, self.counts, strict=True))

    @cached_property
    def _inversion(self) -> Inversion:
        """The distribution of the summed loss, by its transform."""
        return Inversion(
            self.fs,
            self.counts,
            *self._certain(),
        )

    @cached_property
    def _points(self) -> list[Callable[[], PointValues]]:
        """Ways to point values, each taken where the one before does not serve."""
        ways: list[Callable[[], PointValues]] = [lambda: self._windowed]
        if all(map(is_seldom, self.fs)):
            ways.insert(0, lambda: self._bent)
        if (not ways[1:] or are_ordinary(self.fs)) and (straight := self._straight()):
            ways.insert(0, lambda: straight)
        return ways

    @cached_property
    def _bent(self) -> BentInversion:
        return BentInversion(self.fs, self.counts)

    @cached_property
    def _windowed(self) -> Windowed:
        return windowed(self.fs, self.counts, self._inversion, self._loss_range())

    def _ask(self, question: Callable[[PointValues], FloatArray]) -> FloatArray:
        """Return the first answer that is not refused."""
        first = None
        # Numbers out of range on the way are not answers: those are checked.
        with np.errstate(all="ignore"):
            for way in self._points:
                try:
                    point = way()
                    point.restart()
                    return question(point)
                except Unresolved as error:
                    first = first or error
        assert first is not None
        raise first

    def _straight(self) -> Inversion | None:
        """Return the inversion on straight paths, where it converges."""
        try:
            return self._inversion if self._inversion.converges else None
        except Unresolved:
            return None  # the losses have no spread that counts

    @cached_property
    def _enclosure(self) -> tuple[TradeOff, TradeOff, float]:
        """The two curves and their gap: from the affinity where that is closer."""
        with np.errstate(all="ignore"):
            found = None
            with suppress(Unresolved):
                found = self._on_lattices()
            if found is None or found[2] > self.tolerance:
                loose = by_affinity(self.steps)
                apart = max(gaps(*loose))
                if found is None or apart < found[2]:
                    found = *loose, apart
        if found[2] > self.tolerance:
            warn(
                f"the curves enclose the composition to {found[2]:.2g}, not to the "
                f"`tolerance` {self.tolerance:.2g}: they are valid bounds.",
                ToleranceWarning,
            )
        return found

    def _on_lattices(self) -> tuple[TradeOff, TradeOff, float]:
        """Return curves from lattices as fine as the tolerance needs, or can be."""
        certificate = Certificate(self.steps, self._inversion, self.tolerance)
        least = certificate.least_widths()
        widths = Widths(self.steps, self._inversion, self.tolerance, least)
        tried = widths.first()
        reached = np.inf
        for _ in range(_ROUNDS):
            try:
                curves = certificate.curves(tried)
            except Unresolved:
                if reached == np.inf:
                    raise
                break
            apart = gaps(*curves)
            before, now = reached, max(apart)
            if now < reached:
                (lower, upper), reached = curves, now
            # Rounding limits what finer lattices gain.
            if reached <= self.tolerance or now > 0.9 * before:
                break
            finer = widths.next(tried, apart)
            if finer == tried:
                break
            tried = finer
        return lower, upper, reached

    def _certain(self) -> tuple[float, float]:
        """Return how likely a step gives the game away, to Q and to P."""
        log_rest = sum(
            count * np.log1p(-np.minimum(infinite(f), 1.0)) for f, count in self.steps
        )
        to_p, to_q = (-np.expm1(log_rest)).tolist()
        return to_q, to_p

    def _rates(self, threshold: FloatArray, strict: bool) -> ErrorRates:
        t = np.atleast_1d(np.asarray(threshold, float))
        found = self._ask(lambda point: np.array(point.rates(t, strict)))
        return ErrorRates(*(rate.reshape(np.shape(threshold)) for rate in found))

    def _test_of_level(self, alpha: FloatArray, specificity: FloatArray) -> ErrorRates:
        levels = np.ravel(alpha), np.ravel(specificity)
        test = self._ask(lambda point: np.array(point.test_of_level(*levels)))
        return ErrorRates(*(rate.reshape(np.shape(alpha)) for rate in test))

    def _delta(self, epsilon: FloatArray) -> FloatArray:
        e = np.atleast_1d(np.asarray(epsilon, float))
        return self._ask(lambda point: point.delta(e)).reshape(np.shape(epsilon))

    def _epsilon(self, delta: FloatArray) -> FloatArray:
        d, most = np.atleast_1d(np.asarray(delta, float)), self._loss_range()[1]
        found = self._ask(lambda point: point.epsilon(d, most))
        return found.reshape(np.shape(delta))

    def _inverse_delta(self, epsilon: FloatArray) -> FloatArray:
        return self._inverse()._delta(epsilon)

    def _inverse(self) -> TradeOff:
        inverses = [f.inverse() for f in self.fs]
        if all(f == g for f, g in zip(self.fs, inverses, strict=True)):
            return self
        return ComposedTradeOff(inverses, self.counts, self.tolerance)

    def _auc(self) -> FloatArray:
        return self._ask(lambda point: np.asarray(point.auc()))

    def _kl(self) -> FloatArray:
        return np.asarray(sum(count * f.kl() for f, count in self.steps))

    def _absolute_moment(self, order: int, centre: FloatArray) -> FloatArray:
        if order != 2:
            return super()._absolute_moment(order, centre)
        variance = sum(n * (f.kappa2() - f.kl() ** 2) for f, n in self.steps)
        return np.asarray(variance + (self._kl() + centre) ** 2)

    def _loss_range(self) -> tuple[float, float]:
        ends = [(n * np.array(f._loss_range())) for f, n in self.steps]
        low, high = np.sum(ends, axis=0)
        return float(low), float(high)

    def _loss_breaks(self) -> FloatArray:
        with np.errstate(all="ignore"):
            return self._points[0]().saddles

    def __repr__(self) -> str:
        shown = " @ ".join(f"{f!r} ** {n}" if n > 1 else repr(f) for f, n in self.steps)
        if len(self.fs) > 4:
            shown = f"<{sum(self.counts)} steps of {len(self.fs)} kinds>"
        known = "_enclosure" in self.__dict__ and self.gap > self.tolerance
        gap = f", gap={self.gap:.2g}" if known else ""
        return f"ComposedTradeOff({shown}, tolerance={self.tolerance:g}{gap})"
