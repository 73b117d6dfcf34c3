"""CPU time and memory of a sampled training step, against a plain one.

Plain and sampled steps alternate; a ratio is the median over pairs of neighbouring
steps, with its 95 % interval. "products" is what the inner products alone must cost:
their floating-point operations over those of a plain step.

    python tests/benchmarks/bench_gradients.py [pairs]
"""

import ctypes
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import nn

from fstat_torch import SingleRunSampler
from fstat_torch.overhead import measure_overhead

BATCH, POINTS = 64, 16
WATCHED = {
    "self": {},
    "16 targets": {"targets": True},
    "16 targets, refresh 10": {"targets": True, "refresh": 10},
}


def mlp(*sizes):
    layers = []
    for d_in, d_out in pairwise(sizes):
        layers += [nn.Linear(d_in, d_out), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(144, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


MODELS = {
    "MLP 784-128-10": lambda: mlp(784, 128, 10),
    "MLP 784-512-256-10": lambda: mlp(784, 512, 256, 10),
    "MLP 784-1024-1024-10": lambda: mlp(784, 1024, 1024, 10),
    "small CNN": small_cnn,
}


class Run:
    """A model in training, sampled or not."""

    def __init__(self, make, watched=None):
        torch.manual_seed(0)
        self.x = torch.randn(2000, 1, 28, 28)
        self.y = torch.randint(10, (2000,))
        self.model = make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.draw = torch.Generator().manual_seed(1)
        self.sampler = None
        if watched is not None:
            options = dict(watched)
            if options.pop("targets", False):
                options["targets"] = self.x[:POINTS], self.y[:POINTS]
            self.sampler = SingleRunSampler(
                self.model, optimizer=self.optimizer, **options
            )

    def step(self):
        index = torch.randint(len(self.x), (BATCH,), generator=self.draw)
        self.optimizer.zero_grad()
        if self.sampler is None:
            self.backward(index)
        else:
            with self.sampler.step(index):
                self.backward(index)
        self.optimizer.step()

    def backward(self, index):
        nn.functional.cross_entropy(self.model(self.x[index]), self.y[index]).backward()


def parts(make, steps):
    """Median milliseconds of what a sampled step is made of."""
    run = Run(make, {})
    capture = run.sampler._capture
    each = nn.CrossEntropyLoss(reduction="none")
    found = []
    for _ in range(steps):
        index = torch.randint(len(run.x), (BATCH,), generator=run.draw)
        clock = [time.process_time()]

        def tick(clock=clock):
            clock.append(time.process_time())

        run.backward(index)
        tick()
        run.optimizer.step(), run.optimizer.zero_grad()
        tick()
        with capture.training(BATCH) as batch:
            run.backward(index)
        tick()
        batch.gram()
        tick()
        targets = capture.of(each, run.x[:POINTS], run.y[:POINTS])
        tick()
        batch.cross(targets)
        tick()
        run.optimizer.step(), run.optimizer.zero_grad()
        found.append([1e3 * (b - a) for a, b in pairwise(clock)])
    plain, _, captured, gram, of, cross = (median(p) for p in zip(*found, strict=True))
    return captured - plain, gram, of, cross


def flops(make):
    """Operations of a plain step and of the Gram matrix, by torch's own count."""
    from torch.utils.flop_counter import FlopCounterMode

    run = Run(make, {})
    with FlopCounterMode(display=False) as counter:
        run.backward(torch.arange(BATCH))
    with run.sampler.step(range(BATCH)):
        run.backward(torch.arange(BATCH))
    gram = sum(row.flops for row in run.sampler.plan())
    return counter.get_total_flops(), gram


def peak(run, steps=10):
    """Bytes above those of the model and data that some steps reach, on Linux."""
    run.step()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    for _ in range(steps):
        run.step()
    return _status("VmHWM") - before


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(k.split()[1]) for k in lines if k.startswith(name))


def main():
    torch.set_num_threads(1)
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("| model | watched | ratio | 95 % interval | plain ms | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for name, make in MODELS.items():
        plain_peak = peak(Run(make))
        for what, watched in WATCHED.items():
            plain, sampled = Run(make), Run(make, watched)
            cost = measure_overhead(plain.step, sampled.step, pairs)
            grown = peak(Run(make, watched))
            print(
                f"| {name} | {what} | {cost.ratio:.2f} | {cost.low:.2f}-{cost.high:.2f}"
                f" | {1e3 * cost.plain:.2f} | {plain_peak / 2**20:.1f} to "
                f"{grown / 2**20:.1f} |"
            )
    print("\n| model | hooks ms | gram ms | target pass ms | cross ms | products |")
    print("|---|---|---|---|---|---|")
    for name, make in MODELS.items():
        step, gram = flops(make)
        times = " | ".join(f"{t:.2f}" for t in parts(make, pairs))
        print(f"| {name} | {times} | {gram / step:.2f} |")


if __name__ == "__main__":
    main()
