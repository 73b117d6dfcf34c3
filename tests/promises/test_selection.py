"""Selections and joint statements about many pairs, over all kinds of families."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import selection as oracle
from scipy.special import ndtr, ndtri
from statsmodels.stats.multitest import multipletests

from fstat import FInfluence, select
from fstat.selection import (
    fcr_intervals,
    rank_intervals,
    select_signs,
    sign_errors,
    simultaneous_intervals,
)

pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")
SIDES = ("greater", "less", "two-sided")


class Known(FInfluence):
    """An estimator of known normal errors, or of any p-values at all."""

    def __init__(self, mu, pvalues=None):
        self.mu_ = np.asarray(mu, dtype=float)
        self._pvalues = pvalues
        self.names_ = {"pair": np.arange(len(self.mu_))}
        self.quantity_, self.self_influence_ = "known", False
        self.pvalue_ = self.pvalue()

    def pvalue(self, null=0.0, alternative="two-sided"):
        z = self.mu_ - null
        if self._pvalues is not None:
            return self._pvalues[alternative]
        sides = {"greater": ndtr(-z), "less": ndtr(z), "two-sided": 2 * ndtr(-abs(z))}
        return sides[alternative]

    def confidence_interval(self, confidence_level=0.95):
        half = ndtri((1 + confidence_level) / 2)
        return self.mu_ - half, self.mu_ + half


def settings(n, seed):
    """Yield generators with sizes of families from 1 to 1e5."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng, int(10 ** rng.uniform(0, 5))


def any_pvalues(rng, n):
    """Return p-values with ties, zeros, ones and NaN, discrete or continuous."""
    p = rng.random(n) ** rng.choice([1.0, 3.0, 8.0])
    if rng.random() < 0.5:
        p = np.round(p, int(rng.integers(0, 4)))
    p[rng.random(n) < rng.choice([0.0, 0.1])] = 0.0
    p[rng.random(n) < rng.choice([0.0, 0.3])] = 1.0
    p[rng.random(n) < rng.choice([0.0, 0.2, 1.0], p=[0.6, 0.35, 0.05])] = np.nan
    return p


# Arithmetic of decisions


@pytest.mark.parametrize(
    ("n", "seed"), [(60, 0), pytest.param(3000, 1, marks=pytest.mark.slow)]
)
def test_step_up_of_any_pvalues(n, seed):
    for rng, size in settings(n, seed):
        size = min(size, 20_000)
        sides = {side: any_pvalues(rng, size) for side in SIDES}
        side, fdr = rng.choice(SIDES), float(10 ** rng.uniform(-4, -0.01))
        dependence = rng.choice(["positive", "arbitrary"])
        mu = np.where(rng.random(size) < rng.choice([0, 0.2]), np.nan, 1.0)
        estimate = Known(mu, sides)
        found = select(estimate, fdr=fdr, alternative=side, dependence=dependence)
        # No pair with an estimate leaves the family: an unknown p-value counts as 1.
        p = np.where(np.isnan(mu), np.nan, np.nan_to_num(sides[side], nan=1.0))
        known = ~np.isnan(p)
        expected = np.full(size, np.nan)
        if known.any():
            method = {"positive": "fdr_bh", "arbitrary": "fdr_by"}[dependence]
            reject, expected[known], *_ = multipletests(p[known], fdr, method)
            close = np.isclose(expected[known], fdr, rtol=1e-9)
            assert_array_equal(found.selected[known][~close], reject[~close])
        assert_allclose(found.qvalues, expected, rtol=1e-9)
        if size < 40:
            loops = oracle.step_up_qvalues(p, dependence)
            assert_allclose(found.qvalues, loops, rtol=1e-9)
        assert found.n_tested == known.sum() and found.n_unscored == (~known).sum()
        assert not found.selected[~known].any()


