"""Mu of named subsets while training goes on, with intervals that hold at any time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._validation import flag, instance, nonnegative, whole_number
from ..observations import Observations
from ..records.subsets import Subsets, UnmetError
from ..records.trace import Trace
from .sequence import ConfidenceSequence

if TYPE_CHECKING:
    import pandas as pd

_WINDOW = 20  # steps that the scale of a step comes from


class Writer(Protocol):
    """What scalars are written to, such as TensorBoard's ``SummaryWriter``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write a value."""


class Watch:
    """Looks at the influence of a few subsets again and again while training goes on.

    The intervals are a confidence sequence: however often one looks, and whenever one
    stops because of what is seen, with a probability of `confidence_level` none of a
    pair's intervals ever misses the mean influence per step so far.

    Parameters
    ----------
    subsets : mapping of str to array-like, or as `fstat.Trace.observations` takes it
        The subsets.
    targets : str or sequence of str, optional
        Targets of the trace; all by default.
    every : int, default=50
        Look after so many further recorded steps.
    confidence_level : float, default=0.95
        Level of each pair's sequence of intervals.
    negligible : float, default=0.0
        A pair is decided when its interval lies beyond plus or minus so much, or
        within.
    stop : bool, default=False
        Whether the callbacks of trainers end training once all pairs are decided.
    writer : object with ``add_scalar(tag, value, step)``, optional
        Where mu and its ends are written to.
    log : callable, optional
        Takes a line of text for each look, such as ``print``.

    Attributes
    ----------
    decided : bool
        Whether all pairs are decided.

    Raises
    ------
    ValueError
        If `every` or `negligible` is out of range.

    Notes
    -----
    The intervals are asymptotic, and infinite until a subset was met in 20 steps.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import Trace, Watch
    >>> rng, trace = np.random.default_rng(0), Trace(targets=["z"])
    >>> watch = Watch({"harmful": [0, 1, 2, 3]}, every=100)
    >>> for step in range(1000):
    ...     batch = rng.permutation(20)[:8]
    ...     pull = rng.normal(size=8) - 1.0 * (batch < 4)
    ...     trace.append(step, batch, alignment=pull[:, None], target_norm=[1.0])
    ...     if watch.look(trace):
    ...         break
    >>> step
    99
    >>> watch.to_frame()[["subset", "target", "mu", "low", "high"]].round(1)
        subset target   mu  low  high
    0  harmful      z -0.4 -0.6  -0.3
    """

    def __init__(
        self,
        subsets: Subsets,
        *,
        targets: Sequence[str] | str | None = None,
        every: int = 50,
        confidence_level: float = 0.95,
        negligible: float = 0.0,
        stop: bool = False,
        writer: Writer | None = None,
        log: Callable[[str], Any] | None = None,
    ) -> None:
        self._subsets, self._targets = subsets, targets
        self._every = whole_number(every, "every", 1)
        self._negligible = nonnegative(negligible, "negligible")
        self._level, self.stop = confidence_level, flag(stop, "stop")
        self._writer, self._log = writer, log
        self._begin()

    def _begin(self) -> None:
        self._seen, self._last = 0, -1
        self._names: dict[str, np.ndarray] = {}
        self._sequence = ConfidenceSequence(
            confidence_level=self._level, paired=True, scale=1.0
        )
        self._empty = True
        self.decided = False

    def look(self, trace: Trace) -> bool:
        """Take in what was recorded since the last look, if that is `every` steps.

        Parameters
        ----------
        trace : Trace
            The trace of the run, always the same.

        Returns
        -------
        bool
            Whether all pairs are decided.
        """
        instance(trace, "trace", Trace)
        if trace.n_recorded < self._seen or trace.n_steps <= self._last:
            self._begin()  # the run went back to a checkpoint
        new = trace.n_recorded - self._seen
        if new < self._every:
            return self.decided
        needed = new + _WINDOW
        recent = trace.last(needed) if needed < trace.n_recorded else trace
        self._seen = trace.n_recorded
        with warnings.catch_warnings(), suppress(UnmetError):
            warnings.filterwarnings("ignore", "No step was observed")
            self._take(
                recent.observations(self._subsets, self._targets, window=_WINDOW)
            )
        self._last = trace.n_steps - 1
        self._report()
        return self.decided

    def _take(self, observations: Observations) -> None:
        """Feed the steps after the last look to the sequence."""
        self._names = observations.names
        fresh = observations.step > self._last
        if not fresh.any():
            return
        steps, row = np.unique(observations.step[fresh], return_inverse=True)
        p, q = np.full((2, len(steps), observations.n_pairs), np.nan)
        p[row, observations.pair[fresh]] = observations.p[fresh]
        q[row, observations.pair[fresh]] = observations.q[fresh]
        self._sequence.update(p, q)
        self._empty = False
        low, high = map(np.asarray, self._sequence.interval())
        beyond = (low > self._negligible) | (high < -self._negligible)
        within = (low > -self._negligible) & (high < self._negligible)
        self.decided = bool((beyond | within).all())

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates of the last look, one row a pair.

        Returns
        -------
        DataFrame
            The pairs' names, `mu`, `low`, `high` and `n`, the number of steps that
            they come from; empty before the first look.
        """
        import pandas as pd

        n_pairs = len(next(iter(self._names.values()), ()))
        values: dict[str, Any] = dict.fromkeys(("mu", "low", "high"), np.nan)
        values["n"] = np.zeros(n_pairs)
        if not self._empty:
            low, high = self._sequence.interval()
            n = self._sequence.n_observations[1]
            mu = np.where(n > 0, self._sequence.mu, np.nan)
            values = {"mu": mu, "low": low, "high": high, "n": n}
        return pd.DataFrame({**self._names, **values})

    def _report(self) -> None:
        lines = [f"step {self._last}:"]
        for names, row in zip(
            zip(*self._names.values(), strict=True),
            self.to_frame().itertuples(),
            strict=True,
        ):
            label = "/".join(map(str, names))
            lines.append(f"{label} mu {row.mu:.2f} in [{row.low:.2f}, {row.high:.2f}]")
            if self._writer is not None:
                for name in ("mu", "low", "high"):
                    value = float(getattr(row, name))
                    if np.isfinite(value):
                        self._writer.add_scalar(
                            f"influence/{label}/{name}", value, self._last
                        )
        if self._log is not None:
            self._log(" ".join(lines[:1]) + " " + "; ".join(lines[1:]))
