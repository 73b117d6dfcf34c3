"""Which part of a model is handled by which rule, and which models are refused."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedParameter

from .recognise import rule_of


class UnsupportedModelError(ValueError):
    """The gradient of this model cannot be split by example as it stands."""


class NoBackwardError(RuntimeError):
    """No gradient reached the model in the block that was watched."""


@dataclass
class Unit:
    """A module whose per-example gradients are formed together, by one rule.

    Attributes
    ----------
    name : str
        The module's name in the model, ``""`` for the model itself.
    module : nn.Module
        The module.
    rule : str
        How its gradients are formed, as `rule_of` says. ``"module"`` differentiates
        the whole module once more, example by example; ``"attention"`` as a batch.
    parameters : dict of str to Parameter
        What is captured, by the name inside the module.
    names : dict of str to str
        From the name inside the module to the name in the model.
    tied : set of str
        Names in the model of the parameters that another unit uses too.
    loops : bool
        Whether vectorising over the examples was found to be impossible.
    """

    name: str
    module: nn.Module
    rule: str
    parameters: dict[str, nn.Parameter]
    names: dict[str, str]
    tied: set[str] = field(default_factory=set)
    loops: bool = False

    @property
    def runs_again(self) -> bool:
        """Whether its gradients need a second forward pass."""
        return self.rule in ("module", "attention")

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers as it is now."""
        return self.module.training and _is_random(self.module)

    @property
    def label(self) -> str:
        """The module as error messages call it."""
        where = repr(self.name) if self.name else "the model itself"
        return f"{where} ({type(self.module).__name__})"


@dataclass
class Plan:
    """The units of a model, and what its mode may not be during a capture."""

    modules: list[nn.Module]
    units: list[Unit]
    parameters: dict[str, nn.Parameter]
    complete: bool  # every trainable parameter is captured
    batch_norms: list[tuple[str, _BatchNorm]]
    random: list[tuple[str, str, nn.Module]]  # in units that are differentiated again
    costs: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    once: set[str] = field(
        default_factory=set
    )  # layers that a pass was seen to use once
    shared: set[str] = field(default_factory=set)  # tables looked up once for all
    # Where the gradients of each unit's parameters are added up.
    ends: dict[str, list[Any]] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse modes in which a gradient does not belong to one example."""
        for name, norm in self.batch_norms:
            tracked = norm.running_mean is not None and norm.running_var is not None
            if norm.training or not tracked:
                raise UnsupportedModelError(
                    f"{name!r} ({type(norm).__name__}) normalises with the statistics "
                    "of the batch, so that no gradient belongs to one example alone: "
                    "keep it in eval mode with running statistics, or replace it, "
                    "for instance by GroupNorm."
                )
        for name, owner, module in self.random:
            if module.training and _is_random(module):
                _refuse_random(name, owner, module)

    def check_parameters(self) -> None:
        """Refuse a model whose captured parameters are no longer those planned.

        Warns
        -----
        UserWarning
            Once, if parameters that are not captured have become trainable.
        """
        present = {
            id(p): p.requires_grad
            for m in self.modules
            for p in m._parameters.values()
            if p is not None
        }
        for name, p in self.parameters.items():
            if not present.get(id(p)):
                what = "frozen" if id(p) in present else "replaced"
                raise UnsupportedModelError(
                    f"parameter {name!r} was {what} since the model was planned: "
                    "choose the parameters that stay with `parameters=`."
                )
        if self.complete and sum(present.values()) != len(self.parameters):
            self.complete = False
            warnings.warn(
                "Parameters were unfrozen since the model was planned: gradients are "
                "compared in the parameters chosen then.",
                stacklevel=2,
            )


def build_plan(model: nn.Module, parameters: Iterable[nn.Parameter] | None) -> Plan:
    """Route every captured parameter of a model to a rule.

    Parameters
    ----------
    model : nn.Module
        The model, not wrapped by `torch.compile`.
    parameters : iterable of Parameter, default=None
        What to capture. By default, every parameter with ``requires_grad``.

    Returns
    -------
    Plan
        The units, each parameter in one of them, or in several if it is tied.
    """
    names = _chosen_names(model, parameters)
    units = list(_route(model, "", names, set()))
    _refuse_coupling(units)
    used = Counter(name for unit in units for name in unit.names.values())
    for name in set(names.values()) - set(used):
        raise UnsupportedModelError(
            f"no module of the model is seen to use parameter {name!r}: leave it out "
            "with `parameters=`."
        )
    for unit in units:
        unit.tied = {name for name in unit.names.values() if used[name] > 1}
    modules = list(model.named_modules())
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    return Plan(
        modules=[m for _, m in modules],
        units=units,
        parameters={k: p for k, p in model.named_parameters() if id(p) in names},
        complete=trainable == set(names),
        batch_norms=[(k, m) for k, m in modules if isinstance(m, _BatchNorm)],
        random=[
            (k, unit.label, m)
            for unit in units
            if unit.rule == "module"
            for k, m in unit.module.named_modules(prefix=unit.name)
            if isinstance(m, _DropoutNd | nn.RNNBase | nn.MultiheadAttention)
        ],
    )


def _refuse_random(name: str, owner: str, module: nn.Module) -> None:
    """Refuse dropout that a second pass, example by example, would not repeat."""
    if isinstance(module, nn.MultiheadAttention) and not module.batch_first:
        raise UnsupportedModelError(
            f"{name!r} (MultiheadAttention) has its batch in the second dimension: "
            "build it with batch_first=True, or leave its parameters out with "
            "`parameters=`."
        )
    raise UnsupportedModelError(
        f"{name!r} ({type(module).__name__}) draws random numbers inside {owner}, "
        "whose gradients need a second forward pass: set its dropout to 0, or leave "
        "that module's parameters out with `parameters=`."
    )


def _refuse_coupling(units: list[Unit]) -> None:
    """Refuse layers whose options make one example's gradient depend on others."""
    for unit in units:
        for module in unit.module.modules():
            if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
                continue
            for option in ("scale_grad_by_freq", "max_norm"):
                if getattr(module, option):
                    raise UnsupportedModelError(
                        f"{unit.label} is built with `{option}`, which makes its "
                        "gradient depend on the whole batch: build it without, or "
                        "leave its parameters out with `parameters=`."
                    )


