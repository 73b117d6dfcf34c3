"""What the processes that train one model together tell each other of a step.

Each process sees its share of the batch, and its backward pass gives the gradient of
its share, before that is averaged over the processes. Rows are gathered to rank 0,
which alone holds and writes the trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .gradients import Captured, UnsupportedModelError

Rows = dict[str, Any]


class Processes:
    """Processes whose gradients are averaged, one share of the batch each.

    Parameters
    ----------
    group : ProcessGroup, optional
        Group that averages the gradients; all processes by default.
    sharded : bool
        Whether parameters are sharded over the group.

    Attributes
    ----------
    size, rank : int
        How many they are, and which one this is.
    """

    def __init__(self, group: Any = None, sharded: bool = False) -> None:
        self._group, self.sharded = group, sharded
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self._talk: Any = None

    @property
    def _side(self) -> Any:
        # Small rows on the CPU, out of the way of the gradients' traffic.
        if self._talk is None:
            ranks = dist.get_process_group_ranks(self._group or dist.group.WORLD)
            self._talk = dist.new_group(
                ranks, backend="gloo", use_local_synchronization=True
            )
        return self._talk

    def gather(self, rows: Rows) -> list[Rows] | None:
        """Collect one object of each process at rank 0; None at the others."""
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        first = dist.get_global_rank(self._side, 0)
        dist.gather_object(rows, found, dst=first, group=self._side)
        return found

    def share(self, own: Any) -> list[Any]:
        """Return one object of each process, on all of them."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own, group=self._side)
        return found

    def agree(self, flag: bool) -> bool:
        """Return what rank 0 says."""
        said = torch.tensor([flag])
        dist.broadcast(said, dist.get_global_rank(self._side, 0), group=self._side)
        return bool(said)

    def failure(self, own: Exception | None, unverified: bool) -> SharedError | None:
        """Return what went wrong in any of the processes; all of them must ask.

        Parameters
        ----------
        own : Exception or None
            What went wrong in this one.
        unverified : bool
            Whether it is that captured gradients were not those that trained the model.
        """
        code = 0 if own is None else 1 + unverified
        worst = int(self.largest(torch.tensor([code])))
        if not worst:
            return None
        causes = self.share(None if own is None else str(own))
        cause = next(cause for cause in causes if cause is not None)
        return SharedError(cause, unverified=worst > 1)

    def summed(self, own: Tensor) -> Tensor:
        """Return the sum of a tensor of each process, which is not changed."""
        return self._reduced(own, dist.ReduceOp.SUM)

    def largest(self, own: Tensor) -> Tensor:
        """Return the largest of each entry of a tensor of each process."""
        return self._reduced(own, dist.ReduceOp.MAX)

    def _reduced(self, own: Tensor, how: Any) -> Tensor:
        found = own.detach().to("cpu", copy=True).contiguous()
        dist.all_reduce(found, how, group=self._side)
        return found.to(own.device)

    def spread(self, own: Tensor) -> Tensor:
        """Return the tensor that rank 0 has."""
        found = own.detach().to("cpu", copy=True).contiguous()
        dist.broadcast(found, dist.get_global_rank(self._side, 0), group=self._side)
        return found.to(own.device)

    def sizes(self, size: int) -> list[int]:
        """Return the shares' numbers of examples, by rank."""
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(found, torch.tensor([size]), group=self._side)
        return [int(n) for n in found]

    def gram_rows(self, gradients: Tensor, local: Tensor) -> Tensor:
        """Return the Gram matrix' rows of this share, columns in order of rank.

        Parameters
        ----------
        gradients : Tensor of shape (b, n_parameters)
            Gradient of each example of the share.
        local : Tensor of shape (b, b)
            Their own inner products.

        Returns
        -------
        Tensor of shape (b, B)
            Inner products with the B examples of all shares.
        """
        columns = []
        group: Any = self._group or dist.group.WORLD
        for rank, size in enumerate(self.sizes(len(gradients))):
            mine = rank == self.rank
            theirs = (
                gradients if mine else gradients.new_empty(size, gradients.shape[1])
            )
            dist.broadcast(theirs, dist.get_global_rank(group, rank), group=group)
            columns.append(local if mine else gradients @ theirs.mT)
        return torch.cat(columns, dim=1)

    def verify(self, batch: Captured, added: Mapping[str, Tensor | None]) -> bool:
        """Compare captured gradients with sharded ones, which are averages already.

        Raises
        ------
        UnsupportedModelError
            If a parameter's gradient is not what was captured.
        """
        own_weight = torch.tensor(batch.weight(), dtype=torch.float64)
        weight = float(self.summed(own_weight)) / self.size
        for name, mine in batch.sum_gradients().items():
            gradient = added.get(name)
            if gradient is None:
                return False
            mine = whole(mine).contiguous()
            dist.all_reduce(mine, group=self._group)
            seen, mine = whole(gradient), mine / self.size
            finite = bool(torch.isfinite(seen).all())
            mine = mine.reshape(seen.shape)
            if finite and not batch.alike(name, seen, mine, lambda: weight):
                raise UnsupportedModelError(
                    f"the per-example gradients captured for {name!r} do not add up to "
                    "the gradient that the processes accumulated: zero the gradients "
                    "before the step, call the layer itself, or leave the parameter "
                    "out with `parameters=`."
                )
        return True