@pytest.mark.parametrize(
    ("n", "seed"), [(60, 0), pytest.param(3000, 1, marks=pytest.mark.slow)]
)
def test_conformal_decisions_of_any_scores(n, seed):
    for rng, size in settings(n, seed):
        size, held = 1 + size % 40, int(rng.integers(1, 60))
        digits = int(rng.integers(0, 4))
        scores = np.round(rng.normal(size=size) * 2, digits)
        trusted = np.round(rng.normal(size=held), digits)
        unknown = rng.random(size) < rng.choice([0.0, 0.2])
        side, fdr = rng.choice(SIDES), float(rng.uniform(0.01, 0.9))
        missed = float(rng.choice([0.0, 0.05, 0.5]))
        given = np.where(unknown, np.nan, scores)
        options = {"fdr": fdr, "alternative": side, "missed": missed}
        found = select(given, reference=trusted, **options)
        expected = np.full(size, np.nan)
        if not unknown.all():
            expected[~unknown] = oracle.corrected_qvalues(
                scores[~unknown], trusted, side, missed
            )
        assert_allclose(found.qvalues, expected, rtol=1e-9)
        assert found.n_tested == (~unknown).sum() and found.n_unscored == unknown.sum()
        # As a mask over all, and by number.
        both = np.r_[given, trusted]
        mask = np.arange(len(both)) >= size
        for reference in (mask, np.flatnonzero(mask)):
            again = select(both, reference=reference, **options)
            assert_array_equal(again.qvalues[:size], found.qvalues)
            assert again.n_unscored == unknown.sum()


# Rates


def realised(found, truth):
    return (found.selected & ~truth).sum() / max(found.n_selected, 1)


def rates_of(studies, repetitions):
    """Return the mean and four standard errors of what a study returns."""
    values = np.array([studies() for _ in range(repetitions)], dtype=float)
    return values.mean(axis=0), 4 * values.std(axis=0) / np.sqrt(repetitions)


@pytest.mark.parametrize(
    ("n", "repetitions"), [(12, 150), pytest.param(80, 2000, marks=pytest.mark.slow)]
)
def test_rate_of_the_theoretical_null(n, repetitions):
    for rng, size in settings(n, 0):
        size = min(size, 3000)
        rho = rng.choice([0.0, 0.0, rng.uniform(0, 0.9)])
        kind = rng.choice(["equicorrelated", "AR"]) if size < 300 else "equicorrelated"
        share, fdr = rng.choice([0.0, 1.0, rng.random()]), rng.uniform(0.02, 0.3)
        truth = np.arange(size) < share * size
        effect = rng.uniform(1, 5) * np.where(truth, rng.choice([-1, 1], size), 0)
        side = rng.choice(SIDES)
        good = {"greater": effect > 0, "less": effect < 0, "two-sided": truth}[side]

        def study(rng=rng, args=(size, rho, kind), effect=effect, good=good, side=side,
                  fdr=fdr):  # fmt: skip
            estimate = Known(effect + oracle.normal_errors(rng, *args))
            both = select_signs(estimate, fdr=fdr)
            wrong = both.selected & (both.sign != np.sign(effect))
            return (
                realised(select(estimate, fdr=fdr, alternative=side), good),
                wrong.sum() / max(both.n_selected, 1),
            )

        rate, error = rates_of(study, repetitions)
        assert (rate < fdr + error).all(), (size, rho, kind, share, side)
        if rho == 0 and side == "two-sided":
            # Benjamini and Hochberg: exactly the rate times the share of nulls.
            nulls = 1 - truth.mean()
            assert abs(rate[0] - nulls * fdr) < error[0] + 1e-12, (size, share)
            # Signs: half of it for pairs that are not null.
            assert rate[1] < (nulls + (1 - nulls) / 2) * fdr + error[1] + 1e-12


