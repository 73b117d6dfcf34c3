"""One update step, as far as its loop has to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor


@dataclass
class Step:
    """What is known of a step when its block ends; all of it may be set inside.

    Attributes
    ----------
    learning_rate : float or None
        Learning rate of the step; None: the optimiser's.
    loss_scale : float
        What the loss was multiplied with before its backward pass.
    denominator : float or None
        What the training loss divided its sum over the batch by; None: as `reduction`
        says.
    clip_factor : float or None
        What gradient clipping multiplies the gradient with, at most 1. The learning
        rate is recorded times this factor, since it is what the step moves by. None:
        what the gradients are multiplied with until the optimiser's step, where that
        is one factor. Several processes, and loops without `optimizer`, must say it
        where they clip inside the block.
    accumulate : bool
        Whether more micro-batches follow before the optimiser's step.
    extra : dict of str to array-like of shape (b,)
        Further columns for the trace.
    """

    learning_rate: float | None = None
    loss_scale: float = 1.0
    denominator: float | None = None
    clip_factor: float | None = None
    accumulate: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse factors that cannot be.

        Raises
        ------
        ValueError
            If there is one.
        """
        for name in ("loss_scale", "denominator"):
            value = getattr(self, name)
            if value is not None and not 0 < float(value) < float("inf"):
                raise ValueError(
                    f"`{name}` of a step must be positive and finite, got {value!r}."
                )
        # Not a number where the norm overflowed: then nothing of the step is.
        clip = self.clip_factor
        if clip is not None and (clip < 0 or clip > 1):
            raise ValueError(
                "`clip_factor` of a step must be at least 0 and at most 1, got "
                f"{self.clip_factor!r}."
            )


def numbers(index: Any) -> tuple[np.ndarray, list[int]]:
    """Return the numbers of a batch's examples, as an array and as a list.

    Raises
    ------
    ValueError
        If they are not a 1-D array of integers of at least 0.
    """
    if isinstance(index, Tensor):
        index = index.numpy(force=True)
    array = np.array(index)  # the caller may reuse its own
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            "`index` must be a 1-D array of integers, got "
            f"{array.dtype} of shape {array.shape}."
        )
    listed: list[int] = array.tolist()
    if listed and min(listed) < 0:
        raise ValueError(
            "`index` must hold the numbers of the batch's examples in the training "
            f"set, from 0 on, got {min(listed)}."
        )
    return array, listed
