"""One training run on digits of which some are mislabelled, and what it tells."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm.auto import tqdm

from fstat import FInfluence, Trace, select
from fstat.datasets import Digits, load_digits_5k
from fstat.methods import Moments
from fstat.selection import Selection

from ..measures import cross_entropy
from ..overhead import Overhead, measure_overhead
from ..sampler import SingleRunSampler
from .data import Config, Data, prepare

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_MISREAD = 8  # test digits whose influences are estimated


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
        One row for each training digit: labels, the truth where it is known, mu of its
        influence on itself with interval, q-value and decision, and the other scores.
    selection : Selection
        Mislabelled digits at the stated false discovery rate.
    scores : pandas.DataFrame
        AUROC and recall of each score on the digits that are not trusted; empty where
        the truth is not known.
    false_discovery_proportion : float
        Share of the selected digits that are labelled rightly; NaN where the truth is
        not known.
    misread : ndarray of int
        The first few targets that the trained model gets wrong; the first target if
        it gets all right.
    influence : FInfluence
        Influence of each training digit on each of them, fitted; on itself where
        there is no target.
    predictions : ndarray of int
        What the trained model says of the test digits.
    accuracy : float
        Its accuracy on all test digits.
    traces : dict of str to Trace
        What the run recorded, by metric.
    overhead : dict of str to Overhead
        Cost of sampling over plain training: in the first metric alone, and of all
        that the run recorded. Empty if it was not measured.
    """

    config: Config
    data: Data
    table: pd.DataFrame
    selection: Selection
    scores: pd.DataFrame
    false_discovery_proportion: float
    misread: NDArray[np.int64]
    influence: FInfluence
    predictions: NDArray[np.int64]
    accuracy: float
    traces: dict[str, Trace]
    overhead: dict[str, Overhead]

    @property
    def trace(self) -> Trace:
        """What was recorded about the test digits."""
        return self.traces[self.config.metrics[-1]]


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


def run(
    config: Config,
    digits: Digits | None = None,
    *,
    test_digits: Digits | None = None,
    trusted: IntArray | None = None,
    traces_to: Path | None = None,
    progress: bool = True,
    overhead: bool = False,
) -> Result:
    """Train once on digits of which some labels are wrong, sampling as it goes.

    Parameters
    ----------
    config : Config
        Settings.
    digits : Digits, optional
        Images and labels; the embedded 5,000 by default.
    test_digits : Digits, optional
        Where test digits come from; from `digits` by default.
    trusted : ndarray of int, optional
        Training digits whose labels were checked, where no truth is known of the
        others; then nothing is flipped, ``config.noise`` being 0. By default labels
        are taken to be true before they are flipped.
    traces_to : Path, optional
        Folder to keep the traces in, which must not hold any; memory by default.
    progress : bool, default=True
        Whether to show a progress bar.
    overhead : bool, default=False
        Whether to measure afterwards what sampling costs.

    Returns
    -------
    Result
        Mislabelled digits, influences on test digits, baselines and cost.
    """
    device = choose_device(config.device)
    data = prepare(config, digits or load_digits_5k(), device, test_digits, trusted)
    torch.manual_seed(config.seed)
    model = build_model(config.model).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    samplers = _samplers(config, model, optimizer, data, traces_to)
    start = copy.deepcopy(model.state_dict())
    baselines = _Baselines(np.zeros(config.n_train), np.zeros(config.n_train))
    train(config, model, optimizer, data, samplers, baselines.update, progress)
    with torch.no_grad():
        predictions = model(data.x_test).argmax(dim=1).cpu().numpy()
        final_loss = cross_entropy(model(data.x), data.y).cpu().numpy()
    traces = {
        name: sampler.trace
        for name, sampler in zip(config.metrics, samplers, strict=True)
    }
    for trace in traces.values():
        trace.flush()
    table, selection = _find_mislabelled(config, traces, baselines, final_loss, data)
    right = predictions == data.y_test.cpu().numpy()
    misread = np.flatnonzero(~right[: config.n_targets])[:_MISREAD]
    if not len(misread):
        misread = np.arange(1)
    model.load_state_dict(start)
    return Result(
        config=config,
        data=data,
        table=table,
        selection=selection,
        scores=score(table) if data.truth else pd.DataFrame(),
        false_discovery_proportion=_share_false(selection.selected, data),
        misread=misread,
        influence=_influence_on(traces[config.metrics[-1]], misread),
        predictions=predictions,
        accuracy=float(right.mean()),
        traces=traces,
        overhead=_measure(config, model, data) if overhead else {},
    )


