"""Nothing is said of the run: when snapshots are taken, and of which kind they are."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat_torch import Curvature, SingleRunSampler  # noqa: E402
from fstat_torch.curvature.moments import Moments  # noqa: E402
from fstat_torch.curvature.residual import LeftToLearn, kind_for  # noqa: E402

N, B = 40, 8


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


class Run:
    """A training run, by an optimiser that the sampler is told of or not."""

    def __init__(self, told=True, **metric):
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.3)
        self.x, self.y = data()
        self.sampler = SingleRunSampler(
            self.model,
            targets=(self.x[:4], self.y[:4]),
            optimizer=self.optimizer if told else None,
            metric=Curvature(**{"landmarks": None} | metric),
        )
        self.generator = torch.Generator().manual_seed(2)

    def step(self, index):
        self.optimizer.zero_grad()
        with self.sampler.step(index):
            loss = nn.functional.cross_entropy(self.model(self.x[index]), self.y[index])
            loss.backward()
        self.optimizer.step()

    def epoch(self, size=B, drop_last=False):
        parts = torch.randperm(N, generator=self.generator).split(size)
        for index in parts[: N // size] if drop_last else parts:
            self.step(index)

    @property
    def steps(self):
        return self.sampler.snapshots.steps


def asked(epochs, **metric):
    """Return the scores of a run whose user asks for them, at each epoch but one."""
    run = Run(**metric)
    for epoch in range(epochs):
        run.epoch()
        if epoch:
            run.sampler.snapshot()
    return run.sampler.snapshots


@pytest.mark.parametrize("n_examples", [None, N, 2 * N])
def test_snapshots_are_taken_at_the_end_of_each_pass_but_the_first(n_examples):
    run = Run(n_examples=n_examples)
    for _ in range(5):
        run.epoch()
    expected = asked(5, n_examples=n_examples)
    assert run.steps == expected.steps == [10, 15, 20, 25]
    np.testing.assert_array_equal(run.sampler.snapshots.stacked(), expected.stacked())


def test_training_is_the_same_to_the_last_bit():
    watched, plain = Run(), Run()
    for _ in range(4):
        watched.epoch()
    assert len(watched.steps) == 3
    for _ in range(4):
        for index in torch.randperm(N, generator=plain.generator).split(B):
            plain.optimizer.zero_grad()
            output = plain.model(plain.x[index])
            nn.functional.cross_entropy(output, plain.y[index]).backward()
            plain.optimizer.step()
    ours, theirs = watched.model.parameters(), plain.model.parameters()
    assert all(map(torch.equal, ours, theirs))


def test_an_optimiser_need_not_be_told():
    run = Run(told=False)
    for _ in range(4):
        run.epoch()
    assert run.steps == [10, 15, 20]


@pytest.mark.parametrize("size", [3, 7, 16, N])
@pytest.mark.parametrize("drop_last", [False, True])
def test_passes_of_any_batches(size, drop_last):
    run = Run()
    for _ in range(6):
        run.epoch(size, drop_last)
    length = N // size if drop_last else -(-N // size)
    ends = np.array(run.steps) / length
    assert len(ends) in (4, 5)
    assert np.abs(np.diff(ends) - 1).max() <= 1 / length
    assert np.abs(ends[0] - 2) <= 2 / length


def test_passes_where_examples_are_drawn_with_replacement():
    run = Run()
    for _ in range(52):
        run.step(torch.randint(N, (B,), generator=run.generator).unique())
    visits = np.diff(run.steps) * B
    assert len(run.steps) > 8  # before they are thinned
    # Fewer at first, when some were never met.
    assert (visits > 0.5 * N).all() and (visits[-5:] == N).all()


def test_who_asks_for_snapshots_chooses_the_moments():
    run = Run()
    for _ in range(3):
        run.epoch()
    assert run.steps == [10, 15]
    run.epoch()
    run.step(torch.arange(B))
    run.sampler.snapshot()
    assert run.steps == [21]
    for _ in range(3):
        run.epoch()
    assert run.steps == [21]


def test_moments_of_a_long_run_are_few_and_evenly_spaced():
    run, most = Run(landmarks=5), 0
    for epoch in range(1, 53):
        run.epoch()
        most = max(most, len(run.steps))
        passes = np.array(run.steps) / (N // B)
        if epoch > 2:
            assert len(set(np.diff(passes))) <= 1
        if epoch == 13:
            assert passes.tolist() == [3, 5, 7, 9, 11, 13]
    assert most < 12
    assert passes.tolist() == [9, 17, 25, 33, 41, 49]


def test_a_run_of_one_pass_is_looked_at_when_it_is_asked():
    run = Run()
    run.epoch()
    assert run.steps == []
    assert run.sampler.observations([[0, 1]]).n_pairs == 4
    assert run.steps == [5]
    assert run.sampler.observations([[0, 1]]).n_pairs == 4  # not again
    for _ in range(2):
        run.epoch()
    assert run.steps == [10, 15]  # that of a model that knew nothing is let go


def test_a_snapshot_that_fails_takes_no_training_down():
    run = Run()
    run.epoch()
    run.x = torch.zeros_like(run.x)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    run.y = torch.zeros_like(run.y)
    run.sampler._recorders[0].scores = _degenerate
    with pytest.warns(UserWarning, match="A snapshot was not taken"):
        run.epoch()
    run.epoch()
    assert run.steps == []


def _degenerate(*_):
    raise RuntimeError("there is no metric")


def test_a_snapshot_that_fails_leaves_those_before():
    run = Run()
    for _ in range(3):
        run.epoch()
    run.step(torch.arange(B))
    kept = run.sampler._recorders[0]
    scores, kept.scores = kept.scores, _degenerate
    with pytest.raises(RuntimeError, match="there is no metric"):
        run.sampler.snapshot()
    assert run.steps == [10, 15]
    kept.scores = scores
    run.sampler.snapshot()
    assert run.steps == [16]


def test_amid_an_update_nothing_is_made_up():
    run = Run()
    with run.sampler.step(torch.arange(B), accumulate=True):
        output = run.model(run.x[:B])
        nn.functional.cross_entropy(output, run.y[:B]).backward()
    with pytest.raises(ValueError, match="needs a snapshot"):
        run.sampler.observations()
    assert run.steps == []


def test_passes_are_counted_over_processes():
    moments = Moments()
    moments.count(N)
    assert moments.counts
    moments.met(N)
    assert not moments.due
    for _ in range(4):
        moments.count(N // 4)
        if moments.counts:
            moments.met(N)
    assert moments.due
    again = Moments()
    again.load(moments.state())
    assert again.due
    again.passed(N)
    assert not again.due


# Of which kind.


def arriving(loss, output, target):
    output = output.detach().requires_grad_()
    loss(output, target).backward()
    return [output.grad]


G = torch.Generator().manual_seed(0)
ROWS, LABELS = torch.randn(16, 5, generator=G), torch.randint(5, (16,), generator=G)
LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(), LABELS, "residual"),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), LABELS, "residual"),
    "weighted": (nn.CrossEntropyLoss(weight=torch.rand(5)), LABELS, "residual"),
    "squared": (nn.MSELoss(), torch.zeros(16, 5), "fisher"),
    "of labels": (nn.BCEWithLogitsLoss(), torch.ones(16, 5), "fisher"),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_loss_asks_for_a_kind(name, dtype):
    loss, target, kind = LOSSES[name]
    if name == "weighted":
        loss = nn.CrossEntropyLoss(weight=torch.rand(5, generator=G).to(dtype))
    target = target if target.dtype == torch.int64 else target.to(dtype)
    assert kind_for(arriving(loss, ROWS.to(dtype), target), 16) == kind


def test_other_outputs_than_one_row_an_example_are_fishers():
    assert kind_for([], 4) == "fisher"
    assert kind_for([torch.zeros(3, 2)], 4) == "fisher"
    assert kind_for([torch.zeros(4, 2)] * 2, 4) == "fisher"
    one = arriving(nn.MSELoss(), ROWS[:, :1], torch.zeros(16, 1))
    assert kind_for(one, 16) == "fisher"


@pytest.mark.parametrize("kind", ["residual", "fisher"])
def test_the_kind_that_a_run_takes_is_as_if_it_were_named(kind):
    found = []
    for named in ("auto", kind):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        x, y = data()

        def loss(output, target):
            if kind == "fisher":
                wanted = nn.functional.one_hot(target, 3).float()
                return (output - wanted).square().sum(1)
            return nn.functional.cross_entropy(output, target, reduction="none")

        sampler = SingleRunSampler(
            model, targets=(x[:4], y[:4]), loss=loss, metric=Curvature(kind=named)
        )
        with sampler.step(torch.arange(N)):
            loss(model(x), y).mean().backward()
        sampler.snapshot()
        found.append(sampler.snapshots.stacked())
    np.testing.assert_array_equal(*found)


# How much is left to learn.


def sizes(n, residual):
    return torch.full((n,), residual).double()


def ridge_of(left, residual):
    return left.ridge(left.share(sizes(40, residual)))


def test_the_ridge_leaves_twice_what_the_run_has_left():
    left = LeftToLearn()
    left.begin(200, sizes(200, 0.8))
    assert left.begins
    left.begin(400, sizes(400, 0.6))  # whole updates
    assert not left.begins
    for share in (0.5, 0.1, 0.9):
        assert ridge_of(left, 0.6 * share) == pytest.approx(2 * share / (1 - share))
    for residual, share in ((0.7, 0.99), (0.0, 0.01)):  # within bounds
        assert ridge_of(left, residual) == pytest.approx(2 * share / (1 - share))
    again = LeftToLearn()
    again.load(left.state())
    assert ridge_of(again, 0.3) == pytest.approx(2.0) and not again.begins
    left.begin_unwatched(5)
    assert ridge_of(left, 0.4) == pytest.approx(2.0)


def test_a_run_has_begun_when_an_example_is_met_again():
    left = LeftToLearn()
    left.begin(10, sizes(10, 0.8))
    left.begin(20, sizes(19, 0.5))
    assert left.began == pytest.approx(0.8) and not left.begins
    assert ridge_of(LeftToLearn(), 0.3) == pytest.approx(198.0)  # nothing is known


def test_a_run_takes_the_ridge_of_what_it_has_left():
    whole, seen = Run(), []
    for _ in range(3):
        for index in torch.randperm(N, generator=whole.generator).split(B):
            output = whole.model(whole.x[index]).detach()
            p = output.softmax(1).gather(1, whole.y[index][:, None])[:, 0]
            seen.append((index, 1 - p))
            whole.step(index)
    began = torch.cat([r for _, r in seen[: N // B]]).mean()  # when met first
    last = torch.zeros(N)
    for index, r in seen:
        last[index] = r
    share = float(last.mean() / began)
    named = asked(3, damping=2 * share / (1 - share)).scores[-1]
    np.testing.assert_allclose(
        whole.sampler.snapshots.scores[-1], named, rtol=1e-4, atol=1e-6
    )


def test_the_ridge_does_not_depend_on_the_units_of_the_loss():
    found = []
    for factor in (1.0, 0.01):
        torch.manual_seed(0)
        model = nn.Linear(5, 3).double()
        x, y = data()
        x = x.double()
        sampler = SingleRunSampler(
            model, targets=(x[:4], y[:4]), metric=Curvature(landmarks=None)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1 / factor)
        for _ in range(6):
            optimizer.zero_grad()
            with sampler.step(torch.arange(N)):
                loss = nn.functional.cross_entropy(model(x), y)
                (factor * loss).backward()
            optimizer.step()
        found.append(sampler.snapshots.scores[-1])
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-9)


def test_a_sampler_says_what_it_chose():
    run = Run()
    assert "after each pass but the first; 0 MiB" in repr(run.sampler)
    for _ in range(3):
        run.epoch()
    said = repr(run.sampler).splitlines()
    assert said[0] == "SingleRunSampler(Sequential, metric='Curvature', 15 steps)"
    assert said[1].strip() == "Snapshots(2 of 40 examples, 4 targets)"
    assert "kind 'residual', as the loss asks for; the exact kernel; a ridge" in said[2]
    assert "is left to learn; snapshots after each pass but the first, at" in said[2]
    run.step(torch.arange(B))
    run.sampler.snapshot()
    assert "snapshots when asked, at steps [16]" in repr(run.sampler)
    named = SingleRunSampler(run.model, metric="plain")
    assert repr(named) == (
        "SingleRunSampler(Sequential, metric='plain', 0 steps)\n  "
        "Trace(0 of 0 steps recorded, 1 targets)"
    )
    for options, word in (
        ({"structure": "ekfac", "kind": "fisher"}, "kind 'fisher'; EK-FAC"),
        ({"landmarks": 5, "damping": 0.5}, "; 5 landmarks; a ridge of 0.5; snapshots"),
    ):
        run = Run(**options)
        run.epoch()
        run.sampler.snapshot()
        assert word in repr(run.sampler)


def test_what_is_learnt_is_not_looked_at():
    run = Run()
    run.y = (run.x[:, 0] > 0).long()
    run.optimizer = torch.optim.Adam(run.model.parameters(), lr=0.1)
    run.sampler = SingleRunSampler(
        run.model, targets=(run.x[:4], run.y[:4]), optimizer=run.optimizer,
        metric="curvature",
    )  # fmt: skip
    left = []
    for _ in range(11):
        run.epoch()
        kept = run.sampler._recorders[0]
        left.append(kept._left.share((kept._residual * kept._scale)[:N]))
    assert left[2] > 0.1 > left[-4]
    # Four at least, of which there is a standard error.
    ends = [5 * (k + 1) for k, s in enumerate(left) if k and (s > 0.1 or k <= 4)]
    assert run.steps == ends
    assert len(run.steps) < 8


def test_a_loss_without_residuals_is_looked_at_to_the_end():
    run = Run(kind="fisher")
    run.y = torch.zeros_like(run.y)
    for _ in range(9):
        run.epoch()
    assert len(run.steps) == 8


def test_a_reference_is_taken_to_have_begun_with_equal_probabilities():
    run = Run()
    for _ in range(12):
        run.epoch()
    p = run.model(run.x).softmax(1).gather(1, run.y[:, None])[:, 0].detach()
    share = float((1 - p).mean() / (1 - 1 / 3))
    assert share < 0.8

    def scores(**metric):
        sampler = SingleRunSampler(
            run.model,
            targets=(run.x[:4], run.y[:4]),
            metric=Curvature(landmarks=None, **metric),
            reference=[(torch.arange(N), run.x, run.y)],
        )
        sampler.snapshot(step=1)
        return sampler.snapshots.scores[0]

    named = scores(damping=2 * share / (1 - share))
    np.testing.assert_allclose(scores(), named, rtol=1e-4, atol=1e-6)
