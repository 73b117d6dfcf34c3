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
from torch.nn.utils.rnn import PackedSequence

from .blocks import sum_outer_products
from .layer_call import Call
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


class _Whole:
    """Sequences of one length: (n, times, ...)."""

    leaves = 1  # of the output

    def flip(self, x: Tensor) -> Tensor:
        """Turn each sequence round."""
        return x.flip(1)

    def recur(
        self, function: Any, projected: Tensor, states: Any, flat: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Run one layer of torch's; a bias is more than two weights."""
        options = len(flat) > 2, 1, 0.0, True, False, True
        found: tuple[Tensor, ...] = function(projected, states, flat, *options)
        return found

    def before(self, start: Tensor, output: Tensor) -> Tensor:
        """Give the state before each time, (n, times, ...)."""
        return torch.cat([start.unsqueeze(1), output[:, :-1]], 1)

    def apart(self, x: Tensor) -> Tensor:
        """Give what belongs to each example, (n, times, ...)."""
        return x

    def inner(self, state: Tensor) -> Tensor:
        """Put examples in the order in which they run, (n, ...)."""
        return state

    def outer(self, state: Tensor) -> Tensor:
        """Put examples in the order of the batch, (1, n, ...)."""
        return state


class _Packed(_Whole):
    """Sequences of several lengths, time after time, the longest first: (places, ...).

    Parameters
    ----------
    packed : PackedSequence
        What the layer was given.
    """

    leaves = 4

    def __init__(self, packed: PackedSequence) -> None:
        _, self._sizes, self._order, self._back = packed
        sizes, device = self._sizes.to(packed.data.device), packed.data.device
        self._n, self._times = int(sizes[0]), len(sizes)
        first = sizes.cumsum(0) - sizes  # place of the first example at each time
        self._time = torch.arange(self._times, device=device).repeat_interleave(sizes)
        self._row = torch.arange(len(packed.data), device=device) - first[self._time]
        lengths = torch.bincount(self._row, minlength=self._n)
        self._flipped = first[lengths[self._row] - 1 - self._time] + self._row
        # Among the states at the start, and then the outputs.
        earlier = first[(self._time - 1).clamp(min=0)] + self._row + self._n
        self._before = torch.where(self._time == 0, self._row, earlier)

    def flip(self, x: Tensor) -> Tensor:
        return x[self._flipped]

    def recur(
        self, function: Any, projected: Tensor, states: Any, flat: list[Tensor]
    ) -> tuple[Tensor, ...]:
        options = len(flat) > 2, 1, 0.0, True, False
        given = projected, self._sizes, states, flat
        found: tuple[Tensor, ...] = function(*given, *options)
        return found

    def before(self, start: Tensor, output: Tensor) -> Tensor:
        return self.apart(torch.cat([start, output])[self._before])

    def apart(self, x: Tensor) -> Tensor:
        rows = self._row if self._order is None else self._order[self._row]
        found = x.new_zeros(self._n, self._times, *x.shape[1:])
        found[rows, self._time] = x
        return found

    def inner(self, state: Tensor) -> Tensor:
        return state if self._order is None else state[self._order]

    def outer(self, state: Tensor) -> Tensor:
        return state if self._back is None else state[:, self._back]


class _Pass(NamedTuple):
    """One layer in one direction, in the order of its times: (n, times, ...)."""

    suffix: str  # of the names of its parameters
    inputs: Tensor
    projected: Tensor  # what the recurrence is given, as it was given it
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
        otherwise: projections, dropout between layers.
    """
    module: Any = call.unit.module
    x: Any = call.args[0] if call.args else call.kwargs.get("input")
    hx = call.args[1] if len(call.args) > 1 else call.kwargs.get("hx")
    layout = FIRST if getattr(module, "batch_first", True) else SECOND
    places, arrived = call.arrived()
    # The last states have the examples second, whatever the order of the outputs.
    elsewhere = 0 in places and call.unit.layout != layout
    if elsewhere or not _is_plain(module):
        raise UnsupportedModelError("no plain recurrent layer.")
    sequences = _Packed(x) if isinstance(x, PackedSequence) else _Whole()
    if isinstance(x, PackedSequence):
        x, rows = x.data, int(x.batch_sizes[0])
    else:
        plain = isinstance(x, Tensor) and x.ndim == 3
        rows = x.shape[layout == SECOND] if plain else 0
        x = x if layout == FIRST or not plain else x.transpose(0, 1)
    if rows != n:
        raise UnsupportedModelError("its inputs have no dimension of the examples.")
    # Those of cuDNN want weights that are one piece of memory.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        outputs, passes = _run(module, x.detach(), hx, sequences, n)
        if layout == SECOND and outputs[0].ndim == 3:
            outputs[0] = outputs[0].transpose(0, 1)
        found = [outputs[max(0, k - sequences.leaves + 1)] for k in places]
        if not call.gave(found):
            raise UnsupportedModelError("it gives another output.")
        ends = [one.projected for one in passes]
        gradients = torch.autograd.grad(found, ends, arrived, materialize_grads=True)
    every: dict[str, Tensor] = {}
    with torch.no_grad():
        for one, gradient in zip(passes, gradients, strict=True):
            one = one._replace(projected=sequences.apart(one.projected))
            every |= _of_parameters(module, one, sequences.apart(gradient))
    return {name: every[name] for name in call.unit.parameters}


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, nn.RNNBase) or type(module).forward not in _FORWARDS:
        return False
    random = module.dropout and module.num_layers > 1 and module.training
    named = {name for names in module._all_weights for name in names}
    return not (random or module.proj_size or named - module._parameters.keys())


def _run(
    module: Any, x: Tensor, hx: Any, sequences: _Whole, n: int
) -> tuple[list[Tensor], list[_Pass]]:
    """Run all layers; return what the module returns, batch first, and the passes."""
    states = [] if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
    directions = ["", "_reverse"] if module.bidirectional else [""]
    last: list[tuple[Tensor, ...]] = []
    passes: list[_Pass] = []
    for layer in range(module.num_layers):
        given, results = x, []
        for direction in directions:
            zeros = [x.new_zeros(n, module.hidden_size)] * (1 + (module.mode == "LSTM"))
            start = [sequences.inner(state[len(last)].detach()) for state in states]
            inputs = sequences.flip(given) if direction else given
            one, output, ends = _recur(
                module, f"_l{layer}{direction}", inputs, start or zeros, sequences
            )
            passes.append(one)
            last.append(tuple(map(sequences.outer, ends)))
            results.append(sequences.flip(output) if direction else output)
        x = torch.cat(results, -1)
    return [x, *map(torch.cat, zip(*last, strict=True))], passes


def _recur(
    module: Any, suffix: str, inputs: Tensor, start: list[Tensor], sequences: _Whole
) -> tuple[_Pass, Tensor, tuple[Tensor, ...]]:
    """Run one layer in one direction; return its outputs and last states, too."""
    own = _weights(module, suffix)
    projected = F.linear(inputs, own["weight_ih"], own.get("bias_ih"))
    if not projected.requires_grad:
        projected.requires_grad_()
    gates = projected.shape[-1]
    states = [state.unsqueeze(0).to(projected) for state in start]
    same = torch.eye(gates, dtype=projected.dtype, device=projected.device)
    flat = [same, own["weight_hh"].to(projected)]
    if module.bias:
        flat += [projected.new_zeros(gates), own["bias_hh"].to(projected)]
    given = states if module.mode == "LSTM" else states[0]
    output, *ends = sequences.recur(_FUNCTIONS[module.mode], projected, given, flat)
    before = sequences.before(states[0][0], output.detach())
    inputs = sequences.apart(inputs.detach())
    return _Pass(suffix, inputs, projected, before), output, tuple(ends)


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
