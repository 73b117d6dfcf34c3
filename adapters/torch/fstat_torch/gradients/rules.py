"""From what the units saw to per-example gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .attention import attention_blocks
from .blocks import Block, Dense, outer_products
from .convolution import conv_factors
from .embedding import Lookups
from .layer_call import Call
from .layer_registry import registered_rule
from .normalisation import scale_gradients
from .plan import Unit, UnsupportedModelError
from .precision import precise, same_precision
from .rerun import differentiate_again
from .tied_weights import tie


def blocks_of_calls(
    calls: list[Call], n: int, failures: dict[str, Exception] | None = None
) -> dict[str, Block]:
    """Form the per-example gradients of every unit that the loss depends on.

    Parameters
    ----------
    calls : list of Call
        Calls that the loss depends on.
    n : int
        Number of examples.
    failures : dict of str to Exception, optional
        Where errors of units are put, by the unit's key; raised if there is none.

    Returns
    -------
    dict of str to Block
        By the unit's key. The parameters of a unit that shares some with others have
        a block each, by their own names, since the shares must be added before they
        are multiplied.
    """
    by_unit: dict[str, list[Call]] = {}
    for call in calls:
        by_unit.setdefault(call.unit.key, []).append(call)
    blocks: dict[str, Block] = {}
    shares: dict[str, list[Block]] = defaultdict(list)
    for group in by_unit.values():
        unit = group[0].unit
        try:
            parts = _parts(group, n)
        except Exception as error:  # what the user registered may raise anything
            ours = isinstance(error, UnsupportedModelError)
            if failures is None or not (ours or unit.rule == "registered"):
                raise
            failures[unit.key] = error
            continue
        for part, block in parts.items():
            if not unit.tied:
                blocks[f"{unit.key}: {part}" if part else unit.key] = block
                continue
            for name, share in block.apart().items():
                shares[name].append(share)
    for name, found in shares.items():
        blocks[f"parameter {name}"] = tie(found)
    return blocks


def block_of_layer(call: Call) -> Block:
    """Form the per-example gradients of a layer with a rule, which was called once."""
    return _RULES[call.unit.rule]([call])


def _parts(calls: list[Call], n: int) -> dict[str, Block]:
    """Gradients of a unit, apart where its parameters are used apart."""
    rule = calls[0].unit.rule
    if calls[0].block is not None:
        return {"": calls[0].block}
    if rule == "attention":
        return attention_blocks(calls, n)
    return {"": _module(calls, n) if rule == "module" else _RULES[rule](calls)}


def _module(calls: list[Call], n: int) -> Block:
    """Gradients of a unit that is run again, its calls added."""
    totals: dict[str, Tensor] = {}
    for call in calls:
        for local, gradient in differentiate_again(call, n).items():
            name = call.unit.names[local]
            gradient = precise(gradient)
            totals[name] = totals[name] + gradient if name in totals else gradient
    return Dense(totals)


def _multiplied(
    factors: Callable[[Call, bool], tuple[Tensor | None, Tensor]],
    transposed: bool = False,
) -> Callable[[list[Call]], Block]:
    """Rule of a layer that multiplies; its calls are so many more places of use."""

    def rule(calls: list[Call]) -> Block:
        names = calls[0].unit.names
        weight, bias = names.get("weight"), names.get("bias")
        pairs = [factors(call, weight is not None) for call in calls]
        inputs, outputs = pairs[0]
        if len(pairs) > 1:
            outputs = _join([g for _, g in pairs])
        if weight is None or inputs is None:
            assert bias is not None
            return Dense({bias: outputs if outputs.ndim == 2 else outputs.sum(-2)})
        if len(pairs) > 1:
            inputs = _join([a for a, _ in pairs if a is not None])
        return outer_products(inputs, outputs, weight, bias, transposed)

    return rule


def _join(parts: list[Tensor]) -> Tensor:
    return torch.cat([x if x.ndim > 2 else x.unsqueeze(1) for x in parts], -2)


def _linear_factors(call: Call, weight: bool) -> tuple[Tensor | None, Tensor]:
    """Factors of a linear layer: one place per position of the sequence, if any."""
    (g,) = call.gradients
    assert g is not None
    if not weight:
        return None, _sequence(precise(g))
    x = call.args[0]
    if x.dtype is not g.dtype or x.dtype is not torch.float32:
        x, g = same_precision(x, g)
    return (x, g) if x.ndim < 4 else (_sequence(x), _sequence(g))


def _sequence(x: Tensor) -> Tensor:
    """Put all places of use in one dimension."""
    return x if x.ndim < 4 else x.flatten(1, -2)


def _embedding(calls: list[Call]) -> Block:
    """Rule of nn.Embedding: the rows that were looked up."""
    module, (table,) = calls[0].unit.module, calls[0].unit.names.values()
    assert isinstance(module, nn.Embedding)
    tokens, outputs = [], []
    for call in calls:
        g = call.gradients[0]
        assert g is not None
        outputs.append(precise(g).reshape(g.shape[0], -1, g.shape[-1]))
        index = call.args[0].expand(g.shape[:-1])  # a shared one, to each example
        tokens.append(index.reshape(g.shape[0], -1).long())
    return Lookups(
        torch.cat(tokens, 1) if len(tokens) > 1 else tokens[0],
        torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0],
        table,
        module.num_embeddings,
        module.padding_idx,
    )


def _embedding_bag(calls: list[Call]) -> Block:
    """Rule of nn.EmbeddingBag: the rows that were looked up, weighed."""
    module, (table,) = calls[0].unit.module, calls[0].unit.names.values()
    assert isinstance(module, nn.EmbeddingBag)
    tokens, outputs = [], []
    for call in calls:
        (rows, weights), (g,) = call.args, call.gradients
        assert g is not None
        places, g = rows.flatten(1), precise(g)
        h = g.unsqueeze(-2) * weights.to(g).unsqueeze(-1)
        tokens.append(places.long())
        outputs.append(h.reshape(*places.shape, -1))
    return Lookups(
        torch.cat(tokens, 1), torch.cat(outputs, 1), table, module.num_embeddings
    )


def _norm(calls: list[Call]) -> Block:
    """Rule of a normalisation: a scale and a shift of each element or channel."""
    totals: dict[str, Tensor] = {}
    for call in calls:
        for local, gradient in scale_gradients(call).items():
            name = call.unit.names[local]
            totals[name] = totals[name] + gradient if name in totals else gradient
    return Dense(totals)


def _registered(calls: list[Call]) -> Block:
    """Rule that the user gave."""
    totals: dict[str, Tensor] = {}
    for call in calls:
        (g,) = call.gradients
        assert g is not None
        with torch.enable_grad():  # it may differentiate something
            found = _by_registered_rule(call.unit, call.args, g)
        for local, gradient in found.items():
            name = call.unit.names[local]
            totals[name] = totals[name] + gradient if name in totals else gradient
    return Dense(totals)


def _by_registered_rule(
    unit: Unit, inputs: tuple[Any, ...], gradient: Tensor
) -> dict[str, Tensor]:
    """Per-example gradients of a unit, by the rule of its class.

    Raises
    ------
    ValueError
        If the rule returns something else.
    """
    found = registered_rule(unit.module)(unit.module, inputs, gradient)
    for name, parameter in unit.parameters.items():
        shape = (len(gradient), *parameter.shape)
        given = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(given, Tensor) or given.shape != shape:
            got = tuple(given.shape) if isinstance(given, Tensor) else "none"
            raise ValueError(
                f"the rule that is registered for {unit.label} must return a gradient "
                f"of shape {shape} for {name!r}, got {got}."
            )
    return {name: found[name] for name in unit.parameters}


_RULES: dict[str, Callable[[list[Call]], Block]] = {
    "linear": _multiplied(_linear_factors),
    "transposed linear": _multiplied(_linear_factors, transposed=True),
    "conv1d": _multiplied(conv_factors),
    "conv2d": _multiplied(conv_factors),
    "conv3d": _multiplied(conv_factors),
    "embedding": _embedding,
    "embedding bag": _embedding_bag,
    "norm": _norm,
    "registered": _registered,
}
