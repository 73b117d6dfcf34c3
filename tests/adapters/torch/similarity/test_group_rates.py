"""Groups of parameters are weighed by their own learning rates."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat_torch import SingleRunSampler  # noqa: E402

N, B, STEPS = 24, 6, 5


def scene():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return model, torch.randn(N, 5).double(), torch.randint(3, (N,))


def groups(model, rates):
    """Put weights of the first layer, other weights, and biases in groups."""
    parts = (
        [model[0].weight],
        [model[2].weight],
        [model[0].bias, model[2].bias],
    )
    return [{"params": p, "lr": r} for p, r in zip(parts, rates, strict=True)]


def gradient(model, x, y):
    loss = nn.functional.cross_entropy(model(x), y)
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([g.flatten() for g in found])


def rates_of(optimizer, model):
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    return torch.cat(
        [p.new_full((p.numel(),), float(rate[id(p)])) for p in model.parameters()]
    )


def train(rates, metric, make=torch.optim.SGD, **options):
    """Train, and take what each step does for the target from its definition."""
    model, x, y = scene()
    optimizer = make(groups(model, rates))
    targets = {"z": (x[:1], y[:1]), "self": "self"}
    sampler = SingleRunSampler(
        model, targets=targets, optimizer=optimizer, metric=metric, **options
    )
    expected = []
    for t in range(STEPS):
        index = (torch.arange(B) + 5 * t) % N
        r = rates_of(optimizer, model)
        goal = gradient(model, x[:1], y[:1])
        each = torch.stack([gradient(model, x[[i]], y[[i]]) for i in index.tolist()])
        norms = (each.square() @ r).sqrt() if metric == "cosine" else torch.ones(B)
        align, own = each @ (r * goal) / norms, (each.square() @ r) / norms**2
        expected.append((align, (goal.square() @ r).sqrt(), r.max(), own))
        optimizer.zero_grad()
        with sampler.step(index):
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
        for group in optimizer.param_groups:  # as schedulers may, each its own way
            group["lr"] *= 0.9 if group is optimizer.param_groups[0] else 0.7
    return sampler, expected


@pytest.mark.parametrize("metric", ["plain", "cosine"])
@pytest.mark.parametrize("rates", [(0.1, 0.01, 0.3), (0.0, 0.1, 0.1), (0.1, 0.1, 0.1)])
def test_alignments_are_in_the_metric_by_which_the_step_moves(rates, metric):
    sampler, expected = train(rates, metric)
    columns = sampler.trace.columns()
    align, norm, rate, own = (
        torch.stack(values).numpy() for values in zip(*expected, strict=True)
    )
    # What is recorded is over the largest rate, which is recorded too.
    largest = columns["learning_rate"][:, None]
    np.testing.assert_allclose(largest[:, 0], rate, rtol=1e-12)
    scale = largest if metric == "plain" else np.sqrt(largest)
    found = columns["alignment"][:, 0].reshape(STEPS, B) * scale
    np.testing.assert_allclose(found, align, rtol=1e-9, atol=1e-13)
    found = columns["target_norm"][:, 0] * np.sqrt(largest[:, 0])
    np.testing.assert_allclose(found, norm, rtol=1e-9)
    found = columns["norm_squared"].reshape(STEPS, B)
    found = found * (largest if metric == "plain" else 1.0)
    np.testing.assert_allclose(found, own, rtol=1e-9)


def test_a_step_moves_the_target_by_what_was_recorded():
    model, x, y = scene()
    optimizer = torch.optim.SGD(groups(model, (1e-5, 3e-6, 5e-5)))
    sampler = SingleRunSampler(
        model, targets={"z": (x[:1], y[:1])}, optimizer=optimizer
    )
    index = torch.arange(B)
    with sampler.step(index):
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
    with torch.no_grad():
        before = nn.functional.cross_entropy(model(x[:1]), y[:1])
        optimizer.step()
        after = nn.functional.cross_entropy(model(x[:1]), y[:1])
    columns = sampler.trace.columns()
    moved = columns["learning_rate"][0] * columns["alignment"].mean()
    assert float(before - after) == pytest.approx(moved, rel=1e-3)


def test_the_second_moment_is_weighed_too():
    one, _ = train((0.1, 0.1, 0.1), "second-moment", torch.optim.Adam)
    other, _ = train((0.1, 0.05, 0.1), "second-moment", torch.optim.Adam)
    first = [s.trace.columns()["alignment"][B : 2 * B] for s in (one, other)]
    # After one step, Adam's moments are the same, and parameters are not.
    assert not np.allclose(first[0], first[1])
    assert np.isfinite(first[1]).all()


def test_one_rate_in_several_groups_is_as_one_group():
    several, _ = train((0.1, 0.1, 0.1), "plain")
    model, x, y = scene()
    sampler = SingleRunSampler(
        model,
        targets={"z": (x[:1], y[:1]), "self": "self"},
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    )
    index = torch.arange(B)
    with sampler.step(index):
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
    one, other = sampler.trace.columns(), several.trace.columns()
    np.testing.assert_array_equal(one["alignment"], other["alignment"][:B])
