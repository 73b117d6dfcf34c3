"""One training run on digits of which some are mislabelled, and what it tells."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm.auto import tqdm

from fstat import FInfluence, Observations, Selection, Trace, select
from fstat.datasets import Digits, flip_labels, load_digits_5k

from ..overhead import Overhead, measure_overhead
from ..sampler import SingleRunSampler, cross_entropy

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """Settings of the experiment.

    Parameters
    ----------
    model : {"mlp", "cnn", "logistic"}
        784-128-10 perceptron, convolutional network of 5,000 parameters, or softmax
        regression.
    noise : float
        Share of the training labels that is flipped.
    epochs, batch_size, learning_rate
        Of plain stochastic gradient descent.
    n_train, n_test : int
        Sizes of the two sets.
    n_targets : int
        Test digits whose influences are recorded.
    n_trusted : int
        Training digits that are known to be right, the reference set.
    fdr : float
        False discovery rate of the selection.
    seed : int
        Of the split, the flips, the initial weights and the batches.
    device : str
        ``"auto"`` takes a GPU where there is one.
    """

    model: str = "mlp"
    noise: float = 0.1
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.1
    n_train: int = 4000
    n_test: int = 1000
    n_targets: int = 100
    n_trusted: int = 400
    fdr: float = 0.1
    seed: int = 0
    device: str = "auto"


@dataclass
class Data:
    """Digits as tensors, with the truth about their labels.

    Parameters
    ----------
    x, y : Tensor
        Training images in [0, 1] and their labels as given.
    x_test, y_test : Tensor
        Test images and their true labels.
    true_labels : ndarray of int
        True training labels.
    flipped, trusted : ndarray of bool
        Which training labels are wrong, and which digits are known to be right.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    true_labels: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    trusted: NDArray[np.bool_]


@dataclass
class Result:
    """What one run told.

    Parameters
    ----------
    config : Config
        Settings.
    data : Data
        What was trained on.
    table : pandas.DataFrame
        One row for each training digit: labels, truth, mu of its influence on itself
        with interval, q-value and decision, and the baselines.
    selection : Selection
        Mislabelled digits at the stated false discovery rate.
    scores : pandas.DataFrame
        AUROC and recall of each score on the digits that are not trusted.
    false_discovery_proportion : float
        Share of the selected digits that are labelled rightly.
    influence : FInfluence
        Influence of each training digit on each target, fitted.
    observations : Observations
        What it was fitted to.
    targets : ndarray of int
        Test digits that are targets.
    predictions : ndarray of int
        What the trained model says of the test digits.
    accuracy : float
        Its accuracy on all test digits.
    trace : Trace
        What the run recorded about the targets.
    overhead : dict of str to Overhead
        Cost of sampling over plain training: self-influence at the output alone, and
        all that the run recorded.
    """

    config: Config
    data: Data
    table: pd.DataFrame
    selection: Selection
    scores: pd.DataFrame
    false_discovery_proportion: float
    influence: FInfluence
    observations: Observations
    targets: NDArray[np.int64]
    predictions: NDArray[np.int64]
    accuracy: float
    trace: Trace
    overhead: dict[str, Overhead]


@dataclass
class _Baselines:
    """Sums, over the visits of an example, of what other tools score by."""

    loss: FloatArray
    margin: FloatArray
    visits: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.visits = np.zeros_like(self.loss)

    @torch.no_grad()
    def update(self, index: NDArray[Any], logits: Tensor, y: Tensor) -> None:
        self.loss[index] += cross_entropy(logits, y).cpu().numpy()
        own = logits.gather(1, y[:, None])[:, 0]
        rest = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
        self.margin[index] += (own - rest).cpu().numpy()
        self.visits[index] += 1