class SharedError(RuntimeError):
    """Something went wrong in one of several processes, and all know.

    Parameters
    ----------
    cause : str
        What.
    unverified : bool
        Whether captured gradients were not those that trained the model.
    """

    def __init__(self, cause: str, unverified: bool) -> None:
        super().__init__(cause)
        self.unverified = unverified


def whole(x: Tensor) -> Tensor:
    """Return a sharded tensor as it is without sharding."""
    full: Tensor = x.full_tensor() if hasattr(x, "full_tensor") else x
    return full


def unwrapped(
    model: nn.Module, distributed: bool | None
) -> tuple[nn.Module, Processes | None]:
    """Return the module inside a data-parallel wrapper, and who shares its batch.

    Parameters
    ----------
    model : nn.Module
        A plain module, one wrapped in `DistributedDataParallel`, or one that
        `fully_shard` was applied to.
    distributed : bool or None
        Whether the processes train one model; None: as the wrapper says.

    Raises
    ------
    UnsupportedModelError
        If the wrapper hides the layers.
    ValueError
        If there are several processes and nothing says what they share.
    """
    if isinstance(model, nn.DataParallel):
        raise UnsupportedModelError(
            "nn.DataParallel splits the batch inside the model: use "
            "DistributedDataParallel, one process a device."
        )
    several = dist.is_available() and dist.is_initialized()
    several = several and dist.get_world_size() > 1
    if not several:
        inner = getattr(model, "module", None)
        wrapped = type(model).__name__ == "DistributedDataParallel"
        return (inner if wrapped and inner is not None else model), None
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.module, Processes(model.process_group)
    if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
        raise UnsupportedModelError(
            "FullyShardedDataParallel flattens the parameters of several layers into "
            "one: shard the model with torch.distributed.fsdp.fully_shard instead."
        )
    if any(hasattr(p, "full_tensor") for p in model.parameters()):
        return model, _sharded(model)
    if distributed is None:
        raise ValueError(
            "`distributed` must be said where several processes run a model that is "
            "not wrapped: True if its gradients are averaged over them, False if each "
            "process trains a model of its own."
        )
    return model, Processes() if distributed else None


def _sharded(model: nn.Module) -> Processes:
    parameters: list[Any] = list(model.parameters())
    plain = all(hasattr(p, "full_tensor") for p in parameters)
    meshes = {p.device_mesh for p in parameters if hasattr(p, "full_tensor")}
    mesh = next(iter(meshes))
    if len(meshes) > 1 or mesh.ndim > 1 or not hasattr(model, "unshard") or not plain:
        raise UnsupportedModelError(
            "of sharded models only those are supported whose parameters are all "
            "sharded by fully_shard over one group of processes."
        )
    return Processes(mesh.get_group(), sharded=True)
