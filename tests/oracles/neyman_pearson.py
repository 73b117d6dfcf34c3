"""Neyman-Pearson by brute force: cells of the line, sorted by likelihood ratio."""

import numpy as np


def cells(P, Q, n=100_000):
    """Return the probabilities of fine cells of the line under P and under Q."""
    tails = np.geomspace(1e-16, 1e-3, 4000)
    u = np.concatenate([tails, np.linspace(1e-3, 0.5, n)])
    x = np.concatenate([v for D in (P, Q) for v in (D.ppf(u), D.isf(u))])
    ends = np.array([end for D in (P, Q) for end in D.support()], dtype=float)
    x = np.unique(np.concatenate([x, ends[np.isfinite(ends)]]))
    x = x[np.isfinite(x)]
    return mass(P, x), mass(Q, x)


def mass(D, x):
    """Return the probabilities between neighbouring places, and beyond them."""
    below, above = D.cdf(x), D.sf(x)
    inner = np.where(below[1:] <= above[:-1], np.diff(below), -np.diff(above))
    return np.concatenate([below[:1], np.maximum(inner, 0.0), above[-1:]])


def least_beta(p, q, alpha):
    """Return the least type II errors of tests at levels, of discrete outcomes."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(p > 0, q / p, np.inf)
    ratio = np.where((p == 0) & (q == 0), 0.0, ratio)
    order = np.argsort(-ratio, kind="stable")
    levels = np.append(0.0, np.cumsum(p[order]))
    betas = np.append(np.cumsum(q[order][::-1])[::-1], 0.0)
    # Of outcomes that P never shows, all are rejected at level 0.
    last = np.searchsorted(levels, 0.0, side="right") - 1
    return np.interp(alpha, levels[last:], betas[last:])
