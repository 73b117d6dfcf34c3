"""After its first recorded step, nothing of the sampler's takes training down."""

import errno
import gc
import itertools
import os
import warnings
from contextlib import nullcontext

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat import Storage, Trace  # noqa: E402
from fstat.records import DivergedWarning  # noqa: E402
from fstat_torch import (  # noqa: E402
    Curvature,
    PassedOverWarning,
    SingleRunSampler,
    Target,
    UnsupportedModelError,
    UnwrittenWarning,
)

N, B, STEPS = 60, 6, 12


def data():
    g = torch.Generator().manual_seed(0)
    return torch.randn(N, 5, generator=g), torch.randint(3, (N,), generator=g)


def made(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data()
    options = {"targets": {"z": (x[:2], y[:2]), "self": "self"}, **options}
    return model, optimizer, SingleRunSampler(model, optimizer=optimizer, **options)


def loss_of(model, index):
    x, y = data()
    return nn.functional.cross_entropy(model(x[index]), y[index])


def ordinary(model, index, step):
    loss_of(model, index).backward()


def two_passes(model, index, step):
    loss = loss_of(model, index)
    loss.backward(retain_graph=True)
    loss.backward()


def frozen(model, index, step):
    model[0].weight.requires_grad_(False)
    loss_of(model, index).backward()
    model[0].weight.requires_grad_(True)


def other_rows(model, index, step):
    loss_of(model, index[:-1]).backward()


def scaled_wrongly(model, index, step):
    loss_of(model, index).backward()
    step.loss_scale = -1.0


FAULTS = {
    "two backward passes": (two_passes, "more than one backward pass"),
    "frozen for a step": (frozen, None),
    "another number of rows": (other_rows, "rows, where 6 examples"),
    "a scale that cannot be": (scaled_wrongly, "`loss_scale` of a step"),
}


def run(fault=ordinary, at=(), sampled=True, **options):
    model, optimizer, sampler = made(**options)
    order = np.random.default_rng(0).permutation(N).reshape(-1, B)
    for t in range(STEPS):
        index = torch.from_numpy(order[t % len(order)])
        optimizer.zero_grad()
        act = fault if t in at else ordinary
        if sampled:
            with sampler.step(index) as step:
                act(model, index, step)
        else:
            act(model, index, type("Step", (), {})())
        optimizer.step()
    return model, sampler


def same(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", FAULTS)
def test_a_step_that_cannot_be_recorded_is_passed_over_and_counted(name):
    fault, cause = FAULTS[name]
    if cause is None:
        model, sampler = run(fault, at=(4, 7))
        assert sampler.trace.n_recorded in (STEPS, STEPS - 2)
    else:
        with pytest.warns(PassedOverWarning, match=cause) as caught:
            model, sampler = run(fault, at=(4, 7))
        assert len(caught) == 1
        steps = sampler.trace.columns()["step"].tolist()
        assert steps == [t for t in range(STEPS) if t not in (4, 7)]
        assert list(sampler.trace.passed_over.values()) == [2]
        assert "2 passed over" in repr(sampler.trace)
        assert sampler.trace.n_steps == STEPS
    assert same(model, run(fault, at=(4, 7), sampled=False)[0])


def test_the_first_step_is_refused_at_once():
    with pytest.raises(RuntimeError, match="more than one backward pass"):
        run(two_passes, at=(0,))


def test_errors_can_be_asked_to_end_training_or_the_watching():
    with pytest.raises(RuntimeError, match="more than one backward pass"):
        run(two_passes, at=(4,), on_error="raise")
    with pytest.warns(PassedOverWarning, match="no further step is watched"):
        _, sampler = run(two_passes, at=(4,), on_error="detach")
    assert sampler.trace.columns()["step"].tolist() == [0, 1, 2, 3]
    assert sampler.trace.n_steps == STEPS
    with pytest.raises(ValueError, match="`on_error` must be one of"):
        made(on_error="ignore")


def test_a_block_without_a_backward_pass_is_no_update():
    model, optimizer, sampler = made()
    index = torch.arange(B)
    for t in range(6):
        optimizer.zero_grad()
        with warnings.catch_warnings(), sampler.step(index):
            warnings.simplefilter("ignore", PassedOverWarning)
            if t == 3:
                continue
            loss_of(model, index).backward()
        optimizer.step()
    assert sampler.trace.columns()["step"].tolist() == [0, 1, 2, 3, 4]
    assert sampler.trace.n_steps == 5


def test_an_error_of_the_users_is_raised_and_its_step_is_no_update():
    model, optimizer, sampler = made()
    index = torch.arange(B)
    for t in range(6):
        optimizer.zero_grad()
        try:
            with sampler.step(index):
                loss = loss_of(model, index)
                if t % 2:
                    raise torch.OutOfMemoryError("out of memory")
                loss.backward()
        except torch.OutOfMemoryError:
            continue
        optimizer.step()
    assert sampler.trace.columns()["step"].tolist() == [0, 1, 2]
    assert sampler.trace.n_steps == 3
    assert not any(m._forward_hooks for m in model.modules())


def test_an_update_of_which_a_micro_batch_is_lost_is_passed_over_whole():
    model, optimizer, sampler = made()
    index = torch.arange(B)
    with pytest.warns(PassedOverWarning, match="more than one backward pass"):
        for t in range(4):
            optimizer.zero_grad()
            for part in range(3):
                with sampler.step(index, accumulate=part < 2):
                    act = two_passes if (t, part) == (2, 1) else ordinary
                    act(model, index, None)
            optimizer.step()
    columns = sampler.trace.columns()
    assert columns["step"].tolist() == [0, 1, 3]
    assert columns["batch_size"].tolist() == [3 * B] * 3
    assert sampler.trace.n_steps == 4


def test_a_layer_that_is_unfrozen_is_said_once_and_not_compared():
    model, optimizer, _ = made()
    model[0].requires_grad_(False)
    sampler = SingleRunSampler(model, targets="self", optimizer=optimizer)
    index = torch.arange(B)
    with pytest.warns(UserWarning, match="unfrozen since") as caught:
        for t in range(6):
            if t == 3:
                model[0].requires_grad_(True)
            optimizer.zero_grad()
            with sampler.step(index):
                loss_of(model, index).backward()
            optimizer.step()
    assert len(caught) == 1
    assert sampler.trace.n_recorded == 6


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_takes_no_step_of_training_down(tmp_path, monkeypatch, background):
    calls, sync = itertools.count(), os.fsync

    def full_for_a_while(handle):
        if 2 <= next(calls) < 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full_for_a_while)
    monkeypatch.setattr("fstat.records.trace._TOGETHER", 1)
    storage = Storage(tmp_path, flush_every=1, background=background)
    with pytest.warns(UnwrittenWarning, match=r"No space left.*kept in memory") as told:
        model, sampler = run(storage=storage)
    assert len(told) == 1
    sampler.close()
    assert same(model, run(sampled=False)[0])
    assert Trace.load(tmp_path).columns(["step"])["step"].tolist() == [*range(STEPS)]
    assert not sampler.trace.passed_over


def test_a_full_disk_ends_training_where_that_is_asked_for(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    model, optimizer, sampler = made(
        storage=Storage(tmp_path, flush_every=1), on_error="raise"
    )
    monkeypatch.setattr(os, "fsync", full)
    with sampler.step(torch.arange(B)):
        loss_of(model, torch.arange(B)).backward()
    with pytest.raises(OSError, match="could not be written"):
        optimizer.step()
        sampler.flush()


@pytest.mark.parametrize("values", [[np.inf] * B, [[0.0]] * B, ["a"] * B, [0.0]])
def test_columns_that_cannot_be_take_no_step_down(values):
    model, optimizer, sampler = made()
    index = torch.arange(B)
    with pytest.warns(PassedOverWarning, match="An update was not recorded") as told:
        for t in range(6):
            optimizer.zero_grad()
            with sampler.step(index, loss=values if t > 2 else [0.0] * B):
                loss_of(model, index).backward()
            optimizer.step()
        assert sampler.trace.columns(["step"])["step"].tolist() == [0, 1, 2]
    assert len(told) == 1
    assert list(sampler.trace.passed_over.values()) == [3]


def test_snapshots_that_are_held_are_those_that_grow():
    x, y = data()
    reference = [(torch.arange(N), x, y)]
    *_, sampler = made(
        targets={"z": (x[:2], y[:2])}, reference=reference, metric="cosine"
    )
    held = sampler.snapshots
    sampler.snapshot(1)
    sampler.load_state_dict({**sampler.state_dict(), "step": 1})
    sampler.snapshot(2)
    assert sampler.snapshots is held
    assert held.steps == [1, 2]


def test_the_step_after_one_that_is_passed_over_is_recorded():
    model, optimizer, sampler = made()
    with pytest.warns(PassedOverWarning, match="returned 6 rows") as told:
        for t in range(4):
            index = torch.arange(B) + t
            optimizer.zero_grad()
            with sampler.step(index[:-1] if t == 2 else index):
                loss_of(model, index).backward()
            optimizer.step()
    assert len(told) == 1
    assert sampler.trace.columns(["step"])["step"].tolist() == [0, 1, 3]
    assert list(sampler.trace.passed_over.values()) == [1]


def epoch(model, optimizer, sampler, factor):
    for index in torch.arange(N).split(B):
        optimizer.zero_grad()
        with sampler.step(index):
            (factor * loss_of(model, index)).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("kept", "factor"),
    [
        ({"kind": "residual"}, 0.0),
        ({"kind": "residual"}, 1e30),
        ({"landmarks": 6}, 0.0),
        ({"landmarks": 6}, 1e30),
        ({"projection": 16, "landmarks": 6}, 1e30),
        ({"structure": "ekfac"}, 0.0),
    ],
)
def test_a_snapshot_of_gradients_that_make_up_no_metric_is_passed_over(kept, factor):
    model, optimizer, sampler = made(metric=Curvature(N, **kept))
    epoch(model, optimizer, sampler, 1.0)
    sampler.snapshot()
    good = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.warns(PassedOverWarning, match="A snapshot was not taken") as told:
        for _ in range(2):
            epoch(model, optimizer, sampler, factor)
            model.load_state_dict(good)
            sampler.snapshot()
    assert len(told) == 1
    assert model[0].weight.requires_grad and model.training
    epoch(model, optimizer, sampler, 1.0)
    sampler.snapshot()
    assert sampler.snapshots.steps == [10, 40]


def test_on_error_may_say_that_a_snapshot_without_a_metric_is_raised():
    made_of = made(metric=Curvature(N, kind="residual"), on_error="raise")
    epoch(*made_of, 0.0)
    with pytest.raises(RuntimeError, match="make up no curvature metric"):
        made_of[2].snapshot()


@pytest.mark.parametrize("metric", ["plain", "cosine"])
def test_a_diverged_run_is_called_that(metric):
    model, optimizer, sampler = made(metric=metric)
    plain, other, _ = made()
    with pytest.warns(DivergedWarning, match="from step 4 on") as told:
        for t in range(9):
            index = torch.arange(B) + t
            for one, by in ((model, optimizer), (plain, other)):
                by.zero_grad()
                scale = np.nan if t == 4 else 1.0
                block = sampler.step(index) if one is model else nullcontext()
                with block:
                    (scale * loss_of(one, index)).backward()
                by.step()
        sampler.flush()
    assert len(told) == 1
    assert "diverged at 4" in repr(sampler.trace)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach(), q.detach())


