"""The sampler in a training loop of one's own, on scikit-learn's digits.

python examples/own_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fstat import FInfluence, select
from fstat.methods import Moments
from fstat.report import write_report
from fstat_torch import SingleRunSampler

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images / 16, dtype=torch.float32)
y = torch.tensor(labels)
train, test = slice(0, 1500), slice(1500, None)

# A loader that says which examples it gives: the sampler needs their numbers.
data = TensorDataset(torch.arange(1500), x[train], y[train])
loader = DataLoader(data, batch_size=50, shuffle=True)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

targets = {"all test digits": (x[test], y[test])}
sampler = SingleRunSampler(model, targets=targets, optimizer=optimizer)
for _ in range(10):
    for index, inputs, classes in loader:
        optimizer.zero_grad()
        with sampler.step(index):
            nn.functional.cross_entropy(model(inputs), classes).backward()
        optimizer.step()

observations = sampler.observations()
influence = FInfluence(method=Moments(shrinkage="moderated")).fit(observations)
table = influence.to_frame().sort_values("mu")
print("Most harmful to the test digits as a whole:")
print(table.head(5).drop(columns="quantity").round(3).to_string(index=False))
selection = select(influence, fdr=0.1, alternative="less", stronger_than=0.5)
print(selection)
write_report(
    "results/own_loop.html",
    selection,
    title="Which digits harm the test digits",
    observations=observations,
    show=lambda k: [1 - images[k].reshape(8, 8) / 16, f"labelled {labels[k]}"],
)
