import numpy as np
import pytest

from fstat.selection import shortlist


@pytest.mark.parametrize("alternative", ["greater", "less"])
@pytest.mark.parametrize(("n_planted", "miss_rate"), [(9, 0.1), (30, 0.1), (50, 0.25)])
def test_bad_pairs_are_left_out_as_rarely_as_promised(
    n_planted, miss_rate, alternative
):
    rng, left_out = np.random.default_rng(0), []
    sign = 1 if alternative == "greater" else -1
    for _ in range(3000):
        bad = sign * (rng.gamma(2.0, size=n_planted + 5) + 1)
        scores = np.r_[bad, sign * rng.gamma(2.0, size=20)]
        listed = shortlist(
            scores,
            np.arange(n_planted),
            miss_rate=miss_rate,
            alternative=alternative,
        )
        assert not listed[:n_planted].any()
        left_out.append(1 - listed[n_planted : n_planted + 5].mean())
    error = 4 * np.std(left_out) / np.sqrt(3000)
    k = np.floor(miss_rate * (n_planted + 1) + 1e-9)
    assert abs(np.mean(left_out) - k / (n_planted + 1)) < error


def test_ties_and_missing_scores():
    scores = [1.0] * 10 + [1.0, 0.5, np.nan, 2.0]
    listed = shortlist(scores, np.arange(10))
    assert listed.tolist() == [False] * 10 + [True, False, False, True]
    mask = np.arange(14) < 10
    assert shortlist(scores, mask).tolist() == listed.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planted": range(8)}, "`planted` must hold at least 9 pairs with a score"),
        ({"planted": [20]}, "`planted` must hold numbers of pairs from 0 to 19"),
        ({"miss_rate": 0.0}, "`miss_rate` must lie in"),
        ({"alternative": "two-sided"}, "`alternative` must be one of"),
        ({"scores": [[1.0]]}, r"`scores` must have shape \(n_pairs,\)"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(ValueError, match=message):
        shortlist(**{"scores": np.arange(20.0), "planted": np.arange(10), **options})
