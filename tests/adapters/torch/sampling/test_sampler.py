"""The sampler records exactly what influence is made of, and leaves training alone."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat import FInfluence, Storage, Trace  # noqa: E402
from fstat_torch import (  # noqa: E402
    Curvature,
    SingleRunSampler,
    Target,
    UnsupportedModelError,
    cross_entropy,
)

N, B = 60, 12


def mlp():
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.LayerNorm(8), nn.Linear(8, 3)
    )


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(48, 3),
    )


def data(seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 6, generator=g, dtype=dtype)
    return x, torch.randint(3, (N,), generator=g)


def optimise(model, kind):
    if kind == "adam":
        return torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01)
    return torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True
    )


def train(build, kind, targets=None, epochs=3, every=1, **options):
    """Train in a fixed order; return parameters, the random state and the trace."""
    torch.manual_seed(1)
    model = build().double()
    x, y = data()
    optimizer = optimise(model, kind)
    sampler = None
    if targets is not None:
        sampler = SingleRunSampler(
            model, targets=targets, optimizer=optimizer, every=every, **options
        )
    for _ in range(epochs):
        for index in torch.randperm(N).split(B):
            optimizer.zero_grad()
            if sampler is None:
                nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            else:
                with sampler.step(index):
                    nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    state = torch.get_rng_state()
    trace = None if sampler is None else sampler.trace
    return [p.detach().clone() for p in model.parameters()], state, trace


def all_targets():
    x, y = data(seed=5)
    return {"self": "self", "one": (x[:1], y[:1]), "group": (x[1:6], y[1:6])}


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_training_is_the_same_to_the_last_bit(build, kind):
    plain, plain_state, _ = train(build, kind)
    sampled, sampled_state, trace = train(build, kind, all_targets())
    assert trace.n_recorded == 15
    assert all(torch.equal(a, b) for a, b in zip(plain, sampled, strict=True))
    assert torch.equal(plain_state, sampled_state)


def per_example_gradients(model, x, y):
    """Return gradients of each example's own loss, one backward pass at a time."""
    rows = []
    for k in range(len(y)):
        loss = cross_entropy(model(x[k : k + 1]), y[k : k + 1]).sum()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_columns_are_the_inner_products_of_the_examples_own_gradients(reduction):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = data()
    targets = all_targets()
    sampler = SingleRunSampler(model, targets=targets, reduction=reduction)
    index = torch.tensor([4, 7, 1, 30, 22])
    with sampler.step(index, margin=np.arange(5.0)):
        loss = nn.functional.cross_entropy(
            model(x[index]), y[index], reduction=reduction
        )
        loss.backward()
    own = per_example_gradients(model, x[index], y[index])
    one = per_example_gradients(model, *targets["one"])
    group = per_example_gradients(model, *targets["group"]).mean(dim=0, keepdim=True)
    goals = torch.cat([one, group])
    gram = (own @ own.T).numpy()
    others = gram - np.diag(np.diag(gram))
    columns = sampler.trace.columns()
    expected = {
        "index": index.numpy(),
        "alignment": (own @ goals.T).numpy(),
        "target_norm": goals.norm(dim=1).numpy()[None],
        "norm_squared": np.diag(gram),
        "gram_sum": others.sum(axis=1),
        "gram_squares": (others**2).sum(axis=1),
        "extra:margin": np.arange(5.0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(columns[name], value, rtol=1e-9, atol=1e-12)


def test_a_step_on_an_aligned_example_lowers_the_loss_of_the_target():
    torch.manual_seed(3)
    model = nn.Linear(6, 3).double()
    x, y = data()
    goal = (x[:1], y[:1])
    sampler = SingleRunSampler(model, targets=goal)
    index = torch.arange(1, 20)
    with sampler.step(index):
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
    alignment = sampler.trace.columns()["alignment"][:, 0]
    before = cross_entropy(model(goal[0]), goal[1]).item()
    for example, expected in zip(index.tolist(), alignment, strict=True):
        changed = nn.Linear(6, 3).double()
        changed.load_state_dict(model.state_dict())
        loss = cross_entropy(changed(x[[example]]), y[[example]]).sum()
        grads = torch.autograd.grad(loss, list(changed.parameters()))
        with torch.no_grad():
            for p, g in zip(changed.parameters(), grads, strict=True):
                p -= 1e-6 * g
        gain = before - cross_entropy(changed(goal[0]), goal[1]).item()
        assert gain == pytest.approx(1e-6 * expected, rel=1e-3, abs=1e-10)


def test_every_counts_all_steps_and_records_some():
    *_, trace = train(mlp, "sgd", all_targets(), every=4)
    assert trace.n_steps == 15
    assert trace.columns()["step"].tolist() == [0, 4, 8, 12]


def test_learning_rates_are_recorded_and_weigh_the_composition():
    *_, trace = train(mlp, "sgd", all_targets(), epochs=4)
    assert (trace.columns()["learning_rate"] == 0.1).all()
    observations = trace.observations(None, "one")
    assert observations.weight_norm == pytest.approx(np.sqrt(20 * 0.1**2))
    x, y = data()
    model = nn.Linear(6, 3).double()
    sampler = SingleRunSampler(model)
    with sampler.step(range(B), learning_rate=0.5):
        nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()
    assert sampler.trace.columns()["learning_rate"].tolist() == [0.5]


def test_gradients_can_be_compared_in_some_parameters_only():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = data()
    sampler = SingleRunSampler(model, parameters=[model[-1].bias])
    with sampler.step(range(B)):
        nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()
    residual = torch.softmax(model(x[:B]), dim=1) - nn.functional.one_hot(y[:B], 3)
    expected = residual.square().sum(dim=1).detach().numpy()
    np.testing.assert_allclose(sampler.trace.columns()["norm_squared"], expected)
    assert [row.rule for row in sampler.plan()] == ["linear"]


def test_two_samplers_watch_one_pass_as_each_would_alone():
    x, y = data()
    columns = []
    for together in (False, True):
        torch.manual_seed(4)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        first = SingleRunSampler(model, targets=(x[:3], y[:3]))
        second = SingleRunSampler(model, parameters=[model[-1].bias])
        passes = [(first, second)] if together else [(first,), (second,)]
        for samplers in passes:
            with (
                samplers[0].step(range(B)),
                samplers[-1].step(range(B))
                if len(samplers) > 1
                else torch.enable_grad(),
            ):
                nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()
        columns.append((first.trace.columns(), second.trace.columns()))
    for alone, both in zip(*columns, strict=True):
        for name, value in alone.items():
            np.testing.assert_array_equal(value, both[name])


def test_zeroing_gradients_inside_the_block_is_fine():
    model = nn.Linear(6, 3).double()
    x, y = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampler = SingleRunSampler(model, optimizer=optimizer)
    nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()
    optimizer.step()
    with sampler.step(range(B)):
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()
    assert sampler.trace.n_recorded == 1


def test_the_trace_is_written_as_training_goes_and_can_be_read(tmp_path):
    *_, trace = train(mlp, "sgd", all_targets(), storage=tmp_path / "run")
    trace.flush()
    again = Trace.load(tmp_path / "run")
    assert (again.n_steps, again.n_recorded) == (15, 15)
    for name, column in trace.columns().items():
        np.testing.assert_array_equal(column, again.columns()[name])


def test_an_exception_in_the_block_is_the_users_own_and_leaves_no_hooks():
    model = nn.Linear(6, 3).double()
    x, y = data()
    sampler = SingleRunSampler(model)
    with pytest.raises(KeyError, match="mine"), sampler.step(range(B)):
        raise KeyError("mine")
    assert not model._forward_hooks
    with sampler.step(range(B)):
        nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()
    assert sampler.trace.columns()["step"].tolist() == [0]


def test_gradient_accumulation_warns_once():
    model = nn.Linear(6, 3).double()
    x, y = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampler = SingleRunSampler(model, optimizer=optimizer)

    def micro_batch():
        with sampler.step(range(B)):
            nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()

    micro_batch()
    with pytest.warns(UserWarning, match="micro-batch counts as a step"):
        micro_batch()
    micro_batch()


def test_a_loss_scale_that_is_told_changes_nothing():
    x, y = data()
    columns = []
    for scale in (1.0, 64.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        sampler = SingleRunSampler(model, targets={"self": "self", "z": (x[:1], y[:1])})
        with sampler.step(range(B), loss_scale=scale):
            (scale * nn.functional.cross_entropy(model(x[:B]), y[:B])).backward()
        columns.append(sampler.trace.columns())
    for name, value in columns[0].items():
        np.testing.assert_allclose(columns[1][name], value, rtol=1e-10)


def test_a_step_that_overflows_is_passed_over_and_training_goes_on():
    x, y = data(dtype=torch.float32)
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    sampler = SingleRunSampler(model, targets={"self": "self", "z": (x[:1], y[:1])})
    for step in range(40):
        model.zero_grad()
        with sampler.step(range(B)):
            loss = nn.functional.cross_entropy(model(x[:B]), y[:B])
            (loss * (1e39 if step == 20 else 1.0)).backward()
    for target in ("self", "z"):
        observations = sampler.trace.observations([3, 4], target)
        assert sorted(set(observations.step)) == [*range(10, 20), *range(21, 40)]


def test_what_cannot_be_split_by_example_is_refused_not_approximated():
    x, y = data(dtype=torch.float32)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    sampler = SingleRunSampler(model)
    with (
        pytest.raises(UnsupportedModelError, match=r"0\.weight.*in the loss"),
        sampler.step(range(B)),
    ):
        penalty = model[0].weight.square().sum()
        (nn.functional.cross_entropy(model(x[:B]), y[:B]) + penalty).backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "none"}, "`reduction` must be one of 'mean', 'sum'"),
        ({"every": 0}, "`every` must be a whole number of at least 1"),
        ({"targets": "other"}, "`targets` must be 'self', a pair"),
        ({"targets": (1, 2, 3)}, "`targets` must be 'self', a pair"),
        ({"targets": {}}, "at least one target"),
        ({"targets": {"a": "self"}}, "map names to pairs"),
        ({"targets": (torch.zeros(2, 6), torch.zeros(3))}, "as many x as y"),
        ({"targets": {"a": (torch.zeros(6), torch.zeros(1))}}, "as many x as y"),
        ({"targets": (torch.zeros(0, 6), torch.zeros(0))}, "at least one point"),
    ],
)
def test_bad_arguments_get_one_clear_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        SingleRunSampler(nn.Linear(6, 3), **options)


