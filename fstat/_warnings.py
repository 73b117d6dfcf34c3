"""Warnings that are given where the user's own code stands."""

from __future__ import annotations

import sys
import warnings

_OURS = ("fstat.", "fstat_torch.", "torch.", "contextlib.")
_LOOPS = ("transformers.", "accelerate.", "trl.", "lightning.", "pytorch_lightning.")


def warn(message: str | Warning, kind: type[Warning] = UserWarning) -> None:
    """Warn at the user's own line, whichever way led from there.

    Parameters
    ----------
    message : str or Warning
        What is said, or the warning itself.
    kind : type of Warning, default=UserWarning
        Its class, of words.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None:
        if not f"{frame.f_globals.get('__name__')}.".startswith(_OURS + _LOOPS):
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=level)
