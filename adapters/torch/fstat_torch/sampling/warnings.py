"""Warnings of the sampler."""

from __future__ import annotations


class RepeatedExampleWarning(UserWarning):
    """A batch holds the number of an example twice."""


class UnwrittenWarning(UserWarning):
    """What was recorded could not be written yet, and is kept in memory."""


class PassedOverWarning(UserWarning):
    """A step could not be recorded, and training goes on without."""
