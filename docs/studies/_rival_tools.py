"""Scores of other packages on one training run, each by its own public interface.

Each function returns scores of shape (n_train, n_targets), positive where an example
serves the target, by name of the variant. A package that is not installed is skipped.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _mnist_truth import RATE, STEPS, Problem
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

N_LARGE = 1000  # examples in a batch of gradients
EPOCHS = 5


class Run:
    """One training run with all data, and its parameters at the end of each epoch.

    Parameters
    ----------
    problem : Problem
        Data, targets and recipe.
    seed : int
        Of initial weights and batches.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.seed = problem, seed
        self.train = problem.data.x, problem.data.y
        self.goals = problem.targets
        self.checkpoints: list[dict[str, Tensor]] = []

        def keep(step: int, model: nn.Module) -> None:
            if step in ends:
                state = model.state_dict()
                self.checkpoints.append({k: v.clone() for k, v in state.items()})

        ends = epoch_ends()
        self.model = problem.trainer.fit(problem.everyone, seed, after=keep)

    def copy(self) -> nn.Module:
        """Return a copy of the trained model."""
        return deepcopy(self.model)

    def loader(self, size: int) -> DataLoader:
        """Return the training examples, in order."""
        return DataLoader(TensorDataset(*self.train), batch_size=size)

    def goal_loader(self) -> DataLoader:
        """Return the targets, in one batch."""
        return DataLoader(TensorDataset(*self.goals), len(self.goals[1]))


def epoch_ends() -> list[int]:
    """Return the numbers of the updates after which an epoch is over."""
    return [round(STEPS * (k + 1) / EPOCHS) for k in range(EPOCHS)]


Scores = dict[str, tuple[np.ndarray, float]]


