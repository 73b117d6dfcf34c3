"""Retrain without some subsets, and see how well a score of one run agrees.

python examples/ground_truth.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from fstat import AgreementDisplay, MultiRunInfluence, agreement
from fstat.ground_truth import sklearn_trainer

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = X[:600] / 16, X[600:620] / 16, y[:600], y[600:620]
nearest = np.argsort(np.linalg.norm(X - X_test[:, None], axis=2), axis=1)
subsets = {f"neighbours of {z}": nearest[z, :30] for z in range(10)}

model = SGDClassifier(loss="log_loss", max_iter=3, tol=None)
truth = MultiRunInfluence(
    train=sklearn_trainer(model, X, y, X_test, y_test),
    n_runs=20,
    n_runs_without=10,
    keep="epochs",
    random_state=0,
    cache="results/ground_truth_example",
).fit(subsets, n_examples=len(X))
print(truth.to_frame().nlargest(3, "mu").to_string(index=False))

# A score to be judged: similarity, for the target's class and against others.
likeness = np.stack([(X[s] @ X_test.T) for s in subsets.values()])
same = np.stack([y[s][:, None] == y_test for s in subsets.values()])
score = np.where(same, likeness, -likeness / 9).sum(axis=1)

found = agreement(score, truth, threshold=1.0, n_resamples=99, random_state=0)
print(found.to_frame().dropna(subset="value").round(2).to_string())
print(found)
display = AgreementDisplay.from_agreement(found)
display.figure_.savefig(Path("results") / "agreement.png")
