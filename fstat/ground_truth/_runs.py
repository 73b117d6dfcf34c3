r"""Retrained models as arrays, and mu of parts of them.

Mu of retraining is itself an estimate. Parts of the runs that have no run in common
give estimates with independent errors, so that products of two of them are free of
the bias that squares of one would have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import FloatArray, numeric
from ..methods.central_sums import CentralSums
from ..methods.moments import binormal_index, summarise_independent
from ..observations import Observations


class Runs(NamedTuple):
    """Statistics of all retrained models.

    Parameters
    ----------
    P : ndarray of shape (n_subsets, n_runs_without, n_targets)
        Without each subset.
    Q : ndarray of shape (n_runs, n_targets)
        With all data.
    """

    P: FloatArray
    Q: FloatArray

    @classmethod
    def of(cls, truth: object) -> Runs:
        """Return the runs of observations, of an estimator's, or of arrays (P, Q)."""
        observations = getattr(truth, "observations_", truth)
        if isinstance(observations, Observations):
            return _runs_of(observations)
        if isinstance(truth, tuple) and len(truth) == 2:
            return _checked(*(numeric(x, n) for x, n in zip(truth, "PQ", strict=True)))
        raise ValueError(
            "`truth` must be observations of `retrain`, a fitted MultiRunInfluence or "
            f"a tuple (P, Q), got {truth!r:.80}."
        )


def concentration(n: int) -> float:
    """Return the shape of gamma weights that give means their unbiased variance.

    The mean of n values with Dirichlet weights of shape k varies by their mean square
    deviation over ``n k + 1``; with ``k = (n - 2) / n`` that is the variance of the
    mean.
    """
    return max(n - 2, 1) / n


def random_parts(
    n: int, parts: int, repeats: int, rng: np.random.RandomState
) -> NDArray[np.intp]:
    """Return which part each run belongs to, of shape (repeats, n)."""
    order = np.argsort(rng.random_sample((repeats, n)), axis=1)
    return order * parts // n


def mu_of_parts(
    runs: Runs,
    parts: int,
    labels: tuple[ArrayLike, ArrayLike],
    weights: FloatArray | None = None,
) -> FloatArray:
    r"""Return mu of each part of the runs.

    It is the binormal index :math:`(\bar Q - \bar P) / \sqrt{(v_P + v_Q) / 2}` with
    Hedges' correction, so that small parts are not biased away from 0.

    Parameters
    ----------
    runs : Runs
        All runs.
    parts : int
        Number of parts.
    labels : pair of ndarray of int of shape (repeats, n_runs)
        Part of each run without a subset, and with all data.
    weights : ndarray of shape (n_runs,), optional
        Gamma variables by which a Bayesian bootstrap resamples the runs with all data;
        by default all weigh the same.

    Returns
    -------
    ndarray of shape (repeats, parts, n_subsets, n_targets)
        Estimates of mu.
    """
    centre = runs.Q.mean(axis=0)
    P, Q = runs.P - centre, runs.Q - centre
    found = []
    for part in range(parts):
        own = [(np.asarray(label) == part).astype(float) for label in labels]
        mean_P, var_P = _moments(P, own[0])
        mean_Q, var_Q = _moments(Q, own[1], weights)
        df = 4 / sum(1 / (one.sum(axis=1) - 1) for one in own)
        with np.errstate(invalid="ignore", divide="ignore"):
            mu = (mean_Q - mean_P) / np.sqrt((var_P + var_Q) / 2)
        found.append((1 - 3 / (4 * df - 1))[:, None] * mu)
    return np.stack(found).transpose(2, 0, 1, 3)


def full_mu(runs: Runs) -> FloatArray:
    """Return mu from all runs, of shape (n_subsets, n_targets)."""
    labels = (np.zeros((1, runs.P.shape[1])), np.zeros((1, len(runs.Q))))
    return np.asarray(mu_of_parts(runs, 1, labels)[0, 0])


def standard_errors(runs: Runs) -> FloatArray:
    """Return the standard errors of mu from all runs, (n_subsets, n_targets)."""
    n_subsets, n, n_targets = runs.P.shape
    P = runs.P.transpose(1, 0, 2).reshape(n, -1)
    tables = CentralSums.of(P), CentralSums.of(np.tile(runs.Q, n_subsets))
    mu, error = binormal_index(summarise_independent(*tables))
    return np.sqrt(error.variance(mu)).reshape(n_subsets, n_targets)


def _moments(
    values: FloatArray, own: FloatArray, gamma: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return weighted means and unbiased variances, (..., repeats, n_targets)."""
    n = own.sum(axis=1)
    freedom = n / (n - 1)
    if gamma is not None:
        k = n * concentration(own.shape[1])
        freedom = freedom * (k + 1) / k
        own = own * gamma
    own = own / own.sum(axis=-1, keepdims=True)
    mean = own @ values
    variance = np.maximum(own @ values**2 - mean**2, 0.0)
    return mean, freedom[:, None] * variance


def _checked(P: FloatArray, Q: FloatArray) -> Runs:
    if P.ndim != 3 or Q.ndim != 2 or P.shape[2] != Q.shape[1]:
        raise ValueError(
            "`truth` must hold P of shape (n_subsets, n_runs_without, n_targets) and Q "
            f"of shape (n_runs, n_targets), got {P.shape} and {Q.shape}."
        )
    if min(P.shape[1], len(Q)) < 4:
        raise ValueError(
            "`truth` must hold at least 4 runs with and 4 without each subset, so that "
            f"its own noise can be told, got {len(Q)} and {P.shape[1]}."
        )
    if not (np.isfinite(P).all() and np.isfinite(Q).all()):
        raise ValueError("`truth` must be finite, got NaN or infinite statistics.")
    return Runs(P, Q)


def _runs_of(observations: Observations) -> Runs:
    if not {"subset", "target"} <= observations.names.keys():
        raise ValueError(
            "`truth` must be observations of `retrain`, with names `subset` and "
            f"`target`, got {sorted(observations.names)}."
        )
    n_targets = len(np.unique(observations.names["target"]))
    n_subsets = observations.n_pairs // n_targets
    order = np.lexsort((observations.run, observations.pair))
    columns = [observations.p[order], observations.q[order]]
    pair = observations.pair[order]
    table = []
    for column in columns:
        seen = ~np.isnan(column)
        counts = np.bincount(pair[seen], minlength=observations.n_pairs)
        if len(set(counts.tolist())) != 1 or n_subsets * n_targets != len(counts):
            raise ValueError(
                "`truth` must hold each subset with each target, in as many runs, got "
                f"between {counts.min()} and {counts.max()} runs."
            )
        grid = column[seen].reshape(n_subsets, n_targets, counts[0])
        table.append(np.moveaxis(grid, 2, 1))
    P, Q = table
    if (Q[:1] != Q).any():
        raise ValueError(
            "`truth` must share its runs with all data among all subsets, as those of "
            "`retrain` do, got others for some subsets."
        )
    return _checked(P, Q[0])
