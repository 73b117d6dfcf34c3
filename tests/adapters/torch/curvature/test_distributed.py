"""Several processes score in the metric that one would build of the same batches.

Run as a script, this file trains in two forked processes and saves their scores.
"""

import os
import subprocess
import sys
import traceback
import warnings
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402

from fstat_torch import (  # noqa: E402
    Curvature,
    PassedOverWarning,
    SingleRunSampler,
)
from fstat_torch.curvature import Holders, ridge  # noqa: E402

N, B, STEPS, EPOCH = 40, 10, 12, 4
# Examples of a batch that each process sees; with equal ones a loader would do.
SHARES = [6, 4]
# The step that the second process cannot take, so that all pass it over.
FAILS = 1
DEGENERATE = {"landmarks": None, "structure": "ekfac"}
CASES = {
    "exact": {"landmarks": None},
    "landmarks": {"landmarks": 9},
    "ekfac": {"structure": "ekfac"},
    "fisher": {"kind": "fisher", "landmarks": 9},
    "sketch": {"projection": 20, "landmarks": 9},
    "formed ekfac": {"structure": "ekfac", "kind": "fisher"},
    "passed over": {"landmarks": 9},
    "untold": {"landmarks": 9, "n_examples": None},  # nor asked for snapshots
    **{f"degenerate {case}": {case: told} for case, told in DEGENERATE.items()},
}
MORE = {
    "micro-batches": {"landmarks": 9},
    "single precision": {"structure": "ekfac"},
    "trace too": {"landmarks": 9, "trace": True},
    "reference": {"structure": "ekfac"},
    "exact reference": {"landmarks": None},
}


def passes_over(case):
    return case == "passed over" or "degenerate" in case


def build(case):
    torch.manual_seed(0)
    inner = nn.Unflatten(1, (2, 3)), nn.Linear(3, 8), nn.Tanh(), nn.Flatten()
    first = inner if case == "formed ekfac" else (nn.Linear(6, 16), nn.Tanh())
    model = nn.Sequential(*first, nn.LayerNorm(16), nn.Linear(16, 3))
    return model if case == "single precision" else model.double()


def data(model):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(N, 6, generator=g, dtype=torch.float64)
    y = torch.randint(3, (N,), generator=g)
    return x.to(next(model.parameters())), y


def batches():
    """Return batches such that a process does not meet the same examples again."""
    g = torch.Generator().manual_seed(2)
    return [torch.randperm(N, generator=g)[:B] for _ in range(STEPS)]


class Run:
    """A run, or one process' part of it."""

    def __init__(self, case, rank=None, **options):
        self.case, self.rank, inner = case, rank, build(case)
        self.x, self.y = data(inner)
        wrap = nn.parallel.DistributedDataParallel
        self.model = inner if rank is None else wrap(inner)
        self.optimizer = torch.optim.SGD(inner.parameters(), lr=0.2)
        x, y = self.x, self.y
        self.sampler = SingleRunSampler(
            self.model,
            optimizer=self.optimizer,
            targets={"self": "self", "one": (x[:1], y[:1]), "pair": (x[1:3], y[1:3])},
            metric=Curvature(**{"n_examples": N} | (CASES | MORE)[case] | options),
            reference=self.reference() if "reference" in case else None,
        )
        self.step = 0

    def reference(self):
        parts = torch.arange(N).split(7)
        return [(index, self.x[index], self.y[index]) for index in parts]

    @property
    def weight(self):
        """Nothing can be learnt in the first epoch of some cases."""
        return 0.0 if "degenerate" in self.case and self.step < EPOCH else 1.0

    def loss(self, index):
        losses = nn.functional.cross_entropy(
            self.model(self.x[index]), self.y[index], reduction="none"
        )
        if self.rank is not None:
            return losses.mean()
        return torch.stack([part.mean() for part in losses.split(SHARES)]).mean()

    def parts(self, batch):
        if self.rank is None:
            return [batch]
        own = batch.split(SHARES)[self.rank]
        return own.chunk(2) if self.case == "micro-batches" else [own]

    def go_on(self, until=STEPS):
        while self.step < until:
            self.optimizer.zero_grad()
            parts = self.parts(batches()[self.step])
            fails = self.case == "passed over" and self.step == FAILS
            for k, index in enumerate(parts):
                last = k + 1 == len(parts)
                alone = last or self.rank is None
                told = index[:-1] if fails and self.rank != 0 else index
                with (
                    nullcontext() if alone else self.model.no_sync(),
                    self.sampler.step(told, accumulate=not last),
                ):
                    (self.weight * self.loss(index) / len(parts)).backward()
            self.optimizer.step()
            self.step += 1
            if self.step % EPOCH == 0 and self.case != "untold":
                self.sampler.snapshot()
        return self.sampler.snapshots

    def state(self):
        return {
            "model": self.model.state_dict(),
            "sampler": self.sampler.state_dict(),
            "step": self.step,
        }

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.sampler.load_state_dict(state["sampler"])
        self.step = state["step"]


