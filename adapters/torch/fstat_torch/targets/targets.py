"""What influence is asked on, all of it, and how its gradients are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from fstat._validation import whole_number
from fstat.records.subsets import SELF

from .target import Measure, Target, settled

Asked = str | tuple[Any, Any] | Mapping[str, "str | tuple[Any, Any] | Target"]


@dataclass(frozen=True, eq=False)
class Targets:
    """What influence is asked on, and how the gradients of that are taken.

    Parameters
    ----------
    asked : "self", pair (x, y), or mapping, default="self"
        ``"self"``: each example on itself. A pair of tensors: each row a target of its
        own, named ``"0"``, ``"1"``, ... A mapping of names to ``"self"`` (under the
        name ``"self"``), pairs or `Target`: each is one target, a pair the average of
        its points. The x of a pair is what the model is called with, as in `Target`.
    refresh : int, default=1
        Take the targets' gradients anew every so many recorded steps. In between,
        alignments are with gradients of the targets at earlier parameters.
    batch : int, default=64
        Target points that go through the model at once. With fewer, that pass takes
        less memory; what is recorded is the same, to rounding.
    projection : int, optional
        How many numbers to keep of each target's gradient, by a random projection that
        is drawn anew at each refresh; by default all of it, factored where that is
        less. Alignments are then unbiased rather than exact:
        `SingleRunSampler.projection_noise` says how much of their spread is added.

    Raises
    ------
    ValueError
        If a number is not of at least 1. What is asked is looked at by the sampler.

    See Also
    --------
    SingleRunSampler : Takes them, or what is asked alone, as its `targets`.
    Target : One of them, with a measure of its own.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from fstat_torch import SingleRunSampler, Targets
    >>> _ = torch.manual_seed(0)
    >>> unseen = torch.randn(2, 5), torch.tensor([0, 1])
    >>> targets = Targets({"self": "self", "unseen": unseen}, refresh=10)
    >>> SingleRunSampler(nn.Linear(5, 2), targets=targets).trace.targets
    ['unseen', 'self']
    """

    asked: Asked = SELF
    _: KW_ONLY
    refresh: int = 1
    batch: int = 64
    projection: int | None = None

    def __post_init__(self) -> None:
        for name in ("refresh", "batch", "projection"):
            value = getattr(self, name)
            if name != "projection" or value is not None:
                object.__setattr__(self, name, whole_number(value, name, 1))

    def read(self, loss: Measure) -> tuple[dict[str, Target], bool]:
        """Return targets by name, with nothing left open, and whether examples are.

        Parameters
        ----------
        loss : callable
            What is measured where a target does not say.

        Returns
        -------
        dict of str to Target
            With tensors, a measure and weights; where higher was better, the weights
            have changed their sign.
        bool
            Whether examples are their own targets.

        Raises
        ------
        ValueError
            If what is asked is not as described, or empty.
        """
        asked = self.asked
        if isinstance(asked, str) and asked == SELF:
            return {}, True
        if isinstance(asked, tuple | list) and len(asked) == 2:
            asked = Target.each(*asked)
        if not isinstance(asked, Mapping):
            got = repr(asked) if isinstance(asked, str) else type(asked).__name__
            raise ValueError(
                "`targets` must be 'self', a pair (x, y), a mapping or Targets(...), "
                f"got {got}."
            )
        if not asked:
            raise ValueError("`targets` must hold at least one target, got none.")
        found = {
            str(name): settled(str(name), target, loss)
            for name, target in asked.items()
            if not (isinstance(target, str) and target == name == SELF)
        }
        if len(found) + (SELF in asked) < len(asked):
            raise ValueError(f"`targets` must have unique names, got {list(asked)}.")
        return found, SELF in asked


def targets_of(given: Asked | Targets) -> Targets:
    """Return what is asked, with the options of how, as by default where none are."""
    return given if isinstance(given, Targets) else Targets(given)
