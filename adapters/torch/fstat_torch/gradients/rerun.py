"""Per-example gradients of any module, by running it once more.

There are four ways, and the first that gives what the module gave is taken: recurrent
layers by their recurrence; all examples at once by vmap; one after the other; and the
batch as it was called, from the random state and the buffers that it was called with,
and then backwards once for each example. The last one repeats dropout, and needs no
inputs that can be split; its work grows with the square of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager as ContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from .layer_call import Call
from .layout import FIRST, fits, layout_of, one_example, only_example
from .nested_outputs import external
from .plan import (
    AS_A_BATCH,
    ONE_BY_ONE,
    RECURRENT,
    VECTORISED,
    UnsupportedModelError,
)
from .recurrent import recurrent_gradients
from .row_independence import Rows, depends, mixes
from .side_effects import paused, undisturbed

Gradients = dict[str, Tensor]
Found = tuple[list[Tensor], Gradients]


def differentiate_again(call: Call, n: int) -> Gradients:
    """Gradients of each example through one call of a unit.

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
        If the module gives something else when it is run again, or mixes examples.
    """
    unit = call.unit
    names = list(_WAYS)
    refusals: list[UnsupportedModelError] = []
    with paused(), call.same_autocast():
        call = _apart(call, n)
        for name in names[names.index(unit.way or names[0]) :]:
            try:
                gradients = _WAYS[name](call, n)
            except UnsupportedModelError as error:
                refusals.append(error)
                continue
            unit.way = name
            if call.before is not None:
                unit.changes |= call.before.changed()
            # Parameters that are not captured may hang on a graph.
            return {k: g.detach() for k, g in gradients.items()}
    raise refusals[-1]


def _apart(call: Call, n: int) -> Call:
    """Return a call of whose outputs none is made of another."""
    layouts = [
        None if g is None else _layout(call, k, g, n)
        for k, g in zip(call.places, call.gradients, strict=True)
    ]
    kept = [k for k, layout in enumerate(layouts) if layout is not None]
    call = call.of_outputs(kept) if kept else call
    if len(kept) < 2 or call.unit.outputs_apart:
        return call
    with _from_before(call), torch.enable_grad():
        results = _outputs(call, call.args, call.kwargs)
        arrived = external(results, call.arrived()[1])
    call.unit.outputs_apart = arrived is None
    return call if arrived is None else call.with_gradients(arrived)


def _by_recurrence(call: Call, n: int) -> Gradients:
    """Take all examples at once of a recurrent layer."""
    try:
        return recurrent_gradients(call, n)
    except (RuntimeError, TypeError) as error:  # types or sizes of torch's functions
        raise UnsupportedModelError(
            f"its recurrence cannot be run ({error})."
        ) from error


def _vectorised(call: Call, n: int) -> Gradients:
    """All examples at once, by vmap."""
    if any(isinstance(m, nn.RNNBase) for m in call.unit.module.modules()):
        raise UnsupportedModelError("weights are used through a list.")
    return _tried(call, n, _by_vmap)


def _one_by_one(call: Call, n: int) -> Gradients:
    """One example after the other, by the module itself."""
    return _tried(call, n, _by_loop)


def _tried(call: Call, n: int, way: Callable[[Call, int, Rows], Found]) -> Gradients:
    """Run a module on the rows of its arguments that may be those of examples."""
    # An argument without examples (a mask, a table) may have n rows by accident.
    rows = _rows_of_arguments(call, n)
    fewer = range(len(rows)) if len(rows) > 1 else ()
    ways = [rows, *([*rows[:k], *rows[k + 1 :]] for k in fewer)]
    refusal: UnsupportedModelError | None = None
    for mapped in ways:
        try:
            outputs, gradients = way(call, n, mapped)
        except UnsupportedModelError as error:
            refusal = refusal or error
        except Exception as error:  # it fails in many ways
            refusal = refusal or UnsupportedModelError(
                f"{call.unit.label} cannot be run on one example at a time ({error})."
            )
        else:
            if call.gave(outputs):
                return gradients
            refusal = refusal or UnsupportedModelError(_OTHER.format(call.unit.label))
    assert refusal is not None
    raise refusal


def _rows_of_arguments(call: Call, n: int) -> Rows:
    leaves = pytree.tree_leaves((call.args, call.kwargs))
    found = [
        (k, layout_of(leaf.shape, n, call.unit.layout, flat=False))
        for k, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor)
    ]
    return [(k, layout) for k, layout in found if layout is not None]


def _layout(call: Call, place: int, gradient: Tensor, n: int) -> str | None:
    known = call.unit.places.get(place)
    if known is not None:  # of a pass that was compared
        return known if fits(gradient.shape, known, n) else None
    return layout_of(gradient.shape, n, call.unit.layout, flat=True)


def _layouts(call: Call, n: int) -> list[str]:
    """Where the examples are in each of the outputs that a gradient reached."""
    found = [
        _layout(call, *arrived, n) for arrived in zip(*call.arrived(), strict=True)
    ]
    if None in found or not found:
        raise UnsupportedModelError(
            f"{call.unit.label} returned a tensor without a dimension for the examples."
        )
    return [layout for layout in found if layout is not None]


def _from_before(call: Call) -> ContextManager[Any]:
    """Be in the state that the module was called in, and as before afterwards."""
    if call.before is not None:
        return call.before.again()
    return undisturbed(list(call.unit.module.modules()))


def _outputs(call: Call, args: Any, kwargs: Any) -> list[Tensor]:
    """Run the module, and pick the outputs that a gradient reached."""
    found = pytree.tree_leaves(call.unit.module(*args, **kwargs))
    return [found[k] for k in call.arrived()[0]]


def _by_vmap(call: Call, n: int, mapped: Rows) -> Found:
    module = call.unit.module
    leaves, tree = pytree.tree_flatten((call.args, call.kwargs))
    places, cotangents = call.arrived()
    if {*_layouts(call, n), *(layout for _, layout in mapped)} - {FIRST}:
        raise UnsupportedModelError("examples are not first.")
    parameters = {k: p.detach() for k, p in call.unit.parameters.items()}

    def one(rows: list[Tensor], down: list[Tensor]) -> Found:
        own = list(leaves)
        for (k, _), row in zip(mapped, rows, strict=True):
            own[k] = row.unsqueeze(0)
        args, kwargs = pytree.tree_unflatten(own, tree)

        def run(parameters: Gradients) -> list[Tensor]:
            output = functional_call(module, (parameters, buffers), args, kwargs)
            found = pytree.tree_leaves(output)
            return [found[k] for k in places]

        outputs, pull, *_ = vjp(run, parameters)
        (gradients,) = pull([d.unsqueeze(0) for d in down])
        return [out.squeeze(0) for out in outputs], gradients

    rows = [leaves[k] for k, _ in mapped]
    # The fused kernels of attention know no batches of batches.
    with _from_before(call), sdpa_kernel(SDPBackend.MATH):
        buffers = {k: b.clone() for k, b in module.named_buffers()}
        outputs, gradients = vmap(one, randomness="error")(rows, cotangents)
    return outputs, gradients


def _by_loop(call: Call, n: int, mapped: Rows) -> Found:
    unit = call.unit
    leaves, tree = pytree.tree_flatten((call.args, call.kwargs))
    _, cotangents = call.arrived()
    layouts = _layouts(call, n)
    outputs: list[list[Tensor]] = []
    rows: list[tuple[Tensor, ...]] = []
    for i in range(n):
        own = list(leaves)
        for k, layout in mapped:
            own[k] = one_example(leaves[k], layout, i, n)
        args, kwargs = pytree.tree_unflatten(own, tree)
        down = [
            one_example(c, x, i, n) for c, x in zip(cotangents, layouts, strict=True)
        ]
        with _from_before(call), undisturbed([unit.module]) as state:
            results, gradients = _differentiated(call, args, kwargs, down)
            if state.random_numbers_drawn():
                raise UnsupportedModelError(f"{unit.label} draws random numbers.")
        rows.append(gradients)
        outputs.append(results)
    whole = [
        _joined(list(parts), layout)
        for parts, layout in zip(zip(*outputs, strict=True), layouts, strict=True)
    ]
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return whole, dict(zip(unit.parameters, columns, strict=True))


def _differentiated(
    call: Call, args: Any, kwargs: Any, down: list[Tensor]
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Run a module, and differentiate in its parameters."""
    with torch.enable_grad():
        results = _outputs(call, args, kwargs)
        gradients = _pulled(call, results, down)
    return [out.detach() for out in results], gradients


