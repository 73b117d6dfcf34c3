r"""Which pairs are strong, when the truth that says so is noisy.

The truth of a pair is :math:`\theta`, retraining gives :math:`m \sim N(\theta, s^2)`
and one run gives x. How :math:`\theta` is distributed at each place of x is learnt from
all pairs by maximum likelihood on a grid (the EM algorithm of Kiefer and Wolfowitz's
estimator), with pairs of a similar x counting most. Bayes' theorem then gives each pair
a probability of lying above a threshold, instead of a label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import ndtri

from .._validation import FloatArray

_BANDWIDTH = 0.15  # in standard deviations of x, were it normal
_ITERATIONS = 60
_NODES = 41


def probability_beyond(
    x: FloatArray, m: FloatArray, s: FloatArray, threshold: float, count: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the probabilities that a pair's truth lies beyond a threshold.

    Parameters
    ----------
    x : ndarray of shape (n_pairs,)
        Estimates of one run; only their order counts.
    m, s : ndarray of shape (n_pairs,)
        Mu of retraining and its standard errors.
    threshold : float
        Threshold.
    count : ndarray of shape (n_pairs,)
        How often each pair was drawn; more than 0.

    Returns
    -------
    above, below : ndarray of shape (n_pairs,)
        Of exceeding the threshold, and of lying below minus it.
    """
    theta = _grid(m, s, threshold)
    place, near = _neighbours(x, count)
    order = np.argsort(place, kind="stable")
    place, count = place[order], count[order]
    first = np.flatnonzero(np.diff(place, prepend=-1))
    logs = -0.5 * ((m[order, None] - theta) / s[order, None]) ** 2
    likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
    prior = np.broadcast_to(_flat(theta, s), (len(near), len(theta)))
    # Row p holds, for the pairs at place p, what each of them weighs there.
    ends = np.append(first, len(x))
    weights = csr_array((count, np.arange(len(x)), ends), (len(near), len(x)))
    for _ in range(_ITERATIONS):
        weights.data = count / _evidence(likelihood, prior[place])
        prior = near @ (prior * (weights @ likelihood))
        prior = prior / prior.sum(axis=1, keepdims=True)
    last = likelihood * prior[place]
    last /= _evidence(likelihood, prior[place])[:, None]
    found = np.empty((2, len(x)))
    for row, beyond in enumerate((theta > threshold, theta < -threshold)):
        found[row, order] = last[:, beyond].sum(axis=1)
    return found[0], found[1]


def deconvolved_aurocs(
    x: FloatArray, m: FloatArray, s: FloatArray, threshold: float, count: FloatArray
) -> tuple[float, float]:
    """Return the areas under the ROC curves of one run, free of the truth's noise.

    Parameters
    ----------
    x, m, s, threshold, count
        As `probability_beyond` takes them.

    Returns
    -------
    above, below : float
        For pairs whose truth exceeds the threshold, and for those below minus it; NaN
        where less than one is expected.
    """
    above, below = probability_beyond(x, m, s, threshold, count)
    return soft_auroc(x, above, count), soft_auroc(-x, below, count)


def soft_auroc(x: FloatArray, above: FloatArray, count: FloatArray) -> float:
    """Return the area under the ROC curve for probabilities of being positive.

    It is the chance that x of a positive pair exceeds that of a negative one, ties
    counting half, where each pair is drawn as often as `count` says and no pair is set
    against itself. NaN where less than one pair of a kind is expected.
    """
    _, rank = np.unique(x, return_inverse=True)
    positive, negative = count * above, count * (1 - above)
    p, n = np.bincount(rank, positive), np.bincount(rank, negative)
    itself = float(positive @ negative)
    won = float(p @ (np.cumsum(n) - n / 2)) - itself / 2
    drawn = float(p.sum() * n.sum()) - itself
    enough = min(p.sum(), n.sum()) >= 1 and drawn > 0
    return won / drawn if enough else np.nan


def _grid(m: FloatArray, s: FloatArray, threshold: float) -> FloatArray:
    """Return nodes that are dense, on the scale of the noise, at 0 and the thresholds.

    No node lies on a threshold.
    """
    scale = s.mean()
    reach = np.arcsinh((np.abs(m).max() + abs(threshold)) / scale)
    steps = scale * np.sinh(np.linspace(-reach, reach, _NODES + 1))
    return np.unique(np.concatenate([steps, threshold + steps, steps - threshold]))


def _flat(theta: FloatArray, s: FloatArray) -> FloatArray:
    """Return the prior to start from, flat on the scale of the grid about 0."""
    density = np.gradient(np.arcsinh(theta / s.mean()))
    return np.asarray(density / density.sum())


def _evidence(likelihood: FloatArray, prior: FloatArray) -> FloatArray:
    """Return how likely each pair's mu is, were its truth drawn from its prior."""
    evidence = np.einsum("ij,ij->i", likelihood, prior)
    return np.asarray(np.maximum(evidence, np.finfo(float).tiny))


def _neighbours(
    x: FloatArray, count: FloatArray
) -> tuple[NDArray[np.intp], FloatArray]:
    """Return each pair's place in the order of x, and how much places share."""
    _, rank = np.unique(x, return_inverse=True)
    times = np.bincount(rank, count)
    middle = np.cumsum(times) - (times - 1) / 2
    normal = ndtri(middle / (times.sum() + 1))[rank]
    place = np.round(normal / (_BANDWIDTH / 2)).astype(int)
    _, place = np.unique(place, return_inverse=True)
    centre = np.bincount(place, count * normal) / np.bincount(place, count)
    apart = (centre[:, None] - centre) / _BANDWIDTH
    return place, np.exp(-0.5 * apart**2)
