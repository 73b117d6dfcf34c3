r"""Gradients compared in a Kronecker-factored curvature metric, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .encodings import Parts
from .kronecker import Bases, MatrixForm, Moments, OuterForm, form_of
from .processes import Holders
from .ridge import pieces
from .store import GradientStore, Rows

# Entries of targets' gradients that are formed at once: 64 MiB in float32.
_FORMED = 2**24


class FactoredRidge:
    r"""The metric of all gradients in eigenbases of Kronecker factors: EK-FAC [1]_.

    The gradient of a layer is a matrix :math:`G_i`; of a linear layer that is used
    once, :math:`g_i a_i'`. With the eigenvectors U of :math:`\sum_i c_i^2 g_i g_i'` and
    V of :math:`\sum_i a_i a_i'`, the metric is taken to be diagonal in
    :math:`U' G V`, and zero between layers. On the diagonal is what the gradients have
    there, :math:`\Lambda = \sum_i c_i^2 (U' G_i V)^2` elementwise, rather than products
    of eigenvalues. Scores are those of [2]_, with one ridge for all layers:

    .. math:: \sum_{layers} \sum_{pq} \frac{(U' G_z V)_{pq} (U' G_i V)_{pq}}
              {\Lambda_{pq} + \lambda} .

    Parameters
    ----------
    store : GradientStore
        The gradients, kept as `matrix_code` chose.
    index : Tensor of int of shape (n,)
        Which examples make the metric, and are scored.
    weight : Tensor of shape (n,)
        Weights c of their gradients in the metric.
    damping : float
        The ridge, in units of the mean squared norm of the weighted gradients.
    holders : Holders, optional
        Which processes hold the gradients; this one by default. Moments are summed
        over the processes, and each scores its own examples.

    Notes
    -----
    Of a layer that is used more than once gradients are formed, and U and V are those
    of :math:`\sum_i c_i^2 G_i G_i'` and :math:`\sum_i c_i^2 G_i' G_i`. Parameters that
    make no matrix, as those of a normalisation, are one row: among these the metric is
    exact. A side of more than 4,096 numbers keeps its own axes.

    References
    ----------
    .. [1] T. George, C. Laurent, X. Bouthillier, N. Ballas, P. Vincent, "Fast
       approximate natural gradient descent in a Kronecker-factored eigenbasis",
       NeurIPS 2018.
    .. [2] R. Grosse et al., "Studying large language model generalization with
       influence functions", arXiv:2308.03296, 2023.
    """

    def __init__(
        self,
        store: GradientStore,
        index: Tensor,
        weight: Tensor,
        damping: float,
        holders: Holders | None = None,
    ) -> None:
        self._store, self._index, self._weight = store, index, weight
        self._holders = holders or Holders()
        self._places = self._holders.places(index)
        self._forms = {name: form_of(code) for name, code in store.codes.items()}
        moments: dict[str, Moments] = {}
        for name, form, parts, own in self._units():
            moments[name] = _added(moments.get(name), form.moments(parts, own))
        self._bases = {name: self._of_both(moments[name]) for name in sorted(moments)}
        squares: dict[str, Tensor] = {}
        for name, form, parts, own in self._units():
            found = form.turned_squares(parts, own, self._bases[name])
            squares[name] = squares[name] + found if name in squares else found
        squares = {name: self._holders.total(squares[name]) for name in sorted(squares)}
        total = sum(float(found.sum()) for found in squares.values())
        self.ridge = damping * total / len(index)
        self._inverse = {k: (s + self.ridge).reciprocal() for k, s in squares.items()}

    def _of_both(self, moments: Moments) -> Bases:
        return Bases(*(None if m is None else self._eigenvectors(m) for m in moments))

    def _eigenvectors(self, moment: Tensor) -> Tensor:
        whole = self._holders.total(moment)
        # Those of equal eigenvalues are not unique: processes must share them.
        return self._holders.once(lambda: torch.linalg.eigh(whole).eigenvectors, whole)

    def targets(self, targets: Rows, average: Tensor | None = None) -> Tensor:
        """Return scores for targets, as `ExactRidge.targets` does."""
        m = len(next(iter(targets.values()))[-1])
        share = torch.eye(m) if average is None else average
        size = max(inverse.numel() for inverse in self._inverse.values())
        columns = torch.split(share.mT, max(1, _FORMED // size))
        return torch.cat([self._of(targets, some) for some in columns], dim=1)

    def _of(self, targets: Rows, shares: Tensor) -> Tensor:
        """Return scores for targets that points have these shares in, (n, m)."""
        goals = {name: self._goals(name, targets[name], shares) for name in targets}
        width = sum(len(goal) * min(goal.shape[1:]) for goal in goals.values())
        scores = []
        for rows, _ in self._slices(width):
            products = [
                self._forms[name].products(rows[name], goal)
                for name, goal in goals.items()
            ]
            scores.append(torch.stack(products).sum(0))
        return self._holders.together(torch.cat(scores), self._index)

    def _goals(self, name: str, parts: Parts, shares: Tensor) -> Tensor:
        """Return targets' gradients times the inverse of the metric, (m, p, q)."""
        form, bases = self._forms[name], self._bases[name]
        turned = [
            form.turned_sum(parts, share, bases) for share in shares.to(parts[-1])
        ]
        return bases.back(torch.stack(turned) * self._inverse[name])

    def itself(self) -> Tensor:
        """Return the score of each example for itself, (n,)."""
        scores: list[Tensor] = []
        for rows, _ in self._slices():
            own = [
                self._forms[name].own(parts, self._inverse[name], self._bases[name])
                for name, parts in rows.items()
            ]
            scores.append(torch.stack(own).sum(0))
        return self._holders.together(torch.cat(scores), self._index)

    def _units(self) -> Iterator[tuple[str, OuterForm | MatrixForm, Parts, Tensor]]:
        """Go through slices of the examples, and in each through the units."""
        for rows, at in self._slices():
            for name, parts in rows.items():
                yield name, self._forms[name], parts, self._weight[at].to(parts[-1])

    def _slices(self, width: int = 1) -> Iterator[tuple[Rows, Tensor]]:
        for piece in pieces(self._store, len(self._places), width):
            at = self._places[piece]
            yield self._store.rows(self._index[at]), at


def _added(one: Moments | None, other: Moments) -> Moments:
    if one is None:
        return other
    u, v = (
        a if a is None or b is None else a + b for a, b in zip(one, other, strict=True)
    )
    return u, v
