"""In accelerate's loop, what is recorded is what the plain loop records."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from fstat_torch import SingleRunSampler  # noqa: E402

N, B = 40, 8


def train(accumulation, plain=False):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(N, 6, generator=g), torch.randint(3, (N,), generator=g)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = TensorDataset(torch.arange(N), x, y)
    loader = DataLoader(data, batch_size=B // accumulation)
    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=accumulation
    )
    if not plain:
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    targets = {"self": "self", "z": (x[:2], y[:2])}
    sampler = SingleRunSampler(model, targets=targets, optimizer=optimizer)
    for index, inputs, classes in loader:
        if plain:
            with sampler.step(index):
                nn.functional.cross_entropy(model(inputs), classes).backward()
            optimizer.step()
            optimizer.zero_grad()
            continue
        with accelerator.accumulate(model):
            more = not accelerator.sync_gradients
            with sampler.step(index, accumulate=more):
                loss = nn.functional.cross_entropy(model(inputs), classes)
                accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    return sampler.trace.columns(), [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_accelerate_records_what_the_plain_loop_records(accumulation):
    columns, final = train(accumulation)
    expected, parameters = train(1, plain=True)
    assert columns["step"].tolist() == list(range(N // B))
    for name, column in expected.items():
        scale = np.max(np.abs(column))
        np.testing.assert_allclose(columns[name], column, rtol=0, atol=1e-5 * scale)
    for a, b in zip(final, parameters, strict=True):
        torch.testing.assert_close(a, b)
