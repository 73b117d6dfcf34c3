"""Layers whose share in inner products is formed when their gradient arrives."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from fstat_torch import SingleRunSampler, Targets  # noqa: E402
from fstat_torch.gradients import GradientCapture, Wanted  # noqa: E402

B, N, CLASSES = 5, 30, 4


class Mixed(nn.Module):
    """Layers used once, twice and tied, one to be run again, blocks to checkpoint."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.norm, self.twice = nn.LayerNorm(6), nn.Linear(6, 6)
        self.mix = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 6))
        self.again = nn.GRU(6, 6, batch_first=True)
        self.tied = nn.Linear(6, 11, bias=False)
        self.tied.weight = self.embed.weight
        self.head, self.reentrant = nn.Linear(11, CLASSES), reentrant

    def block(self, h):
        return self.twice(self.norm(self.twice(self.mix(h)))).tanh()

    def forward(self, x):
        h = self.embed(x)
        if self.reentrant is None or not self.training:
            h = self.block(h)
        else:
            h = checkpoint(self.block, h, use_reentrant=self.reentrant)
        return self.head(self.tied(self.again(h)[0].sin()).mean(1))


def of_each(output, y):
    return F.cross_entropy(output.float(), y, reduction="none")


def run(make=Mixed, precision=None, accumulate=1, refresh=3, **options):
    """Trace and parameters of a short run."""
    torch.manual_seed(0)
    x, y = torch.randint(11, (N, 3)), torch.randint(CLASSES, (N,))
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    asked = {"self": "self", "one": (x[:1], y[:1]), "some": (x[1:4], y[1:4])}
    targets = Targets(options.pop("targets", asked), refresh=refresh)
    sampler = SingleRunSampler(model, targets=targets, optimizer=optimizer, **options)
    for _ in range(2):
        for index in torch.randperm(N).split(B * accumulate):
            optimizer.zero_grad()
            for part in index.split(B):
                more = len(part) and part[-1] != index[-1]
                with sampler.step(part, accumulate=bool(more)):
                    with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
                        loss = of_each(model(x[part]), y[part]).mean()
                    (loss / accumulate).backward()
            optimizer.step()
    return sampler.trace.columns(), list(model.parameters())


@pytest.fixture
def letting_go(monkeypatch):
    """Have gradients let go however little memory they take; count the layers."""
    taken, take = [], Wanted.take

    def counted(wanted, call):
        taken.append(call.unit.name)
        return take(wanted, call)

    monkeypatch.setattr(Wanted, "least", 0)
    monkeypatch.setattr(Wanted, "take", counted)
    return taken


CASES = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "cosine": {"metric": "cosine"},
    "alone": {"targets": "self"},
    "not reentrant": {"make": partial(Mixed, False)},
    "reentrant": {"make": partial(Mixed, True)},
    "every": {"every": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_the_trace_is_the_same_to_the_last_bit(case, letting_go, monkeypatch):
    trace, parameters = run(**CASES[case])
    assert set(letting_go) == {"norm", "mix.0", "mix.2", "head"}
    steps = 2 * N // B // CASES[case].get("every", 1)
    # What a reentrant checkpoint hides is let go once a step was seen.
    n_taken = 4 * steps - 3 * (case == "reentrant")
    assert len(letting_go) == n_taken
    monkeypatch.setattr(Wanted, "least", float("inf"))
    kept, expected = run(**CASES[case])
    assert len(letting_go) == n_taken
    for name, column in kept.items():
        np.testing.assert_array_equal(trace[name], column, err_msg=name)
    assert all(map(torch.equal, parameters, expected))


def test_examples_that_have_yet_to_meet_are_kept(letting_go):
    x, y = torch.randint(11, (2, 3)), torch.tensor([0, 1])
    run(accumulate=2)
    assert not letting_go
    run(accumulate=2, targets=(x, y))
    assert letting_go


def test_targets_that_are_taken_at_each_step_come_after_it(letting_go):
    run(refresh=1)
    assert not letting_go


def test_an_update_whose_micro_batches_come_unannounced_is_passed_over(letting_go):
    model = nn.Linear(4, 2)
    x, y = torch.randn(N, 4), torch.randint(2, (N,))
    sampler = SingleRunSampler(model)

    def micro(index, accumulate):
        with sampler.step(index) as step:
            F.cross_entropy(model(x[index]), y[index]).backward()
            step.accumulate = accumulate

    micro(range(4), False)
    micro(range(4), False)
    micro(range(4), True)
    with pytest.warns(UserWarning, match="unannounced"):
        micro(range(4, 8), False)
    micro(range(4), True)
    micro(range(4, 8), False)
    norms = sampler.trace.columns()["norm_squared"]
    assert np.isnan(norms[8:16]).all()
    assert np.isfinite(np.delete(norms, range(8, 16))).all()


def test_what_layers_saw_is_gone_when_the_next_gradient_arrives(letting_go):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(B, 4)
    watched = GradientCapture(model)
    with watched.training(B):
        model(x).square().sum().backward()
    seen = []

    def arrived(gradient):
        # Of autograd's own backward pass, the last layer is done with by now.
        seen.append([ref.expired() for ref in refs])

    def watch(output):
        output.register_hook(arrived)

    def keep(module, args, output):
        output.register_hook(lambda g: refs.append(StorageWeakRef(g.untyped_storage())))

    refs = []
    model[2].register_forward_hook(keep)
    model[1].register_forward_hook(
        lambda m, a, out: out.register_hook(arrived) and None
    )
    for wanted, gone in ((None, False), (Wanted(gram=True), True)):
        refs.clear(), seen.clear()
        with watched.training(B, wanted) as batch:
            loss = model(x)
            (loss * torch.randn(B, 3)).sum().backward()
        model[0].weight.grad = None
        assert batch.gram().shape == (B, B)
        assert seen == [[gone]]


def test_a_second_backward_pass_is_refused(letting_go):
    model, x = nn.Linear(4, 2), torch.randn(B, 4)
    watched = GradientCapture(model)
    with watched.training(B):
        model(x).square().sum().backward()
    with (
        pytest.raises(RuntimeError, match="more than one backward"),
        watched.training(B, Wanted(gram=True)),
    ):
        loss = model(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()


def test_each_thing_can_be_had_once_and_others_not_at_all(letting_go):
    model, x = nn.Linear(4, 2), torch.randn(B, 4)
    watched = GradientCapture(model)
    with watched.training(B) as kept:
        model(x).square().sum().backward()
    with watched.training(B, Wanted(gram=True)) as batch:
        model(x).square().sum().backward()
    assert not batch.is_whole and kept.is_whole
    assert torch.equal(batch.gram(), kept.gram())
    for ask in (batch.gram, batch.norms_squared, batch.sum_gradients):
        with pytest.raises(RuntimeError, match="were let go"):
            ask()
