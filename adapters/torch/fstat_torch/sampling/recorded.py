"""What a sampler recorded of a run: asked, written, and gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from fstat import Observations, Snapshots, Trace
from fstat.records.subsets import SELF, Subsets

from ..optimisers import aligned
from .loop import Loop
from .recorder import Recorder
from .run import Run


class Recorded:
    """The trace and the snapshots of a run, of which a sampler makes more.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer or None
        Optimiser of the run.
    """

    optimizer: torch.optim.Optimizer | None
    _run: Run
    _loop: Loop
    _recorders: list[Recorder]

    @property
    def trace(self) -> Trace:
        """What was recorded so far; nothing, where `metric` says so."""
        self._loop.settle()
        return self._run.trace

    @property
    def n_steps(self) -> int:
        """Update steps so far."""
        return self._loop.next

    @property
    def aligned(self) -> str:
        """What the recorded inner products are of."""
        return aligned(self.optimizer)

    @property
    def projection_noise(self) -> dict[str, float]:
        """How much of the spread of alignments is the projection's, by target.

        A share of their variance within batches, from 0 to 1, since the sampler was
        made; 0 without `projection`. Standardised by a spread that is so much larger,
        mu of a step is smaller by the square root of what remains.
        """
        names = [name for name in self.trace.targets if name != SELF]
        shares = np.zeros(len(names)) + sum(each.noise() for each in self._recorders)
        return dict(zip(names, shares.tolist(), strict=True))

    @property
    def records(self) -> bool:
        """Whether alignments are recorded in the trace."""
        return any(each.traces for each in self._recorders)

    @property
    def compares_at_snapshots(self) -> bool:
        """Whether the metric is one of snapshots."""
        return any(each.snapshots is not None for each in self._recorders)

    @property
    def snapshots(self) -> Snapshots:
        """The scores so far, in the metric `Curvature` or of a `reference`."""
        snapshots = self._needs_snapshots("snapshots").snapshots
        assert snapshots is not None
        return snapshots

    @property
    def kept_as(self) -> dict[str, str]:
        """How `Curvature` keeps each layer's gradients, and what the metric is there.

        By the layer's name; nothing before the first recorded step.

        Raises
        ------
        RuntimeError
            If no gradients are kept.
        """
        for recorder in self._recorders:
            if hasattr(recorder, "kept_as"):
                kept_as: dict[str, str] = recorder.kept_as
                return kept_as
        raise RuntimeError(
            "`kept_as` needs metric=Curvature(...) without a `reference`."
        )

    def _needs_snapshots(self, what: str) -> Recorder:
        for recorder in self._recorders:
            if recorder.snapshots is not None:
                return recorder
        raise RuntimeError(
            f"`{what}` needs metric=Curvature(...) or a `reference`, got metric "
            f"{self._run.alignment!r} without."
        )

    def observations(
        self,
        subsets: Subsets | None = None,
        targets: Sequence[str] | str | None = None,
        *,
        standardize: bool = True,
        **options: Any,
    ) -> Observations:
        """Form P and Q of any subsets, in the metric that was asked for.

        Parameters
        ----------
        subsets : optional
            None: each example on its own. Numbers of examples, or several arrays,
            named or not.
        targets : str or sequence of str, optional
            Which targets; by default all but ``"self"``, or ``"self"`` where it is
            the only one.
        standardize : bool, default=True
            Whether to standardise.
        **options
            Further ones of `fstat.Trace.observations` (`window`), or of
            `fstat.Snapshots.observations` (`discard`) where there are such.

        Returns
        -------
        Observations
            Paired. One observation a step that meets the subset, or with `Curvature`
            or a `reference` one a snapshot. Their `quantity` says which.

        Raises
        ------
        ValueError
            If nothing was recorded, or as the two methods say.
        """
        self._loop.ask()
        source = self.snapshots if self.compares_at_snapshots else self.trace
        return source.observations(subsets, targets, standardize=standardize, **options)

    @property
    def is_writer(self) -> bool:
        """Whether this process holds the trace."""
        return self._run.is_writer

    def flush(self) -> None:
        """Write what a checkpoint at this step needs to the folders that were given.

        Raises
        ------
        OSError
            If something could not be written: it is kept, and tried again.
        """
        with ExitStack() as each:  # whatever goes wrong with another
            for recorder in self._recorders:
                each.callback(recorder.flush, self._loop.next)
            each.callback(self.trace.flush)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, and flush.

        Save it with the model at the same step, before the next one. A trace in memory
        and gradients that are kept there are part of it.

        Returns
        -------
        dict
            Numbers, strings and tensors.

        Raises
        ------
        OSError
            If something could not be written.
        """
        self.flush()
        return self.flushed_state()

    def flushed_state(self) -> dict[str, Any]:
        """Return what `state_dict` does, of what was written so far.

        Returns
        -------
        dict
            Numbers, strings and tensors.
        """
        state: dict[str, Any] = {
            "step": self._loop.next,
            "targets": list(self.trace.targets),
            "n_recorded": self.trace.n_written,
            "trace": None,
        }
        state |= {each.name: each.state_dict() for each in self._recorders if each.name}
        if self.trace.path is None and self.trace.n_recorded:
            columns = self.trace.columns()
            state["trace"] = {k: torch.from_numpy(v) for k, v in columns.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: later steps of the trace are superseded.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        ValueError
            If the targets differ, or the trace does not hold the steps before the
            checkpoint.
        """
        if list(state["targets"]) != self.trace.targets:
            raise ValueError(
                f"`state` must be of a sampler with targets {self.trace.targets}, got "
                f"{list(state['targets'])}."
            )
        step, saved = int(state["step"]), state["trace"]
        if self.is_writer:
            in_memory = saved is not None and self.trace.path is None
            self._check_recorded(state, saved["step"] if in_memory else None)
            if in_memory:
                self.trace.rewind(0)
                self.trace.extend({k: v.numpy() for k, v in saved.items()})
        self._loop.go_to(step)
        for recorder in self._recorders:
            recorder.load_state_dict(step, state.get(recorder.name, {}))

    def _check_recorded(self, state: Mapping[str, Any], steps: Any) -> None:
        """Refuse a state whose steps are not those at hand, before anything changes."""
        if steps is None:
            found = self.trace.n_recorded
            steps = self.trace.columns(["step"])["step"] if found else []
        before = int((np.asarray(steps) < int(state["step"])).sum())
        if before != state["n_recorded"]:
            raise ValueError(
                f"`state` must be of the trace at hand, which has {before} recorded "
                f"steps before step {state['step']}, not {state['n_recorded']}: give "
                "the sampler the folder of that run, as Storage(path, resume=True)."
            )

    def start_at(self, step: int) -> None:
        """Go on at an update step: what the trace holds of later ones is superseded.

        Parameters
        ----------
        step : int
            How many update steps the model has made. Targets are taken anew at the
            next recorded one.
        """
        self._loop.go_to(int(step))
        for recorder in self._recorders:
            recorder.load_state_dict(int(step), {})

    def close(self) -> None:
        """Flush the trace and let go of the optimiser; the trace can still be asked."""
        with ExitStack() as ends:
            # Each ends for itself, whatever goes wrong with another.
            ends.callback(self._loop.close)
            for recorder in self._recorders:
                ends.callback(recorder.close)
            ends.callback(lambda: self.trace.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()
