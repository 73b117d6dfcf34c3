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

    With features :math:`b = L^{-1} k_m`, where :math:`k_m` are inner products with the
    landmarks and :math:`K_{mm} = LL'`, the kernel matrix of all weighted gradients is
    close to :math:`BB'` (Nystroem [1]_). What this leaves of each squared norm is added
    to the diagonal, :math:`D = \mathrm{diag}(K - BB')`, as if the gradients were
    orthogonal to each other but for the landmarks (the fully independent training
    conditional of Gaussian processes [2]_ [3]_). The scores are

    .. math:: c^{-1} (BB' + D + \lambda I)^{-1} k_z,

    with the products :math:`k_z` of the weighted gradients with the target's, as they
    are. With as many landmarks as examples that is exact. Costs n m products of
    gradients and n m^2 further operations, rather than n^2 and n^3.

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
    .. [2] E. Snelson, Z. Ghahramani, "Sparse Gaussian processes using pseudo-inputs",
       NIPS 2005.
    .. [3] J. Quinonero-Candela, C. E. Rasmussen, "A unifying view of sparse approximate
       Gaussian process regression", Journal of Machine Learning Research 6, 2005.
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
        self.ridge, self._squares = damping * mean, squares.to(kernel)
        kernel.diagonal().add_(torch.finfo(kernel.dtype).eps ** 0.5 * mean)
        self._factor = self._holders.cholesky(kernel)
        keep = len(self._places) * len(landmarks) <= _KEPT
        self._features: list[Tensor] | None = [] if keep else None
        gram = torch.zeros_like(kernel)
        for at in self._slices():
            features = self._form(self._rows(at), at)
            gram.addmm_(features.mT, features / self._lifted(at, features)[:, None])
            if self._features is not None:
                self._features.append(features)
        gram = self._holders.total(gram)
        gram.diagonal().add_(1.0)
        self._metric = self._holders.cholesky(gram)

    def targets(self, targets: Rows, average: Tensor | None = None) -> Tensor:
        """Return scores for targets, as `ExactRidge.targets` does."""
        products: list[Tensor] = []
        goal = self._metric.new_zeros(())
        for k, at in enumerate(self._slices()):
            rows = self._rows(at)
            aligned = averaged(self._store.inner(rows, targets), average)
            features = self._featured(k, at, rows)
            lifted = self._lifted(at, features)[:, None]
            products.append(aligned * self._weight[at][:, None] / lifted)
            goal = goal + features.mT @ products[-1]
        turned = torch.cholesky_solve(self._holders.total(goal), self._metric)
        for k, at in enumerate(self._slices()):
            features = self._featured(k, at)
            lifted = self._lifted(at, features)[:, None]
            products[k] -= features @ turned / lifted
            products[k] /= self._weight[at][:, None]
        return self._holders.together(torch.cat(products), self._index)

    def itself(self) -> Tensor:
        """Return the score of each example for itself, (n,)."""
        scores = []
        for k, at in enumerate(self._slices()):
            features = self._featured(k, at)
            lifted = self._lifted(at, features)
            turned = torch.cholesky_solve(features.mT, self._metric).mT
            seen = self.ridge * (features * turned).sum(1) / lifted
            own = (lifted - self.ridge + seen) / lifted
            scores.append(own / self._weight[at] ** 2)
        return self._holders.together(torch.cat(scores), self._index)

    def _lifted(self, at: Tensor, features: Tensor) -> Tensor:
        """Return the ridge of examples, and what landmarks leave of their norms."""
        left = self._squares[at] - features.square().sum(1)
        return left.clamp_(min=0.0).add_(self.ridge)

    def _form(self, rows: Rows, at: Tensor) -> Tensor:
        """Return the features of examples, a row each."""
        products = self._store.inner(self._chosen, rows)
        products.mul_(self._own[:, None]).mul_(self._weight[at])
        # From the right: from the left the same takes twice as long.
        return torch.linalg.solve_triangular(
            self._factor.mT, products.mT, upper=True, left=False
        )

    def _featured(self, k: int, at: Tensor, rows: Rows | None = None) -> Tensor:
        """Return the features of a slice, kept or formed again."""
        if self._features is not None:
            return self._features[k]
        return self._form(self._rows(at) if rows is None else rows, at)

    def _rows(self, at: Tensor) -> Rows:
        return self._store.rows(self._index[at])

    def _slices(self) -> Iterator[Tensor]:
        for piece in pieces(self._store, len(self._places), len(self._own)):
            yield self._places[piece]


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