def choose_device(name: str) -> torch.device:
    """Return a device by name; ``"auto"`` is a GPU where there is one.

    Parameters
    ----------
    name : str
        ``"auto"`` or what torch calls the device.

    Returns
    -------
    torch.device
        The device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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


def train(
    config: Config,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    samplers: list[SingleRunSampler] | None = None,
    watch: Any = None,
    progress: bool = False,
    members: NDArray[np.int64] | None = None,
) -> None:
    """Train a model for the epochs of a configuration.

    Parameters
    ----------
    config : Config
        Settings.
    model : nn.Module
        Model to train.
    optimizer : torch.optim.Optimizer
        Its optimiser.
    data : Data
        Training digits.
    samplers : list of SingleRunSampler, optional
        Samplers that watch each step.
    watch : callable, optional
        Called with the numbers, logits and labels of each batch.
    progress : bool, default=False
        Whether to show a progress bar.
    members : ndarray of int, optional
        Which training digits to train on; all by default.
    """
    members = np.arange(len(data.y)) if members is None else members
    model.train()
    for epoch in tqdm(range(config.epochs), "epochs", disable=not progress):
        for chosen in _batches(config, epoch, len(members)):
            index = members[chosen]
            logits = _step(model, optimizer, data, samplers or [], index)
            if watch is not None:
                watch(index, logits, data.y[index])
    model.eval()


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    samplers: list[SingleRunSampler],
    index: NDArray[np.int64],
) -> Tensor:
    """Take one step on a batch, watched by samplers; return its logits."""
    optimizer.zero_grad()
    with ExitStack() as stack:
        for sampler in samplers:
            stack.enter_context(sampler.step(index))
        logits: Tensor = model(data.x[index])
        loss = nn.functional.cross_entropy(logits, data.y[index])
        torch.autograd.backward(loss)
    optimizer.step()
    return logits


def _batches(config: Config, epoch: int, n: int) -> list[NDArray[np.int64]]:
    """Return the batches of an epoch.

    A rest of less than half a batch joins the batch before: a step on a few examples
    at the end of an epoch would undo much of it.
    """
    rng = np.random.default_rng([config.seed, epoch])
    size = config.batch_size
    starts = range(size, max(n - size // 2, 0) + 1, size)
    return np.split(rng.permutation(n), list(starts))


def _last_layer(model: nn.Sequential) -> nn.Linear:
    last = model[-1]
    assert isinstance(last, nn.Linear)
    return last


def _samplers(
    config: Config,
    model: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    data: Data,
    traces_to: Path | None = None,
) -> list[SingleRunSampler]:
    """Return a sampler for each metric.

    In the bias of the last layer an example's gradient is how far its label is from
    the prediction, whatever its pixels are.
    """
    last = _last_layer(model)
    parameters = {
        "output": [last.bias],
        "last layer": list(last.parameters()),
        "all": list(model.parameters()),
    }
    everywhere: dict[str, Any] = {"self": "self"}
    if config.n_validation:
        everywhere["validation"] = (data.x_validation, data.y_validation)
    digits = {
        f"test {k}": (data.x_test[k : k + 1], data.y_test[k : k + 1])
        for k in range(min(config.n_targets, len(data.y_test)))
    }
    return [
        SingleRunSampler(
            model,
            targets=everywhere | digits if name == config.metrics[-1] else everywhere,
            optimizer=optimizer,
            parameters=parameters[name],
            path=None if traces_to is None else traces_to / name.replace(" ", "-"),
        )
        for name in config.metrics
    ]


def _find_mislabelled(
    config: Config,
    traces: dict[str, Trace],
    baselines: _Baselines,
    final_loss: FloatArray,
    data: Data,
) -> tuple[pd.DataFrame, Selection]:
    everyone = np.arange(len(data.y))
    fitted = {
        (metric, target): FInfluence(method=Moments(shrinkage="moderated")).fit(
            trace.observations(everyone, target)
        )
        for metric, trace in traces.items()
        for target in ("self", "validation")
        if target in trace.targets
    }
    first = config.metrics[0]
    memorised = fitted[first, "self"]
    selection = select(memorised, fdr=config.fdr, reference=data.trusted)
    table = memorised.to_frame().drop(columns=["target", "stderr", "pvalue", "n_P"])
    table = table.rename(columns={"n_Q": "n_observations"})
    table.insert(1, "label", data.y.cpu().numpy())
    table.insert(2, "trusted", data.trusted)
    if data.truth:
        table.insert(2, "true_label", data.true_labels)
        table.insert(3, "flipped", data.flipped)
    table["qvalue"], table["selected"] = selection.qvalues, selection.selected
    for (metric, target), influence in fitted.items():
        if (metric, target) != (first, "self"):
            table[f"mu_{target}_{metric}"] = influence.mu_
    columns = traces[config.metrics[-1]].columns(["index", "norm_squared"])
    norm = np.sqrt(columns["norm_squared"])
    table["gradient_norm"] = np.bincount(columns["index"], norm) / baselines.visits
    table["aum"] = baselines.margin / baselines.visits
    table["mean_loss"] = baselines.loss / baselines.visits
    table["final_loss"] = final_loss
    return table, selection


def score(table: pd.DataFrame) -> pd.DataFrame:
    """Say how well each score ranks mislabelled digits first.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `flipped`, `trusted` and the scores.

    Returns
    -------
    pandas.DataFrame
        AUROC, and the share of the mislabelled digits that are found when a tenth is
        inspected, on the digits that are not trusted.
    """
    judged = table[~table["trusted"]]
    flipped = judged["flipped"].to_numpy()
    rows = {}
    for column in judged:
        name, sign = name_of_score(str(column))
        if not name:
            continue
        values = sign * judged[column].to_numpy()
        values = np.where(np.isnan(values), np.nanmin(values), values)
        inspected = np.argsort(-values)[: round(0.1 * len(values))]
        rows[name] = {
            "AUROC": roc_auc_score(flipped, values) if flipped.any() else np.nan,
            "recall at 10 %": flipped[inspected].sum() / max(flipped.sum(), 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


_SCORES = {
    "mu": ("mu of self-influence", 1),
    "gradient_norm": ("gradient norm", 1),
    "aum": ("AUM", -1),
    "mean_loss": ("mean loss over training", 1),
    "final_loss": ("final loss", 1),
    "out_of_fold": ("out-of-fold confidence (cleanlab)", -1),
    "knn_shapley": ("KNN-Shapley", -1),
}


def name_of_score(column: str) -> tuple[str, int]:
    """Return what a column of the table is called, and which end is suspicious.

    Parameters
    ----------
    column : str
        Name of a column.

    Returns
    -------
    name : str
        Empty for columns that are no score.
    sign : int
        1 where large values are suspicious, -1 where small ones are.
    """
    kind, _, where = column.partition("_")[2].partition("_")
    if column.startswith("mu_") and kind == "self":
        return f"mu of self-influence ({where})", 1
    if column.startswith("mu_"):
        return f"mu of harm to validation digits ({where})", -1
    return _SCORES.get(column, ("", 0))


def _share_false(selected: NDArray[np.bool_], data: Data) -> float:
    if not data.truth:
        return np.nan
    return float(1 - data.flipped[selected].mean()) if selected.any() else 0.0


def _influence_on(trace: Trace, digits: NDArray[np.int64]) -> FInfluence:
    names = [f"test {k}" for k in digits if f"test {k}" in trace.targets]
    names = names or [trace.targets[-1]]
    return FInfluence(method=Moments(shrinkage="moderated")).fit(
        trace.observations(None, names)
    )


def _measure(config: Config, model: nn.Sequential, data: Data) -> dict[str, Overhead]:
    """Time steps of the same run with and without sampling."""
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    bias = _last_layer(model).bias
    alone = SingleRunSampler(model, optimizer=optimizer, parameters=[bias])
    everything = _samplers(config, model, optimizer, data)
    index = _batches(config, 0, len(data.y))[0]

    def step(samplers: list[SingleRunSampler]) -> None:
        _step(model, optimizer, data, samplers, index)

    kinds = {
        "self-influence at the output": [alone],
        f"self-influence in {len(config.metrics)} metrics and influence on "
        f"{config.n_targets} test digits, one by one": everything,
    }
    return {
        name: measure_overhead(partial(step, []), partial(step, chosen))
        for name, chosen in kinds.items()
    }
