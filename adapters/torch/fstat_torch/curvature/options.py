"""What a curvature metric may be asked to be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass, replace
from os import PathLike
from typing import Self

import numpy as np

from fstat._validation import flag

# None: by what is left to learn.
_DAMPING: dict[str, dict[str, float | None]] = {
    "full": {"residual": None, "gauss-newton": 3.0, "fisher": 1.0},
    "ekfac": {"residual": 0.1, "gauss-newton": 0.1, "fisher": 0.1},
}
AUTO = "auto"  # the kind that the loss asks for
# Which power of the size of the loss's gradient at the outputs divides gradients in H.
_POWER = {"residual": 0.5, "gauss-newton": 1.0, "fisher": 0.0}
KINDS = (AUTO, *_POWER)


@dataclass(frozen=True)
class Options:
    """The choices of a `Curvature`, which describes them."""

    n_examples: int | None = None
    _: KW_ONLY
    kind: str = AUTO
    structure: str = "full"
    damping: float | None = None
    landmarks: int | None = 300
    projection: int | None = None
    trace: bool = False
    path: str | PathLike[str] | None = None
    random_state: int = 0

    @property
    def power(self) -> float:
        """Which power of r divides the losses' gradients in H, of a kind."""
        return _POWER[self.kind]

    def of_kind(self, kind: str) -> Self:
        """Return the options for the kind that the loss asks for.

        Parameters
        ----------
        kind : str
            That one.

        Returns
        -------
        Curvature
            The same, if a kind was named.
        """
        return replace(self, kind=kind) if self.kind == AUTO else self

    def __post_init__(self) -> None:
        self._check_choice("structure", _DAMPING)
        self._check_choice("kind", KINDS)
        if self.structure == "ekfac" and self.projection is not None:
            raise ValueError(
                "`projection` must be None with structure='ekfac', which needs the "
                f"gradients of layers as they are, got {self.projection!r}."
            )
        flag(self.trace, "trace")
        least = {"n_examples": 1, "landmarks": 1, "projection": 1, "random_state": 0}
        for name, low in least.items():
            count = getattr(self, name)
            if count is None and name != "random_state":
                continue
            if not isinstance(count, int | np.integer) or count < low:
                raise ValueError(
                    f"`{name}` must be an integer of at least {low}, got {count!r}."
                )
        if self.path is not None and self.n_examples is None:
            raise ValueError(
                "`n_examples` must be given with a `path`, as the files are made for "
                "all examples at once."
            )
        if self.damping is None and self.kind != AUTO:
            damping = _DAMPING[self.structure][self.kind]
            object.__setattr__(self, "damping", damping)
        if self.damping is not None and not 0 < self.damping < float("inf"):
            raise ValueError(
                f"`damping` must be positive and finite, got {self.damping!r}."
            )

    def _check_choice(self, name: str, choices: Collection[str]) -> None:
        given = getattr(self, name)
        if given not in choices:
            shown = " or ".join(map(repr, choices))
            raise ValueError(f"`{name}` must be {shown}, got {given!r}.")
