"""A sampler that follows a loop which calls back, instead of wrapping its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fstat import Observations, Trace, Watch
from fstat._warnings import warn
from fstat.records.storage import storage_of
from fstat.records.subsets import Subsets

from ..sampling.sampler import SingleRunSampler
from ..sampling.step import Step


class _Abandoned(Exception):
    """A step whose backward pass never came."""


class Following:
    """Opens a step's block before the forward pass and closes it after the backward.

    Parameters
    ----------
    options : mapping of str to object
        Keyword arguments of `SingleRunSampler`.
    watch : Watch, optional
        What to look at after each step.
    """

    def __init__(self, options: Mapping[str, Any], watch: Watch | None = None) -> None:
        for name in ("model", "optimizer", "scaler", "distributed"):
            if name in options:
                raise TypeError(
                    f"`{name}` is not an argument of the callback: it takes the "
                    "trainer's own."
                )
        self._options, self._watch = dict(options), watch
        self._sampler: SingleRunSampler | None = None
        self._block: AbstractContextManager[Step] | None = None
        self._step: Step | None = None

    @property
    def sampler(self) -> SingleRunSampler:
        """The sampler, once training has begun."""
        if self._sampler is None:
            raise RuntimeError("Training has not begun: there is no sampler yet.")
        return self._sampler

    @property
    def trace(self) -> Trace:
        """What was recorded so far, once training has begun."""
        return self.sampler.trace

    @property
    def within(self) -> bool:
        """Whether a step's block is open."""
        return self._block is not None

    def start(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        scaler: Any,
        at: int,
        processes: int,
        state: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Build the sampler, which goes on at step `at` of the run, or from `state`.

        Warns
        -----
        UserWarning
            If earlier steps are not in the trace.
        """
        self.abandon()
        options = {**self._options, **more}
        storage = storage_of(options.get("storage"))
        if at > 0 and storage is not None:
            options["storage"] = replace(storage, resume=True)
        distributed = None if _says_itself(model) else processes > 1
        self._sampler = SingleRunSampler(
            model,
            optimizer=optimizer,
            scaler=scaler,
            distributed=distributed,
            **options,
        )
        # Without a checkpoint the sampler itself says what it supersedes.
        if state is not None:
            self._sampler.load_state_dict(state)
        elif at > 0:
            self._sampler.start_at(at)
            self._say_what_is_missing(at)

    def _say_what_is_missing(self, at: int) -> None:
        sampler = self.sampler
        expected = -(-at // sampler.every)
        wanted = sampler.is_writer and sampler.records
        if wanted and sampler.trace.n_recorded < expected:
            warn(
                f"Of the {expected} steps before step {at} that would have been "
                f"recorded, the trace holds {sampler.trace.n_recorded}. To keep them "
                "over a restart, give the callback a `storage`."
            )

    def enter(self, index: Any, **known: Any) -> None:
        """Open the block of a micro-batch, where steps are watched."""
        if not self.sampler.watches_steps:
            return
        if self._block is not None:
            self.abandon()
            raise RuntimeError(
                "the model was called twice in one training step: watch such a loop "
                "with SingleRunSampler.step around its forward and backward pass."
            )
        block = self.sampler.step(index, **known)
        self._step = block.__enter__()
        self._block = block

    def note(self, **extra: Any) -> None:
        """Add columns to the step whose block is open, if one is."""
        if self._step is not None:
            self._step.extra.update(extra)

    def leave(self, accumulate: bool) -> None:
        """Close the block, now that it is known whether the optimiser steps."""
        block, step = self._block, self._step
        self._block = self._step = None
        if block is not None:
            assert step is not None
            step.accumulate = accumulate
            block.__exit__(None, None, None)

    def look(self) -> bool:
        """Look at the influence so far; return whether training is to stop."""
        if self._watch is None:
            return False
        decided = self.sampler.is_writer and self._watch.look(self.trace)
        return self._watch.stop and self.sampler.agree(decided)

    def end_epoch(self, last: bool) -> None:
        """Take a snapshot, where gradients are compared at snapshots.

        There is one at the end of each epoch of gradients that are taken anew. Of kept
        ones the sampler takes snapshots itself, and the last moment is for a run that
        is too short for that.

        Parameters
        ----------
        last : bool
            Whether training ends.
        """
        sampler = self.sampler
        if not sampler.compares_at_snapshots or not sampler.n_steps:
            return
        steps, anew = sampler.snapshots.steps, sampler.compares_anew
        if (last and not steps) or (anew and steps[-1:] < [sampler.n_steps]):
            with sampler.keeping_on("A snapshot was not taken"):
                sampler.snapshot()

    def flush(self) -> None:
        """Write what a checkpoint needs to the folders that were given."""
        with self.sampler.keeping_on("A checkpoint lacks what was recorded"):
            self.sampler.flush()

    def abandon(self) -> None:
        """Close a block whose step failed, so that no hook stays behind."""
        block, self._block = self._block, None
        if block is not None:
            error = _Abandoned()
            with suppress(_Abandoned):
                block.__exit__(_Abandoned, error, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state; empty before training begins."""
        if self._sampler is None:
            return {}
        self.flush()
        return self._sampler.flushed_state()

    def finish(self) -> None:
        """Flush the trace, which can then be asked."""
        self.abandon()
        if self._sampler is not None:
            with self._sampler.keeping_on("What was recorded was not written"):
                self._sampler.close()

    def observations(self, *arguments: Any, **options: Any) -> Observations:
        """Return what `SingleRunSampler.observations` does."""
        return self.sampler.observations(*arguments, **options)


def _says_itself(model: nn.Module) -> bool:
    return any(hasattr(p, "full_tensor") for p in model.parameters())


class Followed:
    """What a trainer's callback shows of the sampler that follows its loop."""

    _following: Following

    @property
    def sampler(self) -> SingleRunSampler:
        """The sampler, once training has begun."""
        return self._following.sampler

    @property
    def trace(self) -> Trace:
        """What was recorded so far, once training has begun."""
        return self._following.trace

    def observations(
        self,
        subsets: Subsets | None = None,
        targets: Sequence[str] | str | None = None,
        **options: Any,
    ) -> Observations:
        """Form P and Q of any subsets.

        Parameters
        ----------
        subsets, targets, **options
            As `SingleRunSampler.observations` takes them.

        Returns
        -------
        Observations
            Of the run so far.

        Raises
        ------
        RuntimeError
            If training has not begun.
        ValueError
            As `SingleRunSampler.observations`.
        """
        return self._following.observations(subsets, targets, **options)
