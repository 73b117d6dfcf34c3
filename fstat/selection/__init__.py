"""Many pairs at once: which ones, at a stated error rate."""

from .false_discovery import Selection, select
from .local_fdr import LocalFDR, estimate_local_fdr

__all__ = ["LocalFDR", "Selection", "estimate_local_fdr", "select"]