def test_hooks_of_ours_raise_nothing_into_the_users_pass():
    model, optimizer, sampler = made()
    index = torch.arange(B)
    with sampler.step(index):
        loss_of(model, index).backward()
    optimizer.step()
    broken = UnsupportedModelError("a rule that fails")

    def fail(*_):
        raise broken

    from fstat_torch.gradients import recording

    receive = recording.Recording.arrived
    recording.Recording.arrived = fail
    try:
        with (
            pytest.warns(PassedOverWarning, match="a rule that fails"),
            sampler.step(index),
        ):
            loss_of(model, index).backward()
    finally:
        recording.Recording.arrived = receive
    assert all(p.grad is not None for p in model.parameters())


def perturbed(model, x, y):
    """Move inputs by the fast gradient sign method."""
    x = x.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(model(x), y)
    (gradient,) = torch.autograd.grad(loss, x)
    return (x + 0.1 * gradient.sign()).detach()


def penalty_free(model, x, y):
    """Take gradients in the parameters, and throw them away."""
    loss = nn.functional.cross_entropy(model(x), y)
    torch.autograd.grad(loss, list(model.parameters()))
    return x


@pytest.mark.parametrize("before", [perturbed, penalty_free])
@pytest.mark.parametrize("first", [0, 5])
def test_only_passes_that_add_to_the_gradients_are_recorded(before, first):
    found = []
    for inside in (False, True):
        model, optimizer, sampler = made()
        x, y = data()
        for t in range(STEPS):
            index = torch.arange(B) + t
            rows = x[index]
            optimizer.zero_grad()
            if t >= first and not inside:
                rows = before(model, rows, y[index])
            with sampler.step(index):
                if t >= first and inside:
                    rows = before(model, rows, y[index])
                nn.functional.cross_entropy(model(rows), y[index]).backward()
            optimizer.step()
        found.append(sampler.trace.columns())
    for name, column in found[0].items():
        np.testing.assert_allclose(found[1][name], column, rtol=1e-5, atol=1e-8)


