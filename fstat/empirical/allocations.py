"""How two samples share the probability that a joint statement about them fails."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2


def allocations(
    miss: float, *, independent: bool, cells: int
) -> list[tuple[float, float]]:
    r"""Return pairs of failure probabilities, one of which is right.

    Bounds are given for P at any failure probability, and for Q. For each pair, take
    the bounds of P at the first and those of Q at the second: with probability
    ``1 - miss``, at least, both hold for one of the pairs. What follows from every
    pair is therefore true.

    Samples that may depend on each other get one pair, ``miss / 2`` for each. For
    independent samples let p and q be the least probabilities at which the bounds
    fail. These are p-values, and by Fisher's method [1]_ :math:`pq > c` with
    probability ``1 - miss``, where :math:`c (1 - \log c) = miss`. The curve
    :math:`pq = c` is covered by cells, each by its smaller p and its smaller q.

    Parameters
    ----------
    miss : float
        Probability of failure, below 1/2.
    independent : bool
        Whether the samples are independent of each other.
    cells : int
        Number of cells: the more, the less is given away between them.

    Returns
    -------
    list of tuple of two floats
        Probabilities of failure for P and for Q, none above 1/2.

    References
    ----------
    .. [1] R. A. Fisher, "Statistical Methods for Research Workers", 4th edition,
       1932, section 21.1.
    """
    # A chi-squared variable of four degrees of freedom is -2 log(pq).
    c = float(np.exp(-chi2.isf(miss, 4) / 2))
    if not independent or c >= 0.25:
        return [(miss / 2, miss / 2)]
    # A p-value above 1/2 counts as 1: bounds at 1/2 hold there.
    edges = np.geomspace(2 * c, 0.5, cells + 1)[:-1].tolist()
    # Up to p = edges[k + 1], q is above c / edges[k + 1], and that is an edge too.
    return [(c, 0.5), *zip(edges, reversed(edges), strict=True), (0.5, c)]
