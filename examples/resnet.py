"""A ResNet with batch normalisation: which training digits are mislabelled.

python examples/resnet.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import DataLoader, TensorDataset

from fstat_torch import SingleRunSampler


class Block(nn.Module):
    """Two convolutions, each with batch normalisation, and what goes around them."""

    def __init__(self, d_in, d_out, stride):
        super().__init__()
        self.first = nn.Conv2d(d_in, d_out, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(d_out, d_out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(d_out), nn.BatchNorm2d(d_out)
        self.around = nn.Conv2d(d_in, d_out, 1, stride, bias=False)

    def forward(self, x):
        h = relu(self.norm1(self.first(x)))
        return relu(self.norm2(self.second(h)) + self.around(x))


torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
y = torch.tensor(labels)
train, test = slice(0, 1500), slice(1500, None)
y[:75] = (y[:75] + 1) % 10  # 75 training digits have the wrong label
data = TensorDataset(torch.arange(1500), x[train], y[train])
loader = DataLoader(data, batch_size=50, shuffle=True)

head = nn.Linear(32, 10)
body = nn.Sequential(Block(1, 16, 1), Block(16, 32, 2), nn.AdaptiveAvgPool2d(1))
model = nn.Sequential(body, nn.Flatten(), head)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
targets = {"all test digits": (x[test], y[test])}

# In training mode only what follows the last batch norm has gradients of examples.
after = SingleRunSampler(
    model, targets=targets, optimizer=optimizer, parameters=head.parameters()
)
# In eval mode they exist in all parameters: they are taken anew after each epoch.
anew = SingleRunSampler(
    model,
    targets=targets,
    optimizer=optimizer,
    metric="cosine",
    reference=DataLoader(data, batch_size=100),
)
for _ in range(5):
    for index, inputs, classes in loader:
        optimizer.zero_grad()
        with after.step(index):
            cross_entropy(model(inputs), classes).backward()
        optimizer.step()
    anew.snapshot()

subsets = {"wrong labels": np.arange(75), "right labels": np.arange(75, 150)}
for title, sampler in (("the head, each step", after), ("all, each epoch", anew)):
    found = sampler.observations(subsets).composed()
    print(title)
    for name, mu, stderr in zip(subsets, found.mu, found.stderr, strict=True):
        print(f"  {name}: mu {mu:+.2f} +- {stderr:.2f}")