@pytest.mark.parametrize(
    ("n", "repetitions"), [(5, 100), pytest.param(60, 2000, marks=pytest.mark.slow)]
)
def test_rate_of_a_reference_null_with_bad_references(n, repetitions):
    rng = np.random.default_rng(0)
    for _ in range(n):
        held, size = int(10 ** rng.uniform(1.7, 3)), int(10 ** rng.uniform(2, 3))
        bad = 10 ** rng.uniform(-1.7, -0.4)
        among = bad * rng.choice([0.0, rng.uniform(0, 0.4)])
        shift, fdr = rng.uniform(2, 8), rng.uniform(0.05, 0.3)
        _, missed = oracle.contaminated_rate(fdr, bad, among, 1.0)

        def study(rng=rng, args=(held, size, bad, among, shift, fdr, missed)):
            held, size, bad, among, shift, fdr, missed = args
            wrong = rng.random(size) < bad
            scores = rng.gamma(2.0, size=size) + shift * wrong
            trusted = rng.gamma(2.0, size=held) + shift * (rng.random(held) < among)
            plain = select(scores, reference=trusted, fdr=fdr)
            stated = select(scores, reference=trusted, fdr=fdr, missed=missed)
            return (
                realised(plain, wrong),
                realised(stated, wrong),
                stated.n_selected > 0,
            )

        rate, error = rates_of(study, repetitions)
        assert rate[0] < fdr + error[0], (held, size, bad, among)
        exact, _ = oracle.contaminated_rate(fdr, bad, among, rate[2])
        assert rate[1] < max(exact, fdr) + error[1] + missed * error[2], (held, size)


@pytest.mark.parametrize(
    ("n", "repetitions"), [(8, 150), pytest.param(60, 2000, marks=pytest.mark.slow)]
)
def test_rate_of_pairs_stronger_than_a_share(n, repetitions):
    for rng, size in settings(n, 3):
        size = min(2 + size, 2000)
        share, fdr = rng.uniform(0.05, 0.98), rng.uniform(0.05, 0.3)
        mu = rng.normal(size=size) * 10 ** rng.uniform(-1, 1)
        mu[rng.random(size) < rng.choice([0.0, 0.5])] = 0.0
        side = rng.choice(SIDES)
        strength = {"greater": mu, "less": -mu, "two-sided": np.abs(mu)}[side]

        def study(rng=rng, mu=mu, strength=strength, options=None):
            found = select(Known(mu + rng.normal(size=len(mu))), **options)
            return realised(found, strength > found.threshold)

        options = {"fdr": fdr, "alternative": side, "stronger_than": share}
        rate, error = rates_of(lambda s=study, o=options: s(options=o), repetitions)
        assert rate < fdr + error, (size, share, side)


# What holds for several intervals


@pytest.mark.parametrize(
    ("n", "repetitions"), [(8, 200), pytest.param(60, 4000, marks=pytest.mark.slow)]
)
def test_false_coverage_of_what_was_picked(n, repetitions):
    for rng, size in settings(n, 4):
        size, level = min(2 + size, 1000), rng.uniform(0.8, 0.99)
        rho = rng.choice([0.0, rng.uniform(0, 0.9)])
        mu = rng.normal(size=size) * 10 ** rng.uniform(-1, 1)
        mu[rng.random(size) < rng.random()] = 0.0
        k = int(rng.integers(1, size + 1))
        rule = rng.choice(["signs", "largest", "all"])

        def study(rng=rng, mu=mu, rho=rho, level=level, rule=rule, k=k):
            estimate = Known(mu + oracle.normal_errors(rng, len(mu), rho))
            chosen = {
                "signs": lambda: select_signs(estimate, fdr=1 - level),
                "largest": lambda: np.argsort(-np.abs(estimate.mu_))[:k],
                "all": lambda: np.arange(len(mu)),
            }[rule]()
            found = fcr_intervals(estimate, chosen, level)
            missed = (found.low > mu) | (found.high < mu)
            return missed.sum() / max(found.n_intervals, 1)

        rate, error = rates_of(study, repetitions)
        assert rate < 1 - level + error, (size, rho, rule)
        if rule == "all":
            assert rate > 1 - level - error


