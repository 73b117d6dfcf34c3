"""Scores of other packages on one training run, each by its own public interface.

Each function returns, by name of the variant, scores of shape (n_moments, n_train,
n_targets), positive where an example serves the target, and CPU seconds. Moments are
the four checkpoints at which fstat takes its snapshots, or one where the package puts
them together itself. A package that is not installed is skipped.
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
from _mnist_truth import EPOCHS, RATE, Problem
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

N_LARGE = 1600  # examples in a batch of gradients


class Run:
    """One training run with all data, and its parameters at the ends of epochs.

    Parameters
    ----------
    problem : Problem
        Data, targets and recipe.
    seed : int
        Of initial weights and batches.
    moments : int, default=4
        How many of the last epochs' ends are kept.
    """

    def __init__(self, problem: Problem, seed: int, moments: int = 4) -> None:
        self.problem, self.seed = problem, seed
        self.train = problem.data.x, problem.data.y
        self.goals = problem.targets
        self.checkpoints: list[dict[str, Tensor]] = []

        def keep(step: int, model: nn.Module) -> None:
            if step in ends:
                state = model.state_dict()
                self.checkpoints.append({k: v.clone() for k, v in state.items()})

        ends = problem.epoch_ends[-moments:]
        self.model = problem.trainer.fit(problem.everyone, seed, after=keep)

    def copy(self, checkpoint: int = -1) -> nn.Module:
        """Return a model with the parameters of a checkpoint, the last by default."""
        model = deepcopy(self.model)
        model.load_state_dict(self.checkpoints[checkpoint])
        return model

    def loader(self, size: int) -> DataLoader:
        """Return the training examples, in order."""
        return DataLoader(TensorDataset(*self.train), batch_size=size)

    def goal_loader(self) -> DataLoader:
        """Return the targets, in one batch."""
        return DataLoader(TensorDataset(*self.goals), len(self.goals[1]))


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
    """TracInCP over the checkpoints, and TracInCPFast: the last layer alone."""
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
        return tracin.influence(run.goals).detach().numpy().T[None]

    return {
        "captum TracInCP, loss": timed(partial(scores, False, None)),
        "captum TracInCP, margin": timed(partial(scores, False, negative_margin)),
        "captum TracInCPFast, margin": timed(partial(scores, True, negative_margin)),
    }


def kronfluence_ekfac(
    run: Run, dampings: tuple[float | None, ...] = (1e-8, None)
) -> Scores:
    """EK-FAC influence on the margin, at each checkpoint."""
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

    def fit(checkpoint: int, folder: str) -> Any:
        torch.manual_seed(run.seed)
        task = Classification()
        model = analyzer_of.prepare_model(run.copy(checkpoint), task)
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

    each: dict[str, list[tuple[np.ndarray, float]]] = {}
    for checkpoint in range(len(run.checkpoints)):
        with tempfile.TemporaryDirectory() as folder:
            analyzer, fitting = timed(partial(fit, checkpoint, folder))
            for damping in dampings:
                how = "by eigenvalues" if damping is None else f"{damping:g}"
                scored, seconds = timed(partial(scores, analyzer, damping))
                name = f"kronfluence EK-FAC, damping {how}"
                each.setdefault(name, []).append((scored, fitting + seconds))
    return {name: joined(parts) for name, parts in each.items()}


def joined(parts: list[tuple[np.ndarray, float]]) -> tuple[np.ndarray, float]:
    """Put scores of several checkpoints together, and add up their seconds."""
    scores, seconds = zip(*parts, strict=True)
    return np.stack(scores), sum(seconds)


Group = list[tuple[int, int]]  # numbers of runs and of their checkpoints


def trak(
    runs: list[Run], ridges: tuple[float, ...], groups: dict[str, Group], folder: Path
) -> dict[str, tuple[np.ndarray, float]]:
    """TRAK over groups of checkpoints, projected to 2,048 numbers as by default."""
    package = importlib.import_module("trak")
    n_checkpoints = len(runs[0].checkpoints)

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

    def number_of(run: int, checkpoint: int) -> int:
        return run * n_checkpoints + checkpoint

    def featurize(traker: Any, run: int, checkpoint: int) -> None:
        state = runs[run].checkpoints[checkpoint]
        traker.load_checkpoint(state, model_id=number_of(run, checkpoint))
        for batch in runs[run].loader(N_LARGE):
            traker.featurize(batch, num_samples=len(batch[1]))

    def scores_of(traker: Any, name: str, group: Group) -> np.ndarray:
        for run, checkpoint in group:
            state, goals = runs[run].checkpoints[checkpoint], runs[run].goals
            m, number = len(goals[1]), number_of(run, checkpoint)
            traker.start_scoring_checkpoint(name, state, number, m)
            traker.score(goals, num_samples=m)
        numbers = [number_of(*one) for one in group]
        return np.array(traker.finalize_scores(name, model_ids=numbers))[None]

    found: dict[str, tuple[np.ndarray, float]] = {}
    features = make(str(folder / "features"))  # goes on where it was stopped
    used = dict.fromkeys(one for group in groups.values() for one in group)
    spent = [timed(partial(featurize, features, *one))[1] for one in used]
    for ridge in ridges:
        own = folder / f"{ridge:g}"
        shutil.copytree(folder / "features", own, dirs_exist_ok=True)
        finished = make(str(own), ridge)
        each = timed(finished.finalize_features)[1] / len(used)
        for k, (name, group) in enumerate(groups.items()):
            scored, seconds = timed(partial(scores_of, finished, f"group{k}", group))
            seconds += (float(np.median(spent)) + each) * len(group)
            found[f"{name}, ridge {ridge:g}"] = scored, seconds
        shutil.rmtree(own)
    return found


def dattri_conjugate(
    run: Run, options: tuple[tuple[float, int], ...] = ((0.0, 10),)
) -> Scores:
    """Influence functions by conjugate gradients, at each checkpoint.

    `options` are pairs of a regularisation and a number of iterations.
    """
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

    def conjugate(regularization: float, iterations: int) -> np.ndarray:
        each = []
        for state in run.checkpoints:
            task = tasks.AttributionTask(loss, run.copy(), state, target_func=target)
            attributor = Remembering(
                task, regularization=regularization, max_iter=iterations
            )
            attributor.cache(run.loader(len(run.train[1])))
            found = attributor.attribute(run.loader(N_LARGE), run.goal_loader())
            each.append(found.detach().numpy())
        return np.stack(each)

    return {
        f"dattri IF-CG, {n} iterations, regularisation {r:g}": timed(
            partial(conjugate, r, n)
        )
        for r, n in options
    }


def dattri_dvemb(run: Run, sizes: tuple[int, ...]) -> Scores:
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
                epoch = step * EPOCHS // len(batches)
                attributor.cache_gradients(epoch, batch, index, RATE)

        torch.manual_seed(run.seed)
        look(0, trainer.build())
        trainer.fit(run.problem.everyone, run.seed, after=look)
        attributor.cache()
        return attributor

    def scores(attributor: Any, function: Callable) -> np.ndarray:
        attributor.task.original_loss_func = function
        return attributor.attribute(run.goal_loader()).detach().numpy()[None]

    found = {}
    for size in sizes:
        attributor, fitting = timed(partial(embed, size))
        for name, function in (("loss", loss), ("margin", target)):
            scored, seconds = timed(partial(scores, attributor, function))
            found[f"dattri DVEmb, {size:,}, {name}"] = scored, fitting + seconds
    return found
