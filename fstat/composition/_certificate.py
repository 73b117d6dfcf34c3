"""Two trade-off curves that enclose a composition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tradeoff import EpsilonDeltaTradeOff, PiecewiseLinearTradeOff, TradeOff
from ..tradeoff._atoms import AtomicTradeOff
from ._checks import Unresolved
from ._contour import Inversion
from ._convolution import Tilt, tail_atoms
from ._exact import exact_sum
from ._join import Tail, joined
from ._lattice import Lattice, contraction, origin, outline, points, spread, stretches
from ._tail_rates import infinite
from ._tilts import LARGEST, WINDOW, Frame, tilts_upward

# Of the losses of a step: narrower, they would be mixed up with rounding.
_NARROWEST = 1e-6

_NO_LATTICE = "no lattice resolves the losses of this composition."
_MOST_ADDED = 512  # discrete steps


class Certificate:
    """Bounds on a composition, on lattices of any width.

    Parameters
    ----------
    steps : sequence of (TradeOff, int)
        Steps, and how often each is taken.
    inversion : Inversion
        The same composition, by its transform; says where to tilt.
    tolerance : float
        How far apart the bounds may lie.
    """

    def __init__(
        self,
        steps: Sequence[tuple[TradeOff, int]],
        inversion: Inversion,
        tolerance: float,
    ) -> None:
        self._tolerance = tolerance
        self._steps = [
            (f, count, outline(f), outline(f.inverse()))
            for f, count in _discrete_together(steps)
        ]
        self._symmetric = all(f.inverse() == f for f, _ in steps)
        self._inversion = inversion
        self._last: dict[bool, tuple[float, tuple[Tail, Tail]]] = {}

    def curves(self, widths: tuple[float, float]) -> tuple[TradeOff, TradeOff]:
        """Return a lower and an upper trade-off curve.

        From a lattice of the first width where losses are large, of the second where
        they are small.
        """
        right = self._tails(widths[0], False)
        left = right if self._symmetric else self._tails(widths[1], True)
        lower, upper = (
            joined(*tails, up)
            for tails, up in zip(
                zip(right, left, strict=True), (True, False), strict=True
            )
        )
        return lower, upper

    def least_widths(self) -> tuple[float, float]:
        """Return the widths below which the transforms would be too long."""
        broadest = (
            max(t.deviation for t in self._tilts(1e-3, side)) for side in (False, True)
        )
        right, left = (2 * WINDOW * deviation / LARGEST for deviation in broadest)
        return right, left

    def _tilts(self, width: float, mirrored: bool) -> list[Tilt]:
        """Return the tilts of one tail."""
        centre = self._inversion.exponent.mean(-0.5)
        ends = np.array([(b if mirrored else a).ends for _, _, a, b in self._steps])
        counts = np.array([count for _, count, _, _ in self._steps])
        ends = counts @ (ends + 2 * width * np.array([-1.0, 1.0]))
        centre = -centre if mirrored else centre
        zeros = [
            origin(f.inverse() if mirrored else f, width, count)
            for f, count, *_ in self._steps
        ]
        frame = Frame(self._inversion, mirrored, width, float(counts @ zeros), ends)
        return tilts_upward(frame, centre, self._tolerance)

    def _tails(self, width: float, mirrored: bool) -> tuple[Tail, Tail]:
        """Return bounds from above and from below on the masses of one tail."""
        if self._last.get(mirrored, (0.0,))[0] != width:
            tilts = self._tilts(width, mirrored)
            if max(tilt.size for tilt in tilts) > LARGEST:
                raise Unresolved(_NO_LATTICE)
            upper = self._tail(width, tilts, True, mirrored)
            lower = self._tail(width, tilts, False, mirrored)
            self._last[mirrored] = width, (upper, lower)
        return self._last[mirrored][1]

    def _tail(self, width: float, tilts: list[Tilt], up: bool, swapped: bool) -> Tail:
        on_lattice = spread if up else contraction
        steps: list[tuple[Lattice, int]] = []
        thetas = np.array([0.0, *(tilt.theta for tilt in tilts)])
        for f, count, own, of_inverse in self._steps:
            g, seen = (f.inverse(), of_inverse) if swapped else (f, own)
            zero = origin(g, width, count)
            k = points(seen, width, thetas, zero)
            steps.append((on_lattice(g, width, k, zero), count))
            if not steps[-1][0].masses.any():
                raise Unresolved(_NO_LATTICE)
        infinite = _infinite(steps)
        if up:
            infinite += _beyond(steps, width, tilts[-1])
        loss, q, p = tail_atoms(steps, width, tilts, up)
        return Tail(max([width, *np.diff(loss[:2])]), loss, q, p, infinite)


def _discrete_together(
    steps: Sequence[tuple[TradeOff, int]],
) -> list[tuple[TradeOff, int]]:
    """Return steps where discrete ones are added up as long as their sums are few.

    Sums on a lattice of their own err once, and not as often as they are taken. Those
    of many steps are left: their probabilities are not as accurate as those of one.
    """
    few = [
        (f, n) for f, n in steps if isinstance(f, AtomicTradeOff) and n <= _MOST_ADDED
    ]
    apart = [step for step in steps if step not in few]
    while few:
        size, whole = 1, exact_sum(few[:1])
        while whole is not None and size < len(few):
            more = few[: size + 1]
            if (
                sum(n for _, n in more) > _MOST_ADDED
                or (sums := exact_sum(more)) is None
            ):
                break
            size, whole = size + 1, sums
        apart.append(few[0] if whole is None else (whole, 1))
        few = few[size:]
    return apart


def _infinite(steps: Sequence[tuple[Lattice, int]]) -> float:
    """Return the mass of an infinite sum."""
    log_all, log_share = 0.0, 0.0
    for lattice, count in steps:
        total = lattice.masses.sum() + lattice.infinite
        log_all += count * np.log(total)
        log_share += count * np.log1p(-lattice.infinite / total)
    return float(max(-np.exp(log_all) * np.expm1(log_share), 0.0))


def _beyond(steps: Sequence[tuple[Lattice, int]], width: float, tilt: Tilt) -> float:
    """Bound by Chernoff the mass above all that is served."""
    exponent = -tilt.theta * tilt.last * width
    if tilt.last > sum(n * x.last for x, n in steps):
        return 0.0
    for lattice, count in steps:
        exponents = lattice.log_masses + tilt.theta * (lattice.index * width)
        top = exponents.max()
        exponent += count * (top + np.log(np.exp(exponents - top).sum()))
    return float(np.exp(min(exponent + 1e-9, 0.0)))


def by_affinity(steps: Sequence[tuple[TradeOff, int]]) -> tuple[TradeOff, TradeOff]:
    r"""Return loose bounds from the affinity, which is a product over steps.

    With :math:`\rho = \prod_i E_{Q_i} e^{-L_i / 2}` the advantage is at most
    :math:`\sqrt{1 - \rho^2}`, and the test that rejects where the summed loss is
    positive has both errors at most :math:`\rho`.
    """
    least = most = 0.0
    for f, count in steps:
        low, high = _log_affinity(f)
        least, most = least + count * low, most + count * high
    advantage = np.sqrt(-np.expm1(2 * min(least, 0.0)))
    error = float(np.clip(np.exp(min(most, 0.0)), 1e-300, 0.5))
    upper = PiecewiseLinearTradeOff.from_probabilities(
        np.array([error, 1 - error]), np.array([1 - error, error])
    )
    return EpsilonDeltaTradeOff(0.0, float(min(advantage * (1 + 1e-14), 1.0))), upper


def _log_affinity(f: TradeOff) -> tuple[float, float]:
    """Return bounds on the logarithm of a step's affinity.

    From above by the Cauchy-Schwarz inequality on each stretch of losses.
    """
    seen = outline(f)
    low, high = seen.ends
    if low == high:  # all losses that are finite are 0
        with np.errstate(divide="ignore"):
            log = float(np.log1p(-infinite(f)[1]))
        return log - 1e-12, log + 1e-12
    width = max(high - low, _NARROWEST) / 2**15
    k = points(seen, width, np.array([-0.5, 0.0]))
    lattice = spread(f, width, k)
    least = lattice.masses @ np.exp(-(lattice.index * width + lattice.shift) / 2)
    most = np.sqrt(np.prod(stretches(f, np.asarray(k * width, float)), axis=0)).sum()
    with np.errstate(divide="ignore"):
        return float(np.log(least)) - 1e-12, float(np.log(most)) + 1e-12


def gaps(lower: TradeOff, upper: TradeOff) -> tuple[float, float]:
    """Return the largest relative differences of the powers, down to 1e-15.

    The first is of the curves, the second of their inverses. Where neither tail is
    small they count for both.
    """
    alpha = np.append(10.0 ** np.arange(-15.0, 0.0, 0.25), 0.5)
    pairs = (lower, upper), (lower.inverse(), upper.inverse())
    apart = np.array([f.power(alpha) / g.power(alpha) - 1 for f, g in pairs])
    right, left = np.maximum(apart.max(axis=1), apart[:, alpha > 0.003].max()).tolist()
    return right, left
