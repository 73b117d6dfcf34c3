"""Decisions about many pairs, by loops over definitions and by closed forms."""

from itertools import pairwise

import numpy as np
from scipy.integrate import quad, trapezoid
from scipy.special import ndtr
from scipy.stats import norm, studentized_range, t


def step_up_qvalues(pvalues, dependence="positive"):
    """Return the least rate at which the step-up procedure rejects, NaN left out.

    At each p-value as a threshold: tests times the threshold over rejections.
    """
    family = [p for p in pvalues if not np.isnan(p)]
    m = len(family)
    price = 1.0
    if dependence == "arbitrary":
        price = sum(1 / k for k in range(1, m + 1))

    def rate(threshold):
        return price * m * threshold / sum(p <= threshold for p in family)

    return np.array(
        [
            np.nan
            if np.isnan(p)
            else min(1.0, *(rate(threshold) for threshold in family if threshold >= p))
            for p in pvalues
        ]
    )


def conformal_pvalue(score, references, alternative):
    """Return the place of one score among references, each tie against it."""
    n = len(references)
    above = (1 + sum(r >= score for r in references)) / (n + 1)
    below = (1 + sum(r <= score for r in references)) / (n + 1)
    both = min(1.0, 2 * min(above, below))
    return {"greater": above, "less": below, "two-sided": both}[alternative]


def corrected_qvalues(scores, references, alternative, missed):
    """Return q-values where the check of the references missed a share of bad ones."""
    p = [conformal_pvalue(s, references, alternative) for s in scores]
    m = len(p)
    least = (2 if alternative == "two-sided" else 1) / (len(references) + 1)

    def rate(threshold):
        rejected = sum(q <= threshold for q in p)
        plain = m * threshold / rejected
        return max((plain - missed) / (1 - missed), m * least / rejected)

    return np.array([min(1.0, *(rate(u) for u in p if u >= q)) for q in p])


def contaminated_rate(fdr, share_bad, share_bad_references, anything):
    """Return the false discovery rate at the level ``missed + (1 - missed) fdr``.

    Candidates are a mixture of pairs like the references, in the share w, and of bad
    ones in excess. Benjamini and Hochberg keep the share of the former among those
    selected, in expectation, at w times the level; of the bad selected a share
    `missed` belongs to the former, whatever their scores.
    """
    w = (1 - share_bad) / (1 - share_bad_references)
    missed = share_bad_references * w / share_bad
    level = missed + (1 - missed) * fdr
    return (w * level - missed * anything) / (1 - missed), missed


def equicorrelated_level(level, n, rho):
    """Return the level of each of n normal intervals that hold together at `level`."""

    x = np.linspace(-9, 9, 4001)[:, None]
    shift, scale = np.sqrt(rho) * x, np.sqrt(1 - rho)

    def together(c):
        inside = ndtr((c - shift) / scale) - ndtr((-c - shift) / scale)
        return trapezoid(inside[:, 0] ** n * norm.pdf(x[:, 0]), x[:, 0])

    low, high = 0.0, 10.0
    for _ in range(60):
        c = (low + high) / 2
        low, high = (low, c) if together(c) > level else (c, high)
    return 1 - 2 * ndtr(-c)


def tukey_level(level, n):
    """Return the level of intervals whose overlap is Tukey's test of n equal pairs."""
    return 1 - 2 * ndtr(-studentized_range.ppf(level, n, np.inf) / 2)


def rank_set(low, high, i):
    """Return the least and largest rank of one interval among all that hold."""
    above = sum(low[j] > high[i] for j in range(len(low)))
    below = sum(high[j] < low[i] for j in range(len(low)))
    return 1 + above, len(low) - below


def true_ranks(mu, i):
    """Return the least and largest rank that a pair shares with its equals."""
    return 1 + sum(m > mu[i] for m in mu), sum(m >= mu[i] for m in mu)


def sign_error_rates(effect, stderr, alpha, df):
    """Return power, type S error and exaggeration by integration over the error."""
    law = norm if np.isinf(df) else t(df)
    critical = -law.ppf(alpha / 2) * stderr
    size = abs(effect)

    def beyond(side, weight):
        # In pieces, lest the integration oversees where the density is.
        middle = size + stderr * np.array([-40.0, -6.0, 0.0, 6.0, 40.0])
        ends = np.r_[-np.inf, middle, np.inf]
        ends = np.maximum(ends, critical) if side > 0 else np.minimum(ends, -critical)
        return sum(
            quad(lambda x: weight(x) * law.pdf((x - size) / stderr) / stderr, a, b)[0]
            for a, b in pairwise(ends)
            if a < b
        )

    right, wrong = beyond(1, lambda x: 1.0), beyond(-1, lambda x: 1.0)
    mean = beyond(1, abs) + beyond(-1, abs)
    return right + wrong, wrong / (right + wrong), mean / (right + wrong) / size


def normal_errors(rng, n_pairs, rho, kind="equicorrelated"):
    """Return normal errors of unit variance, correlated by rho."""
    z = rng.normal(size=n_pairs)
    if kind == "AR":
        for j in range(1, n_pairs):
            z[j] = rho * z[j - 1] + np.sqrt(1 - rho**2) * z[j]
        return z
    return np.sqrt(rho) * rng.normal() + np.sqrt(1 - rho) * z
