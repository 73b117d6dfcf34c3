"""Many pairs at once: which ones, and what holds for all of them together."""

from .false_coverage import fcr_intervals
from .false_discovery import select
from .local_fdr import LocalFDR, estimate_local_fdr
from .ranks import Extremes, RankIntervals, rank_intervals
from .result import Selection
from .shortlisted import shortlist
from .signs import SignErrors, select_signs, sign_errors
from .simultaneous import AdjustedIntervals, simultaneous_intervals
from .warnings import (
    EmpiricalNullWarning,
    MostSelectedWarning,
    NothingSelectedWarning,
    ReferenceWarning,
    SelectionWarning,
    SnapshotWarning,
    UndecidedWarning,
)

__all__ = [
    "AdjustedIntervals",
    "EmpiricalNullWarning",
    "Extremes",
    "LocalFDR",
    "MostSelectedWarning",
    "NothingSelectedWarning",
    "RankIntervals",
    "ReferenceWarning",
    "Selection",
    "SelectionWarning",
    "SignErrors",
    "SnapshotWarning",
    "UndecidedWarning",
    "estimate_local_fdr",
    "fcr_intervals",
    "rank_intervals",
    "select",
    "select_signs",
    "shortlist",
    "sign_errors",
    "simultaneous_intervals",
]


def __dir__() -> list[str]:
    return __all__
