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
from scipy.special import ndtr, ndtri

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

    @property
    def drawn_in(self) -> float:
        """Standard error of the measure as a share of the spread of `both`, at most 1.

        Variances are those of normal scores, which each draw has by its place among
        those of `both`: they are the same on every scale of the measure, and a long
        tail on one side does not decide them.
        """
        both, subsets, targets = (_variance(self._scores(one)) for one in self)
        if not both:
            return 1.0
        own = np.clip(2 * (subsets + targets) - both, max(subsets, targets), both)
        return float(np.sqrt(own / both))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval that holds most resamples of both, of the right width.

        Equal shares of `both` lie outside on either side. On the scale on which `both`
        is normal, the interval is `drawn_in` times as wide as that for `level`. NaN
        where a larger share of the resamples than lies outside for `level`, on one
        side, is NaN.
        """
        seen = self.both[~np.isnan(self.both)]
        outside = (1 - level) / 2
        if len(seen) < (1 - outside) * len(self.both):
            return np.nan, np.nan
        outside = float(ndtr(self.drawn_in * ndtri(outside)))
        low, high = np.quantile(seen, [outside, 1 - outside])
        return float(low), float(high)

    def _scores(self, draws: FloatArray) -> FloatArray:
        """Return the normal scores of draws by their places among those of `both`."""
        seen, given = np.sort(self.both[~np.isnan(self.both)]), draws[~np.isnan(draws)]
        places = [np.searchsorted(seen, given, side=side) for side in ("left", "right")]
        share = np.add(*places) / (2 * max(len(seen), 1))
        edge = 0.5 / max(len(seen), 1)
        return np.asarray(ndtri(np.clip(share, edge, 1 - edge)))


def _variance(scores: FloatArray) -> float:
    return float(np.var(scores)) if len(scores) else 0.0
