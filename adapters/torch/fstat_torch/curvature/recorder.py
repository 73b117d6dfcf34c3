"""The gradients that one run keeps for its metric, and what it needs to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fstat import Snapshots
from fstat._warnings import warn

from ..gradients import Captured
from ..gradients.precision import full_precision
from ..sampling.block_capture import BlockCapture
from ..sampling.recorder import DegenerateMetricError, Recorder
from ..sampling.run import Run
from ..sampling.step import Step
from ..targets.batches import gathered
from ..targets.gradients import moved
from .construction import Ridge, build, empty_store
from .moments import ENOUGH, MOST, Moments
from .options import AUTO, KINDS, Options
from .processes import Holders
from .residual import LEARNT, LeftToLearn, kind_for, residuals
from .state_files import StateFiles
from .store import Rows, longer

_MOST_UNTOLD = 10**8  # examples
_UNTOLD = ", where the metric is not told `n_examples`"


_DEGENERATE = (
    "the examples' gradients make up no curvature metric at this moment: they are all "
    "zero, as where the model fits every example, or so large that their products "
    "overflow, as where the run diverges. Other moments are not concerned."
)


class KeptGradients(Recorder):
    """Each example's gradient from its last step, and scores in the metric they make.

    Parameters
    ----------
    metric : Options
        What is asked for.
    run : Run
        What is recorded. Where several processes share the batch, each keeps the
        gradients of the examples that it sees, and all must take snapshots together.

    Attributes
    ----------
    snapshots : Snapshots
        Scores so far, of all examples on all processes.
    """

    name = "kept"
    n_outputs = 0  # of the model
    _ridge: float | None = None  # of the last snapshot
    _share: float | None = None  # that was left to learn then, if that is why
    snapshots: Snapshots

    def __init__(self, metric: Options, run: Run) -> None:
        self._asked, self._targets, self._itself = metric, run.names, run.itself
        self._capture, self._points = run.capture, run.points
        self._model, self._processes = run.capture.model, run.processes
        self.of_outputs = metric.kind == AUTO or metric.power > 0
        self._store = empty_store(metric, self._model, None)
        self._folder = None if metric.path is None else Path(metric.path)
        if self._folder is not None and run.processes is not None:
            self._folder /= f"process-{run.processes.rank}"
        self._files = None if self._folder is None else StateFiles(self._folder)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._metric = self._asked
        self._moments, self._left = Moments(), LeftToLearn()
        # Whether the user chose a moment, and whether there is one before its time.
        self._by_hand = self._early = False
        self._n = n = self._metric.n_examples or 0
        self.snapshots = Snapshots(self._targets, n)
        self.close()
        self._store = empty_store(self._metric, self._model, self._folder)
        # There is room for more examples than the n that there are.
        # At which step each was met, -1 for never; what its kept gradient is to be
        # multiplied with; the size of the loss's gradient at the model's output.
        self._met = torch.full((n,), -1)
        self._scale = torch.ones(n, dtype=torch.float64)
        self._residual = torch.ones(n, dtype=torch.float64)
        # Of the update that is not whole yet: which examples, their gradients, what
        # these are to be multiplied with, and the residuals.
        self._pending: list[tuple[Tensor, Rows, float, Tensor | None]] = []

    @property
    def _process(self) -> tuple[int, int]:
        """Which process this is, and of how many."""
        there = self._processes
        return (0, 1) if there is None else (there.rank, there.size)

    @property
    def kept_as(self) -> dict[str, str]:
        """How the gradients of each unit are kept, and what the metric is there."""
        return self._store.told(self._metric.structure == "ekfac")

    def check(self, examples: Sequence[int]) -> None:
        """Refuse numbers that no example has, and make room for others.

        Raises
        ------
        ValueError
            If there is one.
        """
        told = self._metric.n_examples
        most = _MOST_UNTOLD if told is None else told
        if len(examples) and (min(examples) < 0 or max(examples) >= most):
            why = _UNTOLD if told is None else ", as `n_examples` of the metric says"
            raise ValueError(
                f"`index` must hold numbers from 0 to {most - 1}{why}, got "
                f"{min(examples)} to {max(examples)}."
            )
        self._grow(max(examples, default=-1) + 1)

    def _grow(self, n: int) -> None:
        """Let there be at least n examples, with room for as many again."""
        self._n = max(self._n, n)
        if self._n > len(self._met):
            room = min(2 * self._n, _MOST_UNTOLD)
            self._store.grow(room)
            self._met = longer(self._met, room, -1)
            self._scale = longer(self._scale, room, 1.0)
            self._residual = longer(self._residual, room, 1.0)

    def wants(
        self, number: int, examples: list[int], step: Step, alone: bool, sums: bool
    ) -> None:
        """Refuse numbers that no example has; all of the gradients is wanted."""
        self.check(examples)

    def add(self, number: int, step: Step, block: BlockCapture) -> None:
        """Keep the gradients of a micro-batch until its update is whole."""
        self.keep(block.examples, block.batch, step.scale, block.arrived)

    @torch.no_grad()
    def keep(
        self,
        examples: Sequence[int],
        batch: Captured,
        scale: float,
        arrived: list[Tensor],
    ) -> None:
        """Keep some gradients until `seal`.

        Parameters
        ----------
        examples : sequence of int
            Which examples.
        batch : Captured
            Their gradients.
        scale : float
            What these are to be multiplied with, but for what the whole update is.
        arrived : list of Tensor
            What arrived at the model's output, where that is needed.
        """
        begins = not self._pending and not bool((self._met >= 0).any())
        if begins and self._files is not None and not self._store.nbytes:
            self._files.begin()
        index = torch.tensor(examples, dtype=torch.int64)
        if self._metric.kind == AUTO:
            self._metric = self._metric.of_kind(kind_for(arrived, len(index)))
        if self._metric.power:
            size = residuals(arrived, len(index), self._metric.kind)
            self.n_outputs = arrived[0].shape[1]
        with full_precision(next(self._model.parameters())):
            kept, rows = self._store.staged(index, batch)
        sizes = size[kept] if self._metric.power else None
        self._pending.append((index[kept], rows, scale, sizes))

    def finish(self, number: int, step: Step, own: Callable[[], float]) -> None:
        """Put the gradients of an update in the place of those from before."""
        size = self.seal(number, own())
        if self._left.begins or not self._by_hand:
            self._count(size)

    def _count(self, size: int) -> None:
        """Take note of an update of some examples of this process."""
        if self._processes is not None:
            size = sum(self._processes.sizes(size))
        self._moments.count(size)
        if not (self._left.begins or self._moments.counts):
            return
        holders, index = self._latest()
        if self._left.begins:
            self._left.begin(self._moments.visits, self._sizes(holders, index))
        if self._moments.counts:
            self._moments.met(len(index))

    def seal(self, step: int, own: float) -> int:
        """Put what was kept in the place of what was there before.

        Parameters
        ----------
        step : int
            Number of the update.
        own : float
            What the gradients of its examples are to be multiplied with, too.

        Returns
        -------
        int
            How many examples these are.
        """
        if not self._pending:
            return 0
        pending, self._pending = self._pending, []
        every = torch.unique(torch.cat([index for index, *_ in pending]))
        self._met[every] = -1  # until all is written
        for index, rows, scale, sizes in pending:
            self._store.write(index, rows)
            self._scale[index] = scale * own
            if sizes is not None:
                self._residual[index] = sizes
        self._met[every] = step
        self._store.seal(every, step)
        return len(every)

    def begin_unwatched(self) -> None:
        """Take the run to have begun with equal probabilities of all outputs."""
        if self.n_outputs:
            self._left.begin_unwatched(max(self.n_outputs, 2))

    def abandon(self) -> None:
        """Forget the micro-batches of an update that never became whole."""
        self._pending = []

    def between(self, step: int) -> None:
        """Take a snapshot if a pass is over, unless the user chooses the moments.

        Parameters
        ----------
        step : int
            Update steps made.

        Raises
        ------
        DegenerateMetricError
            If gradients are all zero, or overflow.
        """
        if self._by_hand or not self._moments.due:
            return
        holders, index = self._latest()
        self._moments.passed(len(index))
        if len(self.snapshots) >= ENOUGH and self._is_learnt(holders, index):
            return
        self._take(step, instead=self._early)
        if len(self.snapshots) >= MOST:
            for at in self.snapshots.steps[::2]:
                self.snapshots.remove(at)
            self._moments.thinned()

    def _is_learnt(self, holders: Holders, index: Tensor) -> bool:
        """Say whether gradients tell little more, as there is little left to learn."""
        if not self._metric.power:
            return False
        sizes = self._sizes(holders, index)
        return self._left.share(sizes) < LEARNT

    def _sizes(self, holders: Holders, index: Tensor) -> Tensor:
        """Return the size of each example's loss's gradient at the outputs."""
        n = self._n
        own = holders.numbers(self._residual[:n]) * holders.numbers(self._scale[:n])
        return own[index]

    def asked(self, step: int) -> None:
        """Take a snapshot before its time, if there is none in the only process."""
        alone, none = self._processes is None, not len(self.snapshots)
        if alone and none and bool((self._met >= 0).any()):
            self._take(step, instead=False)
            self._early = True

    def snapshot(self, step: int) -> None:
        """Build the metric and score all examples that were met, at this moment.

        From now on the user chooses the moments: snapshots that were taken without
        being asked for are let go.

        Parameters
        ----------
        step : int
            Update steps made.

        Raises
        ------
        RuntimeError
            If no gradient is kept, or no step was taken since the last snapshot.
        """
        _, index = self._latest()
        if not len(index) or (self._by_hand and step in self.snapshots.steps):
            raise RuntimeError(
                "`snapshot` needs a step that was recorded since the last one."
            )
        self._take(step, instead=not self._by_hand)
        self._by_hand = True

    @torch.no_grad()
    def _take(self, step: int, instead: bool) -> None:
        """Take a snapshot, perhaps instead of all those before."""
        scores = self.scores(step, not len(self.snapshots))
        if instead:
            self._forget_snapshots()
        self.snapshots.grow(len(scores))
        self.snapshots.append(step, scores)

    def _forget_snapshots(self) -> None:
        for step in self.snapshots.steps:
            self.snapshots.remove(step)
        self._early = False

    def _latest(self) -> tuple[Holders, Tensor]:
        """Return who holds the gradients of which examples, on all processes alike."""
        if self._processes is not None:
            n = self._processes.largest(torch.tensor([self._n]))
            self._grow(int(n[0]))
        return Holders.latest(self._met[: self._n], self._processes)

    def scores(self, step: int, first: bool) -> NDArray[Any]:
        """Score all examples that were met, as `snapshot` does.

        Parameters
        ----------
        step : int
            Update steps made.
        first : bool
            Whether to refuse targets that are not finite.

        Returns
        -------
        ndarray of shape (n_examples, n_targets)
            NaN for examples that were not met.

        Raises
        ------
        DegenerateMetricError
            If gradients are all zero, or overflow.
        """
        holders, index = self._latest()
        shape = self._n, len(self._targets)
        if not len(index):
            return np.full(shape, np.nan)
        with full_precision(next(self._model.parameters())):
            try:
                metric, scale = self._built(holders, index, step)
                found = self._scores(metric, scale, first)
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise DegenerateMetricError(_DEGENERATE) from error
        if not bool(found.isfinite().any()):
            raise DegenerateMetricError(_DEGENERATE)
        scores = np.full(shape, np.nan, np.float32 if found.itemsize < 8 else float)
        scores[index.numpy()] = found.cpu().numpy()
        return scores

    def _built(
        self, holders: Holders, index: Tensor, step: int
    ) -> tuple[Ridge, Tensor]:
        """Return the metric, and what gradients are to be multiplied with."""
        holders.check(self._store)
        if self._processes is not None and self._asked.kind == AUTO:
            kinds = self._processes.share(self._metric.kind)
            self._metric = self._asked.of_kind(min(kinds))  # "fisher" suits any loss
        scale = holders.numbers(self._scale[: self._n])[index]
        weight, damping = scale, self._metric.damping
        if self._metric.power:
            size = self._sizes(holders, index)
            # Below this, what is left of 1 - p is rounding.
            least = torch.finfo(self._store.dtype).eps ** 0.5
            weight = size.clamp(min=least) ** -self._metric.power * scale
            if damping is None:
                self._share = self._left.share(size)
                damping = self._left.ridge(self._share)
        assert damping is not None
        self._ridge = damping
        metric = build(self._metric, damping, self._store, index, weight, step, holders)
        return metric, scale

    def _scores(self, metric: Ridge, scale: Tensor, first: bool) -> Tensor:
        aligned = []
        self._points = moved(self._points, self._capture)
        for points in self._points:
            targets = self._store.encode(points.gradients(self._capture, first))
            aligned.append(metric.targets(targets, points.average))
        columns = [gathered(aligned, self._points)] if aligned else []
        columns = [scores * scale.to(scores)[:, None] for scores in columns]
        if self._itself:
            own = metric.itself()
            columns.append((own * scale.to(own) ** 2)[:, None])
        return torch.cat(columns, dim=1)

    def told(self) -> str:
        """Return what it chose by itself, and what it has, in words."""
        metric, words = self._metric, []
        if metric.kind != AUTO:
            words.append(f"kind {metric.kind!r}")
            if self._asked.kind == AUTO:
                words[-1] += ", as the loss asks for"
        if metric.structure == "ekfac":
            words.append("EK-FAC")
        elif metric.landmarks is None or metric.landmarks >= self._n > 0:
            words.append("the exact kernel")
        else:
            words.append(f"{metric.landmarks} landmarks")
        if self._ridge is not None:
            words.append(f"a ridge of {self._ridge:.2g}")
            if self._share is not None:
                words[-1] += f", as {self._share:.0%} is left to learn"
        when = "when asked" if self._by_hand else "after each pass but the first"
        words.append(f"snapshots {when}")
        if self.snapshots.steps:
            words[-1] += f", at steps {self.snapshots.steps}"
        size = f"{self._store.nbytes / 2**20:.3g} MiB of gradients"
        return "; ".join([*words, size])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs; empty where it is kept in a folder."""
        return {} if self._files is not None else self._state()

    def flush(self, step: int) -> None:
        """Write what a checkpoint needs, where there is a folder for it.

        Parameters
        ----------
        step : int
            Update steps made.
        """
        if self._files is not None and self._store.nbytes:
            self._files.write(step, self._state())

    def close(self) -> None:
        """Let other writers have the folder."""
        self._store.close()

    def _state(self) -> dict[str, Any]:
        return {
            "kept_as": json.dumps(self._store.description()),
            "met": self._met[: self._n].clone(),
            "scale": self._scale[: self._n].clone(),
            "residual": self._residual[: self._n].clone(),
            "left": self._left.state(),
            "kind": torch.tensor(KINDS.index(self._metric.kind)),
            "moments": torch.tensor(
                [self._by_hand, self._early, *self._moments.state()]
            ),
            "process": torch.tensor(self._process),
            "steps": torch.tensor(self.snapshots.steps, dtype=torch.int64),
            "scores": torch.from_numpy(self.snapshots.stacked()),
            **self._store.dump(self._n),
        }

    def load_state_dict(self, step: int, state: Mapping[str, Any]) -> None:
        """Go back to a checkpoint.

        Parameters
        ----------
        step : int
            Update steps made then.
        state : mapping
            What `state_dict` returned.

        Warns
        -----
        UserWarning
            If it holds no gradients: then they are kept from now on.
        """
        self.forget()
        found = dict(state) if self._files is None else self._files.read(step)
        if not found:
            if step > 0:
                warn(_NOTHING.format(step=step))
            return
        self._check(found)
        self._grow(len(found["met"]))
        self.snapshots.grow(self._n)
        for at, scores in zip(found.pop("steps"), found.pop("scores"), strict=True):
            self.snapshots.append(int(at), scores.numpy())
        self._metric = self._metric.of_kind(KINDS[int(found.pop("kind"))])
        self._left.load(found.pop("left"))
        by_hand, early, *moments = found.pop("moments").tolist()
        self._by_hand, self._early = bool(by_hand), bool(early)
        self._moments.load(moments)
        process = tuple(found.pop("process", torch.tensor([0, 1])).tolist())
        if process != self._process:
            warn(_OTHERS.format(step=step))
        words = json.loads(found.pop("kept_as"))
        if words and process[0] == self._process[0]:
            self._go_on(step, words, found)

    def _go_on(self, step: int, words: Any, found: dict[str, Any]) -> None:
        """Go on with the gradients that were kept."""
        met = found.pop("met")
        n = len(met)
        self._scale[:n] = found.pop("scale")
        self._residual[:n] = found.pop("residual")
        device = next(self._model.parameters()).device
        there = self._store.load(words, met, found, device)
        lost = int(((met >= 0) & ~there).sum())
        if lost:
            warn(_LOST.format(lost=lost, step=step))
        if n < len(self._met):
            self._store.grow(len(self._met))
        self._met[:n] = torch.where(there, met, -1)

    def _check(self, state: Mapping[str, Any]) -> None:
        n, scores = len(state["met"]), state["scores"].shape
        told = self._metric.n_examples or n
        if n != told or scores[2] != len(self._targets):
            raise ValueError(
                f"`state` must be of a metric of {told} examples and "
                f"{len(self._targets)} targets, got {n} and {scores[2]}."
            )


_NOTHING = (
    "No kept gradients belong to step {step}, where the run goes on: they are kept "
    "from now on, and examples are scored once they were met again. To keep them over "
    "a restart, give `Curvature` a `path`, or load_state_dict what state_dict returned."
)
_OTHERS = (
    "Gradients that other processes kept are not in the checkpoint at step {step}: "
    "their examples are scored once they were met again. Save the state_dict of each "
    "process and give it back to the same one of as many, or give `Curvature` a `path`."
)
_LOST = (
    "The gradients of {lost} examples were written over since the checkpoint at step "
    "{step}, which is not the last one of its run: they are scored once they were met "
    "again."
)
