r"""Gradients compared in a ridge-damped curvature metric, through kernels.

With :math:`H = \sum_i \phi_i \phi_i'`, where :math:`\phi_i = c_i g_i` is the gradient
of example i times its weight, and :math:`\lambda` the ridge, the score of example i
for target z is :math:`g_z' (H + \lambda I)^{-1} g_i`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .processes import Holders
from .store import GradientStore, Rows

# Entries of a slice of a kernel: 64 MiB in float32.
_SLICE = 2**24
# Bytes of gradients that are worked on at once.
_ROWS = 2**28
# Entries of what is seen of all examples that are kept rather than formed twice.
_KEPT = 2**28
BLOCK = 128  # examples at most of which what landmarks do not see is kept
_POWER_STEPS = 5  # towards a principal direction


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


class Seen(NamedTuple):
    """What landmarks see of some examples, and the metric in which they do not.

    Attributes
    ----------
    features : Tensor of shape (n, m)
        Rows whose inner products are those that landmarks see.
    blocks : list of (Tensor, Tensor)
        Places of examples that are alike, and the lower Cholesky factor of the ridge
        and what landmarks do not see of their kernel.
    """

    features: Tensor
    blocks: list[tuple[Tensor, Tensor]]

    def solved(self, values: Tensor) -> Tensor:
        """Return values, a row an example, over the ridge and what is not seen."""
        out = torch.empty_like(values)
        for at, factor in self.blocks:
            out[at] = torch.cholesky_solve(values[at], factor)
        return out


class LandmarkRidge:
    r"""The metric of all gradients, seen along those of a few landmarks.

    With features :math:`b = L^{-1} k_m`, where :math:`k_m` are inner products with the
    landmarks and :math:`K_{mm} = LL'`, the kernel matrix of all weighted gradients is
    close to :math:`BB'` (Nystroem [1]_). What this leaves is kept within blocks of
    examples that are alike, and taken to be 0 between them: with :math:`R` the
    block-diagonal part of :math:`K - BB'` (the partially independent training
    conditional of Gaussian processes [2]_ [3]_), the scores are

    .. math:: c^{-1} (BB' + R + \lambda I)^{-1} k_z,

    with the products :math:`k_z` of the weighted gradients with the target's, as they
    are. With as many landmarks as examples that is exact, and so it is of a single
    block. Costs n (m + s) products of gradients for blocks of s, and n (m + s)^2
    further operations, rather than n^2 and n^3.

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
        landmarks are exchanged, and each process scores its own examples, of which its
        blocks are.
    squares : Tensor of shape (n,), optional
        What `squared_norms` returned, if it was asked before.

    References
    ----------
    .. [1] C. K. I. Williams, M. Seeger, "Using the Nystroem method to speed up kernel
       machines", NIPS 2000.
    .. [2] J. Quinonero-Candela, C. E. Rasmussen, "A unifying view of sparse approximate
       Gaussian process regression", Journal of Machine Learning Research 6, 2005.
    .. [3] E. Snelson, Z. Ghahramani, "Local and global sparse Gaussian process
       approximations", AISTATS 2007.
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
        self.ridge, self._norms = damping * mean, squares.to(kernel).sqrt()
        kernel.diagonal().add_(torch.finfo(kernel.dtype).eps ** 0.5 * mean)
        self._factor = self._holders.cholesky(kernel)
        keep = len(self._places) * (len(landmarks) + BLOCK) <= _KEPT
        self._kept: list[Seen] | None = [] if keep else None
        gram = torch.zeros_like(kernel)
        for at in self._slices():
            seen = self._look(self._rows(at), at)
            gram.addmm_(seen.features.mT, seen.solved(seen.features))
            if self._kept is not None:
                self._kept.append(seen)
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
            products.append(aligned * self._weight[at][:, None])
            seen = self._seen(k, at, rows)
            goal = goal + seen.features.mT @ seen.solved(products[k])
        turned = torch.cholesky_solve(self._holders.total(goal), self._metric)
        for k, at in enumerate(self._slices()):
            seen = self._seen(k, at)
            scores = seen.solved(products[k] - seen.features @ turned)
            products[k] = scores / self._weight[at][:, None]
        return self._holders.together(torch.cat(products), self._index)

    def itself(self) -> Tensor:
        """Return the score of each example for itself, (n,)."""
        scores = []
        for k, at in enumerate(self._slices()):
            seen = self._seen(k, at)
            inverse = torch.empty_like(self._weight[at])
            for some, factor in seen.blocks:
                inverse[some] = torch.cholesky_inverse(factor).diagonal()
            solved = seen.solved(seen.features)
            turned = torch.cholesky_solve(solved.mT, self._metric).mT
            inverse -= (solved * turned).sum(1)
            scores.append((1.0 - self.ridge * inverse) / self._weight[at] ** 2)
        return self._holders.together(torch.cat(scores), self._index)

    def _look(self, rows: Rows, at: Tensor) -> Seen:
        """Return what landmarks see of examples."""
        products = self._store.inner(self._chosen, rows)
        products.mul_(self._own[:, None]).mul_(self._weight[at])
        # From the right: from the left the same takes twice as long.
        features = torch.linalg.solve_triangular(
            self._factor.mT, products.mT, upper=True, left=False
        )
        tiny = torch.finfo(features.dtype).tiny
        directions = features / self._norms[at].clamp(min=tiny)[:, None]
        blocks = []
        for some in bisected(directions, BLOCK):
            alike, own = _some(rows, some), self._weight[at[some]]
            left = self._store.inner(alike, alike).mul_(own).mul_(own[:, None])
            left.addmm_(features[some], features[some].mT, alpha=-1)
            blocks.append((some, self._lifted(left)))
        return Seen(features, blocks)

    def _lifted(self, left: Tensor) -> Tensor:
        """Return the Cholesky factor of the ridge and what is not seen."""
        diagonal = left.diagonal().clamp(min=0.0) + self.ridge
        left.diagonal().add_(self.ridge)
        factor, info = torch.linalg.cholesky_ex(left)
        # What rounding makes of next to nothing is left out.
        return torch.diag(diagonal.sqrt()) if int(info) else factor

    def _seen(self, k: int, at: Tensor, rows: Rows | None = None) -> Seen:
        """Return what is seen of a slice, kept or looked at again."""
        if self._kept is not None:
            return self._kept[k]
        return self._look(self._rows(at) if rows is None else rows, at)

    def _rows(self, at: Tensor) -> Rows:
        return self._store.rows(self._index[at])

    def _slices(self) -> Iterator[Tensor]:
        width = len(self._own) + BLOCK
        for piece in pieces(self._store, len(self._places), width):
            yield self._places[piece]


def bisected(directions: Tensor, size: int) -> list[Tensor]:
    """Split rows into blocks that are alike, by halves along principal directions.

    Parameters
    ----------
    directions : Tensor of shape (n, m)
        The rows.
    size : int
        How many a block may have.

    Returns
    -------
    list of Tensor of int
        Numbers of the rows of each block, ascending.
    """
    blocks = [torch.arange(len(directions))]
    while len(blocks[0]) > size:  # sizes differ by 1 at most
        blocks = [half for block in blocks for half in _halves(directions, block)]
    return blocks


def _halves(directions: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """Split rows at the median along their first principal direction."""
    rows = directions[block]
    rows = rows - rows.mean(0)
    along = rows[rows.square().sum(1).argmax()]
    for _ in range(_POWER_STEPS):
        along = rows.mT @ (rows @ along)
        along = along / along.norm().clamp(min=torch.finfo(along.dtype).tiny)
    order = (rows @ along).argsort(stable=True).cpu()
    middle = (len(block) + 1) // 2
    return block[order[:middle].sort()[0]], block[order[middle:].sort()[0]]


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


def _some(rows: Rows, at: slice | Tensor) -> Rows:
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
