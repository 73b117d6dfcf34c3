"""Worlds whose true influence is known, and what a perfect judge would say of them.

Nothing here uses fstat. A world is a table of true mu over subsets and targets, an
estimate of it, and the retrainings by which the estimate is to be judged.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, spearmanr

COMMON = 0.36  # of the variance of a run's statistics: shared by all targets
EFFECTS = ("normal", "heavy", "few strong", "clear or hidden", "crossed")
ESTIMATES = {"perfect": 1.0, "good": 0.9, "half": 0.5, "none": 0.0, "opposite": -1.0}


class World(NamedTuple):
    """True mu, an estimate, and P and Q of retraining."""

    mu: np.ndarray
    x: np.ndarray
    P: np.ndarray
    Q: np.ndarray


def effects(rng, kind, shape):
    """Draw true mu of unit variance; with heavy tails, of the draw itself."""
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "heavy":
        mu = rng.standard_t(2, size=shape)
        return mu / mu.std()
    if kind == "few strong":  # one in ten, ten times as large as the others
        strong = rng.random(shape) < 0.1
        size = np.where(strong, 1.0, 0.1)
        return size * rng.normal(size=shape) / np.sqrt(0.1 + 0.9 * 0.01)
    if kind == "clear or hidden":  # half of the pairs a hundred times as large
        size = np.where(rng.random(shape) < 0.5, 1.0, 0.01)
        return np.sqrt(2) * size * rng.normal(size=shape)
    subset, target = rng.normal(size=(shape[0], 1)), rng.normal(size=(1, shape[1]))
    own = rng.normal(size=shape)
    return np.sqrt(0.4) * subset + np.sqrt(0.1) * target + np.sqrt(0.5) * own


def estimate(rng, kind, mu, r):
    """Return an estimate whose correlation with mu is about r."""
    noise = effects(rng, kind, mu.shape)
    return r * mu + np.sqrt(1 - r**2) * mu.std() * noise


def retrained(rng, mu, n, m):
    """Return P of shape (S, n, T) and Q of shape (m, T), of unit variance."""

    def noise(*shape):
        own = np.sqrt(1 - COMMON) * rng.normal(size=shape)
        return own + np.sqrt(COMMON) * rng.normal(size=(*shape[:-1], 1))

    S, T = mu.shape
    return noise(S, n, T) - mu[:, None], noise(m, T)


def world(rng, kind, shape, runs, reliability, r):
    """Draw a world whose mu has a given share of the variance of its estimate."""
    n, m = runs
    noise = 1 / n + 1 / m
    mu = effects(rng, kind, shape) * np.sqrt(noise * reliability / (1 - reliability))
    return World(mu, estimate(rng, kind, mu, r), *retrained(rng, mu, n, m))


def known(one):
    """Return linear and rank correlation of the estimate with the true mu."""
    x, mu = one.x.ravel(), one.mu.ravel()
    return np.corrcoef(x, mu)[0, 1], spearmanr(x, mu)[0]


def known_lds(one):
    """Return the mean rank correlation over subsets with the noiseless outcome."""
    x, y = rankdata(one.x, axis=0), rankdata(one.mu, axis=0)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    each = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return float(each.mean())


def anywhere(rng, kind, r):
    """Draw a world from the whole domain: 5 to 100 subsets, 4 to 200 runs."""
    shape = round(log_uniform(rng, 5, 100)), round(log_uniform(rng, 5, 30))
    runs = round(log_uniform(rng, 4, 200)), round(log_uniform(rng, 4, 200))
    odds = log_uniform(rng, 0.1 / 0.9, 0.99 / 0.01)
    return world(rng, kind, shape, runs, odds / (1 + odds), r)


def log_uniform(rng, low, high):
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# Effects, subsets and targets, runs without and with, reliability.
COVERED = (
    ("normal", (5, 10), (20, 40), 0.9),
    ("normal", (20, 10), (20, 40), 0.9),
    ("normal", (20, 10), (8, 16), 0.7),
    ("crossed", (10, 10), (20, 40), 0.9),
    ("crossed", (40, 10), (20, 40), 0.9),
    ("few strong", (40, 10), (20, 40), 0.97),
)


def population(kind, n_subsets, r):
    """Return what correlations are over all subsets and targets like these.

    The score over subsets is that of so many subsets, on average over targets.
    """
    rng = np.random.default_rng(0)

    def drawn(shape):
        mu = effects(rng, kind, shape)
        x = r * mu + np.sqrt(1 - r**2) * effects(rng, kind, shape)
        return World(mu, x, None, None)

    found = dict(zip(("pearson", "spearman"), known(drawn((600, 600))), strict=True))
    scores = [known_lds(drawn((n_subsets, 200))) for _ in range(200)]
    return {**found, "lds": float(np.mean(scores))}


def calibration_world(rng, n_subsets, targets, curved=False):
    """Return true mu, mu of one run, and mu of ten retrainings of subsets.

    Within a subset all is dependent: a common size, lean, and error of the one run.
    """
    shape = (n_subsets, len(targets))
    size = np.exp(0.6 * rng.normal(size=(n_subsets, 1)))
    lean = 0.7 * rng.normal(size=(n_subsets, 1))
    truth = size * (lean + targets + 0.6 * rng.normal(size=shape))
    error = 0.25 * rng.normal(size=(n_subsets, 1)) + 0.35 * rng.normal(size=shape)
    noise = np.sqrt(2 / 10 * (1 + truth**2 / 8)) * rng.normal(size=shape)
    signal = np.sign(truth) * np.abs(truth) ** 2 / 2 if curved else 0.5 * truth
    return truth, signal + error, truth + noise
