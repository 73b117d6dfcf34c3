"""From samples of P and Q to a decision: fit, read, select, draw.

python examples/from_samples.py
"""

from pathlib import Path

import numpy as np

from fstat import FInfluence, InfluenceDisplay, TradeOffDisplay, select
from fstat.datasets import make_observations

# 200 pairs of a subset and a test point; the first 20 subsets harm.
truth = np.zeros(200)
truth[:20] = -1.0
P, Q = make_observations(truth, n=40, m=60, random_state=0)

influence = FInfluence().fit(P, Q)
print(influence.to_frame().head(3).to_string(index=False))

harmful = select(influence, fdr=0.1, alternative="less")
print(harmful)

folder = Path("results/from_samples")
folder.mkdir(parents=True, exist_ok=True)
InfluenceDisplay.from_estimator(influence).figure_.savefig(folder / "mu.png")
TradeOffDisplay.from_samples(P[:, 0], Q[:, 0]).figure_.savefig(folder / "tradeoff.png")
