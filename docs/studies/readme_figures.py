"""The pictures of the README: docs/figures/*.png.

python docs/studies/readme_figures.py
"""

from __future__ import annotations

from pathlib import Path

import torch

from fstat_torch.mnist import Config, run
from fstat_torch.mnist.report import (
    draw_influence,
    draw_intervals,
    draw_mislabelled,
    draw_tradeoff,
)

FOLDER = Path(__file__).parents[1] / "figures"


def main() -> None:
    torch.set_num_threads(1)
    result = run(Config())
    FOLDER.mkdir(exist_ok=True)
    for draw in (draw_influence, draw_intervals, draw_mislabelled, draw_tradeoff):
        name = draw.__name__.removeprefix("draw_")
        draw(result).savefig(FOLDER / f"{name}.png", dpi=100)


if __name__ == "__main__":
    main()