def test_numbers_of_examples_are_checked():
    model, optimizer, sampler = made()
    with pytest.raises(ValueError, match="from 0 on, got -1"), sampler.step([-1, 2]):
        pass
    index = torch.tensor([3, 3, 4])
    with pytest.warns(UserWarning, match="twice within a batch") as caught:
        for _ in range(3):
            with sampler.step(index):
                loss_of(model, index).backward()
            optimizer.step()
    assert len(caught) == 1


def test_steps_are_neither_nested_nor_taken_after_the_end():
    model, _, sampler = made()
    index = torch.arange(B)
    with (
        pytest.raises(RuntimeError, match="inside the block of another step"),
        sampler.step(index),
        sampler.step(index),
    ):
        pass
    with sampler.step(index):
        loss_of(model, index).backward()
    sampler.close()
    with pytest.raises(RuntimeError, match="after `close`"), sampler.step(index):
        pass


def test_samplers_that_are_dropped_leave_no_hook():
    model, optimizer, sampler = made()
    del sampler
    gc.collect()
    for _ in range(5):
        SingleRunSampler(model, optimizer=optimizer)
    gc.collect()
    assert not optimizer._optimizer_step_post_hooks
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_the_state_of_another_run_changes_nothing():
    _, sampler = run()
    _, other = run(every=3)
    with pytest.raises(ValueError, match="must be of the trace at hand"):
        sampler.load_state_dict({**other.state_dict(), "trace": None, "step": 6})
    assert sampler.trace.n_recorded == STEPS
    assert sampler.trace.n_steps == STEPS