def _chosen_names(
    model: nn.Module, parameters: Iterable[nn.Parameter] | None
) -> dict[int, str]:
    """Names of the captured parameters, by identity."""
    if hasattr(model, "_orig_mod"):
        raise UnsupportedModelError(
            "a module compiled by torch.compile runs no hooks: pass the original "
            "module, and train that one while capturing."
        )
    named = {id(p): name for name, p in model.named_parameters()}
    if parameters is None:
        chosen = [p for p in model.parameters() if p.requires_grad]
    else:
        chosen = list(parameters)
    if not chosen:
        raise ValueError("`parameters` is empty: nothing of the model is trainable.")
    for p in chosen:
        if id(p) not in named:
            raise ValueError("`parameters` holds a parameter that is not the model's.")
        if not p.requires_grad:
            raise ValueError(f"parameter {named[id(p)]!r} does not require a gradient.")
        if isinstance(p, UninitializedParameter):
            raise UnsupportedModelError(
                f"parameter {named[id(p)]!r} has no shape yet: run the model once on "
                "a batch before building GradientCapture."
            )
    return {id(p): named[id(p)] for p in chosen}


def _route(
    module: nn.Module, name: str, names: dict[int, str], seen: set[int]
) -> Iterator[Unit]:
    """Walk down the model to the modules that use parameters themselves."""
    if id(module) in seen:
        return
    seen.add(id(module))
    rule = rule_of(module)
    whole = rule in ("module", "attention")
    counted = {
        k: p for k, p in module.named_parameters(recurse=whole) if id(p) in names
    }
    direct = {id(p) for p in _own_parameters(module)}
    attention = isinstance(module, nn.MultiheadAttention)
    if counted and (attention or any(id(p) in direct for p in counted.values())):
        yield Unit(
            name, module, rule, counted, {k: names[id(p)] for k, p in counted.items()}
        )
        return
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        yield from _route(child, path, names, seen)


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters that only the module's own forward can use.

    Those of children that are never called (ParameterList, the parametrizations of
    a weight) are the module's own as well.
    """
    yield from module.parameters(recurse=False)
    for name, child in module.named_children():
        if name == "parametrizations":
            yield from child.parameters()
        elif type(child).forward is nn.Module.forward:
            yield from _own_parameters(child)


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return float(getattr(module, "dropout", 0.0)) > 0