@pytest.mark.parametrize("odd", ["no", 1, 0.0, np.array([True]), torch.tensor(True)])
def test_flags_are_truth_values(odd):
    model, x = nn.Linear(6, 3), torch.zeros(1, 6)
    for name in ("resume", "background"):
        with pytest.raises(ValueError, match=f"`{name}` must be True or False"):
            Storage("folder", **{name: odd})
    with pytest.raises(ValueError, match="`coupled` must be True or False"):
        SingleRunSampler(model, coupled=odd)
    with pytest.raises(ValueError, match="`distributed` must be one of None, True"):
        SingleRunSampler(model, distributed=odd)
    with pytest.raises(ValueError, match="`trace` must be True or False"):
        Curvature(10, trace=odd)
    with pytest.raises(ValueError, match="`higher_is_better` must be True or False"):
        Target(x, torch.zeros(1), higher_is_better=odd)
    sampler = SingleRunSampler(model)
    with (
        pytest.raises(ValueError, match="`accumulate` must be True or False"),
        sampler.step([0], accumulate=odd),
    ):
        pass
    assert sampler.n_steps == 0


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (range(B - 1), RuntimeError, "11 examples are expected"),
        ([0.5] * B, ValueError, "`index` must be a 1-D array of integers"),
        ([list(range(B))], ValueError, "`index` must be a 1-D array of integers"),
    ],
)
def test_bad_indices_get_one_clear_sentence(index, error, message):
    model = nn.Linear(6, 3).double()
    x, y = data()
    sampler = SingleRunSampler(model)
    with pytest.raises(error, match=message), sampler.step(index):
        nn.functional.cross_entropy(model(x[:B]), y[:B]).backward()


