"""A pass of our own through the model, in eval mode, for given examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .layer_call import row_weights
from .layout import rows_of
from .plan import Plan, UnsupportedModelError
from .precision import all_finite
from .recording import Recording
from .repeated_pass import Truth, gradients
from .side_effects import Whole, evaluating, for_autograd, undisturbed

Loss = Callable[[Any, Any], Tensor]


class Evaluation:
    """The gradient of each example's own loss, from one pass in eval mode.

    Parameters
    ----------
    model : nn.Module
        The model.
    plan : Plan
        Its plan.
    loss_fn : callable
        Returns one loss per example.
    x, y : object
        What the model is called with, and what the loss takes.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, loss_fn: Loss, x: Any, y: Any
    ) -> None:
        self._model, self._plan, self._loss_fn = model, plan, loss_fn
        self._x, self._y = x, y
        self._state: Whole | None = None
        self._truth: Truth = ()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Be in eval mode inside, and leave no trace."""
        modules = list(self._plan.modules.values())
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            undisturbed(modules),
            evaluating(modules, self._plan.evaluated),
        ):
            yield

    def record(self, compared: bool = False) -> Recording:
        """Make the pass, and record it by the plan as it is now.

        Parameters
        ----------
        compared : bool, default=False
            Whether the pass is to be made again, and its `truth` is needed.
        """
        recording = Recording(
            self._plan, edges=True, batch_size=rows_of(self._x), states=compared
        )
        if compared and self._state is None:
            self._state = Whole(list(self._plan.modules.values()))
        state = nullcontext() if self._state is None else self._state.again()
        with state, recording.listening():
            losses = self._loss_fn(_call(self._model, self._x), for_autograd(self._y))
            _check(losses, recording, compared)
            recording.n = len(losses)
            needed = compared and not self._truth
            recording.differentiate([losses.sum()], retain_graph=needed)
            if needed:
                self._find_truth(losses, recording)
        return recording

    def _find_truth(self, losses: Tensor, recording: Recording) -> None:
        weights = row_weights(len(losses), losses)
        whole, weighed = (
            gradients([losses], [cotangent], self._plan)
            for cotangent in (torch.ones_like(losses), weights)
        )
        if not recording.edges and not any(g.any() for g in whole.values()):
            raise RuntimeError(_INDEPENDENT)
        self._truth = whole, weighed

    @property
    def truth(self) -> Truth:
        """Gradients summed over the examples, plain and weighed; none before a pass."""
        return self._truth

    @property
    def finite(self) -> bool:
        """Whether all gradients are."""
        return all(all_finite(side.values()) for side in self.truth)


def _call(model: nn.Module, x: Any) -> Any:
    if isinstance(x, Mapping):
        return model(**{k: for_autograd(v) for k, v in x.items()})
    if isinstance(x, tuple | list):
        return model(*map(for_autograd, x))
    return model(for_autograd(x))


def _check(losses: Tensor, recording: Recording, compared: bool) -> None:
    """Refuse losses that are not one an example, or have nothing to be captured."""
    if not isinstance(losses, Tensor) or losses.ndim != 1:
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses)
        raise ValueError(
            "`loss_fn` must return one loss per example, a tensor of shape (m,) (as "
            f'with reduction="none"), got {shape}.'
        )
    if recording.without_gradient and _holds_reentrant_checkpoint(losses):
        raise UnsupportedModelError(
            "the model checkpoints layers with use_reentrant=True also in eval mode, "
            "which hides them from a pass for targets: pass use_reentrant=False, or "
            "checkpoint only where `self.training`."
        )
    if not losses.requires_grad or not (recording.edges or compared):
        raise RuntimeError(_INDEPENDENT)


_INDEPENDENT = "the losses do not depend on the captured parameters."


def _holds_reentrant_checkpoint(losses: Tensor) -> bool:
    """Whether some of the graph is made in the backward pass only."""
    waiting, met = [losses.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        met.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False
