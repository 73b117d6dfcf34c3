"""A loop with accelerate, on one process or several. Needs accelerate.

python examples/accelerate_loop.py
accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fstat import FInfluence, select
from fstat.methods import Moments
from fstat_torch import SingleRunSampler

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
train, test = slice(0, 1500), slice(1500, None)

accelerator = Accelerator(gradient_accumulation_steps=2)
data = TensorDataset(torch.arange(1500), x[train], y[train])
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
model, optimizer, loader = accelerator.prepare(
    model,
    torch.optim.Adam(model.parameters(), lr=0.003),
    DataLoader(data, batch_size=25, shuffle=True),
)
sampler = SingleRunSampler(
    model, targets={"all test digits": (x[test], y[test])}, optimizer=optimizer
)
for _ in range(6):
    for index, inputs, classes in loader:
        with accelerator.accumulate(model):
            more = not accelerator.sync_gradients  # micro-batches of this update
            with sampler.step(index, accumulate=more):
                loss = nn.functional.cross_entropy(model(inputs), classes)
                accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()

if accelerator.is_main_process:  # which holds the trace of all processes
    influence = FInfluence(method=Moments(shrinkage="moderated")).fit(
        sampler.observations()
    )
    table = influence.to_frame().sort_values("mu")
    print("Most harmful to the test digits as a whole:")
    print(table.head(5).drop(columns="quantity").round(3).to_string(index=False))
    print(select(influence, fdr=0.1, alternative="less", stronger_than=0.5))
accelerator.end_training()
