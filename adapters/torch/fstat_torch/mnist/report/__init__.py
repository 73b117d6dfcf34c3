"""What one run on the digits told: a page to hand on, pictures and tables."""

from .page import write
from .pictures import (
    draw_gaussian_limit,
    draw_influence,
    draw_intervals,
    draw_mislabelled,
    draw_tradeoff,
    influential_examples,
)

__all__ = [
    "draw_gaussian_limit",
    "draw_influence",
    "draw_intervals",
    "draw_mislabelled",
    "draw_tradeoff",
    "influential_examples",
    "write",
]
