"""From samples to a lower bound on mu and epsilon that holds for any distribution.

python examples/audit.py
"""

from pathlib import Path

import numpy as np

from fstat import TradeOffDisplay
from fstat.empirical import EmpiricalTradeOff

# 500 trainings without the subset and 500 with it; the statistic has heavy tails.
rng = np.random.default_rng(0)
P, Q = rng.standard_t(3, size=500), rng.standard_t(3, size=500) + 1.5

curve = EmpiricalTradeOff(direction="greater", random_state=0).fit(P, Q)
print(f"mu is at least {curve.lower_bound_mu():.2f}")
print(
    f"epsilon is at least {curve.lower_bound_epsilon(delta=1e-5):.2f} at delta = 1e-5"
)

# A threshold that was known beforehand, here from another model, proves more.
print(f"by the test at 0.75 mu is at least {curve.lower_bound_mu(threshold=0.75):.2f}")

folder = Path("results/audit")
folder.mkdir(parents=True, exist_ok=True)
figure = TradeOffDisplay.from_estimator(curve, axes="probit").figure_
figure.savefig(folder / "band.png")
