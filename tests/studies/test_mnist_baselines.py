"""Scores of other tools, against what defines them."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from _mnist_baselines import (  # noqa: E402
    knn_shapley,
    out_of_fold_confidence,
)

from fstat_torch.mnist.data import Config, Data  # noqa: E402


def make_data(n=7, m=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Data(
        x=torch.rand(n, 1, 28, 28, generator=g),
        y=torch.randint(2, (n,), generator=g),
        x_validation=torch.rand(m, 1, 28, 28, generator=g),
        y_validation=torch.randint(2, (m,), generator=g),
        x_test=torch.empty(0),
        y_test=torch.empty(0),
        true_labels=np.zeros(n),
        flipped=np.zeros(n, dtype=bool),
        trusted=np.zeros(n, dtype=bool),
    )


def share_of_right_votes(data, members, k):
    """Return the utility of a coalition: right votes among the k nearest, over k."""
    total = 0.0
    for z, label in zip(data.x_validation, data.y_validation, strict=True):
        distance = [float((data.x[i] - z).norm()) for i in members]
        nearest = [members[j] for j in np.argsort(distance)[:k]]
        total += sum(bool(data.y[i] == label) for i in nearest) / k
    return total / len(data.y_validation)


def test_knn_shapley_is_the_shapley_value_by_enumeration():
    data, k = make_data(), 2
    n = len(data.y)
    expected = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for members in combinations(others, size):
                gain = share_of_right_votes(data, [*members, i], k)
                gain -= share_of_right_votes(data, list(members), k)
                expected[i] += gain / (n * comb(n - 1, size))
    np.testing.assert_allclose(knn_shapley(data, k), expected, atol=1e-12)


def test_confidence_is_of_models_that_did_not_see_the_example():
    data = make_data(n=60)
    # Pixels say the label, but for one example whose label is wrong.
    data.x[:, 0, 0] = 5.0 * data.y[:, None]
    wrong = int(torch.argmax((data.y == 0).int()))
    data.y[wrong] = 1
    config = Config(model="logistic", batch_size=8, epochs=20)
    confidence = out_of_fold_confidence(config, data)
    assert confidence.argmin() == wrong
    assert ((confidence >= 0) & (confidence <= 1)).all()
