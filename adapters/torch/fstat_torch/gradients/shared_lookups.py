"""Rows of a lookup that all examples share, as position tables are.

The table is looked up once for the batch, so that the gradient at the lookup is summed
over the examples. Its share of each example arrives where the lookup meets the
examples, for instance where positions are added to tokens. Those operations are found
in the graph of the forward pass, and what arrives there is carried back to the lookup,
one example at a time. Nothing is handed to the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .layout import rows_of
from .plan import Unit, UnsupportedModelError

Node = Any  # of the graph of autograd
Shape = tuple[int, ...]
Consumers = dict[Node, list[tuple[Node, int]]]
Passage = tuple[Node, int, Shape]  # an operation, which operand, and its shape
Path = tuple[Passage, ...]

# Operations that bring no examples in: they give what they got in another shape.
_SHAPES: tuple[str, ...] = (
    *("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Permute"),
    *("Transpose", "T", "Clone", "ToCopy", "Alias", "Slice", "Select"),
)
# Operations that repeat an operand for the examples, beyond doubt.
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Expand", "Repeat", "Where")
# Operations whose gradient, summed over what was broadcast, is that of the operand.
_BROADCASTS = ("Add", "Expand")
# Operands of products whose rows are those of the other operand.
_FACTORS = (("Mm", 1), ("Addmm", 2), ("Bmm", 0), ("Bmm", 1))


class SharedLookup:
    """A lookup that may lack a dimension of the examples, until its rows are known.

    Parameters
    ----------
    label : str
        The layer, as messages call it.
    output : Tensor
        What it returned.
    certain : bool
        Whether the lookup is known to be shared; otherwise it is if an operation is
        found that repeats it over the examples.
    """

    def __init__(self, label: str, output: Tensor, certain: bool) -> None:
        self._label, self.certain = label, certain
        self._node, self._shape = output.grad_fn, output.shape
        self._n = 0
        self._handles: list[Any] = []
        # Of a deep model far more paths than operations lead to where nothing is met.
        self._dead_ends: set[tuple[Node, bool]] = set()
        self._rows: Tensor | None = None
        self._obstacle = "no operation of the model's forward pass is seen to use it"
        self._failed = False

    def follow(self, consumers: Consumers, n: int) -> None:
        """Wait where the lookup meets the n examples."""
        self._n = n
        try:
            self._follow(self._node, tuple(self._shape), (), consumers)
        except Exception as error:  # nothing of ours may end a forward pass
            self._obstacle = f"the graph cannot be followed ({error})"
        self._dead_ends.clear()

    def let_go(self) -> None:
        """Forget the graph, which the hooks in it would keep alive."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._node = None

    def _follow(
        self,
        node: Node,
        shape: Shape,
        path: Path,
        consumers: Consumers,
        multiplied: bool = False,
    ) -> bool:
        """Return whether the lookup meets the examples beyond an operation."""
        if (node, multiplied) in self._dead_ends:
            return False
        meets = False
        for consumer, place in consumers.get(node, ()):
            after = tuple(consumer._input_metadata[0].shape)
            here = consumer, place, shape
            if self._joins(consumer, place, shape, after, multiplied):
                if not self.certain:  # which makes more operations count
                    self._dead_ends.clear()
                self.certain = meets = True
                arrives = partial(self._arrived, here, path)
                self._handles.append(consumer.register_prehook(arrives))
            else:
                product = multiplied or _multiplies(consumer, place)
                further = (here, *path)
                meets |= self._follow(consumer, after, further, consumers, product)
        if not meets:
            self._dead_ends.add((node, multiplied))
        return meets

    def _joins(
        self, node: Node, place: int, before: Shape, after: Shape, multiplied: bool
    ) -> bool:
        """Whether an operation gives every example a row of its own."""
        if not after or after[0] != self._n:
            return False
        broadens = len(after) > len(before) or before[0] != self._n
        if not self.certain:
            return broadens and _is(node, _ELEMENTWISE)
        if _is(node, _SHAPES):
            # Products bring examples in elsewhere than in the first dimension.
            return before[0] != self._n and multiplied
        return broadens or _multiplies(node, place)

    def _arrived(
        self, here: Passage, path: Path, gradients: tuple[Tensor | None, ...]
    ) -> None:
        """Carry the gradient at an operation back to the lookup, by example."""
        gradient = gradients[0]
        if gradient is None:
            return
        try:
            rows = self._operand(here, gradient.detach())
            for passage in path:
                rows = [_carried(passage, row) for row in rows]
            found = torch.stack([row.reshape(self._shape) for row in rows])
        except Exception as error:  # an operation whose gradient cannot be repeated
            self._obstacle = f"{here[0].name()} cannot be taken by example ({error})"
            return
        self._rows = found if self._rows is None else self._rows + found

    def _operand(self, here: Passage, gradient: Tensor) -> list[Tensor]:
        """Return the gradient of an operand, by example."""
        node, _, shape = here
        if _is(node, _BROADCASTS) and getattr(node, "_saved_alpha", 1) == 1:
            return [row.sum_to_size(shape) for row in torch.split(gradient, 1)]
        rows = []
        for i in range(self._n):
            alone = torch.zeros_like(gradient)
            alone[i] = gradient[i]
            rows.append(_carried(here, alone))
        return rows

    def by_example(self, total: Tensor) -> Tensor | None:
        """Return the gradient at the lookup of each example.

        Parameters
        ----------
        total : Tensor
            The gradient at the lookup, summed over the examples.

        Returns
        -------
        Tensor or None
            None if the examples' shares are not known: `check` says why.
        """
        if not self.certain:
            return total
        rows, self._rows = self._rows, None
        if self._n == 1:
            rows = total.unsqueeze(0)
        if rows is not None and not _adds_up(rows, total):
            self._obstacle = "it is used in more ways than the forward pass shows"
            rows = None
        self._failed = rows is None
        if rows is not None and self._shape and self._shape[0] == 1:
            rows = rows.squeeze(1)
        return rows

    def check(self) -> None:
        """Refuse a lookup whose shares are not known.

        Raises
        ------
        UnsupportedModelError
            If there are none, or they do not add up to the gradient.
        """
        if self._failed:
            raise UnsupportedModelError(
                f"{self._label} is looked up once for all examples, and the share of "
                f"each cannot be told: {self._obstacle}. Call the model as a whole, "
                "give the lookup one row for each example, or leave the table out "
                "with `parameters=`."
            )


