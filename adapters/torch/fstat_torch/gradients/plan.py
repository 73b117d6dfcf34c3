"""Which part of a model is handled by which rule, and which models are refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from fstat._warnings import warn

from .layer_types import rule_of
from .layout import FIRST, SECOND

_TRAINING = attrgetter("training")
# Ways to run a module again: by vmap, example by example, and as it was called.
RECURRENT, VECTORISED = "by its recurrence", "vectorised"
ONE_BY_ONE, AS_A_BATCH = "one by one", "as a batch"


class UnsupportedModelError(ValueError):
    """The gradient of this model cannot be split by example as it stands."""


class NoBackwardError(RuntimeError):
    """No gradient reached the model in the block that was watched."""


@dataclass(eq=False)
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
    key : str
        Its name among the blocks, by default the module's name.
    layout : str
        Where the examples are in what it sees, see `layout`.
    places : dict of int to str
        Where they were found to be in each of its outputs, if it is run again.
    ways : dict of bool to str
        By which of the ways of `again` it is run once more in training mode, and in
        eval mode, once that is known.
    changes : bool
        Whether a call changes its buffers or attributes.
    outputs_apart : bool
        Whether it is known that none of its outputs is made of another.
    runs_again : bool
        Whether its gradients need a second forward pass.
    """

    name: str
    module: nn.Module
    rule: str
    parameters: dict[str, nn.Parameter]
    names: dict[str, str]
    tied: set[str] = field(default_factory=set)
    key: str = ""
    layout: str = FIRST
    places: dict[int, str] = field(default_factory=dict)
    ways: dict[bool, str] = field(default_factory=dict)
    changes: bool = False
    outputs_apart: bool = False

    def __post_init__(self) -> None:
        self.key = self.key or self.name
        self.ids = frozenset(map(id, self.parameters.values()))
        self.handle_by(self.rule)
        sequences = nn.RNNBase | nn.MultiheadAttention
        if isinstance(self.module, sequences) and not self.module.batch_first:
            self.layout = SECOND

    def handle_by(self, rule: str) -> None:
        """Form its gradients by a rule from now on."""
        self.rule, self.runs_again = rule, rule in ("module", "attention")

    @property
    def way(self) -> str | None:
        """How it is run again in its mode, None if that is not known."""
        return self.ways.get(self.module.training)

    @way.setter
    def way(self, found: str) -> None:
        self.ways[self.module.training] = found

    @property
    def has_channels(self) -> bool:
        """Whether its second dimension is that of channels."""
        return isinstance(self.module, nn.GroupNorm | _BatchNorm | _ConvNd)

    @property
    def needs_state(self) -> bool:
        """Whether it can only be run again from the state that it was called in."""
        if self.rule == "attention":
            return bool(self.module.training and self.module.dropout)
        unknown = self.changes or self.way in (None, AS_A_BATCH)
        return self.rule == "module" and unknown

    @property
    def label(self) -> str:
        """The module as error messages call it."""
        where = repr(self.name) if self.name else "the model itself"
        return f"{where} ({type(self.module).__name__})"


