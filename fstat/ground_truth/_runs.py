"""Retrained models as arrays, mu of them, and means over parts of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray, numeric
from ..methods.central_sums import CentralSums
from ..methods.moment_summary import binormal_index, summarise_independent
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


def full_mu(runs: Runs) -> FloatArray:
    r"""Return mu from all runs, of shape (n_subsets, n_targets).

    It is the binormal index :math:`(\bar Q - \bar P) / \sqrt{(v_P + v_Q) / 2}` with
    Hedges' correction for its bias.
    """
    shift = runs.Q.mean(axis=0) - runs.P.mean(axis=1)
    return hedges(runs) * shift / pooled_deviation(runs)


def degrees_of_freedom(runs: Runs) -> float:
    """Return those of the mean variance of P and Q, were both the same."""
    return 4 / (1 / (runs.P.shape[1] - 1) + 1 / (len(runs.Q) - 1))


def hedges(runs: Runs) -> float:
    """Return the factor that frees a difference in standard deviations of bias."""
    return 1 - 3 / (4 * degrees_of_freedom(runs) - 1)


def pooled_deviation(runs: Runs, weights: FloatArray | None = None) -> FloatArray:
    """Return the root mean variance of P and Q, of shape (n_subsets, n_targets).

    `weights` are the gamma variables by which a Bayesian bootstrap resamples the runs
    with all data.
    """
    centred = runs.Q - runs.Q.mean(axis=0)
    if weights is None:
        variance = centred.var(axis=0, ddof=1)
    else:
        n, own = len(centred), weights / weights.sum()
        k = n * concentration(n)
        mean = own @ centred
        variance = n / (n - 1) * (k + 1) / k * (own @ (centred - mean) ** 2)
    return np.sqrt((runs.P.var(axis=1, ddof=1) + variance) / 2)


def means_of_parts(
    values: FloatArray, labels: NDArray[np.intp], parts: int, weights: Any = None
) -> FloatArray:
    """Return means over parts of the runs, of shape (repeats, parts, ...).

    Parameters
    ----------
    values : ndarray of shape (n_runs, ...)
        Statistics.
    labels : ndarray of int of shape (repeats, n_runs)
        Part of each run.
    parts : int
        Number of parts.
    weights : ndarray of shape (n_runs,), optional
        Weight of each run; the same by default.
    """
    own = (labels[:, None] == np.arange(parts)[:, None]).astype(float)
    own = own if weights is None else own * weights
    own = own / own.sum(axis=-1, keepdims=True)
    return np.tensordot(own, values, axes=1)


def standard_errors(runs: Runs) -> FloatArray:
    """Return the standard errors of mu from all runs, (n_subsets, n_targets)."""
    n_subsets, n, n_targets = runs.P.shape
    P = runs.P.transpose(1, 0, 2).reshape(n, -1)
    tables = CentralSums.of(P), CentralSums.of(np.tile(runs.Q, n_subsets))
    mu, error = binormal_index(summarise_independent(*tables))
    return np.sqrt(error.variance(mu)).reshape(n_subsets, n_targets)


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
    found = Runs(P, Q)
    fixed = int((~(pooled_deviation(found) > 0)).sum())
    if fixed:
        raise ValueError(
            "`truth` must vary between runs, got the same statistic in every run for "
            f"{fixed} pairs: does `train` use its seed? Leave such targets out."
        )
    return found


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
