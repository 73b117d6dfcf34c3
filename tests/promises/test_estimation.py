"""Every option on every kind of clean array: a whole answer, or a sentence."""

import itertools
import warnings

import numpy as np
import pytest

from fstat import FInfluence
from fstat.influence import UnestimableWarning
from fstat.intervals import Bootstrap, Serial
from fstat.methods import Moments

METHODS = ("moments", "rank", "binormal", "quantile", "supremum")
DEPENDENCE = ("independent", "serial", "clustered")
INTERVALS = ("auto", "bootstrap", "sequence")


def samples(rng, n, m, pairs):
    """Draw arrays with outliers, ties, gaps, constants and sizes of any scale."""
    kind = rng.integers(8, size=pairs)
    P, Q = rng.standard_t(1.5, (n, pairs)), rng.normal(rng.normal(), 1, (m, pairs))
    for column, k in enumerate(kind):
        p, q = P[:, column], Q[:, column]
        if k == 0:
            p[:] = rng.integers(0, 3, n)
            q[:] = rng.integers(0, 3, m)
        elif k == 1:
            p[:] = 0.1
            q[rng.random(m) < 0.5] = 0.1
        elif k == 2:
            p[rng.random(n) < 0.3] = np.nan
            q[rng.random(m) < 0.3] = np.nan
        elif k == 3:
            q[rng.integers(m)] = 1e300
        elif k == 4:
            p += 1e9
            q += 1e9
        elif k == 5:
            p *= 1e-308
            q *= 1e-308
        elif k == 6:
            q[:] = p[0]
    power = rng.choice([0, 0, -900, 700], pairs)
    with np.errstate(over="ignore"):
        P, Q = np.ldexp(P, power), np.ldexp(Q, power)
    return (np.where(np.isinf(x), np.sign(x) * 1e308, x) for x in (P, Q))


def options(rng):
    method = str(rng.choice(METHODS))
    chosen = {"method": method, "paired": bool(rng.integers(2))}
    if method == "supremum":
        return chosen
    chosen["dependence"] = str(rng.choice(DEPENDENCE))
    chosen["interval"] = str(rng.choice(INTERVALS))
    if chosen["dependence"] == "serial":
        long_run = str(rng.choice(["batch_means", "ar1", "hac"]))
        if (method, chosen["interval"]) == ("moments", "sequence"):
            long_run = "ar1"  # sums of running moments know no other
        chosen["dependence"] = Serial(long_run)
    if chosen["interval"] == "bootstrap":
        chosen["interval"] = Bootstrap(49, random_state=0)
    if method == "moments" and chosen["dependence"] == "independent":
        extra = rng.integers(4)
        if extra == 1:
            chosen["method"] = Moments(scale="pooled")
        elif extra == 2:
            chosen["method"] = Moments(scale=10 ** rng.uniform(-300, 300))
        elif extra == 3 and not isinstance(chosen["interval"], Bootstrap):
            chosen["method"] = Moments(shrinkage="moderated")
    return chosen


def tried(seed):
    rng = np.random.default_rng([11, seed])
    chosen = options(rng)
    n, m = rng.integers(1, 30, 2)
    m = n if chosen["paired"] else m
    P, Q = samples(rng, n, m, 5)
    labels = None
    if chosen.get("dependence") == "clustered":
        labels = rng.integers(0, 6, n), rng.integers(0, 6, m)
        labels = (labels[0], labels[0]) if chosen["paired"] else labels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UnestimableWarning)
        influence = FInfluence(**chosen).fit(P, Q, runs=labels)
        for level, null in itertools.product((0.5, 1 - 1e-9), (0.0, -3.0, 1e3)):
            low, high = influence.confidence_interval(level)
            for alternative in ("two-sided", "less", "greater"):
                pvalue = influence.pvalue(null, alternative)
                known = ~np.isnan(influence.mu_)
                if isinstance(chosen.get("interval"), Bootstrap):
                    # Resamples may lack an estimate; then a warning counts the pairs.
                    known &= influence.separated_ | ~np.isnan(influence.stderr_)
                assert ((pvalue >= 0) & (pvalue <= 1))[known].all(), chosen
            assert (low <= high)[known].all(), chosen
    return known.mean()


@pytest.mark.parametrize("start", [0, pytest.param(40, marks=pytest.mark.slow)])
def test_any_option_on_any_numbers(start):
    for seed in range(start, start + 40):
        try:
            tried(seed)
        except ValueError as error:
            assert str(error).startswith("`shrinkage='moderated'` needs"), error


@pytest.mark.slow
def test_many_more_of_them():
    for seed in range(80, 6000):
        try:
            tried(seed)
        except ValueError as error:
            assert str(error).startswith("`shrinkage='moderated'` needs"), error
