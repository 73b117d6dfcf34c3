"""Micro-batches make one update, checkpoints carry the sampler on, in one process."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat import Storage, Trace  # noqa: E402
from fstat_torch import SingleRunSampler  # noqa: E402
from fstat_torch.sampling.update import UpdateSize  # noqa: E402

N, B, STEPS = 48, 12, range(6)


def parts(seed=0, **options):
    torch.manual_seed(seed)
    x, y = torch.randn(N, 6).double(), torch.randint(3, (N,))
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    targets = {"self": "self", "one": (x[:1], y[:1]), "group": (x[1:5], y[1:5])}
    sampler = SingleRunSampler(model, targets=targets, optimizer=optimizer, **options)
    return x, y, model, optimizer, sampler


def train(sizes, steps=STEPS, made=None, clip=None, mean=True, **options):
    """Train in micro-batches of given sizes, whose losses make the batch's mean."""
    x, y, model, optimizer, sampler = made or parts(**options)
    order = np.random.default_rng(0).permuted(np.tile(np.arange(N), (20, 1)), axis=1)
    for step in steps:
        batch = torch.from_numpy(order[step, :B])
        optimizer.zero_grad()
        micro_batches = batch.split(sizes)
        for k, index in enumerate(micro_batches):
            more = k + 1 < len(micro_batches)
            with sampler.step(index, accumulate=more, number=index.numpy()):
                loss = nn.functional.cross_entropy(
                    model(x[index]), y[index], reduction="sum"
                )
                (loss / B if mean else loss).backward()
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return sampler, [p.detach().clone() for p in model.parameters()]


def assert_same(one, other, rtol=1e-9):
    assert one.n_steps == other.n_steps
    mine, theirs = one.columns(), other.columns()
    assert mine.keys() == theirs.keys()
    for name, column in mine.items():
        np.testing.assert_allclose(column, theirs[name], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("sizes", [[6, 6], [4, 4, 4], [7, 1, 4]])
def test_micro_batches_are_recorded_as_the_batch_that_they_make(sizes, mean):
    options = {"mean": mean, "reduction": "mean" if mean else "sum"}
    whole, _ = train([B], **options)
    accumulated, _ = train(sizes, **options)
    assert accumulated.trace.n_recorded == 6
    assert_same(accumulated.trace, whole.trace)
    assert (whole.trace.columns()["learning_rate"] == 0.5).all()


def test_micro_batches_of_steps_that_are_not_recorded():
    whole, _ = train([B], every=4)
    accumulated, _ = train([6, 6], every=4)
    assert accumulated.trace.columns()["step"].tolist() == [0, 4]
    assert_same(accumulated.trace, whole.trace)


def test_gradients_may_be_clipped_inside_the_block():
    plain, _ = train([B], steps=range(1))
    clipped, _ = train([B], steps=range(1), clip=1e-3)
    one, other = plain.trace.columns(), clipped.trace.columns()
    assert other.pop("learning_rate") < 0.01 * one.pop("learning_rate")
    for name, column in one.items():
        np.testing.assert_array_equal(other[name], column)


# Checkpoints


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_run_goes_on_from_its_checkpoint(tmp_path, on_disk):
    def storage(folder, resume=False):
        if not on_disk:
            return None
        return Storage(tmp_path / folder, flush_every=2, resume=resume)

    whole, expected = train([B], range(9), storage=storage("whole"))
    first = parts(storage=storage("run"))
    train([B], range(5), first)
    _, _, model, optimizer, sampler = first
    saved = {"model": model, "optimizer": optimizer, "sampler": sampler}
    torch.save({k: v.state_dict() for k, v in saved.items()}, tmp_path / "saved.pt")
    train([B], range(5, 8), first)  # steps that are lost with the process
    sampler.close()

    again = parts(seed=0, storage=storage("run", resume=True))
    state = torch.load(tmp_path / "saved.pt", weights_only=True)
    for name, what in zip(saved, again[2:], strict=True):
        what.load_state_dict(state[name])
    assert again[-1].trace.n_steps == 5
    _, final = train([B], range(5, 9), again)
    assert all(torch.equal(a, b) for a, b in zip(final, expected, strict=True))
    again[-1].close()
    whole.close()
    assert_same(again[-1].trace, whole.trace, rtol=0)
    if on_disk:
        assert_same(Trace.load(tmp_path / "run"), whole.trace, rtol=0)


def test_a_run_that_starts_over_says_so_and_supersedes(tmp_path):
    with train([B], range(5), storage=tmp_path)[0]:
        pass
    made = parts(storage=Storage(tmp_path, resume=True))
    with pytest.warns(UserWarning, match="starts at step 0, so that 5 steps") as caught:
        train([B], range(2), made)
    assert len(caught) == 1 and caught[0].filename == __file__
    made[-1].close()
    assert Trace.load(tmp_path).columns()["step"].tolist() == [0, 1]


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    sampler, _ = train([B], range(3), storage=tmp_path / "run")
    state = sampler.state_dict()
    _, _, model, _, other = parts(storage=tmp_path / "other")
    with pytest.raises(ValueError, match="has 0 recorded steps before step 3, not 3"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match="with targets"):
        SingleRunSampler(model).load_state_dict(state)
    sampler.close()


def test_a_closed_sampler_lets_go_of_the_optimiser(tmp_path):
    *_, optimizer, sampler = parts(storage=tmp_path)
    with sampler:
        assert len(optimizer._optimizer_step_post_hooks) == 1
    assert not optimizer._optimizer_step_post_hooks


class Shared:
    """Two processes, of which the other has four examples in its batch."""

    size = 2

    def sizes(self, own):
        return [own, 4]


@pytest.mark.parametrize(
    ("mean", "processes", "expected"),
    [(True, None, 8.0), (True, Shared(), 6.0), (False, Shared(), 1.0)],
)
def test_gradients_of_a_mean_count_the_examples_of_each_process(
    mean, processes, expected
):
    size = UpdateSize(mean, processes)
    for number in (5, 3):
        size.add(number, divided=False)
    assert size.own() == expected
    size.forget()
    size.add(5, divided=True)
    assert size.own() == 1.0
    with pytest.raises(ValueError, match="`denominator` must be given for all"):
        size.add(3, divided=False)