def alone(case):
    """Return the snapshots of one process, with blocks of those that two would hold."""
    run = Run(case)

    def blocks(directions, size):
        last = {}
        for step, batch in enumerate(batches()[: run.sampler.n_steps]):
            if not (case == "passed over" and step == FAILS):
                held = np.repeat([0, 1], SHARES)
                last |= dict(zip(batch.tolist(), held.tolist(), strict=True))
        holder = torch.tensor([last[example] for example in sorted(last)])
        assert len(holder) == len(directions) and size == ridge.BLOCK
        return [(holder == rank).nonzero()[:, 0] for rank in range(2)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "bisected", blocks)
        return run.go_on()


def resumed(rank, **options):
    """Return the snapshots of a run that goes on from a checkpoint."""
    first = Run("landmarks", rank, **options)
    first.go_on(6)
    state = deepcopy(first.state())
    first.go_on(7)
    first.sampler.close()  # which gives its folder up
    second = Run("landmarks", rank, **options)
    second.load(state)
    return second.go_on()


def from_another(rank):
    """Go on from the state of the first process, and return how many are scored."""
    first = Run("landmarks", rank)
    first.go_on(6)
    states = [None, None]
    dist.all_gather_object(states, first.state())
    second = Run("landmarks", rank)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        second.load(states[0])
    told = [str(w.message) for w in said]
    assert len(told) == rank and all("other processes kept" in text for text in told)
    found = second.go_on(8).scores[-1]
    # Those that the second one met before are not known any more.
    seen = torch.cat([batch[: SHARES[0]] for batch in batches()[:6]] + batches()[6:8])
    np.testing.assert_array_equal(
        np.isfinite(found).all(1).nonzero()[0], seen.unique().numpy()
    )


def work(cases, rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    found = {}
    for case in cases:
        if case in ("resumed", "resumed from disk"):
            path = {"path": folder / "kept"} if case == "resumed from disk" else {}
            found[case] = resumed(rank, **path).stacked()
        elif case == "another":
            from_another(rank)
        else:
            run = Run(case, rank)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", PassedOverWarning)
                found[case] = run.go_on().stacked()
            assert len(said) == passes_over(case)
    np.savez(folder / f"{rank}.npz", **found)
    dist.barrier()
    dist.destroy_process_group()


def main(cases, folder):
    """Fork before anything is computed, which is quicker than to begin anew."""
    children = []
    for rank in range(2):
        children.append(os.fork())
        if not children[-1]:
            try:
                work(cases, rank, folder)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(any(codes))


def of_two(cases, folder):
    """Return the scores of both processes, by case."""
    done = subprocess.run(
        [sys.executable, __file__, ",".join(cases), str(folder)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [np.load(folder / f"{rank}.npz") for rank in range(2)]
    return {case: [file[case] for file in files] for case in files[0].files}


def assert_same(found, expected, rtol=1e-6):
    assert len(expected)
    for scores in found:
        assert scores.shape == expected.shape == (len(expected), N, 3)
        scale = np.nanmax(np.abs(expected), axis=(0, 1))
        np.testing.assert_allclose(scores / scale, expected / scale, rtol=0, atol=rtol)


def test_two_processes_score_as_one_does(tmp_path):
    found = of_two(CASES, tmp_path)
    for case in CASES:
        with pytest.warns(PassedOverWarning) if passes_over(case) else nullcontext():
            expected = alone(case)
        assert case == "untold" or (
            len(expected) == STEPS // EPOCH - ("degenerate" in case)
        )
        assert np.isnan(expected.scores[0]).any()  # of examples not met yet
        assert_same(found[case], expected.stacked())


@pytest.mark.slow
def test_two_processes_do_in_every_way_what_one_does(tmp_path):
    found = of_two(MORE, tmp_path)
    for case in MORE:
        close = 1e-4 if case == "single precision" else 1e-6
        assert_same(found[case], alone(case).stacked(), close)


@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint(tmp_path):
    found = of_two(["resumed", "resumed from disk", "another"], tmp_path)
    expected = alone("landmarks").stacked()
    assert found.keys() == {"resumed", "resumed from disk"}
    for scores in found.values():
        assert_same(scores, expected)


class Two:
    """What two processes say to the first of them, in one."""

    size, rank = 2, 0

    def __init__(self, other=None, told=None):
        self.other, self.told = other, told

    def largest(self, own):
        return torch.maximum(own, self.other)

    def summed(self, own):
        return own + self.other

    def share(self, own):
        return [own, self.told]


def test_who_met_an_example_last_holds_its_gradient():
    mine = torch.tensor([3, 5, -1, 7, -1])
    theirs = torch.tensor([4, 2, 0, 7, -1])
    holders, index = Holders.latest(mine, Two(theirs * 2 + 1))
    assert index.tolist() == [0, 1, 2, 3]
    # Of one step, the last share counts.
    assert holders.places(index).tolist() == [1]
    assert holders.places(torch.tensor([4, 1, 0])).tolist() == [1]


def test_gradients_that_are_not_kept_alike_are_refused():
    class Store:
        def description(self):
            return {"0": "factors"}

    holders = Holders(Two(told={"0": "factors"}), torch.ones(3, dtype=torch.bool))
    holders.check(Store())
    other = Holders(Two(told={}), torch.ones(3, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="same layers' gradients on each process"):
        other.check(Store())


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]))
