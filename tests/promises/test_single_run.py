"""What the mu of one run does not promise: it bounds nothing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat import FInfluence  # noqa: E402
from fstat_torch import SingleRunSampler  # noqa: E402

N, BATCH, STEPS, RATE, NOISE = 200, 10, 400, 0.1, 5.0
MEMBERS = list(range(20))


def noisy_run():
    """Train a linear model with strong noise, its examples on the unit circle."""
    torch.manual_seed(0)
    angle = torch.rand(N) * 2 * torch.pi
    angle[MEMBERS] = 0.1 * torch.randn(len(MEMBERS))
    x = torch.stack([angle.cos(), angle.sin()], 1)
    y = (x[:, 0] > 0).long()
    model = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    z = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    sampler = SingleRunSampler(model, targets=z, optimizer=optimizer)
    met = []
    for _ in range(STEPS):
        index = torch.randperm(N)[:BATCH]
        optimizer.zero_grad()
        with sampler.step(index):
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
        with torch.no_grad():
            model.weight += NOISE * torch.randn(2, 2)
        met.append(int((index < len(MEMBERS)).sum()))
    return sampler, np.array(met)


def test_mu_of_one_run_can_exceed_what_any_statistic_of_the_model_shows():
    sampler, met = noisy_run()
    # A gradient of cross entropy at |x| = 1 has a norm of at most sqrt(2), so leaving
    # S out moves a step by at most this many standard deviations of its noise. By
    # composition no statistic of the trained model shows more than their root sum of
    # squares (Dong, Roth & Su 2022, section 3).
    per_step = RATE * met * np.sqrt(2.0) / BATCH / NOISE
    cap = np.sqrt((per_step**2).sum())
    observations = sampler.trace.observations({"S": MEMBERS})
    step = FInfluence().fit(observations)
    run = observations.composed()
    assert cap < 0.1
    assert abs(float(np.ravel(step.mu_)[0])) > 2 * cap
    assert abs(float(np.ravel(run.mu)[0])) > 10 * cap
