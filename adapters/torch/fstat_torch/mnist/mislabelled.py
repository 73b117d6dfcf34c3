"""One training run on digits of which some are mislabelled, and what it tells."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fstat import FInfluence, Trace, select
from fstat.datasets import Digits, load_digits_5k
from fstat.methods import Moments
from fstat.selection import Selection

from ..commands import check_device
from ..overhead import Overhead, measure_overhead
from ..sampling.sampler import SingleRunSampler
from ..targets.measures import cross_entropy
from .data import Config, Data, prepare
from .judging import score, share_false
from .training import batches, build_model, take_step, train

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
    device = torch.device(check_device(config.device))
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
        false_discovery_proportion=share_false(selection.selected, data),
        misread=misread,
        influence=_influence_on(traces[config.metrics[-1]], misread),
        predictions=predictions,
        accuracy=float(right.mean()),
        traces=traces,
        overhead=_measure(config, model, data) if overhead else {},
    )


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
            storage=None if traces_to is None else traces_to / name.replace(" ", "-"),
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
    index = batches(config, 0, len(data.y))[0]

    def step(samplers: list[SingleRunSampler]) -> None:
        take_step(model, optimizer, data, samplers, index)

    kinds = {
        "self-influence at the output": [alone],
        f"self-influence in {len(config.metrics)} metrics and influence on "
        f"{config.n_targets} test digits, one by one": everything,
    }
    return {
        name: measure_overhead(partial(step, []), partial(step, chosen))
        for name, chosen in kinds.items()
    }
