"""CPU time of `fit` as a ratio to numpy's mean and variance of the same arrays."""

import argparse
import statistics
import time
import warnings

import numpy as np

from fstat import FInfluence, Observations
from fstat.influence import UnestimableWarning
from fstat.intervals import Serial
from fstat.methods import Moments

REPEATS = 5
UNIT = "one pass of numpy over the same arrays"
RATIOS: dict[str, float] = {}


def seconds(function):
    """Median CPU time of five calls, after one that is not counted."""
    function()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def mean_and_var(*arrays):
    return [(np.mean(a, axis=0), np.var(a, axis=0)) for a in arrays]


def dense_arrays(pairs, n):
    rng = np.random.default_rng(0)
    P = rng.standard_normal((n, pairs))
    Q = rng.standard_normal((n, pairs)) + 0.3
    unit = seconds(lambda: mean_and_var(P, Q))
    print(f"{'np.mean + np.var':36}{unit:8.3f}{1:8.2f}")
    report("moments", FInfluence(), P, Q, unit)
    report("moments, equal_var", FInfluence(method=Moments(scale="pooled")), P, Q, unit)
    report(
        "moments, moderated",
        FInfluence(method=Moments(shrinkage="moderated")),
        P,
        Q,
        unit,
    )
    report("moments, paired", FInfluence(paired=True), P, Q, unit)
    part = P[:, : pairs // 10].copy(), Q[:, : pairs // 10].copy()
    small = seconds(lambda: mean_and_var(*part))
    for method in ("rank", "binormal", "quantile", "supremum"):
        label = f"{method}, {pairs // 10:,} pairs"
        report(label, FInfluence(method=method), *part, small)
    for long_run in ("batch_means", "ar1", "hac"):
        serial = FInfluence(dependence=Serial(long_run=long_run))
        report(f"serial, {long_run}, {pairs // 10:,} pairs", serial, *part, small)
    for array in (P, Q):
        array[rng.random(array.shape) < 0.1] = np.nan
    report("moments, 10 % NaN", FInfluence(), P, Q, unit)
    report("moments, paired, 10 % NaN", FInfluence(paired=True), P, Q, unit)


def long_form(pairs, n_rows):
    rng = np.random.default_rng(0)
    pair = rng.integers(0, pairs, n_rows)
    p, q = rng.standard_normal(n_rows), rng.standard_normal(n_rows)
    unit = seconds(lambda: np.bincount(pair, weights=p, minlength=pairs))
    print(f"{f'np.bincount of {n_rows:,} rows':36}{unit:8.3f}{1:8.2f}")
    for label, scale in (("standardised", 1.0), ("raw", None)):
        rows = Observations(pair, p, q, n_pairs=pairs, scale=scale)
        report(f"fit(Observations), {label} rows", FInfluence(), rows, None, unit)


def report(label, estimator, p, q, unit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnestimableWarning)
        taken = seconds(lambda: estimator.fit(p, q))
    print(f"{label:36}{taken:8.3f}{taken / unit:8.2f}")
    RATIOS[label] = taken / unit


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--observations", type=int, default=300)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args(argv)
    pairs, n = arguments.pairs, arguments.observations
    print(f"{pairs:,} pairs, {n} observations of P and of Q; median of {REPEATS}")
    print(f"{'':36}{'CPU s':>8}{'ratio':>8}")
    dense_arrays(pairs, n)
    long_form(pairs, arguments.rows)


if __name__ == "__main__":
    main()
