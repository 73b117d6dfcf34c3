"""A page that tells what a run found: one HTML file to send, keep and print.

`write_report` writes it for results of any origin. What else is here makes sections of
one's own.
"""

from .content import Html, new_figure
from .figures import gaussian_limits, tradeoff_curves
from .ranking import rankings
from .report import write_report
from .visible import excerpt, visible

__all__ = [
    "Html",
    "excerpt",
    "gaussian_limits",
    "new_figure",
    "rankings",
    "tradeoff_curves",
    "visible",
    "write_report",
]


def __dir__() -> list[str]:
    return __all__
