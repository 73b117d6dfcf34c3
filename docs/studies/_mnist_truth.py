"""Subsets, recipe and retraining that several studies are judged by.

python docs/studies/_mnist_truth.py SET [--model mlp|cnn|logistic] [--jobs 1]

trains whatever is missing for a set of `_splits`, and keeps it under
results/mnist_truth, where every later call finds it. In a study::

    problem = Problem("report")
    truth = problem.truth()                    # fitted MultiRunInfluence
    sampler = problem.trainer.sample(seed)     # one run, watched, by the same recipe
    model = problem.trainer.fit(problem.everyone, seed, after=keep_checkpoints)
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from _cache import ROOT, key_of
from _splits import SETS, Images, images_of
from numpy.typing import NDArray

from fstat.ground_truth import MultiRunInfluence
from fstat_torch.mnist.training import build_model
from fstat_torch.retraining import StackedTrainer, TorchTrainer

KEPT = ROOT / "results" / "mnist_truth"
# What training depends on beside the trainer itself, which `retrain` knows.
TRAINING = "fstat_torch/retraining", "fstat_torch/targets/measures.py"
EPOCHS, BATCH, RATE = 5, 64, 0.1
THRESHOLD = 0.6  # from which size of mu a pair is strong
Subsets = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Design:
    """What is retrained, how often, and which single runs are judged by it."""

    data_seed: int
    same: int  # neighbours of a target, of its class: an 80th of the examples
    other: int  # and of other classes
    slices: int  # of a class: a 40th of the examples
    flipped: int
    random: int
    n_runs: int  # with all data
    n_runs_without: int
    run_seeds: tuple[int, ...]


SUBSETS = 10, 8, 6, 4, 6
FEW = 5, 4, 3, 2, 2
DESIGNS = {
    ("mlp", "tuning"): Design(1, *SUBSETS, 64, 20, (90001, 90002, 90003)),
    ("mlp", "report"): Design(0, *SUBSETS, 96, 24, (70001, 70002, 70003)),
    ("mlp", "last"): Design(5, *SUBSETS, 64, 16, (60001, 60002, 60003)),
    ("mlp", "fashion"): Design(6, *SUBSETS, 48, 12, (40001, 40002, 40003)),
    ("mlp", "small"): Design(7, *SUBSETS, 48, 12, (80001, 80002, 80003)),
    ("cnn", "report"): Design(2, *FEW, 32, 12, (50001, 50002, 50003)),
    ("logistic", "report"): Design(3, *FEW, 96, 32, (30001, 30002, 30003)),
}


class Problem:
    """Images of a set, a tenth of the labels flipped, and one recipe of training.

    Attributes
    ----------
    data : Images
        The images.
    subsets : dict of str to ndarray of int
        What is left out, by name.
    targets : pair of Tensor
        30 test images and their labels.
    trainer : TorchTrainer
        The recipe: five passes in batches of 64 at a learning rate of 0.1; statistic:
        the margin.
    everyone : ndarray of int
        Numbers of all training images.
    run_seeds : tuple of int
        Seeds of the single runs that are judged.
    """

    def __init__(self, name: str, model: str = "mlp") -> None:
        self.model, self.design = model, DESIGNS[model, name]
        self.data = images_of(name)
        self.everyone = np.arange(len(self.data.y))
        self.subsets = subsets_of(self.design, self.data)
        self.targets = self.data.x_test, self.data.y_test
        self.run_seeds = self.design.run_seeds
        self.n_steps = round(EPOCHS * len(self.everyone) / BATCH)
        self.trainer = TorchTrainer(
            partial(build_model, model),
            self.data.x,
            self.data.y,
            self.targets,
            optimizer=partial(torch.optim.SGD, lr=RATE),
            steps=self.n_steps,
            batch_size=BATCH,
        )

    @property
    def epoch_ends(self) -> tuple[int, ...]:
        """Numbers of the updates after which a pass over the data is over."""
        return tuple(round(self.n_steps * (k + 1) / EPOCHS) for k in range(EPOCHS))

    def truth(self, n_jobs: int = 1) -> MultiRunInfluence:
        """Return mu of retraining; what was trained before is not trained again."""
        stacked = self.model == "logistic"
        train = StackedTrainer(self.trainer) if stacked else self.trainer
        n_examples = len(self.everyone)
        return retrained(train, self.design, self.subsets, n_examples, n_jobs)


def retrained(
    train: TorchTrainer | StackedTrainer,
    design: Design,
    subsets: Subsets,
    n_examples: int,
    n_jobs: int,
) -> MultiRunInfluence:
    """Return mu of retraining by a design, with as many steps, through the cache."""
    fitted = MultiRunInfluence(
        train=train,
        n_runs=design.n_runs,
        n_runs_without=design.n_runs_without,
        keep="steps",
        random_state=design.data_seed,
        n_jobs=n_jobs,
        cache=KEPT,
        key=key_of(None, *TRAINING),
        verbose=1,
    )
    return fitted.fit(subsets, n_examples)


def subsets_of(design: Design, data: Images) -> Subsets:
    """Name the subsets: an 80th of the examples each, slices of a class a 40th."""
    rng = np.random.default_rng(design.data_seed)
    x, y = data.x.flatten(1).numpy(), data.y.numpy()
    goals, goal_y = data.x_test.flatten(1).numpy(), data.y_test.numpy()
    size = len(y) // 80
    found = {}
    for k in range(design.same + design.other):
        same = k < design.same
        pool = np.flatnonzero((y == goal_y[k]) == same)
        distance = ((x[pool] - goals[k]) ** 2).sum(axis=1)
        name = f"{'same' if same else 'other'} class, near {k}"
        found[name] = pool[np.argsort(distance, kind="stable")[:size]]
    for digit in rng.permutation(10)[: design.slices]:
        pool = np.flatnonzero(y == digit)
        found[f"slice of class {digit}"] = rng.choice(pool, 2 * size, replace=False)
    flipped = np.flatnonzero(data.flipped)
    for k in range(design.flipped):
        found[f"flipped {k}"] = rng.choice(flipped, size, replace=False)
    for k in range(design.random):
        found[f"random {k}"] = rng.choice(len(y), size, replace=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SETS)
    parser.add_argument("--model", choices=("mlp", "cnn", "logistic"), default="mlp")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(Problem(options.name, options.model).truth(options.jobs).quantity_)


if __name__ == "__main__":
    main()