@pytest.mark.parametrize(
    ("n", "repetitions"), [(5, 200), pytest.param(40, 3000, marks=pytest.mark.slow)]
)
def test_intervals_that_hold_at_once(n, repetitions):
    for rng, size in settings(n, 5):
        size, level = min(size, 200), rng.uniform(0.8, 0.99)
        rho = rng.uniform(0, 0.9)
        matrix = np.full((size, size), rho) + (1 - rho) * np.eye(size)
        options = {
            "max-t": {"correlation": matrix, "n_draws": 2000, "random_state": 0},
            "sidak": {},
            "bonferroni": {},
        }
        half = {}
        for method, more in options.items():
            found = simultaneous_intervals(
                Known(np.zeros(size)), level, method=method, **more
            )
            half[method] = found.high[0]
        # Within the error of 2,000 draws of the largest error.
        exact = ndtri((1 + oracle.equicorrelated_level(level, size, rho)) / 2)
        draw = 4 * np.sqrt(level * (1 - level) / 2000)
        slack = [
            ndtri((1 + oracle.equicorrelated_level(x, size, rho)) / 2)
            for x in (max(level - draw, 0.01), min(level + draw, 1 - 1e-4))
        ]
        assert slack[0] <= half["max-t"] <= slack[1], (size, rho, level)
        assert half["sidak"] >= exact - 1e-9
        assert half["bonferroni"] >= half["sidak"] - 1e-12
        mu = rng.normal(size=size)

        def study(rng=rng, mu=mu, rho=rho, half=half):
            error = np.abs(oracle.normal_errors(rng, len(mu), rho)).max()
            return [error <= width for width in half.values()]

        covered, _ = rates_of(study, repetitions)
        error = 4 * np.sqrt(level * (1 - level) / repetitions)
        assert (covered > level - error - np.array([draw, 0, 0])).all(), (size, rho)
        assert covered[0] < level + error + draw


@pytest.mark.parametrize(
    ("n", "repetitions"), [(6, 100), pytest.param(40, 1000, marks=pytest.mark.slow)]
)
def test_sets_that_hold_all_ranks(n, repetitions):
    for rng, size in settings(n, 6):
        size, level = min(2 + size, 30), rng.uniform(0.8, 0.97)
        mu = np.round(rng.normal(size=size) * 10 ** rng.uniform(-1, 1), 1)
        low, high = np.array([oracle.true_ranks(mu, i) for i in range(size)]).T
        options = rng.choice([{}, {"correlation": "independent", "n_draws": 300}])

        def study(rng=rng, mu=mu, truth=(low, high), level=level, options=options):
            estimate = Known(mu + rng.normal(size=len(mu)))
            found = rank_intervals(estimate, level, random_state=0, **options)
            ends = estimate.confidence_interval(found.per_pair_level)
            sets = [oracle.rank_set(*ends, i) for i in range(len(mu))]
            assert_array_equal(np.array(sets).T, [found.low, found.high])
            return ((found.low <= truth[0]) & (truth[1] <= found.high)).all()

        rate, _ = rates_of(study, repetitions)
        assert rate > level - 4 * np.sqrt(level * (1 - level) / repetitions), (size, mu)


@pytest.mark.parametrize("size", [2, 5, 40])
def test_ranks_of_equal_pairs_by_tukeys_range(size):
    found = rank_intervals(
        Known(np.zeros(size)), correlation="independent", n_draws=20_000, random_state=0
    )
    assert_allclose(
        ndtri((1 + found.per_pair_level) / 2),
        ndtri((1 + oracle.tukey_level(0.95, size)) / 2),
        rtol=0.02,
    )


def test_sign_errors_by_integration():
    rng = np.random.default_rng(0)
    for _ in range(40):
        effect, stderr = 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-1, 1)
        alpha, df = 10 ** rng.uniform(-3, -0.5), rng.choice([2.5, 7.0, 90.0, np.inf])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of quad, in the farthest tails
            expected = oracle.sign_error_rates(effect, stderr, alpha, df)
        found = sign_errors(effect, stderr, alpha=alpha, df=df)
        assert_allclose(found, expected, rtol=2e-5, atol=1e-12)
