"""One update step, as far as its loop has to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fstat._validation import flag


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

    @property
    def scale(self) -> float:
        """What captured gradients are multiplied with, to be those of the loss."""
        own = 1.0 if self.denominator is None else self.denominator
        return own / self.loss_scale

    def check(self) -> None:
        """Refuse factors that cannot be.

        Raises
        ------
        ValueError
            If there is one.
        """
        factors = ("loss_scale", self.loss_scale), ("denominator", self.denominator)
        for name, value in factors:
            if value is not None and not 0 < float(value) < np.inf:
                raise ValueError(
                    f"`{name}` of a step must be positive and finite, got {value!r}."
                )
        flag(self.accumulate, "accumulate")
        # Not a number where the norm overflowed: then nothing of the step is.
        clip = self.clip_factor
        if clip is not None and (clip < 0 or clip > 1):
            raise ValueError(
                "`clip_factor` of a step must be at least 0 and at most 1, got "
                f"{self.clip_factor!r}."
            )


_WIDTHS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_INTEGERS = {getattr(torch, name) for name in _WIDTHS} | {*map(np.dtype, _WIDTHS)}


def numbers(index: Any) -> list[int]:
    """Return the numbers of a batch's examples.

    Raises
    ------
    ValueError
        If they are not a 1-D array of integers of at least 0.
    """
    found = index if isinstance(index, Tensor) else np.asarray(index)
    if found.ndim != 1 or found.dtype not in _INTEGERS:
        dtype = str(found.dtype).removeprefix("torch.")
        raise ValueError(
            "`index` must be a 1-D array of integers, got "
            f"{dtype} of shape {tuple(found.shape)}."
        )
    listed: list[int] = found.tolist()
    if listed and min(listed) < 0:
        raise ValueError(
            "`index` must hold the numbers of the batch's examples in the training "
            f"set, from 0 on, got {min(listed)}."
        )
    return listed