def negative_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the sum of -log(p / (1 - p)) of the right classes."""
    own = logits.gather(1, y[:, None])
    right = y[:, None] == torch.arange(logits.shape[1])
    others = logits.masked_fill(right, -torch.inf)
    return (others.logsumexp(1) - own[:, 0]).sum()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and warnings of the packages away."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    """Return what it computes and the CPU seconds that it took."""
    start = time.process_time()
    with quiet():
        found = compute()
    return found, time.process_time() - start


def captum_tracin(run: Run) -> Scores:
    """TracInCP over the ends of all epochs, and TracInCPFast: the last layer alone."""
    influence = importlib.import_module("captum.influence")

    def load(model: nn.Module, state: dict[str, Tensor]) -> float:
        model.load_state_dict(state)
        return RATE

    def scores(last_layer: bool, test_loss: Callable | None) -> np.ndarray:
        model = run.copy()
        kind = influence.TracInCPFast if last_layer else influence.TracInCP
        options: dict[str, Any] = {"test_loss_fn": test_loss, "batch_size": N_LARGE}
        if last_layer:
            options["final_fc_layer"] = list(model.children())[-1]
        else:
            options["sample_wise_grads_per_batch"] = True
        tracin = kind(
            model=model,
            train_dataset=TensorDataset(*run.train),
            checkpoints=run.checkpoints,
            checkpoints_load_func=load,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"),
            **options,
        )
        return tracin.influence(run.goals).detach().numpy().T

    return {
        "captum TracInCP, loss": timed(partial(scores, False, None)),
        "captum TracInCP, margin": timed(partial(scores, False, negative_margin)),
        "captum TracInCPFast, margin": timed(partial(scores, True, negative_margin)),
    }


def kronfluence_ekfac(
    run: Run, dampings: tuple[float | None, ...] = (1e-8, None)
) -> Scores:
    """EK-FAC influence of the trained model on the margin."""
    analyzer_of = importlib.import_module("kronfluence.analyzer")
    task_of = importlib.import_module("kronfluence.task")
    arguments = importlib.import_module("kronfluence.arguments")

    class Classification(task_of.Task):
        def compute_train_loss(
            self, batch: Any, model: nn.Module, sample: bool = False
        ) -> Tensor:
            logits = model(batch[0])
            labels = batch[1]
            if sample:
                drawn = torch.multinomial(logits.detach().softmax(1), 1)
                labels = drawn[:, 0]
            return cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return negative_margin(model(batch[0]), batch[1])

    def fit() -> Any:
        torch.manual_seed(run.seed)
        task = Classification()
        model = analyzer_of.prepare_model(run.copy(), task)
        analyzer = analyzer_of.Analyzer(
            "run", model, task, cpu=True, disable_tqdm=True, output_dir=folder
        )
        analyzer.fit_all_factors("ekfac", TensorDataset(*run.train), N_LARGE)
        return analyzer

    def scores(analyzer: Any, damping: float | None) -> np.ndarray:
        analyzer.compute_pairwise_scores(
            "scores",
            "ekfac",
            TensorDataset(*run.goals),
            TensorDataset(*run.train),
            per_device_query_batch_size=len(run.goals[1]),
            per_device_train_batch_size=N_LARGE,
            score_args=arguments.ScoreArguments(damping_factor=damping),
            overwrite_output_dir=True,
        )
        found = analyzer.load_pairwise_scores("scores")
        return found["all_modules"].numpy().T

    with tempfile.TemporaryDirectory() as folder:
        analyzer, fitting = timed(fit)
        found = {}
        for damping in dampings:
            how = "by eigenvalues" if damping is None else f"{damping:g}"
            name = f"kronfluence EK-FAC, damping {how}"
            scored, seconds = timed(partial(scores, analyzer, damping))
            found[name] = scored, fitting + seconds
        return found


def trak(
    runs: list[Run], ridges: tuple[float, ...], sizes: tuple[int, ...], folder: Path
) -> dict[str, list[tuple[np.ndarray, float]]]:
    """TRAK of groups of runs, projected to 2,048 numbers as by default."""
    package = importlib.import_module("trak")

    def make(folder: str, ridge: float = 0.0) -> Any:
        return package.TRAKer(
            model=runs[0].copy(),
            task="image_classification",
            train_set_size=len(runs[0].train[1]),
            save_dir=folder,
            device="cpu",
            use_half_precision=False,
            lambda_reg=ridge,
            logging_level=logging.ERROR,
        )

    def featurize(traker: Any, number: int) -> None:
        run = runs[number]
        traker.load_checkpoint(run.checkpoints[-1], model_id=number)
        for batch in run.loader(N_LARGE):
            traker.featurize(batch, num_samples=len(batch[1]))

    def aim(traker: Any, number: int, name: str) -> None:
        run = runs[number]
        m = len(run.goals[1])
        traker.start_scoring_checkpoint(name, run.checkpoints[-1], number, m)
        traker.score(run.goals, num_samples=m)

    def group_of(traker: Any, numbers: list[int]) -> np.ndarray:
        name = "-".join(map(str, numbers))
        for number in numbers:
            aim(traker, number, name)
        return np.array(traker.finalize_scores(name, model_ids=numbers))

    found: dict[str, list[tuple[np.ndarray, float]]] = {}
    features = make(str(folder / "features"))  # goes on where it was stopped
    spent = [timed(partial(featurize, features, k))[1] for k in range(len(runs))]
    for ridge in ridges:
        own = folder / f"{ridge:g}"
        shutil.copytree(folder / "features", own, dirs_exist_ok=True)
        finished = make(str(own), ridge)
        each = timed(finished.finalize_features)[1] / len(runs)
        for size in sizes:
            for start in range(0, len(runs) - size + 1, size):
                group = list(range(start, start + size))
                scored, seconds = timed(partial(group_of, finished, group))
                seconds += max(spent) * size + each * size
                name = f"TRAK, {size} model{'s'[: size > 1]}, ridge {ridge:g}"
                found.setdefault(name, []).append((scored, seconds))
        shutil.rmtree(own)
    return found


def dattri_conjugate(run: Run, regularizations: tuple[float, ...] = (0.0,)) -> Scores:
    """Influence functions of the trained model by conjugate gradients."""
    algorithm = importlib.import_module("dattri.algorithm")
    tasks = importlib.import_module("dattri.task")
    model = run.copy()

    def loss(params: Any, batch: Any) -> Tensor:
        logits = torch.func.functional_call(model, params, batch[0])
        return cross_entropy(logits, batch[1])

    def target(params: Any, batch: Any) -> Tensor:
        logits = torch.func.functional_call(model, params, batch[0])
        return negative_margin(logits, batch[1])

    class Remembering(algorithm.IFAttributorCG):
        """Solves for the targets once, not for each batch of training examples."""

        solved: Tensor | None = None

        def transform_test_rep(self, ckpt_idx: int, test_rep: Tensor) -> Tensor:
            if self.solved is None:
                self.solved = super().transform_test_rep(ckpt_idx, test_rep)
            return self.solved

    def conjugate(regularization: float) -> np.ndarray:
        task = tasks.AttributionTask(
            loss, run.copy(), run.checkpoints[-1], target_func=target
        )
        attributor = Remembering(task, regularization=regularization)
        attributor.cache(run.loader(len(run.train[1])))
        found = attributor.attribute(run.loader(N_LARGE), run.goal_loader())
        return found.detach().numpy()

    return {
        f"dattri IF-CG, regularisation {r:g}": timed(partial(conjugate, r))
        for r in regularizations
    }


def dattri_dvemb(run: Run, sizes: tuple[int, ...] = (2048,)) -> Scores:
    """Data value embedding within the run, on the loss and on the margin."""
    algorithm = importlib.import_module("dattri.algorithm")
    tasks = importlib.import_module("dattri.task")

    def loss(model: nn.Module, batch: Any, device: Any) -> Tensor:
        return cross_entropy(model(batch[0].to(device)), batch[1].to(device))

    def target(model: nn.Module, batch: Any, device: Any) -> Tensor:
        return negative_margin(model(batch[0]), batch[1]) / len(batch[1])

    def embed(size: int) -> Any:
        trainer = run.problem.trainer
        batches = trainer.batches(run.problem.everyone, run.seed)
        own = run.copy()
        task = tasks.AttributionTask(loss, own, own.state_dict())
        attributor = algorithm.DVEmbAttributor(
            task, proj_dim=size, factorization_type="kronecker"
        )

        def look(step: int, model: nn.Module) -> None:
            """Show the next batch at the parameters that it meets."""
            if step < len(batches):
                attributor.model.load_state_dict(model.state_dict())
                index = torch.from_numpy(batches[step])
                batch = tuple(part[index] for part in run.train)
                epoch = step * EPOCHS // STEPS
                attributor.cache_gradients(epoch, batch, index, RATE)

        torch.manual_seed(run.seed)
        look(0, trainer.build())
        trainer.fit(run.problem.everyone, run.seed, after=look)
        attributor.cache()
        return attributor

    def scores(attributor: Any, function: Callable) -> np.ndarray:
        attributor.task.original_loss_func = function
        return attributor.attribute(run.goal_loader()).detach().numpy()

    found = {}
    for size in sizes:
        attributor, fitting = timed(partial(embed, size))
        for name, function in (("loss", loss), ("margin", target)):
            scored, seconds = timed(partial(scores, attributor, function))
            found[f"dattri DVEmb, {size:,}, {name}"] = scored, fitting + seconds
    return found
