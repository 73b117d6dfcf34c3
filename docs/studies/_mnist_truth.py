"""Digits, subsets, recipe and retraining that several studies are judged by.

python docs/studies/_mnist_truth.py report|tuning [--model mlp|cnn|logistic] [--jobs 2]

trains whatever is missing, and keeps it under results/mnist_truth, where every later
call finds it. In a study::

    problem = Problem("report")
    truth = problem.truth()                    # fitted MultiRunInfluence
    sampler = problem.trainer.sample(seed)     # one run, watched, by the same recipe
    model = problem.trainer.fit(problem.everyone, seed, after=keep_checkpoints)

The tuning set has another split, other flipped labels, subsets, test digits and seeds
than the one that is reported; all digits come from the same 5,000. Nothing that is
chosen may be chosen on the latter.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from _cache import ROOT, key_of
from numpy.typing import NDArray

from fstat.datasets import load_digits_5k
from fstat.ground_truth import MultiRunInfluence
from fstat_torch.mnist import Config
from fstat_torch.mnist.data import Data, prepare
from fstat_torch.mnist.experiment import build_model
from fstat_torch.retraining import StackedTrainer, TorchTrainer

KEPT = ROOT / "results" / "mnist_truth"
# What training depends on beside the trainer itself, which `retrain` knows.
TRAINING = "fstat_torch/retraining", "fstat_torch/measures.py"
TARGETS, STEPS, BATCH, RATE = 30, 312, 64, 0.1  # 312 steps of 64: 5 passes over 4,000
THRESHOLD = 0.6  # from which size of mu a pair is strong
Subsets = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Design:
    """What is retrained, how often, and which single runs are judged by it."""

    data_seed: int
    same: int  # neighbours of a test digit, of its class
    other: int  # and of other classes
    slices: int  # of a class, 100 each
    flipped: int
    random: int
    n_runs: int  # with all data
    n_runs_without: int
    run_seeds: tuple[int, ...]


DESIGNS = {
    ("mlp", "tuning"): Design(1, 14, 12, 10, 8, 8, 120, 40, (90001, 90002, 90003)),
    ("mlp", "report"): Design(0, 10, 8, 6, 4, 6, 192, 64, (70001, 70002, 70003)),
    ("cnn", "report"): Design(2, 5, 4, 3, 2, 2, 48, 16, (50001, 50002, 50003)),
    ("logistic", "report"): Design(3, 5, 4, 3, 2, 2, 96, 32, (30001, 30002, 30003)),
}


class Problem:
    """4,000 digits, a tenth of the labels flipped, and one recipe of training.

    Attributes
    ----------
    data : Data
        The digits.
    subsets : dict of str to ndarray of int
        What is left out, by name.
    targets : pair of Tensor
        30 test digits and their labels.
    trainer : TorchTrainer
        The recipe: 312 steps of 64 at a learning rate of 0.1; statistic: the margin.
    everyone : ndarray of int
        Numbers of all training digits.
    run_seeds : tuple of int
        Seeds of the single runs that are judged.
    """

    def __init__(self, name: str, model: str = "mlp") -> None:
        self.model, self.design = model, DESIGNS[model, name]
        seed = self.design.data_seed
        config = Config(seed=seed, data_seed=seed, n_trusted=0)
        self.data = prepare(config, load_digits_5k(), torch.device("cpu"))
        self.everyone = np.arange(len(self.data.y))
        self.subsets = subsets_of(self.design, self.data)
        self.targets = self.data.x_test[:TARGETS], self.data.y_test[:TARGETS]
        self.run_seeds = self.design.run_seeds
        self.trainer = TorchTrainer(
            partial(build_model, model),
            self.data.x,
            self.data.y,
            self.targets,
            optimizer=partial(torch.optim.SGD, lr=RATE),
            steps=STEPS,
            batch_size=BATCH,
        )

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


def subsets_of(design: Design, data: Data) -> Subsets:
    """Name the subsets: 50 examples each, slices of a class 100."""
    rng = np.random.default_rng(design.data_seed)
    x, y = data.x.flatten(1).numpy(), data.y.numpy()
    goals, goal_y = data.x_test[:TARGETS].flatten(1).numpy(), data.y_test.numpy()
    distance = ((x[None] - goals[:, None]) ** 2).sum(axis=2)
    found = {}
    for k in range(design.same + design.other):
        same = k < design.same
        pool = np.flatnonzero((y == goal_y[k]) == same)
        name = f"{'same' if same else 'other'} class, near {k}"
        found[name] = pool[np.argsort(distance[k, pool])[:50]]
    for digit in rng.permutation(10)[: design.slices]:
        pool = np.flatnonzero(y == digit)
        found[f"slice of class {digit}"] = rng.choice(pool, 100, replace=False)
    flipped = np.flatnonzero(data.flipped)
    for k in range(design.flipped):
        found[f"flipped {k}"] = rng.choice(flipped, 50, replace=False)
    for k in range(design.random):
        found[f"random {k}"] = rng.choice(len(y), 50, replace=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("report", "tuning"))
    parser.add_argument("--model", choices=("mlp", "cnn", "logistic"), default="mlp")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    print(Problem(options.name, options.model).truth(options.jobs).quantity_)


if __name__ == "__main__":
    main()
