"""Accelerators, and how long they take for operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Operation(NamedTuple):
    """What one operation does.

    Parameters
    ----------
    flops : float
        Multiplications and additions.
    bytes : float
        Read and written.
    wide : bool
        Whether it multiplies in float32 or float64.
    """

    flops: float
    bytes: float
    wide: bool


@dataclass(frozen=True)
class Accelerator:
    """What an accelerator can do, and how much of that is reached.

    Parameters
    ----------
    name : str
        What it is called.
    flops : float
        Operations per second in matrix products of half precision, at best.
    flops_wide : float
        The same in single precision.
    bandwidth : float
        Bytes per second to and from its memory, at best.
    memory : float
        Bytes of memory.
    link : float
        Bytes per second that it sends to others while it receives as many.
    utilisation : float, default=0.5
        Share of `flops` that matrix products reach.
    bandwidth_share : float, default=0.75
        Share of `bandwidth` and of `link` that is reached.
    launch : float, default=6e-6
        Least seconds of an operation, where each is started on its own.

    Notes
    -----
    Peaks are those that the vendor documents [1]_ [2]_, without sparsity. What is
    reached of them is assumed.

    References
    ----------
    .. [1] NVIDIA A100 Tensor Core GPU, data sheet, 2021.
    .. [2] NVIDIA H100 Tensor Core GPU, data sheet, 2023.

    Examples
    --------
    >>> from cost_model import H100
    >>> H100.memory / 1e9
    80.0
    """

    name: str
    flops: float
    flops_wide: float
    bandwidth: float
    memory: float
    link: float
    utilisation: float = 0.5
    bandwidth_share: float = 0.75
    launch: float = 6e-6

    def seconds(self, operations: Mapping[Operation, float]) -> float:
        """Return how long operations take, one after another.

        Each takes as long as the slower one of computing and moving data, and at least
        its launch: the roofline model [1]_.

        Parameters
        ----------
        operations : mapping of Operation to float
            How often each is done.

        Returns
        -------
        float
            Seconds.

        References
        ----------
        .. [1] S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual
           performance model for multicore architectures", CACM 52(4), 2009.
        """
        return sum(count * self._one(one) for one, count in operations.items())

    def _one(self, operation: Operation) -> float:
        peak = self.flops_wide if operation.wide else self.flops
        return max(
            operation.flops / (self.utilisation * peak),
            operation.bytes / (self.bandwidth_share * self.bandwidth),
            self.launch,
        )


A100 = Accelerator("A100 SXM 80 GB", 312e12, 19.5e12, 2.039e12, 80e9, 300e9)
H100 = Accelerator("H100 SXM 80 GB", 989e12, 67e12, 3.35e12, 80e9, 450e9)
