"""What a piece of code computes, moves and holds, counted without running it.

On the meta device tensors have shapes and no numbers, so that a model of any size can
be measured anywhere; on other devices the code runs and is measured as well.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .accelerator import Operation

_aten = torch.ops.aten
# What these read of their first argument is no more than what they return.
_LOOKUPS = {_aten.embedding, _aten.index_select, _aten.gather}


@dataclass
class Phase:
    """What was counted of a part of the code.

    Attributes
    ----------
    operations : Counter of Operation
        How often each was done.
    peak : float
        Most bytes that were held at once in tensors.
    """

    operations: Counter[Operation] = field(default_factory=Counter)
    peak: float = 0.0

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return sum(one.flops * n for one, n in self.operations.items())

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return sum(one.bytes * n for one, n in self.operations.items())


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, bytes moved and bytes held, by phases.

    Attributes
    ----------
    phases : dict of str to Phase
        What was counted, by the names given to `phase`.
    held : float
        Bytes in tensors now.

    Notes
    -----
    Operations are counted by torch's own formulas, those of
    `torch.utils.flop_counter`. Each operation reads its arguments and writes its
    results; what is fused by a compiler moves less.

    Examples
    --------
    >>> import torch
    >>> from cost_model import Meter
    >>> x = torch.empty(4, 5, device="meta")
    >>> with Meter([x]) as meter, meter.phase("product"):
    ...     y = x @ x.T
    >>> phase = meter.phases["product"]
    >>> phase.flops, phase.bytes, phase.peak
    (160.0, 224.0, 144.0)
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phases: dict[str, Phase] = {}
        self.held = 0.0
        self._sizes: dict[int, int] = {}
        self._phase = Phase()
        for tensor in tensors:
            self._hold(tensor)

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Count what happens inside under a name.

        Parameters
        ----------
        name : str
            The name; counts under the same one are added.

        Yields
        ------
        Phase
            Its counts.
        """
        outer, self._phase = self._phase, self.phases.setdefault(name, Phase())
        self._phase.peak = max(self._phase.peak, self.held)
        try:
            yield self._phase
        finally:
            self._phase = outer

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do an operation, and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        results = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor)]
        for result in results:
            self._hold(result)
        self._phase.peak = max(self._phase.peak, self.held)
        if not func.is_view:
            operation = _operation(func, args, kwargs, out, results)
            if operation is not None:
                self._phase.operations[operation] += 1
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.held += storage.nbytes()
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.held -= self._sizes.pop(key)


def _operation(
    func: Any, args: Any, kwargs: Any, out: Any, results: list[Tensor]
) -> Operation | None:
    packet = func._overloadpacket
    inputs = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    written = sum(map(_bytes, results))
    if packet in _LOOKUPS:
        inputs = inputs[1:]
        written *= 2
    moved = float(written + sum(map(_bytes, inputs)))
    count = flop_registry.get(packet)
    flops = float(count(*args, **kwargs, out_val=out)) if count else 0.0
    if not moved:
        return None
    # By the result: attention of half precision keeps its sums in single precision.
    wide = flops > 0 and results[0].dtype in (torch.float32, torch.float64)
    return Operation(flops, moved, wide)


def _bytes(tensor: Tensor) -> int:
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
