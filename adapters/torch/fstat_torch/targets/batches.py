"""Target points that go through the model together, and the targets they make up."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import (
    tree_flatten,
    tree_leaves,
    tree_map_only,
    tree_unflatten,
)

from ..gradients import Captured, GradientCapture
from .measures import completion_log_likelihood, language_loss, predicting
from .target import Inputs, Measure, Target

_LOGITS = "logits_to_keep"


@dataclass(frozen=True)
class Points:
    """Target points in one batch, measured alike, and their share in the targets.

    Attributes
    ----------
    names : list of str
        Names of the targets.
    places : Tensor of int of shape (n_targets,)
        Where the targets are among all of them.
    x : Tensor, dict of str to Tensor, or tuple of Tensor
        What the model is called with.
    y : Tensor
        What its output is measured against.
    measure : callable
        ``measure(output, y)``, one number a point.
    weights : Tensor of shape (m,) or None
        What each point counts for in its target, of which lower is better; None: 1.
    owner : Tensor of int of shape (m,) or None
        Which target each point belongs to; None: each is one.
    """

    names: list[str]
    places: Tensor
    x: Inputs
    y: Tensor
    measure: Measure
    weights: Tensor | None
    owner: Tensor | None

    @classmethod
    def of(cls, targets: Mapping[str, Target]) -> list[Points]:
        """Put in one batch what can be: single points, or several, of one shape."""
        batches: dict[Hashable, list[str]] = {}
        for name, target in targets.items():
            batches.setdefault(_kind(target), []).append(name)
        place = {name: k for k, name in enumerate(targets)}
        return [
            cls._joined(
                {name: targets[name] for name in names},
                torch.tensor([place[name] for name in names]),
            )
            for names in batches.values()
        ]

    @classmethod
    def _joined(cls, targets: Mapping[str, Target], places: Tensor) -> Points:
        members = list(targets.values())
        measure = members[0].measure
        assert measure is not None
        sizes = torch.tensor([len(t.y) for t in members])
        several = int(sizes.max()) > 1
        weights = torch.cat([t.weights for t in members])
        plain = not several and bool((weights == 1).all())
        return cls(
            names=list(targets),
            places=places,
            x=_stacked([t.x for t in members]),
            y=torch.cat([t.y for t in members]),
            measure=measure,
            weights=None if plain else weights,
            owner=torch.arange(len(sizes)).repeat_interleave(sizes)
            if several
            else None,
        )

    def to(self, device: torch.device) -> Points:
        """Return them on a device."""
        parts = self.x, self.y, self.weights, self.owner
        if all(
            leaf.device == device for leaf in tree_leaves(parts) if leaf is not None
        ):
            return self
        x, y, weights, owner = tree_map_only(Tensor, lambda t: t.to(device), parts)
        return replace(self, x=x, y=y, weights=weights, owner=owner)

    def __len__(self) -> int:
        return len(self.y)

    def split(self, size: int) -> Iterator[Points]:
        """Part them after at most `size` points, but no target."""
        if len(self) <= size:
            yield self
            return
        owner = torch.arange(len(self)) if self.owner is None else self.owner
        ends = owner.bincount().cumsum(0).tolist()
        start = first = 0
        for k, end in enumerate(ends):
            if k + 1 == len(ends) or ends[k + 1] - start > size:
                yield self._some(slice(first, k + 1), slice(start, end))
                start, first = end, k + 1

    def _some(self, targets: slice, rows: slice) -> Points:
        parts = self.x, self.y, self.weights, self.owner
        x, y, weights, owner = tree_map_only(Tensor, itemgetter(rows), parts)
        names, places = self.names[targets], self.places[targets]
        if owner is not None:
            owner = owner - owner[0]
        return Points(names, places, x, y, self.measure, weights, owner)

    def gradients(
        self,
        capture: GradientCapture,
        check: bool = False,
        factors: Tensor | None = None,
    ) -> Captured:
        """Return the gradients of what is measured, one a point.

        Parameters
        ----------
        capture : GradientCapture
            Of the model.
        check : bool, default=False
            Whether to refuse measures that are not finite.
        factors : Tensor of shape (m,), optional
            What the gradients are multiplied with.

        Raises
        ------
        ValueError
            If the measure does not return one number for each point.
        """

        def measured(output: Any, y: Any) -> Tensor:
            values = self.measure(output, y)
            self._check(values, check)
            return values if factors is None else values * factors.to(values)

        return capture.of(measured, self._asked(capture.model), self.y)

    def _asked(self, model: nn.Module) -> Inputs:
        """Return what the model is called with.

        Causal models of transformers are asked for the logits that are measured, and
        no others: their vocabulary is large.
        """
        of_tokens = self.measure in (completion_log_likelihood, language_loss)
        if not of_tokens or self.y.ndim != 2 or not isinstance(self.x, dict):
            return self.x
        if _LOGITS in self.x or not _leaves_out_logits(model):
            return self.x
        return {**self.x, _LOGITS: predicting(self.y)}

    def summed(
        self, capture: GradientCapture, size: int, check: bool = False
    ) -> tuple[Points, Captured]:
        """Return the gradient of their one target, formed, from `size` points at once.

        Returns
        -------
        Points
            The target as if it were one point.
        Captured
            Its gradient.
        """
        assert self.weights is not None
        # Half precision has no room for weights of 1/m.
        largest = self.weights.abs().max()
        parts = [
            self._some(slice(1), slice(k, k + size)) for k in range(0, len(self), size)
        ]
        shares = torch.split(self.weights / largest, size)
        found = Captured.summed(
            part.gradients(capture, check, share)
            for part, share in zip(parts, shares, strict=True)
        )
        whole = self._some(slice(1), slice(1))
        return replace(whole, weights=largest[None], owner=None), found

    def _check(self, values: Any, finite: bool) -> None:
        m = len(self)
        if not isinstance(values, Tensor) or values.shape != (m,):
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values)
            raise ValueError(
                f"The measure of target {self.names[0]!r} must return one number for "
                f"each point, a tensor of shape ({m},), got {shape}."
            )
        wrong = (~values.isfinite()).nonzero()[:, 0].tolist() if finite else []
        if wrong:
            which = wrong[0] if self.owner is None else int(self.owner[wrong[0]])
            raise ValueError(
                f"The measure of target {self.names[which]!r} must be finite where it "
                f"is first taken, got {values[wrong[0]].item()}."
            )

    def combine(self, products: Tensor) -> Tensor:
        """Sum over the points of each target, ``(b, m)`` to ``(b, n_targets)``."""
        if self.weights is None:
            return products
        weighted = products * self.weights.to(products)
        if self.owner is None:
            return weighted
        # Not by a matrix: what is not finite stays with its own target.
        found = products.new_zeros(len(products), len(self.names))
        return found.index_add_(1, self.owner, weighted)

    def together(self, here: Captured) -> tuple[Points, Captured]:
        """Sum the gradients of points that make up a target, if that takes no more.

        Returns
        -------
        Points
            The targets as if each were one point.
        Captured
            Their gradients; or both as they were.
        """
        if self.owner is None or not here.is_formed:
            return self, here
        return self.one_a_target(), here.mixed(lambda rows: self.combine(rows.mT).mT)

    def one_a_target(self) -> Points:
        """Return the targets as if each were one point."""
        return replace(self, weights=None, owner=None)

    def norms(self, here: Captured) -> Tensor:
        """Return the norm of each target's gradient, ``(n_targets,)``."""
        if self.owner is None:
            squared = here.norms_squared()
            return self.combine(squared.clamp(min=0).sqrt()[None])[0].abs()
        within = self.combine(here.gram()).gather(1, self.owner[:, None])
        return self.combine(within.mT)[0].clamp(min=0).sqrt()

    @property
    def average(self) -> Tensor | None:
        """The matrix that makes targets of points, unless each point is a target."""
        if self.weights is None or self.owner is None:
            return None if self.weights is None else self.weights.diag()
        share = self.weights.new_zeros(len(self), len(self.names))
        return share.scatter_(1, self.owner[:, None], self.weights[:, None])


def gathered(parts: list[Tensor], batches: list[Points]) -> Tensor:
    """Put columns of several batches, or their entries, in the targets' own order."""
    found = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    places = torch.cat([points.places for points in batches])
    if bool((places.diff() > 0).all()):
        return found
    return found[..., places.argsort()]


def _leaves_out_logits(model: nn.Module) -> bool:
    """Whether a model, or the one inside of an adapter's, can leave out logits."""
    inner = getattr(model, "get_base_model", None)
    model = inner() if callable(inner) else model
    return _LOGITS in signature(type(model).forward).parameters


def _kind(target: Target) -> Hashable:
    """Return what targets must have in common to go through the model together."""
    leaves, structure = tree_flatten((target.x, target.y))
    kinds = tuple((leaf.shape[1:], leaf.dtype, leaf.device) for leaf in leaves)
    return id(target.measure), len(target.y) > 1, str(structure), kinds


def _stacked(inputs: list[Inputs]) -> Any:
    flat = [tree_flatten(x) for x in inputs]
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    return tree_unflatten([torch.cat(column) for column in columns], flat[0][1])
