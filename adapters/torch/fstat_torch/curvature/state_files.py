"""What kept gradients need to go on, in the folder where they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fstat._files import Npz, refusing, write_npz, writing
from fstat._warnings import warn

# The last one, and the one before it while the user's own checkpoint is written.
_STATES = 2
_NAME = re.compile(r"state-\d{12,}\.npz")


class StateFiles:
    """The states at the last checkpoints of a run, one file each.

    Parameters
    ----------
    folder : Path
        Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> None:
        """Let go of what an earlier run left, and say so."""
        old = self._places()
        if not old:
            return
        self._remove(old)
        warn(
            f"The run starts over, so that the gradients in {str(self._folder)!r} are "
            "superseded. To go on from a checkpoint instead, give load_state_dict what "
            "state_dict returned then.",
        )

    def write(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after so many updates, and let go of older ones."""
        arrays = {
            name: value.numpy() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }
        write_npz(self._place(step), {"step": step, **arrays})
        self._remove(self._places()[:-_STATES])

    def read(self, step: int) -> dict[str, Any]:
        """Return the state after so many updates; empty if it is not there."""
        place, what = self._place(step), "the state of kept gradients"
        if not place.exists():
            return {}
        file = Npz(place, what)
        found: dict[str, Any] = {name: file.array(name) for name in file.names}
        with refusing(place, what):
            if int(found.pop("step")) != step:
                raise ValueError("it is of another step")
            words = str(found.pop("kept_as"))
            arrays = {k: torch.from_numpy(np.array(v)) for k, v in found.items()}
            return {"kept_as": words} | arrays

    def _place(self, step: int) -> Path:
        return self._folder / f"state-{step:012d}.npz"

    def _places(self) -> list[Path]:
        found = sorted(self._folder.glob("state-*.npz"))
        return [place for place in found if _NAME.fullmatch(place.name)]

    @staticmethod
    def _remove(files: list[Path]) -> None:
        for old in files:
            with writing(old):
                old.unlink(missing_ok=True)
