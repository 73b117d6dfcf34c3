"""Comparing captured gradients, once, with those that the parameters received."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .distributed import Processes
from .gradients import Captured, GradientCapture, UnsupportedModelError
from .gradients.accumulation import accumulates, gradient_end


class Verification:
    """Sees to it that captured gradients are those that the model is trained by.

    Parameters
    ----------
    model : nn.Module
        The model.
    processes : Processes or None
        Who trains it.
    """

    def __init__(self, model: nn.Module, processes: Processes | None) -> None:
        self._model = model
        self._processes = processes
        self._done = False

    @property
    def _sharded(self) -> bool:
        return self._processes is not None and self._processes.sharded

    @property
    def done(self) -> bool:
        """Whether they were compared."""
        return self._done

    @contextmanager
    def seeing(self) -> Iterator[dict[str, Tensor]]:
        """Collect, until they were once compared, the gradients that arrive.

        They are seen before they are unscaled or clipped; and before they are averaged
        over processes, but where parameters are sharded.
        """
        added: dict[str, Tensor] = {}
        if self._done:
            yield added
            return
        parameters: Iterable[tuple[str, Any]] = self._model.named_parameters()
        trained = [(name, p) for name, p in parameters if p.requires_grad]
        if self._sharded:
            handles = [
                p.register_post_accumulate_grad_hook(_keep_averaged(added, name))
                for name, p in trained
                if hasattr(p, "full_tensor")
            ]
        else:
            handles = [p.register_hook(_keep(added, name, p)) for name, p in trained]
        try:
            yield added
        finally:
            for handle in handles:
                handle.remove()

    def compare(self, batch: Captured, added: Mapping[str, Tensor]) -> None:
        """Compare, until it could be done once.

        Raises
        ------
        UnsupportedModelError
            If a parameter's gradient is not what was captured.
        """
        if self._done:
            return
        if self._processes is not None and self._sharded:
            # Of what was gathered when the step began, nothing was seen.
            left = {name: p.grad for name, p in self._model.named_parameters()}
            self._done = self._processes.verify(batch, {**left, **added})
        else:
            self._done = batch.verify(added)


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
