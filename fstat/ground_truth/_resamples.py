r"""Intervals of measures over subsets and targets, from resamples of both.

Write :math:`A` and :math:`B` for the variances of a measure due to the subsets and to
the targets, and :math:`E` for that due to their pairs. Subsets drawn alone vary by
:math:`A + E`, targets alone by :math:`B + E`, and both together by
:math:`A + B + 3 E` [1]_. So the variance :math:`A + B + E` of the measure itself is
twice the first two, less the third.

References
----------
.. [1] A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._validation import FloatArray


class Resamples(NamedTuple):
    """A measure in resamples; NaN where it has no value.

    Parameters
    ----------
    both : ndarray of shape (n_resamples,)
        Subsets and targets drawn, independently of each other, and all that is random
        beside them.
    subsets : ndarray
        Subsets drawn, all targets kept, and all that is random beside them.
    targets : ndarray
        Targets drawn, all else kept.
    """

    both: FloatArray
    subsets: FloatArray
    targets: FloatArray

    def minus(self, other: Resamples) -> Resamples:
        """Return the difference of two measures of the same resamples."""
        pairs = zip(self, other, strict=True)
        return Resamples(*(one - two for one, two in pairs))

    def over_root_of(self, other: Resamples) -> Resamples:
        """Return a measure over the root of another one."""
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = zip(self, other, strict=True)
            return Resamples(*(one / np.sqrt(two) for one, two in pairs))

    @property
    def stderr(self) -> float:
        """Standard error of the measure, at most that of `both`."""
        with np.errstate(invalid="ignore"):
            both, subsets, targets = (_variance(one) for one in self)
        own = np.clip(2 * (subsets + targets) - both, max(subsets, targets), both)
        return float(np.sqrt(own))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval that holds most resamples of both, of the right width.

        Equal shares of `both` lie outside on either side of percentiles; these are then
        drawn in towards the median, so that the spread is `stderr`. NaN where a larger
        share of the resamples than lies outside on one side is NaN.
        """
        seen = self.both[~np.isnan(self.both)]
        outside = (1 - level) / 2
        if len(seen) < (1 - outside) * len(self.both):
            return np.nan, np.nan
        spread = float(np.std(seen))
        drawn_in = self.stderr / spread if spread > 0 else 1.0
        centre, *ends = np.quantile(seen, [0.5, outside, 1 - outside])
        low, high = centre + drawn_in * (np.array(ends) - centre)
        return float(low), float(high)


def _variance(draws: FloatArray) -> float:
    seen = draws[~np.isnan(draws)]
    return float(np.var(seen)) if len(seen) else 0.0
