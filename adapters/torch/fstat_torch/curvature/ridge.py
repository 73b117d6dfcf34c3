r"""Gradients compared in a ridge-damped curvature metric, through kernels.

With :math:`H = \sum_i \phi_i \phi_i'`, where :math:`\phi_i = c_i g_i` is the gradient
of example i times its weight, and :math:`\lambda` the ridge, the score of example i
for target z is :math:`g_z' (H + \lambda I)^{-1} g_i`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .processes import Holders
from .store import GradientStore, Rows

# Entries of a slice of a kernel: 64 MiB in float32.
_SLICE = 2**24
# Bytes of gradients that are worked on at once.
_ROWS = 2**28
# Entries of the features of all examples that are kept rather than formed twice.
_KEPT = 2**28


class ExactRidge:
    r"""The metric of all gradients, by the kernel matrix of all examples.

    Since :math:`(\Phi'\Phi + \lambda I)^{-1}\Phi' = \Phi'(\Phi\Phi' + \lambda I)^{-1}`,
    scores follow from one n x n system: TRAK's [1]_ form without projection.

    Parameters
    ----------
    store : GradientStore
        The gradients.
    index : Tensor of int of shape (n,)
        Which examples make the metric, and are scored.
    weight : Tensor of shape (n,)
        Weights c of their gradients in the metric.
    damping : float
        The ridge, in units of the mean squared norm of the weighted gradients.
    holders : Holders, optional
        Which processes hold the gradients; this one by default. Each of them then
        computes all scores, from the gradients of all.

    References
    ----------
    .. [1] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: attributing
       model behavior at scale", ICML 2023, section 3.
    """

    def __init__(
        self,
        store: GradientStore,
        index: Tensor,
        weight: Tensor,
        damping: float,
        holders: Holders | None = None,
    ) -> None:
        self._store = store
        holders = holders or Holders()
        self._rows = holders.rows(store, index)
        kernel = _kernel(store, self._rows, weight)
        self._weight = weight.to(kernel)
        self.ridge = damping * float(kernel.diagonal().mean())
        kernel.diagonal().add_(self.ridge)
        self._factor = holders.cholesky(kernel)

    def targets(self, targets: Rows, average: Tensor | None = None) -> Tensor:
        """Return scores for targets.

        Parameters
        ----------
        targets : Rows
            Encoded gradients of m points.
        average : Tensor of shape (m, n_targets), optional
            How points make up targets; each is one by default.

        Returns
        -------
        Tensor of shape (n, n_targets)
            Positive where a step on the example serves the target.
        """
        weight = self._weight[:, None]
        aligned = averaged(self._store.inner(self._rows, targets), average)
        return torch.cholesky_solve(aligned * weight, self._factor) / weight

    def itself(self) -> Tensor:
        """Return the score of each example for itself, (n,)."""
        inverse = torch.cholesky_inverse(self._factor)
        return (1.0 - self.ridge * inverse.diagonal()) / self._weight**2


class LandmarkRidge:
    r"""The metric of all gradients, seen along those of a few landmarks.

    Gradients are projected on the span of the landmarks' (Nystroem's approximation
    [1]_ [2]_): there the metric is that of *all* examples, and orthogonal to it the
    ridge alone. With features :math:`b = L^{-1} k_m`, where :math:`k_m` are inner
    products with the landmarks and :math:`K_{mm} = LL'`, the score is

    .. math:: (g_z \cdot g_i - b_z \cdot b_i) / \lambda
              + b_z' (B B' + \lambda I)^{-1} b_i .

    With as many landmarks as examples it is exact. Costs n m products of gradients
    and n m^2 further operations, rather than n^2 and n^3.

    Parameters
    ----------
    store : GradientStore
        The gradients.
    index : Tensor of int of shape (n,)
        Which examples make the metric, and are scored.
    weight : Tensor of shape (n,)
        Weights c of their gradients in the metric.
    damping : float
        The ridge, in units of the mean squared norm of the weighted gradients.
    landmarks : Tensor of int of shape (m,)
        Places in `index` of the landmarks.
    holders : Holders, optional
        Which processes hold the gradients; this one by default. The gradients of the
        landmarks are exchanged, and each process scores its own examples.
    squares : Tensor of shape (n,), optional
        What `squared_norms` returned, if it was asked before.

    References
    ----------
    .. [1] C. K. I. Williams, M. Seeger, "Using the Nystroem method to speed up kernel
       machines", NIPS 2000.
    .. [2] A. Rudi, R. Camoriano, L. Rosasco, "Less is more: Nystroem computational
       regularization", NIPS 2015.
    """

    def __init__(
        self,
        store: GradientStore,
        index: Tensor,
        weight: Tensor,
        damping: float,
        landmarks: Tensor,
        holders: Holders | None = None,
        squares: Tensor | None = None,
    ) -> None:
        self._store, self._index = store, index
        self._holders = holders or Holders()
        self._places = self._holders.places(index)
        self._chosen = self._holders.rows(store, index[landmarks])
        kernel = store.inner(self._chosen, self._chosen)
        self._weight = weight.to(kernel)
        own = self._weight[landmarks]
        kernel.mul_(own).mul_(own[:, None])
        self._own = own
        if squares is None:
            squares = squared_norms(store, index, weight, self._holders)
        mean = float(squares.mean())
        self.ridge = damping * mean
        kernel.diagonal().add_(torch.finfo(kernel.dtype).eps ** 0.5 * mean)
        self._factor = self._holders.cholesky(kernel)
        keep = len(self._places) * len(landmarks) <= _KEPT
        self._features: list[Tensor] | None = [] if keep else None
        gram = torch.zeros_like(kernel)
        for rows, at in self._slices():
            features = self._form(rows, at)
            gram.addmm_(features.mT, features)
            if self._features is not None:
                self._features.append(features)
        gram = self._holders.total(gram)
        gram.diagonal().add_(self.ridge)
        self._metric = self._holders.cholesky(gram)

    def targets(self, targets: Rows, average: Tensor | None = None) -> Tensor:
        """Return scores for targets, as `ExactRidge.targets` does."""
        products = averaged(self._store.inner(self._chosen, targets), average)
        goal = self._whiten(products.mT * self._own)
        turned = self._turned(goal.mT)
        scores = torch.cat(
            [
                averaged(self._store.inner(rows, targets), average) / self.ridge
                + (features @ turned) / self._weight[at][:, None]
                for rows, at, features in self._featured()
            ]
        )
        return self._holders.together(scores, self._index)

    def itself(self) -> Tensor:
        """Return the score of each example for itself, (n,)."""
        scores = []
        for rows, at, features in self._featured():
            turned = self._turned(features.mT).mT
            own = (features * turned).sum(1) / self._weight[at] ** 2
            scores.append(self._store.squares(rows) / self.ridge + own)
        return self._holders.together(torch.cat(scores), self._index)

    def _turned(self, goal: Tensor) -> Tensor:
        """Multiply features with ``(B B' + lambda)^-1 - 1 / lambda``."""
        return torch.cholesky_solve(goal, self._metric) - goal / self.ridge

    def _whiten(self, products: Tensor) -> Tensor:
        """Return features, one row an example, of its products with the landmarks."""
        # From the right: from the left the same takes twice as long.
        return torch.linalg.solve_triangular(
            self._factor.mT, products, upper=True, left=False
        )

    def _form(self, rows: Rows, at: Tensor) -> Tensor:
        products = self._store.inner(self._chosen, rows)
        products.mul_(self._own[:, None]).mul_(self._weight[at])
        return self._whiten(products.mT)

    def _slices(self) -> Iterator[tuple[Rows, Tensor]]:
        for piece in pieces(self._store, len(self._places), len(self._own)):
            at = self._places[piece]
            yield self._store.rows(self._index[at]), at

    def _featured(self) -> Iterator[tuple[Rows, Tensor, Tensor]]:
        for k, (rows, at) in enumerate(self._slices()):
            kept = self._features
            yield rows, at, self._form(rows, at) if kept is None else kept[k]


def squared_norms(
    store: GradientStore,
    index: Tensor,
    weight: Tensor,
    holders: Holders | None = None,
) -> Tensor:
    """Return squared norms of weighted gradients.

    Parameters
    ----------
    store : GradientStore
        The gradients.
    index : Tensor of int of shape (n,)
        Of which examples.
    weight : Tensor of shape (n,)
        Their weights.
    holders : Holders, optional
        Which processes hold the gradients; this one by default.

    Returns
    -------
    Tensor of float64 of shape (n,)
        The same on all processes.
    """
    holders = holders or Holders()
    places = holders.places(index)
    own = []
    for piece in pieces(store, len(places), 1):
        at = places[piece]
        squares = store.squares(store.rows(index[at])).double()
        own.append(squares * weight[at].to(squares) ** 2)
    return holders.together(torch.cat(own), index)


def _kernel(store: GradientStore, everyone: Rows, weight: Tensor) -> Tensor:
    """Return the kernel matrix of weighted gradients, slice by slice."""
    n = len(weight)
    found: Tensor | None = None
    slices = list(pieces(store, n, n))
    for k, at in enumerate(slices):
        rows, own = _some(everyone, at), weight[at]
        for other in slices[: k + 1]:
            theirs = rows if other is at else _some(everyone, other)
            part = store.inner(rows, theirs)
            part.mul_(own.to(part)[:, None]).mul_(weight[other].to(part))
            if found is None:
                found = part.new_empty(n, n)
            found[at, other] = part
            found[other, at] = part.mT
    assert found is not None
    return found


def _some(rows: Rows, at: slice) -> Rows:
    return {name: tuple(part[at] for part in parts) for name, parts in rows.items()}


def pieces(store: GradientStore, n: int, width: int) -> Iterator[slice]:
    """Split n examples so that neither products nor gradients take much memory.

    There is one piece of none, where there is no example.
    """
    size = max(1, min(_SLICE // width, _ROWS // max(store.row_bytes, 1)))
    for start in range(0, max(n, 1), size):
        yield slice(start, min(start + size, n))


def averaged(products: Tensor, average: Tensor | None) -> Tensor:
    """Average products with points over those of each target."""
    return products if average is None else products @ average.to(products)
