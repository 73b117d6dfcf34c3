"""Recurrent layers: their weights multiply what comes in and the state before it.

A layer is run once more on the whole batch, by torch's own function, on projected
inputs and with the identity for a projection. One backward pass then gives the
gradients where the projections meet the recurrence, of all examples and times. Those of
the weights are sums over the times of their products with the inputs and with the
states before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import sum_outer_products
from .call import Call
from .layout import FIRST, SECOND
from .plan import UnsupportedModelError
from .precision import same_precision

_FORWARDS = (nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward)
_FUNCTIONS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


class _Pass(NamedTuple):
    """One layer in one direction, in the order of its times: (n, times, ...)."""

    suffix: str  # of the names of its parameters
    inputs: Tensor
    projected: Tensor  # what the recurrence is given
    before: Tensor  # states before each time


def recurrent_gradients(call: Call, n: int) -> dict[str, Tensor]:
    """Gradients of each example through one call of an LSTM, a GRU or an RNN.

    Parameters
    ----------
    call : Call
        The call.
    n : int
        Number of examples.

    Returns
    -------
    dict of str to Tensor of shape (n, *parameter.shape)
        By the parameter's name inside the module.

    Raises
    ------
    UnsupportedModelError
        If the module is none of these, or is called or made in a way that must be run
        otherwise: packed sequences, projections, dropout between layers.
    """
    module: Any = call.unit.module
    x = call.args[0] if call.args else call.kwargs.get("input")
    hx = call.args[1] if len(call.args) > 1 else call.kwargs.get("hx")
    layout = FIRST if getattr(module, "batch_first", True) else SECOND
    places, arrived = call.arrived()
    # The last states have the examples second, whatever the order of the outputs.
    elsewhere = 0 in places and call.unit.layout != layout
    if elsewhere or not _is_plain(module):
        raise UnsupportedModelError("no plain recurrent layer.")
    if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[layout == SECOND] != n:
        raise UnsupportedModelError("its inputs have no dimension of the examples.")
    x = x if layout == FIRST else x.transpose(0, 1)
    # Those of cuDNN want weights that are one piece of memory.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        outputs, passes = _run(module, x.detach(), hx)
        outputs[0] = outputs[0] if layout == FIRST else outputs[0].transpose(0, 1)
        found = [outputs[k] for k in places]
        if not call.gave(found):
            raise UnsupportedModelError("it gives another output.")
        ends = [one.projected for one in passes]
        gradients = torch.autograd.grad(found, ends, arrived, materialize_grads=True)
    every: dict[str, Tensor] = {}
    with torch.no_grad():
        for one, gradient in zip(passes, gradients, strict=True):
            every |= _of_parameters(module, one, gradient)
    return {name: every[name] for name in call.unit.parameters}


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, nn.RNNBase) or type(module).forward not in _FORWARDS:
        return False
    random = module.dropout and module.num_layers > 1 and module.training
    named = {name for names in module._all_weights for name in names}
    return not (random or module.proj_size or named - module._parameters.keys())


def _run(module: Any, x: Tensor, hx: Any) -> tuple[list[Tensor], list[_Pass]]:
    """Run all layers; return what the module returns, batch first, and the passes."""
    states = [] if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
    directions = ["", "_reverse"] if module.bidirectional else [""]
    last: list[tuple[Tensor, ...]] = []
    passes: list[_Pass] = []
    for layer in range(module.num_layers):
        given, results = x, []
        for direction in directions:
            start = [state[len(last)].detach() for state in states]
            inputs = given.flip(1) if direction else given
            one, output, ends = _recur(module, f"_l{layer}{direction}", inputs, start)
            passes.append(one)
            last.append(ends)
            results.append(output.flip(1) if direction else output)
        x = torch.cat(results, -1)
    return [x, *map(torch.cat, zip(*last, strict=True))], passes


def _recur(
    module: Any, suffix: str, inputs: Tensor, start: list[Tensor]
) -> tuple[_Pass, Tensor, tuple[Tensor, ...]]:
    """Run one layer in one direction; return its outputs and last states, too."""
    own = _weights(module, suffix)
    projected = F.linear(inputs, own["weight_ih"], own.get("bias_ih"))
    if not projected.requires_grad:
        projected.requires_grad_()
    n, _, gates = projected.shape
    if not start:
        zeros = projected.new_zeros(n, module.hidden_size)
        start = [zeros] * (2 if module.mode == "LSTM" else 1)
    states = [state.unsqueeze(0).to(projected) for state in start]
    same = torch.eye(gates, dtype=projected.dtype, device=projected.device)
    flat = [same, own["weight_hh"].to(projected)]
    if module.bias:
        flat += [projected.new_zeros(gates), own["bias_hh"].to(projected)]
    options = module.bias, 1, 0.0, True, False, True
    given = states if module.mode == "LSTM" else states[0]
    output, *ends = _FUNCTIONS[module.mode](projected, given, flat, *options)
    before = torch.cat([states[0].transpose(0, 1), output[:, :-1]], 1).detach()
    return _Pass(suffix, inputs.detach(), projected, before), output, tuple(ends)


def _weights(module: Any, suffix: str) -> dict[str, Tensor]:
    kinds = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * module.bias
    return {kind: getattr(module, f"{kind}{suffix}").detach() for kind in kinds}


def _of_parameters(module: Any, one: _Pass, gradient: Tensor) -> dict[str, Tensor]:
    """Gradients of the parameters of a pass, by their names in the module."""
    of_state = gradient
    if module.mode == "GRU":
        # The state enters the new gate through the reset gate.
        own, size = _weights(module, one.suffix), module.hidden_size
        bias = own["bias_hh"][:size] if module.bias else None
        reset = F.linear(one.before, own["weight_hh"][:size], bias)
        reset = (reset + one.projected[..., :size]).sigmoid()
        new = gradient[..., 2 * size :] * reset
        of_state = torch.cat([gradient[..., : 2 * size], new], -1)
    found = {}
    for part, seen, g in (("ih", one.inputs, gradient), ("hh", one.before, of_state)):
        found[f"weight_{part}{one.suffix}"] = sum_outer_products(
            *same_precision(seen, g)
        )
        found[f"bias_{part}{one.suffix}"] = g.sum(1)
    return found
