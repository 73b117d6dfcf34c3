"""Per-example gradients of some parameters, in the cheapest form to multiply.

A layer's gradient is a sum of outer products over the places where its weight was
used: ``W_i = sum_t g_it a_it^T``. With one place, or few, inner products follow from
those of the factors alone, ``<W_i, W_j> = sum_ts (a_it . a_js) (g_it . g_js)``, and
no gradient is formed. With many, the gradient is smaller than its factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

# Elements of a temporary: 32 MiB in float32. Larger ones are worked on in slices.
_BUDGET = 2**23
# A product of two T x T matrices is bound by memory: about this many flops an entry.
_GHOST_OVERHEAD = 16
# Processors are slow at products of fewer columns than this; of as few rows, not.
_FEW = 16


class Block(Protocol):
    """Gradients of n examples for a few parameters."""

    def cross(self, other: Block) -> Tensor:
        """Inner products with another block of the same parameters, (n, m)."""

    def norms_squared(self) -> Tensor:
        """Squared norms, (n,)."""

    def sums(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients summed over the examples, weighed, flat, by parameter."""

    def materialised(self) -> dict[str, Tensor]:
        """Gradients of each example, (n, size), by parameter."""

    def apart(self) -> dict[str, Block]:
        """One block for each parameter."""

    def cost(self) -> tuple[str, float, float]:
        """Route, and operations and bytes of the inner products of the batch."""


