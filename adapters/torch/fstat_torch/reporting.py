"""Warnings of the sampler, given where the user's own code stands."""

from __future__ import annotations

import sys
import warnings

_PASSED_BY = ("fstat.", "fstat_torch.", "torch.", "contextlib.")


class RepeatedExampleWarning(UserWarning):
    """A batch holds the number of an example twice."""


class UnwrittenWarning(UserWarning):
    """What was recorded could not be written yet, and is kept in memory."""


class PassedOverWarning(UserWarning):
    """A step could not be recorded, and training goes on without."""


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """Warn at the user's own line, whichever way led from there."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None:
        if not f"{frame.f_globals.get('__name__')}.".startswith(_PASSED_BY):
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=level)
