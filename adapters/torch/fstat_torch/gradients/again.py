"""Per-example gradients of any module, by running it once more example by example."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from .call import Call
from .isolation import undisturbed
from .plan import UnsupportedModelError
from .recording import paused

Gradients = dict[str, Tensor]


def differentiate_again(call: Call, n: int) -> Gradients:
    """Gradients of each example through one call of a unit.

    The module is run on each example alone, and what it returns is compared with what
    it returned for the batch.

    Parameters
    ----------
    call : Call
        A call that the loss depends on.
    n : int
        Number of examples.

    Returns
    -------
    dict of str to Tensor of shape (n, *parameter.shape)
        By the parameter's name inside the module.

    Raises
    ------
    UnsupportedModelError
        If the module cannot be run on one example, or gives something else then.
    """
    leaves, _ = pytree.tree_flatten((call.args, call.kwargs))
    rows = [
        k
        for k, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == n
    ]
    # An argument without examples (a mask, a table) may have n rows by accident.
    ways = [rows] + [[k for k in rows if k != left] for left in rows if len(rows) > 1]
    refusal: UnsupportedModelError | None = None
    with paused():
        for mapped in ways:
            try:
                with call.same_autocast():
                    return _gradients(call, n, mapped)
            except UnsupportedModelError as error:
                refusal = refusal or error
    assert refusal is not None
    raise refusal


def _gradients(call: Call, n: int, mapped: list[int]) -> Gradients:
    """Gradients, given which leaves of the arguments have one row per example."""
    unit = call.unit
    if not unit.loops and not _has_fused_weights(unit.module):
        try:
            outputs, gradients = _vectorised(call, mapped)
        except Exception:  # vmap fails in many ways: the loop tells which matter
            outputs, gradients = _one_by_one(call, n, mapped)
            unit.loops = True
    else:
        outputs, gradients = _one_by_one(call, n, mapped)
    if not call.gave(outputs):
        raise UnsupportedModelError(
            f"{call.unit.label} gives another output when run on one example at a "
            "time: its examples depend on one another, or their dimension is not the "
            "first, or it is random. Leave its parameters out with `parameters=`, or "
            "use a module that treats examples one by one."
        )
    return gradients


def _has_fused_weights(module: nn.Module) -> bool:
    """Whether weights are used through a list that functional_call cannot replace."""
    return any(isinstance(m, nn.RNNBase) for m in module.modules())


def _vectorised(call: Call, mapped: list[int]) -> tuple[list[Tensor], Gradients]:
    """All examples at once, by vmap."""
    module = call.unit.module
    leaves, tree = pytree.tree_flatten((call.args, call.kwargs))
    places, cotangents = call.arrived()
    parameters = {k: p.detach() for k, p in call.unit.parameters.items()}
    buffers = {k: b.clone() for k, b in module.named_buffers()}

    def one(rows: list[Tensor], down: list[Tensor]) -> tuple[list[Tensor], Gradients]:
        own = list(leaves)
        for k, row in zip(mapped, rows, strict=True):
            own[k] = row.unsqueeze(0)
        args, kwargs = pytree.tree_unflatten(own, tree)

        def run(parameters: Gradients) -> list[Tensor]:
            output = functional_call(module, (parameters, buffers), args, kwargs)
            found = pytree.tree_leaves(output)
            return [found[k] for k in places]

        outputs, pull, *_ = vjp(run, parameters)
        (gradients,) = pull([d.unsqueeze(0) for d in down])
        return [out.squeeze(0) for out in outputs], gradients

    rows = [leaves[k] for k in mapped]
    # The fused kernels of attention know no batches of batches.
    with sdpa_kernel(SDPBackend.MATH):
        outputs, gradients = vmap(one, randomness="error")(rows, cotangents)
    return outputs, gradients


def _one_by_one(
    call: Call, n: int, mapped: list[int]
) -> tuple[list[Tensor], Gradients]:
    """One example after the other, by the module itself."""
    unit = call.unit
    leaves, tree = pytree.tree_flatten((call.args, call.kwargs))
    places, cotangents = call.arrived()
    parameters = list(unit.parameters.values())
    outputs: list[list[Tensor]] = []
    rows: list[tuple[Tensor, ...]] = []
    with undisturbed(list(unit.module.modules())) as state, torch.enable_grad():
        for i in range(n):
            own = list(leaves)
            for k in mapped:
                own[k] = leaves[k][i : i + 1]
            args, kwargs = pytree.tree_unflatten(own, tree)
            try:
                found = pytree.tree_leaves(unit.module(*args, **kwargs))
                results = [found[k] for k in places]
                gradients = torch.autograd.grad(
                    results,
                    parameters,
                    [c[i : i + 1] for c in cotangents],
                    allow_unused=True,
                    materialize_grads=True,
                )
            except Exception as error:
                raise UnsupportedModelError(
                    f"{unit.label} has no rule of its own and cannot be run on one "
                    f"example at a time ({error}): leave its parameters out with "
                    "`parameters=`, or build it from standard layers."
                ) from error
            if state.random_numbers_drawn():
                raise UnsupportedModelError(
                    f"{unit.label} draws random numbers, so that its second forward "
                    "pass differs from the first: set its dropout to 0, or leave its "
                    "parameters out with `parameters=`."
                )
            rows.append(gradients)
            outputs.append([out.detach()[0] for out in results])
    stacked = [torch.stack(out) for out in zip(*outputs, strict=True)]
    columns = [
        torch.stack([g.to_dense() for g in column])
        for column in zip(*rows, strict=True)
    ]
    return stacked, dict(zip(unit.parameters, columns, strict=True))
