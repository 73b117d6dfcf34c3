"""Inner products of the per-example gradients of one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

import torch
from torch import Tensor

from .blocks import Block, Dense, Taken
from .plan import Plan, UnsupportedModelError
from .precision import all_finite, full_precision
from .tied_weights import inner_products

_RTOL = {torch.float64: 1e-6, torch.float32: 1e-3}
_RTOL_HALF = 5e-2
# How many roundings each gradient may be off: in half precision, no more than the few
# of a deep model, since a hundred would let anything pass.
_ROUNDINGS = {torch.float64: 100, torch.float32: 100}


class Captured:
    """Per-example gradients of one forward and backward pass.

    Made by `GradientCapture.training` and `GradientCapture.of`. Where that is
    cheaper, gradients are not formed: inner products come from the layers' inputs
    and output gradients, which are held by reference. Use it before the batch it was
    made of is overwritten.

    Attributes
    ----------
    n : int
        Number of examples.
    blocks : dict of str to Block
        The gradients by unit of the model, in factors where those are cheaper.
    generation : int
        How often the units of the model were changed before.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._n: int | None = None
        self.blocks: dict[str, Block] = {}
        self._dtypes: set[torch.dtype] = set()
        self._differentiated = False  # whether gradients had gradients themselves
        self.generation = plan.generation

    def _fill(self, n: int, blocks: dict[str, Block], dtypes: set[torch.dtype]) -> None:
        self._n, self.blocks, self._dtypes = n, blocks, dtypes
        self.generation = self._plan.generation

    @classmethod
    def summed(cls, passes: Iterable[Captured]) -> Captured:
        """Sum the gradients of all examples of some passes.

        Parameters
        ----------
        passes : iterable of Captured
            By the same `GradientCapture`, of which one is held at a time.

        Returns
        -------
        Captured
            One gradient, formed.
        """
        totals: dict[str, dict[str, Tensor]] = {}
        dtypes: set[torch.dtype] = set()
        for here in passes:
            dtypes |= here._dtypes
            plan = here._plan
            with full_precision(plan.first):
                for name, block in here.blocks.items():
                    total = totals.setdefault(name, {})
                    for parameter, share in block.sums().items():
                        kept = total.get(parameter)
                        total[parameter] = share if kept is None else kept + share
        found = cls(plan)
        blocks: dict[str, Block] = {
            name: Dense({k: g.unsqueeze(0) for k, g in total.items()})
            for name, total in totals.items()
        }
        found._fill(1, blocks, dtypes)
        return found

    def mixed(self, mix: Callable[[Tensor], Tensor]) -> Captured:
        """Form linear combinations of the examples' gradients.

        Parameters
        ----------
        mix : callable
            Takes one row an example, and returns as many others for any columns.

        Returns
        -------
        Captured
            One gradient for each of these rows, formed.
        """
        found = Captured(self._plan)
        mixed = {
            unit: Dense({k: mix(g) for k, g in block.materialised().items()})
            for unit, block in self.blocks.items()
        }
        n = next(iter(mixed.values())).n
        found._fill(n, dict(mixed), self._dtypes)
        return found

    @property
    def is_formed(self) -> bool:
        """Whether all gradients are formed, so that sums of them are no larger."""
        return all(isinstance(block, Dense) for block in self.blocks.values())

    @property
    def is_whole(self) -> bool:
        """Whether no layer's gradients were let go."""
        return not any(isinstance(block, Taken) for block in self.blocks.values())

    @property
    def n(self) -> int:
        """Number of examples."""
        if self._n is None:
            raise RuntimeError(
                "nothing is captured yet: leave the `with capture.training()` block "
                "first (an exception inside leaves nothing behind)."
            )
        return self._n

    def gram(self) -> Tensor:
        """Inner products of the examples' gradients with one another.

        Returns
        -------
        Tensor of shape (n, n)
            The gradients' Gram matrix.
        """
        return self.cross(self)

    def cross(self, other: Captured) -> Tensor:
        """Inner products with the gradients of another pass.

        Parameters
        ----------
        other : Captured
            A pass over m examples, by the same `GradientCapture`.

        Returns
        -------
        Tensor of shape (n, m)
            One row per example of this pass.

        Raises
        ------
        ValueError
            If the other pass was captured by another `GradientCapture`.
        """
        if other._plan is not self._plan:
            raise ValueError("`other` was captured by another GradientCapture.")
        shape = self.n, other.n
        parts = []
        with full_precision(self._plan.first):
            for name, block in self.blocks.items():
                if name in other.blocks:
                    parts.append(inner_products(block, other.blocks[name]))
            if self.generation != other.generation:
                parts += self._cross_replanned(other)
        return self._add(parts, shape)

    def _cross_replanned(self, other: Captured) -> Iterator[Tensor]:
        """Inner products of parameters that the passes have in different units."""
        mine, theirs = (
            [block for key, block in a.blocks.items() if key not in b.blocks]
            for a, b in ((self, other), (other, self))
        )
        formed = {k: g for block in theirs for k, g in block.materialised().items()}
        for block in mine if formed else ():
            for name, gradients in block.materialised().items():
                if name in formed:
                    yield gradients @ formed[name].mT

    def norms_squared(self) -> Tensor:
        """Squared norms of the examples' gradients, the diagonal of `gram`.

        Returns
        -------
        Tensor of shape (n,)
            One norm per example.
        """
        shape = (self.n,)
        with full_precision(self._plan.first):
            parts = [block.norms_squared() for block in self.blocks.values()]
        return self._add(parts, shape)

    def sum_gradients(self) -> dict[str, Tensor]:
        """Gradients summed over the examples: what the backward pass accumulated.

        Returns
        -------
        dict of str to Tensor of shape (*parameter.shape)
            By the parameter's name in the model; zeros where no gradient arrived.
        """
        return self._by_parameter(self.n, rows=False)

    def per_example(self) -> dict[str, Tensor]:
        """Gradients of each example, formed: for tests and small models.

        Returns
        -------
        dict of str to Tensor of shape (n, *parameter.shape)
            By the parameter's name in the model; zeros where no gradient arrived.
        """
        return self._by_parameter(self.n, rows=True)

    def verify(
        self, grads: Mapping[str, Tensor | None], rtol: float | None = None
    ) -> bool:
        """Compare with the gradients that the backward pass really accumulated.

        Gradients sum to what is in ``.grad``, unless a parameter was used in a way
        that no module's forward shows. One comparison per training run is enough.

        Parameters
        ----------
        grads : mapping of str to Tensor or None
            By the parameter's name in the model, what the pass added to its ``.grad``
            (None or a missing name: nothing). Clipping or unscaling comes later.
        rtol : float, default=None
            Tolerated norm of the difference, relative to the gradient's. By default,
            1e-6 in float64, 1e-3 in float32, and 5e-2 in half precision.

        Returns
        -------
        bool
            False if the gradients are not finite, so that nothing was compared.

        Raises
        ------
        UnsupportedModelError
            If a parameter's gradient is not what was captured.
        """
        captured = self.sum_gradients()
        # Sparse gradients, of an Embedding, are compared as dense ones.
        present = {k: g.to_dense() for k, g in grads.items() if g is not None}
        if not all_finite(present.values()):
            return False
        names = self.disagreements(present, captured, rtol, self._plan.parameters)
        if names:
            name = next(k for k in self._plan.parameters if k in names)
            words = self._cause(name, present.get(name), captured[name])
            raise UnsupportedModelError(words.format(name=name))
        return True

    def _cause(self, name: str, seen: Tensor | None, own: Tensor) -> str:
        """Say why a parameter's gradient is not what was captured, if that shows."""
        if self._differentiated:
            return PENALTY_OF_GRADIENTS
        if seen is None or seen.numel() < 3:
            return DISAGREES
        weight = self._plan.parameters[name].detach().double()
        rest = seen.double() - own.double()
        multiple = (rest * weight).sum() / weight.square().sum()
        off = torch.linalg.vector_norm(rest - multiple * weight)
        close = float(off) < 1e-2 * float(torch.linalg.vector_norm(rest))
        return PENALTY_OF_WEIGHTS if close else DISAGREES

    def disagreements(
        self,
        truth: Mapping[str, Tensor],
        mine: Mapping[str, Tensor],
        rtol: float | None = None,
        names: Iterable[str] | None = None,
    ) -> set[str]:
        """Name the parameters of which two sums over the examples differ.

        Parameters
        ----------
        truth, mine : mapping of str to Tensor
            The sums, by the parameter's name in the model; nothing is zero.
        rtol : float, optional
            As in `verify`.
        names : iterable of str, optional
            Which parameters to compare; by default those of which the truth is told.

        Returns
        -------
        set of str
            Those that differ.
        """
        weight, found = cache(self.weight), set()
        for name in truth if names is None else names:
            parameter = self._plan.parameters[name]
            own = _shaped(mine[name], (), parameter) if name in mine else None
            own = torch.zeros_like(parameter) if own is None else own
            seen = truth.get(name)
            seen = torch.zeros_like(own) if seen is None else seen
            if not self.alike(name, seen, own, weight, rtol):
                found.add(name)
        return found

    def weight(self) -> float:
        """Return what all examples' gradients weigh, were none to cancel another."""
        return float((self.norms_squared().double().sum() * self.n).sqrt())

    def alike(
        self,
        name: str,
        seen: Tensor,
        own: Tensor,
        weight: Callable[[], float],
        rtol: float | None = None,
    ) -> bool:
        """Compare two sums over the examples of a parameter's gradients.

        Parameters
        ----------
        name : str
            The parameter's name in the model.
        seen, own : Tensor
            What the backward pass accumulated, and what was captured.
        weight : callable
            Returns what all examples' gradients weigh. Where they cancel, as for the
            bias before a normalisation, what is left is rounding error, in proportion.
        rtol : float, default=None
            As in `verify`.

        Returns
        -------
        bool
            Whether they are the same, up to the roundings on the way.
        """
        dtype = self._coarsest(self._plan.parameters[name], seen)
        dtype = dtype.to_real()
        tolerance = _RTOL.get(dtype, _RTOL_HALF) if rtol is None else rtol
        seen = seen.to(own)
        error, size = (float(torch.linalg.vector_norm(x)) for x in (seen - own, seen))
        if error <= tolerance * size:  # as mostly
            return True
        rounding = _ROUNDINGS.get(dtype, 4) * torch.finfo(dtype).eps * weight()
        size = max(size, float(torch.linalg.vector_norm(own)))
        return error <= tolerance * size + rounding

    def _coarsest(self, parameter: Tensor, grad: Tensor) -> torch.dtype:
        """Find the coarsest type that was used on the way to a gradient."""
        dtypes = {parameter.dtype, grad.dtype, *self._dtypes}
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def device(self) -> torch.device:
        """Where the first of the parameters is."""
        return self._plan.first.device

    @property
    def example(self) -> Tensor:
        """A real number of the type and device of the first of the parameters."""
        first = self._plan.first
        return torch.zeros((), dtype=first.dtype.to_real(), device=first.device)

    def _add(self, parts: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        """Sum the units' shares, which may be on several devices."""
        if not parts:
            return self._plan.first.new_zeros(shape)
        total = parts[0]
        for part in parts[1:]:
            if part.dtype is total.dtype and part.device == total.device:
                total += part
            else:
                total = total + part.to(total.device)
        return total

    def _by_parameter(self, n: int, rows: bool) -> dict[str, Tensor]:
        """Give sums, or one row per example, by the parameter's name."""
        found: dict[str, Tensor] = {}
        with full_precision(self._plan.first):
            for block in self.blocks.values():
                found |= block.materialised() if rows else block.sums()
        gradients = {}
        for name, parameter in self._plan.parameters.items():
            rows_first = (n,) if rows else ()
            if name in found:
                gradients[name] = _shaped(found[name], rows_first, parameter)
            else:
                gradients[name] = parameter.new_zeros((*rows_first, *parameter.shape))
        return gradients


def _shaped(found: Tensor, first: tuple[int, ...], parameter: Tensor) -> Tensor:
    """Give gradients the shape of their parameter, and complex ones their parts."""
    if parameter.is_complex() and not found.is_complex():
        found = torch.view_as_complex(found.reshape(-1, 2))
    return found.reshape((*first, *parameter.shape))


PENALTY_OF_WEIGHTS = (
    "the gradient that the backward pass accumulated for {name!r} is that of the "
    "examples and a multiple of the parameter itself, as of a penalty of weights in "
    "the loss: differentiate the penalty by a backward pass of its own, after the "
    "block, or use the `weight_decay` of the optimiser."
)
PENALTY_OF_GRADIENTS = (
    "the per-example gradients captured for {name!r} do not add up to the gradient "
    "that the backward pass accumulated, and gradients were differentiated themselves "
    "(`create_graph=True`), as in a gradient penalty, which does not pass through a "
    "layer's output alone: take gradients of the loss without it anew, with "
    "`reference=`, or leave the parameter out with `parameters=`."
)
DISAGREES = (
    "the per-example gradients captured for {name!r} do not add up to the gradient "
    "that the backward pass accumulated. Known causes: the weight is used outside its "
    "module's forward (as in F.linear(x, layer.weight)), in the loss (a penalty of "
    "weights or of gradients), or in a second model; a hook changes the gradient; "
    "gradients were clipped, unscaled or averaged over processes before the "
    "comparison; more than one backward pass is in `grads`. Call the module itself, "
    "or leave the parameter out with `parameters=`."
)