def _pulled(
    call: Call, results: list[Tensor], down: list[Tensor]
) -> tuple[Tensor, ...]:
    found = torch.autograd.grad(
        results,
        list(call.unit.parameters.values()),
        down,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return tuple(g.to_dense() for g in found)


def _joined(parts: list[Tensor], layout: str) -> Tensor:
    """Put the outputs of single examples together as they are for the batch."""
    if layout == "strided":
        return torch.stack(parts, 1).flatten(0, 1)
    return torch.cat(parts, 1 if layout == "second" else 0)


def _as_a_batch(call: Call, n: int) -> Gradients:
    """Run the call again as it was, and go backwards from one example at a time."""
    unit = call.unit
    layouts, (_, arrived) = _layouts(call, n), call.arrived()
    try:
        with _from_before(call), torch.enable_grad():
            results = _outputs(call, call.args, call.kwargs)
            if not call.gave(results):
                raise UnsupportedModelError(_OTHER.format(unit.label))
            rows = [
                _pulled(
                    call,
                    results,
                    [
                        only_example(g, layout, i, n)
                        for g, layout in zip(arrived, layouts, strict=True)
                    ],
                )
                for i in range(n)
            ]
    except (RuntimeError, TypeError) as error:
        said = str(error).partition(". ")[0]
        raise UnsupportedModelError(_FAILED.format(unit.label, said)) from error
    if unit.way != AS_A_BATCH and n > 1:
        _refuse_if_mixed(call, [out.detach() for out in results], layouts, n)
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return dict(zip(unit.parameters, columns, strict=True))


def _refuse_if_mixed(
    call: Call, results: list[Tensor], layouts: list[str], n: int
) -> None:
    """Refuse a module whose outputs for an example depend on other examples."""

    def run(leaves: list[Any]) -> list[Tensor]:
        args, kwargs = pytree.tree_unflatten(leaves, tree)
        with _from_before(call), torch.no_grad():
            return _outputs(call, args, kwargs)

    leaves, tree = pytree.tree_flatten((call.args, call.kwargs))
    rows = _rows_of_arguments(call, n)
    if not mixes(run, leaves, rows, results, layouts, n):
        return
    # Which random numbers are drawn may depend on the other examples.
    if not _is_random(call) or _depends(call, rows, layouts, n):
        raise UnsupportedModelError(
            f"{call.unit.label} mixes the examples of a batch: its output for one "
            "changes with the others, so that no gradient belongs to one alone. Leave "
            "its parameters out with `parameters=`, use a module that treats examples "
            "one by one, or, where a loss is meant to compare examples, say "
            "`coupled=True`."
        )


def _is_random(call: Call) -> bool:
    """Whether the module gives something else from another random state."""
    with _from_before(call), torch.no_grad():
        torch.rand(7)
        found = _outputs(call, call.args, call.kwargs)
    return not call.gave(found)


def _depends(call: Call, rows: Rows, layouts: list[str], n: int) -> bool:
    """Whether outputs have gradients in inputs of other examples, as far as told."""
    leaves, tree = pytree.tree_flatten((call.args, call.kwargs))
    smooth = [(k, layout) for k, layout in rows if leaves[k].is_floating_point()]
    if not smooth:
        return True
    own = list(leaves)
    for k, _ in smooth:
        own[k] = leaves[k].detach().requires_grad_()
    args, kwargs = pytree.tree_unflatten(own, tree)
    with _from_before(call), torch.enable_grad():
        outputs = _outputs(call, args, kwargs)
        of_inputs = [layout for _, layout in smooth]
        return depends(outputs, layouts, [own[k] for k, _ in smooth], of_inputs, n)


_FAILED = (
    "{} has no rule of its own and must be run once more, which fails ({}). It must "
    "give the same when it is called again with the same arguments, and must not hold "
    "tensors of earlier passes: mend that, leave its parameters out with "
    "`parameters=`, or build it from standard layers."
)
_OTHER = (
    "{} gives another output when it is run again: it is random in a way that cannot "
    "be repeated, or keeps something from call to call. Leave its parameters out with "
    "`parameters=`, or use a module that treats examples one by one."
)
_WAYS: dict[str, Callable[[Call, int], Gradients]] = {
    RECURRENT: _by_recurrence,
    VECTORISED: _vectorised,
    ONE_BY_ONE: _one_by_one,
    AS_A_BATCH: _as_a_batch,
}
