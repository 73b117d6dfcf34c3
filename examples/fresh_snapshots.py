"""Scores from gradients taken anew at a few moments; the loop stays as it is.

python examples/fresh_snapshots.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fstat_torch import SingleRunSampler

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images / 16, dtype=torch.float32)
y = torch.tensor(labels)
train, test = slice(0, 1500), slice(1500, None)

# 75 training digits have the wrong label.
y[:75] = (y[:75] + 1) % 10
data = TensorDataset(torch.arange(1500), x[train], y[train])
loader = DataLoader(data, batch_size=50, shuffle=True)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

sampler = SingleRunSampler(
    model,
    targets={"all test digits": (x[test], y[test])},
    optimizer=optimizer,
    metric="second-moment-cosine",
    reference=DataLoader(data, batch_size=500),
)
for _ in range(5):
    for _, inputs, classes in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), classes).backward()
        optimizer.step()
    sampler.snapshot()

print(sampler.snapshots)
subsets = {"wrong labels": np.arange(75), "right labels": np.arange(75, 150)}
found = sampler.observations(subsets).composed()
for name, mu, stderr in zip(subsets, found.mu, found.stderr, strict=True):
    print(f"{name}: mu {mu:+.2f} +- {stderr:.2f}")
