"""One call of a layer: its inputs, and the gradients that arrived at its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager as ContextManager
from contextlib import nullcontext
from copy import copy
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from .blocks import Block
from .layout import FIRST, SECOND, examples_first, layout_of
from .plan import Unit, UnsupportedModelError
from .precision import alike, same_autocast
from .shared_lookups import SharedLookup
from .side_effects import Whole


def row_weights(n: int, like: Tensor) -> Tensor:
    """Weights of the examples: powers of two, by which products are exact."""
    golden = torch.arange(1, n + 1, dtype=torch.float64) * (5**0.5 - 1) / 2
    return torch.exp2(-(3 * (golden % 1)).floor()).to(like)


Versions = Sequence[tuple[Tensor, int]]


class Call:
    """One call of a unit.

    Parameters
    ----------
    unit : Unit
        Who was called.
    number : int
        How many calls were before it.
    args, kwargs
        Its arguments, detached but not copied.
    outputs : sequence of Tensor
        The outputs that carry a gradient, detached but not copied; empty unless the
        unit is to run again.
    places : sequence of int
        Where those are among the leaves of the output.

    Attributes
    ----------
    gradients : list of Tensor or None
        The gradient at each of them, None where none arrived.
    shape : torch.Size or None
        Shape of the output, where its gradient arrives in another one.
    autocast : tuple of (str, dtype or None) or None
        Device and type of autocast during the call, if the unit is to run again.
    before : Whole or None
        The state before the call, if it is to run again from there.
    block : Block or None
        What was formed of it already, after which the rest was let go.
    dtypes : set of dtype
        Types of gradients that were let go.
    reached : bool
        Whether the loss depends on this call.
    lookup : SharedLookup or None
        What knows the examples' shares of a gradient that arrives summed.
    """

    # Of a large model there are many calls: what most have in common is not in each.
    shape: torch.Size | None = None
    autocast: tuple[str, torch.dtype | None] | None = None
    before: Whole | None = None
    block: Block | None = None
    dtypes: AbstractSet[torch.dtype] = frozenset()
    reached = False
    lookup: SharedLookup | None = None
    backwards = 0
    _later: tuple[Callable[[], Any], Callable[[], Any] | None] | None = None
    _gave: Versions = ()

    def __init__(
        self,
        unit: Unit,
        number: int,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
        outputs: Sequence[Tensor] = (),
        places: Sequence[int] = (0,),
    ) -> None:
        self.unit, self.number = unit, number
        self.args, self.kwargs = args, kwargs
        self.outputs, self.places = outputs, places
        self.gradients: Sequence[Tensor | None] = (None,) * len(places)
        self._note_versions()

    def _note_versions(self) -> None:
        inputs: Sequence[Any] = self.args
        if self.unit.runs_again:
            inputs = pytree.tree_leaves((self.args, dict(self.kwargs)))
            self._gave = _versions(self.outputs)
        self._given = _versions(inputs)

    def wait_for(
        self, arguments: Callable[[], Any], outputs: Callable[[], Any] | None
    ) -> None:
        """Take them from where they are kept, once a gradient arrives."""
        self._later = arguments, outputs

    def receive(self, place: int, gradient: Tensor) -> None:
        """Keep the gradient that arrived at an output."""
        if self._later is not None:
            arguments, outputs = self._later
            self._later = None
            self.args, self.kwargs, self.before, random = arguments()
            if self.before is not None:
                self.before.random = random  # that of a checkpoint's second pass
            self.outputs = outputs() if outputs is not None else ()
            self._note_versions()
        if self.gradients[place] is not None:
            self.backwards += 1
        if self.shape is not None:
            gradient = gradient.reshape(self.shape)
        arrived = gradient if self.lookup is None else self.lookup.by_example(gradient)
        # Kept itself rather than detached: autograd may only reuse the memory of a
        # gradient that nobody else holds.
        before, after = self.gradients[:place], self.gradients[place + 1 :]
        self.gradients = (*before, arrived, *after)
        self.reached = True

    def let_go(self, block: Block) -> None:
        """Keep what was formed of the call, and nothing that it was formed of."""
        self.block, self.dtypes = block, self.arrived_dtypes
        self.args, self.gradients, self._given, self._gave = (), (None,), (), ()

    @property
    def arrived_dtypes(self) -> AbstractSet[torch.dtype]:
        """Types of the gradients that arrived, also of those that were let go."""
        return self.dtypes | {g.dtype for g in self.gradients if g is not None}

    def same_autocast(self) -> ContextManager[Any]:
        """Autocast as it was during the call."""
        return nullcontext() if self.autocast is None else same_autocast(*self.autocast)

    def arrived(self) -> tuple[list[int], list[Tensor]]:
        """Which leaves of the output got a gradient, and the gradients."""
        pairs = zip(self.places, self.gradients, strict=True)
        reached = [(k, g) for k, g in pairs if g is not None]
        return [k for k, _ in reached], [g for _, g in reached]

    def gave(self, again: list[Tensor]) -> bool:
        """Whether outputs of a second run are those of the call, up to rounding.

        Those that were modified in place since are not compared.
        """
        reached = [k for k, g in enumerate(self.gradients) if g is not None]
        for k, found in zip(reached, again, strict=True):
            first, before = self._gave[k]
            if first._version == before and not alike(found, first):
                return False
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of what it was given and of what arrived."""
        held = (*self.args, *self.gradients)
        return sum([x.nbytes for x in held if isinstance(x, Tensor)])

    def by_example(self, n: int) -> list[Call]:
        """Return the same with the examples first, as several calls if they must be.

        Layers with a dimension of channels take the places of an example one by one.
        """
        layout = self.unit.layout
        if layout == FIRST or self.unit.runs_again or self.block is not None:
            return [self]
        (gradient,) = self.gradients
        assert gradient is not None
        gradient = examples_first(gradient, layout, n)
        args = tuple(
            examples_first(x, layout, n) if isinstance(x, Tensor) else x
            for x in self.args
        )
        if not self.unit.has_channels:
            return [self._with(args, gradient)]
        places = range(gradient.shape[1])
        return [self._with([x[:, t] for x in args], gradient[:, t]) for t in places]

    def of_outputs(self, kept: Sequence[int]) -> Call:
        """Return the same, of some of the outputs that carry a gradient."""
        other = copy(self)
        other.places = [self.places[k] for k in kept]
        other.gradients = tuple(self.gradients[k] for k in kept)
        other.outputs = [self.outputs[k] for k in kept]
        other._gave = [self._gave[k] for k in kept]
        return other

    def with_gradients(self, arrived: Sequence[Tensor]) -> Call:
        """Return the same with other gradients, of all outputs."""
        other = copy(self)
        other.gradients = tuple(arrived)
        return other

    def _with(self, args: Sequence[Any], gradient: Tensor) -> Call:
        other = copy(self)
        other.args, other.gradients = tuple(args), (gradient,)
        return other

    @property
    def is_empty(self) -> bool:
        """Whether it was called with nothing, as experts are that nobody chose."""
        arrived = False
        for gradient in self.gradients:
            if gradient is not None and gradient.numel():
                return False
            arrived |= gradient is not None
        return arrived

    @property
    def rows(self) -> int:
        """Number of examples by the first of its outputs that has any."""
        place = 1 if self.unit.layout == SECOND else 0
        shapes = (g.shape for g in self.gradients if g is not None)
        least = place if self.unit.runs_again else 1
        return next((shape[place] for shape in shapes if len(shape) > least), 0)

    @property
    def is_untouched(self) -> bool:
        """Whether its inputs still hold what the module saw."""
        return not [x for x, before in self._given if x._version != before]

    def check(self, n: int, first: Call) -> None:
        """Refuse what cannot be split by example.

        Parameters
        ----------
        n : int
            Number of examples.
        first : Call
            The first call of the pass, by which n is known to the user.

        Raises
        ------
        UnsupportedModelError
            If an input no longer holds what the module saw, if a share in a lookup is
            not known, or if an output has no dimension for examples.
        RuntimeError
            If none of its dimensions is that of n examples.
        """
        if self.lookup is not None:
            self.lookup.check()
        if self.unit.runs_again and isinstance(self.unit.module, nn.RNNBase):
            self._check_packed()
        if not self.is_untouched:
            raise UnsupportedModelError(
                f"an input of {self.unit.label} was modified in place after use: "
                "use the out-of-place operation."
            )
        for gradient in self.gradients:
            if gradient is not None:
                self._check_rows(gradient.shape, n, first)

    def _check_packed(self) -> None:
        """Refuse packed outputs: any dimension is that of examples by accident."""
        given = (*self.args, *self.kwargs.values())
        packed = any(isinstance(x, PackedSequence) for x in given)
        if packed and 0 in self.arrived()[0]:
            raise UnsupportedModelError(
                f"{self.unit.label} returned a packed sequence, whose rows are not "
                "those of the examples: pad sequences, or leave its parameters out "
                "with `parameters=`."
            )

    def _check_rows(self, shape: torch.Size, n: int, first: Call) -> None:
        """Refuse an output that has no dimension of n examples where it should be."""
        unit = self.unit
        if unit.layout == FIRST and len(shape) > 1 and shape[0] == n:
            return
        if (len(shape) < 2 and unit.rule != "module") or len(shape) == 0:
            raise UnsupportedModelError(
                f"{unit.label} returned a tensor of shape {tuple(shape)}, which has no "
                "dimension for the examples: it must come first."
            )
        found = layout_of(shape, n, unit.layout, flat=True)
        if found is None or not (unit.runs_again or found == unit.layout):
            raise RuntimeError(
                f"{unit.label} returned {shape[0]} rows, where {n} examples are "
                "expected"
                + ("" if first is self else f" as in {first.unit.label}")
                + ": its gradient cannot be split by example. Give it one row per "
                "example, in the first dimension (expand what is shared), or leave "
                "its parameters out with `parameters=`."
            )


def _versions(values: Sequence[Any]) -> Versions:
    """Return tensors with how often each was modified in place.

    Those made in inference mode, which carry no gradient, are not counted.
    """
    tensors = [x for x in values if isinstance(x, Tensor) and not x.is_inference()]
    return [(x, x._version) for x in tensors]