class SharedLookups:
    """The lookups of one pass, of tables that its examples may share.

    Parameters
    ----------
    known : set of str
        Keys of units that are known to share theirs, to which those found are added.
    n : int or None
        Number of examples, where it is known before the pass.
    """

    def __init__(self, known: set[str], n: int | None) -> None:
        self._known, self._n = known, n
        self._waiting: list[tuple[Unit, int | None, SharedLookup]] = []
        self._followed: list[SharedLookup] = []

    def add(
        self, unit: Unit, index: Tensor, output: Tensor, passing: bool
    ) -> SharedLookup | None:
        """Return what finds the examples' shares of a lookup, where they may need it.

        Parameters
        ----------
        unit : Unit
            The layer.
        index : Tensor
            What is looked up.
        output : Tensor
            What it returned.
        passing : bool
            Whether this is the forward pass, rather than one of a checkpoint's.
        """
        length = len(index) if index.ndim else None
        certain = unit.key in self._known
        if self._n is not None:
            certain |= length != self._n
        positions = index.ndim < 2 and _counts(index)
        square = index.ndim == 2 and index.shape[0] == index.shape[1]
        if not (certain or positions or square or length == 1):
            return None
        lookup = SharedLookup(unit.label, output, certain)
        if passing:
            self._waiting.append((unit, length, lookup))
        return lookup

    def follow(self, given: Any, output: Any) -> None:
        """Find where the lookups meet the examples, once the forward pass is over.

        Parameters
        ----------
        given, output : pytree of Tensor
            What the model was called with, and what it returned.
        """
        n = rows_of(given) if self._n is None else self._n
        if not self._waiting or n is None:
            return
        leaves = pytree.tree_leaves(output)
        consumers = consumers_of(x for x in leaves if isinstance(x, Tensor))
        for unit, length, lookup in self._waiting:
            lookup.certain |= length != n
            lookup.follow(consumers, n)
            if lookup.certain:
                self._known.add(unit.key)
        self._followed += [lookup for _, _, lookup in self._waiting]
        self._waiting = []

    def let_go(self) -> None:
        """Forget the graph."""
        for lookup in self._followed:
            lookup.let_go()


def consumers_of(outputs: Iterable[Tensor]) -> Consumers:
    """Return which operations use what each operation of a graph gave."""
    found: Consumers = defaultdict(list)
    waiting = [x.grad_fn for x in outputs if x.grad_fn is not None]
    met: set[Node] = set(waiting)
    while waiting:
        node = waiting.pop()
        for place, (source, _) in enumerate(node.next_functions):
            if source is None:
                continue
            found[source].append((node, place))
            if source not in met:
                met.add(source)
                waiting.append(source)
    return found


def _counts(index: Tensor) -> bool:
    """Whether an index runs through consecutive numbers, as positions do."""
    numbers = index.flatten()
    return bool((numbers[1:] - numbers[:-1] == 1).all())


def _carried(passage: Passage, gradient: Tensor) -> Tensor:
    """Return the gradient of one operand, given that of the result."""
    node, place, shape = passage
    found = node(gradient)
    operand: Tensor = found if isinstance(found, Tensor) else found[place]
    return operand.sum_to_size(shape)


def _multiplies(node: Node, place: int) -> bool:
    """Whether an operand is multiplied by one that may hold the examples."""
    return (node.name().partition("Backward")[0], place) in _FACTORS


def _is(node: Node, names: Iterable[str]) -> bool:
    name = node.name()
    return any(name.startswith(f"{x}Backward") for x in names)


def _adds_up(rows: Tensor, total: Tensor) -> bool:
    """Whether the examples' gradients add up to their sum, to rounding."""
    if not torch.isfinite(total).all():
        return True
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    error = (wide.sum(0) - total).abs().max()
    rounding = 64 * torch.finfo(total.dtype).eps
    return bool(error <= rounding * wide.abs().sum(0).max())
