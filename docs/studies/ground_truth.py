"""How well scores of one run agree with retraining: docs/ground-truth.md.

python docs/studies/ground_truth.py [--runs 480] [--without 240] [--jobs 2]

Finished trainings are kept in results/ground_truth and not run again.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
from _cache import DOCS, ROOT, fill, key_of
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import SGDClassifier

from fstat.datasets import flip_labels, load_digits_5k
from fstat.display import AgreementDisplay
from fstat.ground_truth import (
    Agreement,
    CalibratedInfluence,
    MultiRunInfluence,
    agreement,
    sklearn_trainer,
)

KEPT = ROOT / "results" / "ground_truth"
PARTS = "fstat/ground_truth", "fstat/display/agreement.py"
N_TRAIN, N_TARGETS, SIZE, N_SEEDS = 2000, 20, 40, 3
THRESHOLD = 0.5
MEASURES = (
    "pearson",
    "spearman",
    "lds",
    "auroc_above",
    "auroc_below",
    "slope",
    "coverage_calibrated",
    "consistency_pearson",
)
Array = NDArray[np.float64]


class Problem:
    """Digits in 30 principal components, a tenth of the labels flipped."""

    def __init__(self) -> None:
        digits = load_digits_5k()
        rng = np.random.default_rng(0)
        order = rng.permutation(len(digits.labels))
        train, test = order[:N_TRAIN], order[N_TRAIN:]
        images = digits.images.reshape(len(order), -1) / 255.0
        pca = PCA(30, random_state=0).fit(images[train])
        self.X, X_test = pca.transform(images[train]), pca.transform(images[test])
        labels = digits.labels[train]
        self.y, self.flipped = flip_labels(labels, 0.1, random_state=0)
        self.estimator = SGDClassifier(
            loss="log_loss",
            alpha=1e-3,
            max_iter=5,
            tol=None,
            learning_rate="constant",
            eta0=0.03,
        )
        fitted = clone(self.estimator).set_params(random_state=0).fit(self.X, self.y)
        # Digits near a boundary: the others are read right whatever is left out.
        ordered = np.sort(fitted.decision_function(X_test), axis=1)
        near = np.argsort(ordered[:, -1] - ordered[:, -2])[: 5 * N_TARGETS : 5]
        self.X_test, self.y_test = X_test[near], digits.labels[test][near]

    def subsets(self) -> dict[str, NDArray[np.int64]]:
        """Return 8 subsets of each kind, drawn in the same way within a kind."""
        rng = np.random.default_rng(1)
        found = {}
        for z in rng.permutation(N_TARGETS)[:8]:
            distance = np.linalg.norm(self.X - self.X_test[z], axis=1)
            same = self.y == self.y_test[z]
            for kind, pool in (("near, same class", same), ("near, others", ~same)):
                pool = np.flatnonzero(pool)
                found[f"{kind} {z}"] = pool[np.argsort(distance[pool])[:SIZE]]
            pool = np.flatnonzero(self.flipped)
            found[f"flipped {z}"] = rng.choice(pool, SIZE, replace=False)
            found[f"random {z}"] = rng.choice(N_TRAIN, SIZE, replace=False)
        return found


def scores_of_one_run(
    problem: Problem, subsets: dict[str, NDArray[np.int64]], seed: int
) -> dict[str, Array]:
    """Return group scores, (n_subsets, n_targets), of one training with all data.

    Both are first-order changes of the margin by a subset: along its gradients, or
    along the Newton step with the Hessian of each class (influence functions).
    """
    model = clone(problem.estimator).set_params(random_state=seed)
    model.fit(problem.X, problem.y)
    X = np.column_stack([problem.X, np.ones(N_TRAIN)])
    Z = np.column_stack([problem.X_test, np.ones(N_TARGETS)])
    p = expit(model.decision_function(problem.X))
    own = problem.y[:, None] == model.classes_
    values = model.decision_function(problem.X_test)
    true = problem.y_test[:, None] == model.classes_
    rival = np.where(true, -np.inf, values).argmax(axis=1)
    found = {"gradient dot product": np.zeros((len(subsets), N_TARGETS))}
    found["influence function"] = found["gradient dot product"].copy()
    ridge = model.alpha * N_TRAIN * np.diag([1.0] * problem.X.shape[1] + [0.0])
    for c in range(len(model.classes_)):
        sign = true[:, c].astype(float) - (rival == c)
        pull = np.stack([(own[s, c] - p[s, c]) @ X[s] for s in subsets.values()])
        hessian = (X * (p[:, [c]] * (1 - p[:, [c]]))).T @ X + ridge
        found["gradient dot product"] += sign * (pull @ Z.T)
        found["influence function"] += sign * (pull @ np.linalg.solve(hessian, Z.T))
    return found


def table(judged: dict[str, Agreement]) -> str:
    head = ["measure", *judged, "difference"]
    rows = [head, ["---"] * len(head)]
    first, second = list(judged.values())[:2]
    for name in MEASURES:
        difference = str(second.difference(first, name))
        rows.append([name, *(str(one[name]) for one in judged.values()), difference])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def held_out(x: Array, mu: Array, level: float) -> tuple[float, float, float]:
    """Return root mean squares of mu and of its errors, and coverage, out of fold."""
    inside, errors = [], []
    fold = np.arange(len(x)) // 4 % 4
    for k in range(4):
        own = fold == k
        calibrated = CalibratedInfluence().fit(x[~own], mu[~own])
        low, high = calibrated.predict_interval(x[own], level)
        inside.append((low <= mu[own]) & (mu[own] <= high))
        errors.append(calibrated.predict(x[own]) - mu[own])
    error = float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    return float(np.sqrt(np.mean(mu**2))), error, float(np.mean(inside))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=480)
    parser.add_argument("--without", type=int, default=240)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    begin = perf_counter()
    problem = Problem()
    subsets = problem.subsets()
    train = sklearn_trainer(
        problem.estimator, problem.X, problem.y, problem.X_test, problem.y_test
    )
    truth = MultiRunInfluence(
        train=train,
        n_runs=options.runs,
        n_runs_without=options.without,
        keep="epochs",
        random_state=0,
        n_jobs=options.jobs,
        cache=KEPT,
        key=key_of(None, "fstat/ground_truth/sklearn_trainer.py"),
        verbose=1,
    ).fit(subsets, N_TRAIN)
    print(f"truth after {perf_counter() - begin:.0f} s")
    runs = [scores_of_one_run(problem, subsets, 10_000 + s) for s in range(N_SEEDS)]
    judged = {
        name: agreement(
            np.stack([run[name] for run in runs]),
            truth,
            threshold=THRESHOLD,
            random_state=0,
        )
        for name in runs[0]
    }
    found = judged["influence function"]
    spread, error, covered = held_out(found.estimate[0], found.truth, 0.9)
    noise = np.sqrt(np.mean(found.truth_stderr**2))
    text = (
        f"{table(judged)}\n\nOf {found.truth.size} pairs {found.n_above} lie above "
        f"{THRESHOLD:g} and {found.n_below} below -{THRESHOLD:g}. Uncorrected, the "
        f"influence function's\nPearson correlation is "
        f"{found['pearson'].uncorrected:.3f}. Calibrated by three quarters of the "
        "subsets, it predicts\nthe mu of the others (root mean square "
        f"{spread:.2f}) with an error of {error:.2f}, of which the truth's\nown noise "
        f"is {noise:.2f}; 90 % intervals cover {covered:.1%} of them."
    )
    fill("ground-truth.md", "results", text, __file__, *PARTS)
    print(f"{perf_counter() - begin:.0f} s")
    display = AgreementDisplay.from_agreement(found)
    display.ax_.set_xlabel("influence function, one run")
    display.figure_.savefig(DOCS / "figures" / "agreement.png", dpi=120)


if __name__ == "__main__":
    main()
