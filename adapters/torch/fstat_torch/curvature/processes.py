"""Which process holds the kept gradients of which examples, and sums over processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from ..distributed import Processes
from .store import GradientStore, Rows


class Holders:
    """Processes that each hold the gradients of some examples.

    Parameters
    ----------
    processes : Processes, optional
        Who they are; this one alone by default.
    mine : Tensor of bool of shape (n_examples,), optional
        Which examples' gradients are those of this process, where there are several.
    """

    def __init__(
        self, processes: Processes | None = None, mine: Tensor | None = None
    ) -> None:
        self._processes, self._mine = processes, mine

    @classmethod
    def latest(
        cls, met: Tensor, processes: Processes | None = None
    ) -> tuple[Holders, Tensor]:
        """Let the process that met an example last hold its gradient.

        Parameters
        ----------
        met : Tensor of int of shape (n_examples,)
            Step at which this process met each example last; -1 for never.
        processes : Processes, optional
            Who else may have met them.

        Returns
        -------
        Holders
            The processes. Of one step the last share counts.
        Tensor of int of shape (n,)
            Examples that any of them met.
        """
        if processes is None:
            return cls(), (met >= 0).nonzero()[:, 0]
        last = processes.largest(met * processes.size + processes.rank)
        mine = (last >= 0) & (last % processes.size == processes.rank)
        return cls(processes, mine), (last >= 0).nonzero()[:, 0]

    def check(self, store: GradientStore) -> None:
        """Refuse gradients that are not kept alike.

        Raises
        ------
        RuntimeError
            On all processes, if one keeps other layers, or in another form.
        """
        if self._processes is None:
            return
        told = self._processes.share(store.description())
        if any(words != told[0] for words in told):
            raise RuntimeError(
                "`snapshot` needs the same layers' gradients on each process, kept "
                "in the same form, and they were used by other layers, or never: give "
                "each process a share of the first step."
            )

    def places(self, index: Tensor) -> Tensor:
        """Return where in `index` examples are that this process holds."""
        if self._mine is None:
            return torch.arange(len(index))
        return self._mine[index].nonzero()[:, 0]

    def numbers(self, own: Tensor) -> Tensor:
        """Return each example's number, (n_examples,), from who holds its gradient."""
        if self._mine is None:
            return own
        return self.total(torch.where(self._mine, own, 0.0))

    def rows(self, store: GradientStore, index: Tensor) -> Rows:
        """Return the gradients of examples, whoever holds them."""
        if self._mine is None:
            return store.rows(index)
        places = self.places(index)
        own = store.rows(index[places])
        return {
            name: tuple(self._joined(part, places, len(index)) for part in own[name])
            for name in sorted(own)
        }

    def together(self, own: Tensor, index: Tensor) -> Tensor:
        """Return rows for all of `index`, from those for its `places`."""
        if self._mine is None:
            return own
        return self._joined(own, self.places(index), len(index))

    def _joined(self, own: Tensor, places: Tensor, n: int) -> Tensor:
        whole = own.new_zeros(n, *own.shape[1:])
        return self.total(whole.index_copy_(0, places.to(own.device), own))

    def total(self, own: Tensor) -> Tensor:
        """Return the sum over the processes."""
        return own if self._processes is None else self._processes.summed(own)

    def once(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Return what the first process computes, of the shape of another tensor."""
        if self._processes is None:
            return compute()
        own = torch.full_like(like, torch.nan)
        if self._processes.rank == 0:
            with suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                own = compute()
        found = self._processes.spread(own)
        if bool(found.isnan().any()):
            raise torch.linalg.LinAlgError("there is no decomposition")  # type: ignore[attr-defined]
        return found

    def cholesky(self, matrix: Tensor) -> Tensor:
        """Return the lower factor of a matrix that all have; it is overwritten.

        Raises
        ------
        LinAlgError
            On all processes, if one of them finds that there is none.
        """
        info = torch.empty(matrix.shape[:-2], dtype=torch.int32, device=matrix.device)
        torch.linalg.cholesky_ex(matrix, out=(matrix, info))
        if bool(self.total(info).any()):
            raise torch.linalg.LinAlgError("there is no Cholesky factor")  # type: ignore[attr-defined]
        return matrix