class Dense:
    """Gradients that were formed: ``(n, size)`` for each parameter."""

    def __init__(self, gradients: dict[str, Tensor]):
        self._gradients = {k: _flat(g) for k, g in gradients.items()}

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(next(iter(self._gradients.values())))

    def cross(self, other: Block) -> Tensor:
        """Inner products with another block of the same parameters, (n, m)."""
        others = other.materialised()
        return total(g @ others[k].mT for k, g in self._gradients.items())

    def rows(self) -> Iterator[dict[str, Tensor]]:
        """Gradients of one example after the other, (1, size), by parameter."""
        for i in range(self.n):
            yield {k: g[i : i + 1] for k, g in self._gradients.items()}

    def norms_squared(self) -> Tensor:
        """Squared norms, (n,)."""
        return total(g.square().sum(1) for g in self._gradients.values())

    def sums(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients summed over the examples, weighed, flat, by parameter."""
        if weights is None:
            return {k: g.sum(0) for k, g in self._gradients.items()}
        return {k: weights.to(g) @ g for k, g in self._gradients.items()}

    def materialised(self) -> dict[str, Tensor]:
        """Gradients of each example, (n, size), by parameter."""
        return self._gradients

    def apart(self) -> dict[str, Block]:
        """One block for each parameter."""
        return {k: Dense({k: g}) for k, g in self._gradients.items()}

    def cost(self) -> tuple[str, float, float]:
        """Route, and operations and bytes of the inner products of the batch."""
        n = len(next(iter(self._gradients.values())))
        held = sum(g.nbytes for g in self._gradients.values())
        size = sum(g.shape[1] for g in self._gradients.values())
        return "formed", 2.0 * n * n * size, held


def _flat(gradients: Tensor) -> Tensor:
    """Put the elements of each gradient in a row, those of complex ones as pairs."""
    if gradients.is_complex():
        gradients = torch.view_as_real(gradients.resolve_conj())
    return gradients.reshape(len(gradients), -1)


def outer_products(
    inputs: Tensor,
    outputs: Tensor,
    weight: str,
    bias: str | None = None,
    transposed: bool = False,
) -> Block:
    """Gradients of a layer in factored form, or formed where that is smaller.

    Takes the parameters of `OuterProducts`.
    """
    places = 1 if inputs.ndim == 2 else inputs.shape[-2]
    d_in, d_out = inputs.shape[-1], outputs.shape[-1]
    # A formed gradient that is no larger than its factors is also no slower to use.
    if places == 1 or d_in * d_out > places * (d_in + d_out):
        return OuterProducts(inputs, outputs, weight, bias, transposed)
    gradients = sum_outer_products(inputs, outputs)
    found = {weight: gradients.mT if transposed else gradients}
    if bias is not None:
        found[bias] = outputs.sum(-2)
    return Dense(found)


def sum_outer_products(a: Tensor, g: Tensor) -> Tensor:
    """Sum outer products over the places of use.

    Parameters
    ----------
    a : Tensor of shape (n, ..., places, d_in)
        What a weight was multiplied with.
    g : Tensor of shape (n, ..., places, d_out)
        The gradient of the loss at what came out.

    Returns
    -------
    Tensor of shape (n, ..., d_out, d_in)
        ``sum_t g_t a_t^T``.
    """
    multiply = torch.bmm if a.ndim == 3 else torch.matmul  # by far less to be said
    if a.shape[-1] < _FEW <= g.shape[-1]:
        return multiply(a.mT, g).mT
    return multiply(g.mT, a)


class OuterProducts:
    """Gradients ``sum_t g_t a_t^T`` of a weight, and ``sum_t g_t`` of its bias.

    Parameters
    ----------
    inputs : Tensor of shape (n, groups, places, d_in), (n, places, d_in) or (n, d_in)
        What the weight was multiplied with.
    outputs : Tensor of the same shape but for the last dimension, d_out
        The gradient of the loss at what came out.
    weight : str
        Name of the weight.
    bias : str, default=None
        Name of the bias, if its gradient counts too.
    transposed : bool, default=False
        Whether the weight is stored as ``(d_in, d_out)``.
    """

    _formed: Tensor | None = None

    def __init__(
        self,
        inputs: Tensor,
        outputs: Tensor,
        weight: str,
        bias: str | None = None,
        transposed: bool = False,
    ):
        self._inputs, self._outputs = inputs, outputs
        self._weight, self._bias = weight, bias
        self._transposed = transposed
        shape, ndim = inputs.shape, inputs.ndim
        self._n, self._d_in, self._d_out = shape[0], shape[-1], outputs.shape[-1]
        self._places = 1 if ndim == 2 else shape[-2]
        self._groups = shape[1] if ndim == 4 else 1
        self._versions = inputs._version, outputs._version

    def _check(self) -> None:
        # The factors are the model's own tensors (or views of them), not copies.
        if self._versions != (self._inputs._version, self._outputs._version):
            raise RuntimeError(
                f"what was captured for {self._weight!r} has been overwritten since: "
                "use a capture before its input batch is modified in place."
            )

    @property
    def _single(self) -> bool:
        return self._places == 1 and self._groups == 1

    @property
    def _a(self) -> Tensor:
        a, shape = self._inputs, (self._n, self._groups, self._places, self._d_in)
        return a if a.ndim == 4 else a.reshape(shape)

    @property
    def _g(self) -> Tensor:
        g, shape = self._outputs, (self._n, self._groups, self._places, self._d_out)
        return g if g.ndim == 4 else g.reshape(shape)

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Give the factors of a weight that was used once."""
        a, g = self._inputs, self._outputs
        return (a, g) if a.ndim == 2 else (a.flatten(1), g.flatten(1))

    @property
    def _size(self) -> int:
        return self._groups * self._d_in * self._d_out

    def _form(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Form the weight's gradients (of a slice of the outputs), (n, size)."""
        whole = stop is None or stop - start >= self._d_out
        if self._formed is None:
            self._check()
            part = sum_outer_products(self._a, self._g[..., start:stop]).flatten(1)
            if not whole:
                return part
            self._formed = part
        if whole:
            return self._formed
        shape = self._n, self._groups, self._d_out, self._d_in
        return self._formed.view(shape)[:, :, start:stop].flatten(1)

    def _as_stored(self, gradients: Tensor) -> Tensor:
        """Put the elements of ``(..., d_out * d_in)`` in the weight's own order."""
        if not self._transposed:
            return gradients
        shape = *gradients.shape[:-1], self._d_out, self._d_in
        return gradients.view(shape).mT.flatten(-2)

    def _biases(self) -> Tensor:
        return self._g.sum(2).flatten(1)

    def cross(self, other: Block) -> Tensor:
        """Inner products with another block of the same parameters, (n, m)."""
        # Forming these too would take memory, and save nothing.
        if (
            isinstance(other, Dense)
            and self._formed is None
            and (self._places == 1 or other.n == 1)
        ):
            return torch.cat([self._times(row) for row in other.rows()], dim=1)
        if (
            not isinstance(other, OuterProducts)
            or other._transposed is not self._transposed
        ):
            return Dense(self.materialised()).cross(other)
        self._check()
        if other is not self:
            other._check()
        if self._single and other._single:
            a, g = self._rows()
            b, h = (a, g) if other is self else other._rows()
            products, outer = linear(a, b), linear(g, h)
            if self._bias is None:
                return products.mul_(outer)
            return outer.addcmul_(products, outer)
        if self._ghost_is_cheaper(other):
            products = self._ghost(other)
        else:
            products = self._multiply_formed(other)
        if self._bias is not None:
            products += self._biases() @ other._biases().mT
        return products

    def _times(self, other: dict[str, Tensor]) -> Tensor:
        """Inner products with one formed gradient, forming none, (n, 1)."""
        self._check()
        a, g = (x.transpose(0, 1).flatten(1, 2) for x in (self._a, self._g))
        if self._transposed:
            weight = other[self._weight].view(1, self._d_in, self._d_out)
        else:
            weight = other[self._weight].view(-1, self._d_out, self._d_in).mT
        moved = (a @ weight).mul_(g)
        products = moved.sum((0, 2)).view(self._n, -1).sum(1, keepdim=True)
        if self._bias is not None:
            products += self._biases() @ other[self._bias].mT
        return products

    def _ghost_is_cheaper(self, other: OuterProducts) -> bool:
        pairs = self._n * other._n
        places = pairs * self._places * other._places * self._groups
        ghost = places * (self._d_in + self._d_out + _GHOST_OVERHEAD)
        dense = pairs * self._size
        for side in {self, other}:
            if side._formed is None:
                dense += side._n * side._places * self._size
        return ghost < dense

    def _ghost(self, other: OuterProducts) -> Tensor:
        """Inner products from those of the factors, over slices of the examples."""
        m, groups, places, _ = other._a.shape
        # One row of places per group: (groups, m * places, d).
        a, g = (x.transpose(0, 1).flatten(1, 2).mT for x in (other._a, other._g))
        step = max(1, _BUDGET // (groups * self._places * m * places))
        parts = []
        for i in range(0, self._n, step):
            rows_a = self._a[i : i + step].transpose(0, 1).flatten(1, 2)
            rows_g = self._g[i : i + step].transpose(0, 1).flatten(1, 2)
            both = (rows_a @ a).mul_(rows_g @ g)
            both = both.view(groups, -1, self._places, m, places)
            parts.append(both.sum((0, 2, 4)))
        return torch.cat(parts)

    def _multiply_formed(self, other: OuterProducts) -> Tensor:
        """Inner products of formed gradients, over slices of the outputs."""
        largest = max(self._n, other._n) * self._groups * self._d_in
        step = max(1, _BUDGET // largest)
        if step >= self._d_out or self._formed is not None:
            return self._form() @ other._form().mT
        parts = []
        for i in range(0, self._d_out, step):
            mine = self._form(i, i + step)
            parts.append(
                mine @ (mine if other is self else other._form(i, i + step)).mT
            )
        return total(parts)

    def norms_squared(self) -> Tensor:
        """Squared norms, (n,)."""
        self._check()
        if self._formed is not None:
            norms = self._formed.square().sum(1)
        elif self._single:
            norms = self._a.square().sum((1, 2, 3)) * self._g.square().sum((1, 2, 3))
        else:
            both = (self._a @ self._a.mT).mul_(self._g @ self._g.mT)
            norms = both.sum((1, 2, 3))
        if self._bias is not None:
            norms = norms + self._biases().square().sum(1)
        return norms

    def sums(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients summed over the examples, weighed, flat, by parameter."""
        self._check()
        outputs = self._g
        if weights is not None:
            outputs = outputs * weights.to(outputs).view(-1, 1, 1, 1)
        if self._formed is not None and weights is None:
            weight = self._formed.sum(0)
        else:
            a, g = (x.transpose(0, 1).flatten(1, 2) for x in (self._a, outputs))
            weight = (g.mT @ a).flatten()
        sums = {self._weight: self._as_stored(weight)}
        if self._bias is not None:
            sums[self._bias] = outputs.sum((0, 2)).flatten()
        return sums

    def materialised(self) -> dict[str, Tensor]:
        """Gradients of each example, (n, size), by parameter."""
        gradients = {self._weight: self._as_stored(self._form())}
        if self._bias is not None:
            gradients[self._bias] = self._biases()
        return gradients

    def factors(self) -> tuple[Tensor, Tensor]:
        """Factors of the weight as it is stored, of its columns and of its rows."""
        self._check()
        pair = self._a.flatten(1, 2), self._g.flatten(1, 2)
        return pair[::-1] if self._transposed else pair

    def joined(self, other: OuterProducts) -> Block | None:
        """Gradients of two uses of one weight, if they are alike."""
        alike = self._groups == other._groups and self._transposed is other._transposed
        if not alike or (self._d_in, self._d_out) != (other._d_in, other._d_out):
            return None
        self._check()
        other._check()
        inputs = torch.cat([self._a, other._a], 2)
        outputs = torch.cat([self._g, other._g], 2)
        return outer_products(
            inputs, outputs, self._weight, transposed=self._transposed
        )

    def apart(self) -> dict[str, Block]:
        """One block for each parameter."""
        weight = OuterProducts(
            self._inputs, self._outputs, self._weight, transposed=self._transposed
        )
        found: dict[str, Block] = {self._weight: weight}
        if self._bias is not None:
            found[self._bias] = Dense({self._bias: self._biases()})
        return found

    def cost(self) -> tuple[str, float, float]:
        """Route, and operations and bytes of the inner products of the batch."""
        held = self._a.nbytes + self._g.nbytes
        pairs, width = self._n**2, self._d_in + self._d_out
        if self._single:
            return "factored", 2.0 * pairs * width, held
        if self._ghost_is_cheaper(self):
            places = pairs * self._places**2 * self._groups
            return "ghost", 2.0 * places * width, held
        forming = self._n * self._places * self._size
        return "formed in slices", 2.0 * (forming + pairs * self._size), held


def total(parts: Iterable[Tensor]) -> Tensor:
    """Sum of tensors of one shape, in the first one's place."""
    iterator = iter(parts)
    found = next(iterator)
    for part in iterator:
        found = found + part
    return found


class Taken:
    """The share of a layer in inner products, of which each can be had once.

    Attributes
    ----------
    summed : dict of str to Tensor or None
        Sums over the examples, by parameter.
    weighed : dict of str to Tensor or None
        The same with the examples weighed by `row_weights`.

    Parameters
    ----------
    found : list of tuple of (Block, Tensor)
        Inner products with blocks of targets, (n, m).
    gram : Tensor of shape (n, n) or None
        Inner products with one another.
    norms : Tensor of shape (n,) or None
        Squared norms.
    """

    def __init__(
        self,
        found: list[tuple[Block, Tensor]],
        gram: Tensor | None,
        norms: Tensor | None,
    ) -> None:
        self._others = [other for other, _ in found]  # so that they stay who they are
        self._found: dict[int, Tensor | None] = {id(b): x for b, x in found}
        self._found[id(self)], self._norms = gram, norms
        self.summed: dict[str, Tensor] | None = None
        self.weighed: dict[str, Tensor] | None = None

    def cross(self, other: Block) -> Tensor:
        """Inner products with another block of the same parameters, (n, m)."""
        return _there(self._found.pop(id(other), None))

    def norms_squared(self) -> Tensor:
        """Squared norms, (n,)."""
        norms = _there(self._norms)
        return norms.clone()

    def sums(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Gradients summed over the examples, weighed, flat, by parameter."""
        found = self.summed if weights is None else self.weighed
        if found is None:
            raise RuntimeError(_GONE)
        return found

    def materialised(self) -> dict[str, Tensor]:
        """Gradients of each example, which are gone."""
        raise RuntimeError(_GONE)

    def apart(self) -> dict[str, Block]:
        """One block for each parameter, which are gone."""
        raise RuntimeError(_GONE)

    def cost(self) -> tuple[str, float, float]:
        """Route, operations and bytes, which were noted when there was a block."""
        raise RuntimeError(_GONE)


_GONE = "gradients were let go as they arrived: what is wanted of them must be said."


def _there(found: Tensor | None) -> Tensor:
    if found is None:
        raise RuntimeError(_GONE)
    return found
