"""The picture of docs/composition.md: docs/figures/gaussian-limit.png.

python docs/studies/composition.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fstat import GaussianTradeOff
from fstat.display.composition import CompositionDisplay
from fstat.tradeoff import LaplaceTradeOff, TradeOff

FILE = Path(__file__).parents[1] / "figures" / "gaussian-limit.png"
SELDOM = GaussianTradeOff(1.0).subsample(0.01)
PANELS: list[tuple[str, TradeOff, int]] = [
    ("Laplace(0.5), 4 steps", LaplaceTradeOff(0.5), 4),
    ("Laplace(0.1), 100 steps", LaplaceTradeOff(0.1), 100),
    ("Gaussian seen with 1 %, 100 steps", SELDOM, 100),
    ("Gaussian seen with 1 %, 10,000 steps", SELDOM, 10_000),
]


def main() -> None:
    figure, rows = plt.subplots(2, 4, figsize=(15.5, 7.6), layout="constrained")
    for column, (name, step, count) in enumerate(PANELS):
        upper, lower = rows[:, column]
        display = CompositionDisplay.from_steps(step, count, name=name, ax=upper)
        display.plot(ax=lower, axes="tail", least=1e-10, name="", legend=False)
        upper.title.set_fontsize(10)
        for ax in (upper, lower):
            ax.tick_params(labelsize=8)
            if column:
                ax.set_ylabel("")
    FILE.parent.mkdir(exist_ok=True)
    figure.savefig(FILE, dpi=110)


if __name__ == "__main__":
    main()
