"""Comparing captured gradients with those that the parameters received."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from torch import Tensor, nn

from ..distributed import Processes
from ..gradients import Captured, GradientCapture, UnsupportedModelError, Wanted
from ..gradients.accumulation import accumulates, gradient_end

_EVERY = 100  # recorded steps between two comparisons, on average


class DisagreementError(UnsupportedModelError):
    """What was captured is not what the parameters received, though it once was."""


class Verification:
    """Sees to it that captured gradients are those that the model is trained by.

    They are compared at the first step, wherever layers are used another number of
    times or another number of examples is met than in the steps that were compared, and
    now and then at random.

    Parameters
    ----------
    model : nn.Module
        The model.
    processes : Processes or None
        Who trains it.

    Attributes
    ----------
    last : int
        The last step that was compared, -1 before there is one.
    """

    def __init__(self, model: nn.Module, processes: Processes | None) -> None:
        self._model, self._processes = model, processes
        self.last = -1
        self._done = self._suspected = False
        self._known: set[Hashable] = set()
        self._uses: Hashable = None
        self._random, self._wait = random.Random(0), 0
        self._added: dict[str, Tensor] = {}
        self._listened = False
        self._handles: list[Any] = []
        self._wanted: Wanted | None = None

    @property
    def _sharded(self) -> bool:
        return self._processes is not None and self._processes.sharded

    @property
    def done(self) -> bool:
        """Whether gradients were compared once, and need not be in the next step."""
        due = self._suspected or self._wait <= 0
        return self._done and not (due and not self._sharded)

    def begin(self, wanted: Wanted | None) -> None:
        """Collect the gradients that arrive until `end`, if they are to be compared.

        They are seen before they are unscaled or clipped; and before they are averaged
        over processes, but where parameters are sharded.

        Parameters
        ----------
        wanted : Wanted or None
            What is wanted of large layers, to which sums are added.
        """
        # A step that failed may have left what it saw.
        self._added, self._wanted, self._listened = {}, wanted, False
        if not self.done:
            self._listen()
        self._wait -= 1

    def end(self) -> None:
        """Take the hooks off that were put on since `begin`."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._wanted = [], None

    def began(self, uses: Hashable) -> None:
        """Take note that a backward pass began, of layers used in some way."""
        self._uses = uses
        # Processes that wait for one another must decide alike.
        if self._done and self._processes is None and uses not in self._known:
            self._listen()

    def _listen(self) -> None:
        if self._handles:
            return
        if self._wanted is not None:
            self._wanted.sums = True
        parameters: Iterable[tuple[str, Any]] = self._model.named_parameters()
        trained = [(name, p) for name, p in parameters if p.requires_grad]
        if self._sharded:
            self._handles = [
                p.register_post_accumulate_grad_hook(_keep_averaged(self._added, name))
                for name, p in trained
                if hasattr(p, "full_tensor")
            ]
        else:
            self._handles = [
                p.register_hook(_keep(self._added, name, p)) for name, p in trained
            ]
        self._listened = True

    def compare(self, batch: Captured, number: int) -> None:
        """Compare, where gradients were collected.

        Raises
        ------
        UnsupportedModelError
            If a parameter's gradient is not what was captured. It is a
            `DisagreementError` where it was before.
        """
        if not self._listened:
            return
        self._listened = False
        try:
            finite = self._agrees(batch)
        except UnsupportedModelError as error:
            if not self._done:
                raise
            self._suspected = True
            raise DisagreementError(str(error)) from None
        if finite:
            self._done, self._suspected, self.last = True, False, number
            self._known.add(self._uses)
            self._wait = 1 + int(self._random.expovariate(1 / _EVERY))

    def _agrees(self, batch: Captured) -> bool:
        if self._processes is not None and self._sharded:
            # Of what was gathered when the step began, nothing was seen.
            left = {name: p.grad for name, p in self._model.named_parameters()}
            return self._processes.verify(batch, {**left, **self._added})
        return batch.verify(self._added)


def _keep(
    added: dict[str, Tensor], name: str, parameter: Tensor
) -> Callable[[Tensor], None]:
    ends = [gradient_end(parameter)]

    def arrived(gradient: Tensor) -> None:
        if not accumulates(ends):
            return
        seen = gradient.detach()
        added[name] = added[name] + seen if name in added else seen.clone()

    return arrived


def _keep_averaged(added: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def arrived(parameter: Tensor) -> None:
        assert parameter.grad is not None
        added[name] = parameter.grad.detach().clone()

    return arrived


def refuse_whole_modules(capture: GradientCapture) -> None:
    """Refuse modules that would have to be run again, where parameters are sharded."""
    for name, rule, _ in capture.plan():
        if rule in ("module", "attention"):
            raise UnsupportedModelError(
                f"{name!r} would have to be run again, for which its sharded "
                "parameters are not there: leave them out with `parameters=`, or "
                "train with DistributedDataParallel."
            )