def test_a_planted_opponent_is_found_and_a_twin_of_the_target_helps():
    """Example 0 is the target itself, example 1 is the target with a wrong label."""
    torch.manual_seed(6)
    g = torch.Generator().manual_seed(6)
    x = torch.randn(400, 6, generator=g)
    y = (x[:, 0] > 0).long()
    x[1], y[1] = x[0], 1 - y[0]
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampler = SingleRunSampler(model, targets=(x[:1], y[:1]), optimizer=optimizer)
    for _ in range(20):
        for index in torch.randperm(400, generator=g).split(20):
            optimizer.zero_grad()
            with sampler.step(index):
                nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    influence = FInfluence().fit(sampler.trace.observations([0, 1]))
    low, high = influence.confidence_interval()
    assert low[0] > 0
    assert high[1] < 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_trace():
    x, y = data(dtype=torch.float32)
    traces = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(device)
        sampler = SingleRunSampler(model, targets=all_targets() | {"one": (x, y)})
        with sampler.step(range(B)):
            output = model(x[:B].to(device))
            nn.functional.cross_entropy(output, y[:B].to(device)).backward()
        traces.append(sampler.trace.columns())
    for name, column in traces[0].items():
        np.testing.assert_allclose(column, traces[1][name], rtol=1e-3, atol=1e-4)
