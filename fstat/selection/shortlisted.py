"""Which pairs to look at where known bad pairs are all that is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import number, numeric, option
from ._pairs import mask_of


def shortlist(
    scores: ArrayLike,
    planted: ArrayLike,
    *,
    miss_rate: float = 0.1,
    alternative: str = "greater",
) -> NDArray[np.bool_]:
    r"""Return the pairs to look at, so that few bad ones are left out.

    For users without any trusted pair: plant some known bad ones before training,
    such as labels flipped at random. The list says nothing of how many of its pairs
    are bad; look at a random part of it to know.

    Parameters
    ----------
    scores : array-like of shape (n_pairs,)
        Scores of all pairs, the planted ones among them. NaN is never listed.
    planted : array-like
        Numbers of the planted pairs, or a mask over `scores`.
    miss_rate : float, default=0.1
        Probability with which a bad pair is left out.
    alternative : {"greater", "less"}, default="greater"
        Whether bad pairs have large or small scores.

    Returns
    -------
    ndarray of bool of shape (n_pairs,)
        Which pairs to look at; planted ones are none of them.

    Raises
    ------
    ValueError
        If an argument is not one of its options, `miss_rate` is below 1e-9, or the
        planted pairs with a score are fewer than ``1 / miss_rate - 1``.

    See Also
    --------
    fstat.select : At a stated false discovery rate, which takes trusted pairs.

    Notes
    -----
    Of n planted pairs and a bad one whose scores are exchangeable, the bad one is
    among the ``k = floor(miss_rate (n + 1))`` least suspicious with probability
    ``k / (n + 1)`` at most [1]_. So the pairs listed are those no less suspicious than
    the k-th planted one. This asks that real mistakes are like planted ones; easier
    to see ones than real mistakes leave out more.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
       Springer, 2005, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat.selection import shortlist
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.gamma(2.0, size=1000)
    >>> scores[:150] += 5.0               # bad, of which the first 50 were planted
    >>> listed = shortlist(scores, np.arange(50))
    >>> int(listed.sum()), int(listed[50:150].sum())
    (112, 89)
    """
    option(alternative, "alternative", ("greater", "less"))
    rate = number(miss_rate, "miss_rate", "[1e-9, 1)")
    score = numeric(scores, "scores")
    if score.ndim != 1:
        raise ValueError(f"`scores` must have shape (n_pairs,), got {score.shape}.")
    mask = mask_of(planted, len(score), "planted")
    suspicion = score if alternative == "greater" else -score
    ranked = np.sort(suspicion[mask & ~np.isnan(score)])
    k = int(rate * (len(ranked) + 1) + 1e-9)
    if k < 1:
        least = np.ceil(1 / rate - 1 - 1e-9)
        raise ValueError(
            f"`planted` must hold at least {least:.10g} pairs with a score for "
            f"miss_rate={rate:g}, got {len(ranked)}."
        )
    with np.errstate(invalid="ignore"):
        return np.asarray((suspicion >= ranked[k - 1]) & ~mask)