def run(config: Config, digits: Digits | None = None, progress: bool = True) -> Result:
    """Train once on digits with flipped labels, sampling as it goes.

    Parameters
    ----------
    config : Config
        Settings.
    digits : Digits, optional
        Images and true labels; the embedded 5,000 by default.
    progress : bool, default=True
        Whether to show a progress bar.

    Returns
    -------
    Result
        Mislabelled digits, influences on test digits, baselines and cost.
    """
    device = _device(config.device)
    data = _prepare(config, digits or load_digits_5k(), device)
    torch.manual_seed(config.seed)
    model = build_model(config.model).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    targets = np.arange(min(config.n_targets, len(data.y_test)))
    samplers = _samplers(model, optimizer, data, targets)
    start = copy.deepcopy(model.state_dict())
    baselines = _train(config, model, optimizer, samplers, data, progress)
    model.eval()
    with torch.no_grad():
        predictions = model(data.x_test).argmax(dim=1).cpu().numpy()
        final_loss = cross_entropy(model(data.x), data.y).cpu().numpy()
    table, selection = _find_mislabelled(config, samplers, baselines, final_loss, data)
    chosen = selection.selected
    observations = samplers[1].trace.observations()
    model.load_state_dict(start)
    return Result(
        config=config,
        data=data,
        table=table,
        selection=selection,
        scores=_score(table),
        false_discovery_proportion=float(1 - data.flipped[chosen].mean())
        if chosen.any()
        else 0.0,
        influence=FInfluence(shrinkage="moderated").fit(observations),
        observations=observations,
        targets=targets,
        predictions=predictions,
        accuracy=float((predictions == data.y_test.cpu().numpy()).mean()),
        trace=samplers[1].trace,
        overhead=_measure(config, model, data, targets),
    )