@dataclass
class Plan:
    """The units of a model.

    Attributes
    ----------
    modules : dict of str to Module
        All modules of the model by name, the model itself first.
    units : list of Unit
        Who forms the gradients of the captured parameters.
    parameters : dict of str to Parameter
        What is captured.
    complete : bool
        Whether every trainable parameter is captured.
    costs : dict
        What the products of a unit's gradients cost, by its key.
    once : set of str
        Names of layers that a pass was seen to use once.
    shared : set of str
        Names of tables that are looked up once for all examples.
    ends : dict
        Where the gradients of each unit's parameters are added up, None if sharded.
    generation : int
        How often units were changed.
    evaluated : list of Module
        Modules in eval mode because of a pass of our own, while it lasts.
    """

    modules: dict[str, nn.Module]
    units: list[Unit]
    parameters: dict[str, nn.Parameter]
    complete: bool
    costs: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    ends: dict[str, list[Any] | None] = field(default_factory=dict)
    generation: int = 0
    evaluated: list[nn.Module] = field(default_factory=list)
    _trainable: list[int] | None = None  # parameters that were checked, by id

    @cached_property
    def first(self) -> nn.Parameter:
        """The first of the parameters."""
        return next(iter(self.parameters.values()))

    @property
    def batch_norm(self) -> str | None:
        """Name of the last layer that uses statistics of the batch as it is now."""
        for name, module in reversed(self.modules.items()):
            if isinstance(module, _BatchNorm) and uses_batch_statistics(module):
                return f"{name!r} ({type(module).__name__})"
        return None

    def modes(self) -> tuple[bool, ...]:
        """Whether each module is in training mode."""
        return tuple(map(_TRAINING, self.modules.values()))

    def enclose(self, names: set[str]) -> bool:
        """Give parameters to the modules around those that have them now.

        Parameters
        ----------
        names : set of str
            Names of parameters whose gradients their units do not form.

        Returns
        -------
        bool
            False if there is no module around.
        """
        groups: dict[str, set[str]] = defaultdict(set)
        leaving: list[Unit] = []
        for cluster in _joined_by(self.units, names):
            around = self._around([unit.name for unit in cluster])
            if around is None:
                return False
            leaving += cluster
            for unit in cluster:
                groups[around].update(unit.names.values())
        staying = [unit for unit in self.units if unit not in leaving]
        self.units = staying + [self._whole(k, group) for k, group in groups.items()]
        _note_ties(self.units)
        self.once.clear()
        self.generation += 1
        return True

    def _around(self, names: list[str]) -> str | None:
        """Name of the smallest module with a forward around all of some modules."""
        if "" in names:
            return None
        common = names[0].split(".")[:-1]
        for name in names[1:]:
            parts = name.split(".")[:-1]
            pairs = zip(common, parts, strict=False)
            same = [a == b for a, b in pairs] + [False]
            common = common[: same.index(False)]
        while common:
            if _has_forward(self.modules.get(".".join(common))):
                break
            common.pop()
        return ".".join(common)

    def _whole(self, name: str, parameters: set[str]) -> Unit:
        """Return a unit that runs a module again for some parameters inside it."""
        module = self.modules[name]
        inside = {id(p): k for k, p in module.named_parameters()}
        local = {inside[id(self.parameters[k])]: k for k in sorted(parameters)}
        return Unit(
            name,
            module,
            "module",
            {k: self.parameters[full] for k, full in local.items()},
            local,
            key=f"{name} for {', '.join(local.values())}",
        )

    def check_parameters(self) -> None:
        """Refuse a model whose captured parameters are no longer those planned.

        Warns
        -----
        UserWarning
            Once, if parameters that are not captured have become trainable.
        """
        held = [p for m in self.modules.values() for p in m._parameters.values()]
        trainable = [id(p) for p in held if p is not None and p.requires_grad]
        if trainable == self._trainable:
            return
        present = {id(p): p.requires_grad for p in held if p is not None}
        for name, p in self.parameters.items():
            if not present.get(id(p)):
                what = "frozen" if id(p) in present else "replaced"
                raise UnsupportedModelError(
                    f"parameter {name!r} was {what} since the model was planned: "
                    "choose the parameters that stay with `parameters=`."
                )
        if self.complete and sum(present.values()) != len(self.parameters):
            self.complete = False
            warn(
                "Parameters were unfrozen since the model was planned: gradients are "
                "compared in the parameters chosen then."
            )
        self._trainable = trainable


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
    _note_ties(units)
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    return Plan(
        modules=dict(model.named_modules()),
        units=units,
        parameters={k: p for k, p in model.named_parameters() if id(p) in names},
        complete=trainable == set(names),
    )


def _note_ties(units: list[Unit]) -> None:
    used = Counter(name for unit in units for name in unit.names.values())
    for unit in units:
        unit.tied = {name for name in unit.names.values() if used[name] > 1}


def _joined_by(units: list[Unit], names: set[str]) -> Iterator[list[Unit]]:
    """Group units that use some parameters, or share one with such a unit."""
    left = set(names)
    while left:
        wanted, cluster = {left.pop()}, []
        while True:
            more = [
                unit
                for unit in units
                if unit not in cluster and wanted & set(unit.names.values())
            ]
            if not more:
                break
            cluster += more
            wanted.update(name for unit in more for name in unit.names.values())
        left -= wanted
        yield cluster


def uses_batch_statistics(norm: nn.Module) -> bool:
    """Whether a batch normalisation mixes the examples as it is now."""
    return norm.training or norm.running_mean is None or norm.running_var is None


def _has_forward(module: nn.Module | None) -> bool:
    return module is not None and type(module).forward is not nn.Module.forward


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
    whole = rule in ("module", "attention", "registered")
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