LOSSES = {
    "one column": (1, torch.float32),
    "several labels": (3, torch.float32),
    "truth values": (3, torch.bool),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_default_loss_is_of_classes_or_refused(name):
    width, dtype = LOSSES[name]
    model = nn.Linear(5, width)
    x = data()[0]
    y = torch.ones(N, width).to(dtype)
    sampler = SingleRunSampler(model, targets=(x[:2], y[:2]))
    with pytest.raises(ValueError, match="say `loss=`"), sampler.step(range(B)):
        nn.functional.mse_loss(model(x[:B]), y[:B].float()).backward()
    squares = SingleRunSampler(
        model, targets=(x[:2], y[:2]), loss=lambda o, y: (o - y.float()).square().sum(1)
    )
    with squares.step(range(B)):
        nn.functional.mse_loss(model(x[:B]), y[:B].float()).backward()
    assert squares.trace.n_recorded == 1


def test_a_target_without_a_gradient_is_named():
    model, _, _ = made()
    x, y = data()
    flat = Target(x[:1], y[:1], measure=lambda output, y: 0 * output.sum(1))
    sampler = SingleRunSampler(model, targets={"fine": (x[:1], y[:1]), "flat": flat})
    with (
        pytest.warns(UserWarning, match=r"1 of 2 targets is zero .*\('flat'\)"),
        sampler.step(range(B)),
    ):
        loss_of(model, torch.arange(B)).backward()


class Sometimes(nn.Module):
    """Uses a layer's weight without calling the layer, or the layer twice, later on."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)
        self.way = "plain"

    def forward(self, x):
        h = self.first(x).tanh()
        if self.way == "weight":
            h = nn.functional.linear(h, self.first.weight)
        if self.way == "twice":
            h = self.first(h)
        return self.last(h)


def later(way, start, steps, **options):
    torch.manual_seed(0)
    model = Sometimes()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data()
    sampler = SingleRunSampler(model, targets=(x[:2], y[:2]), optimizer=optimizer)
    for t in range(steps):
        model.way = way if t >= start else "plain"
        index = torch.arange(B) + t % 30
        optimizer.zero_grad()
        with sampler.step(index):
            loss_of(model, index).backward()
        optimizer.step()
    return sampler


def test_a_weight_that_is_used_elsewhere_later_on_is_found_and_unsaid():
    with pytest.warns(PassedOverWarning, match="do not add up") as caught:
        sampler = later("weight", 4, 400)
    assert len(caught) == 1
    # Nothing stays that was recorded since the last comparison before.
    recorded = sampler.trace.n_recorded
    steps = sampler.trace.columns()["step"] if recorded else np.empty(0)
    assert len(steps) == 0 or steps.max() < 4
    assert sum(sampler.trace.passed_over.values()) == 400 - len(steps)
    assert sampler.trace.n_steps == 400


def test_another_number_of_uses_is_compared_at_once():
    sampler = later("twice", 4, 8)
    assert sampler.trace.n_recorded == 8
    assert sampler._loop._verification.last >= 4


def test_comparisons_are_rare_and_the_same_in_each_run():
    compared = []
    for _ in range(2):
        sampler, found = later("plain", 0, 0), []
        model, optimizer = sampler.model, sampler.optimizer
        for t in range(400):
            index = torch.arange(B) + t % 30
            optimizer.zero_grad()
            with sampler.step(index):
                loss_of(model, index).backward()
            optimizer.step()
            found.append(sampler._loop._verification.last)
        compared.append(sorted(set(found)))
    assert compared[0] == compared[1]
    # A Poisson process of one in a hundred: 4 on average, and the first step.
    assert 2 <= len(compared[0]) <= 14


def test_warnings_point_at_the_users_own_line():
    # They come about where a block opens, where it is left, and at the block after a
    # step that was not made.
    model, optimizer, sampler = made()
    index = torch.arange(B)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for given in (index, torch.zeros_like(index), -index, index):
            optimizer.zero_grad()
            with sampler.step(given):
                if given is not index or sampler.n_steps == 0:
                    loss_of(model, index).backward()
            optimizer.step()
        with sampler.step(index):
            loss_of(model, index).backward()
        with sampler.step(index):
            loss_of(model, index).backward()
    said = {str(each.message).split()[0] for each in caught}
    assert said == {"`index`", "A", "The"}
    assert {each.filename for each in caught} == {__file__}
