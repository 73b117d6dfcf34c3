"""Losses and loops: what is recorded is exact, or refused with what to do instead."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from fstat import FInfluence  # noqa: E402
from fstat_torch import (  # noqa: E402
    PassedOverWarning,
    SingleRunSampler,
    Targets,
    UnsupportedModelError,
)

B, T, V = 6, 5, 7


def language_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(V, 4), nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, V)
    ).double()


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def data(n=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=g)


def rows(model, losses):
    """Gradient of each loss, one backward pass at a time, flat."""
    found = [
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        for loss in losses
    ]
    return torch.stack([torch.cat([g.flatten() for g in grads]) for grads in found])


def check_self(trace, own, rtol=1e-9):
    """The columns of the self target against per-example gradients."""
    gram = (own @ own.mT).numpy()
    others = gram - np.diag(np.diag(gram))
    columns = trace.columns()
    atol = rtol * np.abs(gram).max()
    np.testing.assert_allclose(columns["norm_squared"], np.diag(gram), rtol, atol)
    np.testing.assert_allclose(columns["gram_sum"], others.sum(1), rtol, atol)
    np.testing.assert_allclose(
        columns["gram_squares"], (others**2).sum(1), rtol, atol**2
    )


def sequences():
    """Token sequences of which some positions are ignored, and their losses."""
    g = torch.Generator().manual_seed(1)
    x = torch.randint(V, (B, T), generator=g)
    y = torch.randint(V, (B, T), generator=g)
    y[torch.rand(B, T, generator=g) < 0.4] = -100
    y[:, 0] = 1  # nobody ignores everything
    return x, y


def token_losses(model, x, y):
    return F.cross_entropy(model(x).mT, y, reduction="none")


@pytest.mark.parametrize("told", [True, False])
def test_a_mean_over_tokens_that_are_not_ignored(told):
    model = language_model()
    x, y = sequences()
    counted = int((y != -100).sum())
    sampler = SingleRunSampler(model)
    with sampler.step(range(B), denominator=counted if told else None):
        F.cross_entropy(model(x).mT, y).backward()
    own = rows(model, token_losses(model, x, y).sum(1))
    check_self(sampler.trace, own if told else own * B / counted)


def test_the_denominator_may_turn_out_inside_the_block():
    model = language_model()
    x, y = sequences()
    sampler = SingleRunSampler(model)
    with sampler.step(range(B)) as step:
        step.denominator = int((y != -100).sum())
        F.cross_entropy(model(x).mT, y).backward()
    check_self(sampler.trace, rows(model, token_losses(model, x, y).sum(1)))


def test_an_example_of_which_everything_is_ignored_has_no_gradient():
    model = language_model()
    x, y = sequences()
    y[2] = -100
    sampler = SingleRunSampler(model)
    with sampler.step(range(B), denominator=int((y != -100).sum())):
        F.cross_entropy(model(x).mT, y).backward()
    assert sampler.trace.columns()["norm_squared"][2] == 0
    check_self(sampler.trace, rows(model, token_losses(model, x, y).sum(1)))


def test_weights_of_examples_belong_to_their_gradients():
    model = mlp()
    x, y = data(B)
    weights = torch.linspace(0, 2, B, dtype=torch.float64)
    sampler = SingleRunSampler(model)
    with sampler.step(range(B)):
        (weights * F.cross_entropy(model(x), y, reduction="none")).mean().backward()
    losses = F.cross_entropy(model(x), y, reduction="none")
    check_self(sampler.trace, rows(model, weights * losses))


def test_a_weighted_mean_is_told_the_sum_of_its_weights():
    model = mlp()
    x, y = data(B)
    classes = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    sampler = SingleRunSampler(model)
    with sampler.step(range(B), denominator=float(classes[y].sum())):
        F.cross_entropy(model(x), y, weight=classes).backward()
    losses = F.cross_entropy(model(x), y, weight=classes, reduction="none")
    check_self(sampler.trace, rows(model, losses))


def test_micro_batches_of_token_means_make_one_step():
    model = language_model()
    x, y = sequences()
    sampler = SingleRunSampler(model)
    for k, part in enumerate(torch.arange(B).split(2)):
        counted = int((y[part] != -100).sum())
        with sampler.step(
            part, accumulate=k < 2, denominator=counted, loss_scale=1 / 3
        ):
            (F.cross_entropy(model(x[part]).mT, y[part]) / 3).backward()
    assert sampler.trace.n_recorded == 1
    check_self(sampler.trace, rows(model, token_losses(model, x, y).sum(1)))


def test_a_denominator_for_some_micro_batches_only_is_refused():
    model = mlp()
    x, y = data(B)
    sampler = SingleRunSampler(model)
    with sampler.step(range(B), accumulate=True):
        F.cross_entropy(model(x), y).backward()
    with (
        pytest.raises(ValueError, match="`denominator` must be given for all"),
        sampler.step(range(B), denominator=3),
    ):
        F.cross_entropy(model(x), y).backward()


def test_a_ragged_last_batch_counts_its_own_examples():
    model = mlp()
    x, y = data(10)
    sampler = SingleRunSampler(model)
    expected = []
    for index in torch.arange(10).split(4):
        with sampler.step(index):
            F.cross_entropy(model(x[index]), y[index]).backward()
        losses = F.cross_entropy(model(x[index]), y[index], reduction="none")
        expected.append(rows(model, losses).square().sum(1))
    found = sampler.trace.columns()["norm_squared"]
    np.testing.assert_allclose(found, torch.cat(expected).numpy(), rtol=1e-9)


def test_repeated_examples_are_recorded_each_time():
    model = mlp()
    x, y = data(10)
    index = torch.tensor([3, 5, 3, 3, 7])
    sampler = SingleRunSampler(model)
    with pytest.warns(UserWarning, match="twice within a batch"), sampler.step(index):
        F.cross_entropy(model(x[index]), y[index]).backward()
    assert sampler.trace.columns()["index"].tolist() == index.tolist()
    check_self(
        sampler.trace,
        rows(model, F.cross_entropy(model(x[index]), y[index], reduction="none")),
    )


def test_several_samplers_watch_the_same_steps():
    # Hooks of the one are on parameters where the other looks for hooks of users.
    x, y = data()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    last = list(model[2].parameters())
    chosen = ({}, {"parameters": last}, {"parameters": [model[2].bias]})
    samplers = [
        SingleRunSampler(model, targets=(x[:2], y[:2]), optimizer=optimizer, **one)
        for one in chosen
    ]
    for step in range(4):
        index = torch.arange(6) + 6 * step
        optimizer.zero_grad()
        with samplers[0].step(index), samplers[1].step(index), samplers[2].step(index):
            F.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
    assert [s.trace.n_steps for s in samplers] == [4, 4, 4]
    assert not any(s.trace.passed_over for s in samplers)


def test_augmented_examples_are_taken_as_the_model_saw_them():
    model = mlp()
    x, y = data(B)
    sampler = SingleRunSampler(model)
    seen = x + torch.randn(B, 6).double()
    with sampler.step(range(B)):
        F.cross_entropy(model(seen), y).backward()
    losses = F.cross_entropy(model(seen), y, reduction="none")
    check_self(sampler.trace, rows(model, losses))


# Optimisers, schedules, clipping, scalers.


@pytest.mark.parametrize("where", ["told", "inside", "after"])
def test_alignments_are_before_clipping_and_weigh_by_what_is_left(where):
    model = mlp()
    x, y = data(B)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sampler = SingleRunSampler(model, optimizer=optimizer)
    own = rows(model, F.cross_entropy(model(x), y, reduction="none"))
    with sampler.step(range(B)) as step:
        F.cross_entropy(model(x), y).backward()
        if where != "after":
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        if where == "told":
            step.clip_factor = min(1.0, 0.1 / (float(norm) + 1e-6))
    if where == "after":
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert norm > 0.1
    optimizer.step()
    check_self(sampler.trace, own)
    rate = sampler.trace.columns()["learning_rate"]
    np.testing.assert_allclose(rate, [0.5 * 0.1 / float(norm)], rtol=1e-4)
    sampler.close()
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda ps: None,
        lambda ps: nn.utils.clip_grad_norm_(ps, 1e6),
        lambda ps: nn.utils.clip_grad_value_(ps, 1e-3),
        lambda ps: [p.grad.add_(torch.randn_like(p)) for p in ps],
        lambda ps: [p.grad.mul_(3.0) for p in ps],
    ],
    ids=["none", "loosely", "by value", "noise", "enlarged"],
)
def test_what_is_no_clipping_by_the_norm_is_no_factor(change):
    model = mlp()
    x, y = data(B)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sampler = SingleRunSampler(model, optimizer=optimizer)
    with sampler.step(range(B)):
        F.cross_entropy(model(x), y).backward()
    change(list(model.parameters()))
    optimizer.step()
    assert sampler.trace.columns()["learning_rate"] == pytest.approx([0.5], rel=1e-6)


def test_clipping_of_a_scaled_loss_in_micro_batches():
    x, y = data(B)
    x = x.float()
    model = mlp().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    sampler = SingleRunSampler(model, optimizer=optimizer, scaler=scaler)
    for index, more in ((range(B // 2), True), (range(B // 2, B), False)):
        with sampler.step(index, accumulate=more):
            scaler.scale(F.cross_entropy(model(x[index]), y[index]) / 2).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    scaler.step(optimizer)
    scaler.update()
    assert norm > 0.1
    rate = sampler.trace.columns()["learning_rate"]
    np.testing.assert_allclose(rate, [0.5 * 0.1 / float(norm)], rtol=1e-4)


class Watched(torch.optim.SGD):
    """Plain gradient descent whose update is what clipping left."""


def test_a_clipped_step_moves_by_the_recorded_learning_rate():
    model = mlp()
    x, y = data(B)
    optimizer = Watched(model.parameters(), lr=0.5)
    sampler = SingleRunSampler(model, optimizer=optimizer)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    own = rows(model, F.cross_entropy(model(x), y, reduction="none"))
    with sampler.step(range(B)) as step:
        F.cross_entropy(model(x), y).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        step.clip_factor = min(1.0, 0.1 / (float(norm) + 1e-6))
    optimizer.step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    rate = float(sampler.trace.columns()["learning_rate"][0])
    torch.testing.assert_close(before - after, rate * own.mean(0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("clip_factor", 1.5, "`clip_factor` of a step must be at least 0"),
        ("clip_factor", -0.5, "`clip_factor` of a step must be at least 0"),
        ("denominator", 0, "`denominator` of a step must be positive"),
        ("loss_scale", float("inf"), "`loss_scale` of a step must be positive"),
    ],
)
def test_impossible_facts_of_a_step_are_refused(name, value, message):
    model = mlp()
    x, y = data(B)
    sampler = SingleRunSampler(model)
    with pytest.raises(ValueError, match=message), sampler.step(range(B)) as step:
        setattr(step, name, value)
        F.cross_entropy(model(x), y).backward()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (None, "gradients"),
        (lambda p: torch.optim.SGD(p, lr=0.1), "gradients"),
        (
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            "gradients, from which the updates of SGD differ",
        ),
        (
            lambda p: torch.optim.AdamW(p, lr=0.1),
            "gradients, from which the updates of AdamW differ",
        ),
    ],
)
def test_the_sampler_says_what_is_aligned(make, expected):
    model = mlp()
    optimizer = None if make is None else make(model.parameters())
    assert SingleRunSampler(model, optimizer=optimizer).aligned == expected


@pytest.mark.parametrize("kind", ["adam", "momentum", "decay"])
def test_gradients_are_aligned_whatever_the_optimiser_makes_of_them(kind):
    model = mlp()
    x, y = data(B)
    optimizer = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.1),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "decay": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
    }[kind](model.parameters())
    sampler = SingleRunSampler(model, optimizer=optimizer)
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        with sampler.step(range(B)):
            F.cross_entropy(model(x), y).backward()
        losses = F.cross_entropy(model(x), y, reduction="none")
        expected.append(rows(model, losses).square().sum(1))
        optimizer.step()
    found = sampler.trace.columns()["norm_squared"]
    np.testing.assert_allclose(found, torch.cat(expected).numpy(), rtol=1e-9)


def test_a_penalty_of_weights_belongs_to_no_example_and_has_a_pass_of_its_own():
    model = mlp()
    x, y = data(B)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = "a multiple of the parameter itself.*a backward pass of its own, after the"
    with (
        pytest.raises(UnsupportedModelError, match=said),
        SingleRunSampler(model).step(range(B)),
    ):
        penalty = sum(p.square().sum() for p in model.parameters())
        (F.cross_entropy(model(x), y) + penalty).backward()
    together = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sampler = SingleRunSampler(model, optimizer=optimizer)
    expected = rows(model, F.cross_entropy(model(x), y, reduction="none"))
    step_of(sampler, model, x, y)
    sum(p.square().sum() for p in model.parameters()).backward()
    for p, g in zip(model.parameters(), together, strict=True):
        torch.testing.assert_close(p.grad, g)
    optimizer.step()
    check_self(sampler.trace, expected)


def test_a_penalty_of_gradients_is_refused_as_that():
    model, (x, y) = mlp(), data(B)
    x.requires_grad_()
    said = r"0\.weight.*differentiated themselves.*`reference=`"
    with (
        pytest.raises(UnsupportedModelError, match=said),
        SingleRunSampler(model).step(range(B)),
    ):
        loss = F.cross_entropy(model(x), y)
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        (loss + slope.square().sum()).backward()


def test_warm_up_steps_at_rate_zero_weigh_nothing():
    x, y = data()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: float(t >= 20))
    sampler = SingleRunSampler(model, targets=(x[:1], y[:1]), optimizer=optimizer)
    start = [p.detach().clone() for p in model.parameters()]
    for t in range(60):
        index = torch.arange(t % 4, 40, 4)
        optimizer.zero_grad()
        with sampler.step(index):
            F.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
        schedule.step()
        if t < 20:
            pairs = zip(start, model.parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    rates = sampler.trace.columns()["learning_rate"]
    assert rates.tolist() == [0.0] * 20 + [0.1] * 40
    observations = sampler.trace.observations([[0, 4, 8]])
    warm = observations.step < 20
    assert warm.any() and not warm.all()
    assert (observations.weight[warm] == 0).all()
    assert (observations.weight[~warm] == 0.1).all()
    # As if the run were the forty steps that moved the parameters.
    shift = (observations.q - observations.p)[~warm]
    composed = observations.composed().mu
    np.testing.assert_allclose(composed, [shift.sum() / np.sqrt(40)], rtol=1e-12)


def train_with_scaler(told, overflow_at=None):
    x, y = data()
    x = x.float()
    model = mlp().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    sampler = None
    if told:
        sampler = SingleRunSampler(
            model, targets="self", optimizer=optimizer, scaler=scaler
        )
    for t in range(8):
        index = torch.arange(t, t + 10)
        optimizer.zero_grad()

        def backward(index=index, t=t):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x[index]), y[index])
            if t == overflow_at:
                loss = loss * float("inf")
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)

        if sampler is None:
            backward()
        else:
            with sampler.step(index):
                backward()
        scaler.step(optimizer)
        scaler.update()
    return model, sampler, scaler


@pytest.mark.parametrize("overflow_at", [None, 0, 3])
def test_a_scaler_is_taken_out_and_training_is_the_same(overflow_at):
    plain, _, scaler = train_with_scaler(False, overflow_at)
    model, sampler, same = train_with_scaler(True, overflow_at)
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert scaler.get_scale() == same.get_scale() != 2.0**10
    norms = sampler.trace.columns()["norm_squared"].reshape(8, 10)
    kept = np.arange(8) != (-1 if overflow_at is None else overflow_at)
    assert np.isfinite(norms[kept]).all()
    # A cross-entropy has gradients of order one, whatever the scale is.
    assert norms[kept].max() < 100
    if overflow_at is not None:
        assert np.isnan(norms[overflow_at]).all()


def test_targets_may_be_refreshed_now_and_then():
    x, y = data()
    columns = []
    for refresh in (1, 3):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sampler = SingleRunSampler(
            model,
            targets=Targets((x[:4], y[:4]), refresh=refresh),
            optimizer=optimizer,
            every=2,
        )
        norms = []
        for t in range(12):
            index = torch.arange(t, t + 10)
            losses = F.cross_entropy(model(x[:4]), y[:4], reduction="none")
            norms.append(rows(model, losses).norm(dim=1).numpy())
            optimizer.zero_grad()
            with sampler.step(index):
                F.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
        recorded = np.arange(0, 12, 2)
        taken = recorded - recorded % (2 * refresh)
        found = sampler.trace.columns()
        np.testing.assert_allclose(found["target_norm"], np.array(norms)[taken])
        columns.append(found["alignment"].reshape(6, 10, 4))
    same = np.isclose(*columns).all((1, 2))
    assert same.tolist() == [True, False, False, True, False, False]
    with pytest.raises(
        ValueError, match="`refresh` must be a whole number of at least 1"
    ):
        SingleRunSampler(mlp(), targets=Targets(refresh=0))


# Batch statistics.


def with_batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)
    ).double()


WAYS_OUT = "`parameters=`.*`reference=`.*eval mode in training"


def step_of(sampler, model, x, y):
    with sampler.step(range(len(x))):
        F.cross_entropy(model(x), y).backward()


def test_the_last_batch_norm_is_named_and_the_first_parameter_before_it():
    (x, y), norms = data(B), [nn.BatchNorm1d(6), nn.BatchNorm1d(5)]
    between = [nn.Linear(6, 6), norms[0], nn.Linear(6, 5), norms[1]]
    model = nn.Sequential(*between, nn.Linear(5, 3)).double()
    said = r"parameter '0.weight' lies before '3' \(BatchNorm1d\)"
    with pytest.raises(UnsupportedModelError, match=said):
        step_of(SingleRunSampler(model), model, x, y)


def test_batch_norm_is_refused_where_it_follows_with_the_ways_out():
    model, (x, y) = with_batch_norm(), data(B)
    for parameters in (None, [model[0].weight], [model[0].bias, model[3].bias]):
        sampler = SingleRunSampler(model, parameters=parameters)
        with pytest.raises(UnsupportedModelError, match=WAYS_OUT):
            step_of(sampler, model, x, y)
    sampler = SingleRunSampler(model)
    with (
        pytest.raises(UnsupportedModelError, match="called once and as a whole"),
        sampler.step(range(B)),
    ):
        F.cross_entropy(model[3](model[:3](x)), y).backward()


def test_parameters_after_the_last_batch_norm_are_exact():
    model, (x, y) = with_batch_norm(), data(B)
    after = [*model[1].parameters(), *model[3].parameters()]
    buffers = [b.clone() for b in model.buffers()]
    sampler = SingleRunSampler(model, parameters=after)
    step_of(sampler, model, x, y)
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)
    losses = F.cross_entropy(model(x), y, reduction="none")
    found = [torch.autograd.grad(x, after, retain_graph=True) for x in losses]
    each = torch.stack([torch.cat([g.flatten() for g in row]) for row in found])
    check_self(sampler.trace, each)


@pytest.mark.parametrize("built", ["in eval mode", "held fixed"])
def test_batch_norm_in_eval_mode_is_exact(built):
    model, (x, y) = with_batch_norm(), data(B)
    model(x)
    if built == "held fixed":
        model[1].eval()
    else:
        model.eval()
    sampler = SingleRunSampler(model)
    step_of(sampler, model, x, y)
    losses = F.cross_entropy(model(x), y, reduction="none")
    check_self(sampler.trace, rows(model, losses))
    model.train()  # from now on it mixes: passed over, and said
    with pytest.warns(PassedOverWarning, match=WAYS_OUT):
        step_of(sampler, model, x, y)


def test_batch_norm_is_exact_for_a_reference():
    model, (x, y) = with_batch_norm(), data(B)
    model(x)
    sampler = SingleRunSampler(
        model,
        targets=(x[:2], y[:2]),
        metric="plain",
        reference=[(torch.arange(B), x, y)],
    )
    sampler.snapshot(step=1)
    assert all(m.training for m in model.modules())
    model.eval()
    each = rows(model, F.cross_entropy(model(x), y, reduction="none"))
    expected = (each @ each[:2].mT).numpy()
    np.testing.assert_allclose(sampler.snapshots.scores[0], expected, rtol=1e-9)


def test_influence_is_estimated_from_such_a_loop():
    x, y = data(200)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sampler = SingleRunSampler(model, targets=(x[:1], y[:1]), optimizer=optimizer)
    for _ in range(6):
        for index in torch.randperm(200).split(20):
            optimizer.zero_grad()
            with sampler.step(index) as step:
                F.cross_entropy(model(x[index]), y[index]).backward()
                norm = float(nn.utils.clip_grad_norm_(model.parameters(), 0.5))
                step.clip_factor = min(1.0, 0.5 / (norm + 1e-6))
            optimizer.step()
    influence = FInfluence().fit(sampler.trace.observations([0]))
    assert influence.mu_[0] > 0  # an example helps itself
