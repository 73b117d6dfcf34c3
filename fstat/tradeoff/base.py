"""Trade-off functions: the least type II error at each type I error.

For a test of ``H0: P`` against ``H1: Q`` the trade-off function ``f = T(P, Q)``
maps a type I error ``alpha`` to the least type II error ``beta`` that any test
can have. It is convex, continuous, non-increasing and at most ``1 - alpha``. The
closer it lies to ``1 - alpha``, the harder P and Q are to tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from .._validation import listed, share, whole_number
from ._rates import Comparison, ErrorRates
from .conversions import Conversions

__all__ = ["ErrorRates", "TradeOff"]


class _Compose(Protocol):
    def __call__(
        self, *fs: TradeOff, counts: Sequence[int] | None = None
    ) -> TradeOff: ...


class _Operations:
    """What leads to other families, of which none is imported here.

    `TradeOff` has the methods; the module that knows an operation sets it. Those of
    this package are imported with it, `compose` when it is first needed.
    """

    inverse: Callable[[TradeOff], TradeOff]
    symmetrized: Callable[[TradeOff], TradeOff]
    group: Callable[[TradeOff, int], TradeOff]
    subsample: Callable[[TradeOff, float], TradeOff]
    compose: _Compose
    compare: Callable[[TradeOff, TradeOff], Comparison]
    tightest_mu: Callable[[TradeOff, float, float | None], float]
    regret: Callable[[TradeOff, float | None], float]

    def __getattr__(self, name: str) -> Any:
        if name != "compose":
            raise AttributeError(name)
        return import_module("fstat.composition").compose


operations = _Operations()


class TradeOff(Conversions):
    """A trade-off function, as an immutable object that evaluates and converts.

    Everything follows from the distributions of the loss ``L = log dQ/dP`` under P
    and under Q, that is from `likelihood_ratio_test`.

    See Also
    --------
    GaussianTradeOff : The trade-off function of two shifted normal distributions.
    tradeoff_between : The trade-off function of any two distributions.

    Notes
    -----
    A number gives a Python float, an array an array. Where the object itself holds many
    curves, as a `GaussianTradeOff` of an array does, all that follows from it is an
    array.

    A subclass provides ``_rates(threshold, strict)``, the four error rates of a
    likelihood-ratio test, each accurate relative to its own size. Where it has closed
    forms it overrides more of what ``fstat/tradeoff/family.py`` lists.

    References
    ----------
    .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal of
       the Royal Statistical Society B 84(1), 2022, arXiv:1905.02383.
    """

    def __matmul__(self, other: TradeOff) -> TradeOff:
        """Return the composition with another: both tests run together."""
        if not isinstance(other, TradeOff):
            return NotImplemented
        return operations.compose(self, other)

    def __pow__(self, count: int) -> TradeOff:
        """Return the composition of `count` steps like this one."""
        return operations.compose(self, counts=[count])

    def inverse(self) -> TradeOff:
        """Return ``T(Q, P)``, the trade-off function with the roles swapped.

        Returns
        -------
        TradeOff
            ``alpha -> inf{t : f(t) <= alpha}``.
        """
        return self._inverse()

    def symmetrized(self) -> TradeOff:
        """Return the symmetric trade-off function made of f and its inverse.

        Returns
        -------
        TradeOff
            With ``a = inf{a : -1 is a slope of f at a}``: where ``a <= f(a)``, the
            convex minorant of ``min(f, inverse)``, otherwise ``max(f, inverse)``
            (Definition F.1 of Dong et al., 2022).

        See Also
        --------
        minimum, maximum : The one and the other, in any case.
        """
        return self._symmetrized()

    def compare(self, other: TradeOff) -> Comparison:
        """Return how this trade-off function lies to another: they are partly ordered.

        Parameters
        ----------
        other : TradeOff
            The trade-off function to compare with.

        Returns
        -------
        Comparison
            `relation`, which is "equal", "above", "below" or "incomparable", and
            `above_at` and `below_at`, the levels of the largest vertical gaps.

        Raises
        ------
        ValueError
            If either holds many curves.

        Notes
        -----
        The curves are compared from alpha = 1e-299 to 1 - 1e-299 at a thousand levels,
        at the corners of piecewise linear ones, and closer and closer about the levels
        where they come nearest. Beta and power are to agree in 10 digits, each; "equal"
        means that they do, and two curves that cross beyond these levels count as
        ordered.

        Examples
        --------
        >>> from fstat import GaussianTradeOff
        >>> from fstat.tradeoff import EpsilonDeltaTradeOff
        >>> GaussianTradeOff(1.0).compare(GaussianTradeOff(2.0)).relation
        'above'
        >>> GaussianTradeOff(1.0).compare(EpsilonDeltaTradeOff(1.0)).relation
        'incomparable'
        """
        return operations.compare(self, other)

    def tightest_mu(
        self, alpha_min: float = 0.0, *, beta_min: float | None = None
    ) -> float:
        r"""Return the least mu with G_mu at most f: where S is G_mu-influential.

        Parameters
        ----------
        alpha_min : float, default=0.0
            Smallest type I error that counts.
        beta_min : float, optional
            Smallest type II error that counts; `alpha_min` by default. With 0 the range
            is all of [`alpha_min`, 1].

        Returns
        -------
        float
            The largest :math:`\Phi^{-1}(1 - \alpha) - \Phi^{-1}(f(\alpha))` among the
            tests of which both errors count. *Infinite without floors* for
            :math:`f_{\epsilon, \delta > 0}`, where f is 0 before alpha is 1, and for
            normal distributions of unequal variances: name the floor with the number.

        Raises
        ------
        ValueError
            If a floor is outside [0, 1], leaves no test, or is 0 where it is not known
            how f ends.

        Warns
        -----
        UserWarning
            If the value is infinite, with the reason.

        See Also
        --------
        GaussianTradeOff.from_epsilon_delta : The mu with one (epsilon, delta).
        regret : How far f lies above its G_mu.

        Examples
        --------
        >>> from fstat.tradeoff import EpsilonDeltaTradeOff
        >>> round(EpsilonDeltaTradeOff(1.0).tightest_mu(), 4)
        1.232
        >>> round(EpsilonDeltaTradeOff(1.0, 1e-5).tightest_mu(1e-3), 4)
        1.2321
        """
        return operations.tightest_mu(self, alpha_min, beta_min)

    def regret(self, mu: float | None = None) -> float:
        r"""Return how much of f a Gaussian trade-off function leaves out.

        Parameters
        ----------
        mu : float, optional
            Of the Gaussian trade-off function; the `tightest_mu` by default.

        Returns
        -------
        float
            :math:`\sup_\alpha |f(\alpha) - G_\mu(\alpha)|`, the largest vertical gap,
            between 0 and 1. Where G_mu is a bound from below, no test of any level has
            a type II error that the bound understates by more. Reporting mu together
            with what it leaves out follows [1]_, whose measure is another one.

        Raises
        ------
        ValueError
            If `mu` is negative or infinite, or it is not given and not known how f
            ends.

        Warns
        -----
        UserWarning
            If `mu` is not given and no G_mu lies below f. The bound is then 0 at all
            levels, and the regret is f(0).

        References
        ----------
        .. [1] J. F. Gomez, B. Kulynych, G. Kaissis, F. P. Calmon, J. Hayes, B. Balle,
           A. Honkela, "Gaussian DP for reporting differential privacy guarantees in
           machine learning", 2025, arXiv:2503.10945.

        Examples
        --------
        >>> from fstat.tradeoff import LaplaceTradeOff
        >>> f = LaplaceTradeOff(1.0)
        >>> round(f.tightest_mu(), 4), round(f.regret(), 4)
        (1.0301, 0.1376)
        """
        return operations.regret(self, mu)

    def group(self, k: int) -> TradeOff:
        r"""Return the trade-off function between k-fold neighbours.

        Parameters
        ----------
        k : int
            How many replacements lie between two data sets, at least 1.

        Returns
        -------
        TradeOff
            :math:`1 - (1 - f)^{\circ k}` (Theorem 2.14 of Dong et al., 2022); for G_mu
            it is G_{k mu}.

        Raises
        ------
        ValueError
            If `k` is no whole number of at least 1, or is so large that the result is
            lost to underflow or takes too long.
        """
        k = whole_number(k, "k", 1)
        return self if k == 1 else self._group(k)

    def subsample(self, p: float) -> TradeOff:
        r"""Return the trade-off function if data are seen with probability `p`.

        Parameters
        ----------
        p : float
            Probability that the data take part, in [0, 1].

        Returns
        -------
        TradeOff
            :math:`f_p = p f + (1 - p) \mathrm{Id}`, which is
            ``T(P, (1 - p) P + p Q)``: of adding an example to a Poisson sample. It
            is not symmetric. Its `inverse` is that of removing one, and its
            `symmetrized` the :math:`C_p(f) = \min\{f_p, f_p^{-1}\}^{**}` that bounds
            both where f is symmetric (Theorem 4.2 of Dong et al., 2022).

        Raises
        ------
        ValueError
            If `p` is outside [0, 1].

        Examples
        --------
        >>> from fstat import GaussianTradeOff
        >>> f = GaussianTradeOff(1.0).subsample(0.1)
        >>> round(f(0.01), 4), round(f.inverse()(0.01), 4)
        (0.9818, 0.9889)
        """
        p = share(p, "p")
        return self if p == 1 else operations.subsample(self, p)

    def _inverse(self) -> TradeOff:
        return operations.inverse(self)

    def _symmetrized(self) -> TradeOff:
        return operations.symmetrized(self)

    def _group(self, k: int) -> TradeOff:
        return operations.group(self, k)


def one_curve(f: TradeOff, name: str = "f") -> TradeOff:
    """Return f, which must be one curve rather than an array of them."""
    if not isinstance(f, TradeOff):
        raise ValueError(f"`{name}` must be a trade-off function, got {f!r:.80}.")
    if f._shape() != ():
        raise ValueError(
            f"`{name}` must be one trade-off function, got an array of shape "
            f"{f._shape()}."
        )
    return f


def several(fs: Sequence[TradeOff]) -> tuple[TradeOff, ...]:
    """Return one trade-off function or more, each a single curve."""
    if not isinstance(fs, Sequence) or isinstance(fs, str) or not len(fs):
        raise ValueError(
            f"`fs` must be one trade-off function or more, got {fs!r:.80}."
        )
    return tuple(one_curve(f, "fs") for f in listed(fs))