def build_model(name: str) -> nn.Sequential:
    """Build one of the models of the experiment.

    Parameters
    ----------
    name : {"mlp", "cnn", "logistic"}
        Which one.

    Returns
    -------
    nn.Sequential
        Takes images of shape (b, 1, 28, 28); its last layer is linear.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)
        )
    if name == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 10),
        )
    if name == "logistic":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    raise ValueError(f"`model` must be 'mlp', 'cnn' or 'logistic', got {name!r}.")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _prepare(config: Config, digits: Digits, device: torch.device) -> Data:
    n, rng = config.n_train, np.random.RandomState(config.seed)
    order = rng.permutation(len(digits.labels))[: n + config.n_test]
    images = torch.from_numpy(digits.images[order]).to(device).float().div(255)
    labels = digits.labels[order]
    noisy, flipped = flip_labels(labels[:n], config.noise, random_state=rng)
    trusted = np.zeros(n, dtype=bool)
    trusted[rng.permutation(np.flatnonzero(~flipped))[: config.n_trusted]] = True
    images = images[:, None]
    return Data(
        images[:n],
        torch.from_numpy(noisy).to(device),
        images[n:],
        torch.from_numpy(labels[n:]).to(device),
        labels[:n],
        flipped,
        trusted,
    )


def _samplers(
    model: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    data: Data,
    targets: NDArray[np.int64],
) -> list[SingleRunSampler]:
    """Return samplers of self-influence at the output and of all influence.

    At the output, that is in the bias of the last layer, an example's gradient is how
    far its label is from the prediction, whatever its pixels are.
    """
    last = model[-1]
    assert isinstance(last, nn.Linear)
    points: dict[str, Any] = {
        f"test {k}": (data.x_test[k : k + 1], data.y_test[k : k + 1]) for k in targets
    }
    return [
        SingleRunSampler(model, optimizer=optimizer, parameters=[last.bias]),
        SingleRunSampler(
            model, targets={"self": "self", **points}, optimizer=optimizer
        ),
    ]


def _batches(config: Config, epoch: int, n: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng([config.seed, epoch])
    starts = range(config.batch_size, n, config.batch_size)
    return np.split(rng.permutation(n), list(starts))


def _train(
    config: Config,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    samplers: list[SingleRunSampler],
    data: Data,
    progress: bool,
) -> _Baselines:
    n = len(data.y)
    baselines = _Baselines(np.zeros(n), np.zeros(n))
    model.train()
    for epoch in tqdm(range(config.epochs), "epochs", disable=not progress):
        for index in _batches(config, epoch, n):
            x, y = data.x[index], data.y[index]
            optimizer.zero_grad()
            with ExitStack() as stack:
                for sampler in samplers:
                    stack.enter_context(sampler.step(index))
                logits = model(x)
                torch.autograd.backward(nn.functional.cross_entropy(logits, y))
            optimizer.step()
            baselines.update(index, logits, y)
    return baselines


def _find_mislabelled(
    config: Config,
    samplers: list[SingleRunSampler],
    baselines: _Baselines,
    final_loss: FloatArray,
    data: Data,
) -> tuple[pd.DataFrame, Selection]:
    everyone = np.arange(len(data.y))
    at_output, everywhere = (
        FInfluence(shrinkage="moderated").fit(
            sampler.trace.observations(everyone, "self")
        )
        for sampler in samplers
    )
    selection = select(at_output, fdr=config.fdr, reference=data.trusted)
    columns = samplers[1].trace.columns()
    norm = np.sqrt(columns["norm_squared"])
    gradient_norm = np.bincount(columns["index"], norm) / baselines.visits
    table = at_output.to_frame().drop(columns=["target", "stderr", "pvalue", "n_P"])
    table = table.rename(columns={"n_Q": "n_observations"})
    table.insert(1, "label", data.y.cpu().numpy())
    table.insert(2, "true_label", data.true_labels)
    table.insert(3, "flipped", data.flipped)
    table.insert(4, "trusted", data.trusted)
    table["qvalue"], table["selected"] = selection.qvalues, selection.selected
    table["mu_all_parameters"] = everywhere.mu_
    table["aum"] = baselines.margin / baselines.visits
    table["mean_loss"] = baselines.loss / baselines.visits
    table["final_loss"] = final_loss
    table["gradient_norm"] = gradient_norm
    return table, selection


_SCORES = {
    "mu of self-influence, at the output": ("mu", 1),
    "mu of self-influence, all parameters": ("mu_all_parameters", 1),
    "AUM": ("aum", -1),
    "mean loss over training": ("mean_loss", 1),
    "final loss": ("final_loss", 1),
    "gradient norm": ("gradient_norm", 1),
}


def _score(table: pd.DataFrame) -> pd.DataFrame:
    judged = table[~table["trusted"]]
    flipped = judged["flipped"].to_numpy()
    rows = {}
    for name, (column, sign) in _SCORES.items():
        score = sign * judged[column].fillna(judged[column].min()).to_numpy()
        inspected = np.argsort(-score)[: round(0.1 * len(score))]
        rows[name] = {
            "AUROC": roc_auc_score(flipped, score) if flipped.any() else np.nan,
            "recall at 10 %": flipped[inspected].sum() / max(flipped.sum(), 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def _measure(
    config: Config, model: nn.Sequential, data: Data, targets: NDArray[np.int64]
) -> dict[str, Overhead]:
    """Time steps of the same run with and without sampling."""
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    samplers = _samplers(model, optimizer, data, targets)
    index = _batches(config, 0, len(data.y))[0]

    def step(samplers: list[SingleRunSampler]) -> None:
        optimizer.zero_grad()
        with ExitStack() as stack:
            for sampler in samplers:
                stack.enter_context(sampler.step(index))
            loss = nn.functional.cross_entropy(model(data.x[index]), data.y[index])
            torch.autograd.backward(loss)
        optimizer.step()

    kinds = {
        "self-influence at the output": samplers[:1],
        f"and self-influence in all parameters, and {len(targets)} targets": samplers,
    }
    return {
        name: measure_overhead(partial(step, []), partial(step, chosen))
        for name, chosen in kinds.items()
    }
