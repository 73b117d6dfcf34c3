"""A run that goes on from a checkpoint takes the snapshots of the uninterrupted run.

Run as a script, this file trains in forked processes and kills them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat_torch import Curvature, SingleRunSampler  # noqa: E402

N, B, STEPS, EPOCH, CHECKPOINT = 48, 8, 40, 6, 7
FORMS = {
    "exact": {"landmarks": None},
    "landmarks": {"landmarks": 12},
    "fisher": {"kind": "fisher", "landmarks": 12},
    "sketch": {"projection": 9, "landmarks": 12},
    "ekfac": {"structure": "ekfac"},
    "untold": {"n_examples": None, "landmarks": 12, "asks": False},
}


class Run:
    """A training run; what it needs to go on is in its checkpoint."""

    def __init__(self, asks=True, **metric):
        self.asks = asks
        torch.manual_seed(0)
        self.x, self.y = torch.randn(N, 6), torch.randint(3, (N,))
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 3))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.sampler = SingleRunSampler(
            self.model,
            targets={"self": "self", "z": (self.x[:2], self.y[:2])},
            optimizer=self.optimizer,
            metric=Curvature(**{"n_examples": N} | metric),
        )
        self.step = 0

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
        }

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]

    def go_on(self, until=STEPS, report=None, checkpoint=None):
        while self.step < until:
            index = torch.randint(N, (B,)).unique()
            self.optimizer.zero_grad()
            with self.sampler.step(index):
                logits = self.model(self.x[index])
                nn.functional.cross_entropy(logits, self.y[index]).backward()
            self.optimizer.step()
            self.step += 1
            if self.asks and self.step % EPOCH == 0:
                self.sampler.snapshot()
            if checkpoint and self.step % CHECKPOINT == 0:
                torch.save(self.state(), checkpoint.with_name("beside.pt"))
                os.replace(checkpoint.with_name("beside.pt"), checkpoint)
            if report:
                report()
        return self.sampler.snapshots


def assert_same(one, other):
    assert one.steps == other.steps
    for mine, theirs in zip(one.scores, other.scores, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def copied(state, folder):
    """What a checkpoint is after it was on disk, where no code can be in it."""
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", [0, 14])
def test_a_resumed_run_takes_the_same_snapshots(form, on_disk, at, tmp_path):
    expected = Run(**FORMS[form]).go_on()
    options = FORMS[form] | ({"path": tmp_path, "n_examples": N} if on_disk else {})
    first = Run(**options)
    first.go_on(at)
    state = copied(first.state(), tmp_path)
    # Past snapshots that the checkpoint does not know, as a killed run may go.
    first.go_on(at + 13)
    first.sampler.close()
    second = Run(**options)
    second.load(state)
    if second.asks:
        assert len(second.sampler.snapshots) == at // EPOCH
    assert_same(second.go_on(), expected)


def test_on_disk_the_checkpoint_before_the_last_serves_until_the_next_step(tmp_path):
    expected = Run().go_on()
    first = Run(path=tmp_path / "kept")
    first.go_on(14)
    earlier = copied(first.state(), tmp_path)
    first.go_on(20)
    first.state()  # ... and the process is killed before this one is saved
    first.sampler.close()
    second = Run(path=tmp_path / "kept")
    second.load(earlier)
    assert_same(second.go_on(), expected)


def test_an_old_checkpoint_says_what_is_gone(tmp_path):
    first = Run(path=tmp_path / "kept")
    first.go_on(14)
    old = copied(first.state(), tmp_path)
    first.go_on(20)
    first.state()
    first.go_on(26)
    first.sampler.close()
    second = Run(path=tmp_path / "kept")
    with pytest.warns(UserWarning, match="were written over since the checkpoint"):
        second.load(old)
    second.sampler.snapshot()
    unknown = np.isnan(second.sampler.snapshots.scores[-1]).all(axis=1)
    assert 0 < unknown.sum() < N
    third = Run(path=tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="No kept gradients belong to step 14"):
        third.load(old)


def test_a_run_that_starts_over_says_so(tmp_path):
    first = Run(path=tmp_path)
    first.go_on(7)
    first.state()
    first.sampler.close()
    with pytest.warns(UserWarning, match="are superseded"):
        found = Run(path=tmp_path).go_on()
    assert_same(found, Run().go_on())


def test_a_checkpoint_of_another_metric_is_refused():
    run = Run()
    run.go_on(7)
    state = run.sampler.state_dict()
    other = SingleRunSampler(
        run.model, targets={"self": "self", "z": (run.x[:1], run.y[:1])},
        metric=Curvature(N + 1),
    )  # fmt: skip
    with pytest.raises(ValueError, match="a metric of 49 examples"):
        other.load_state_dict(state)


def test_a_checkpoint_in_memory_does_not_change():
    run = Run()
    run.go_on(7)
    state = run.sampler.state_dict()["kept"]
    before = {k: v.clone() for k, v in state.items() if torch.is_tensor(v)}
    run.go_on(14)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_a_folder_holds_few_states(tmp_path):
    run = Run(path=tmp_path)
    for until in (7, 14, 21, 28):
        run.go_on(until)
        run.sampler.flush()
    assert len(list(tmp_path.glob("state-*.npz"))) == 2
    for file in tmp_path.glob("*.np[yz]"):
        np.load(file, allow_pickle=False)


# Kills.


def train(folder, report=None):
    """Train to the end, from the last checkpoint if there is one."""
    run = Run(path=folder / "kept", landmarks=12)
    saved = folder / "checkpoint.pt"
    if saved.exists():
        run.load(torch.load(saved, weights_only=True))
    return run.go_on(report=report, checkpoint=saved)


def train_and_die(folder, rng):
    """Kill a process that trains, after some steps and anywhere; return if it was."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        train(folder, lambda: os.write(write, b"."))
        os._exit(0)
    os.close(write)
    for _ in range(int(rng.integers(1, 3 * CHECKPOINT))):
        if not os.read(read, 1):
            break
    time.sleep(rng.uniform(0, 0.005))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(read)
    return os.WIFSIGNALED(status)


def main(folder, kills, seed):
    torch.set_num_threads(1)
    # A run killed before its first checkpoint leaves nothing that is superseded.
    rng = np.random.default_rng(seed)
    expected = Run(landmarks=12).go_on()
    killed = finished = 0
    while killed < kills:
        here = folder / f"run{finished}"
        here.mkdir()
        while killed < kills and train_and_die(here, rng):
            killed += 1
        assert_same(train(here), expected)
        finished += 1
    print(json.dumps({"killed": killed, "finished": finished}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "kills", [6, pytest.param(60, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_kills_do_not_change_a_snapshot(kills, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(tmp_path), str(kills), "0"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["killed"] == kills and seen["finished"] >= 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
