"""CPU time of a training step with per-example inner products, against without.

Every captured step forms the batch's Gram matrix and its inner products with 16
targets, whose own gradients are captured anew. Plain and captured steps alternate.

    python tests/benchmarks/bench_gradients.py [steps]
"""

import sys
import time
from itertools import pairwise
from statistics import median

import torch
from torch import nn

from fstat_torch.gradients import GradientCapture

BATCH, TARGETS = 64, 16
PARTS = ("capture", "gram, cross", "targets")


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
    "small CNN": small_cnn,
}


def measure(make, steps):
    """Median CPU seconds of a plain step, and of the parts of a captured one."""
    torch.manual_seed(0)
    model = make()
    capture = GradientCapture(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    each = nn.CrossEntropyLoss(reduction="none")
    x, y = torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
    z, w = torch.randn(TARGETS, 1, 28, 28), torch.randint(10, (TARGETS,))

    def backward():
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()

    plain, parts = [], []
    for _ in range(steps):
        start = time.process_time()
        backward()
        optimiser.step()
        plain.append(time.process_time() - start)

        clock = [time.process_time()]
        with capture.training() as batch:
            backward()
        optimiser.step()
        clock.append(time.process_time())
        targets = capture.of(each, z, w)
        clock.append(time.process_time())
        batch.gram(), batch.cross(targets)
        clock.append(time.process_time())
        parts.append([b - a for a, b in pairwise(clock)])
    warm = steps // 5
    return median(plain[warm:]), [median(p) for p in zip(*parts[warm:], strict=True)]


def main():
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{'model':20}{'parameters':>11}{'plain':>10}", end="")
    print(f"{'captured':>10}{'targets':>10}{'products':>10}{'ratio':>7}")
    for name, make in MODELS.items():
        size = sum(p.numel() for p in make().parameters())
        plain, (step, targets, products) = measure(make, steps)
        milliseconds = [1e3 * t for t in (plain, step, targets, products)]
        print(f"{name:20}{size:11,}", *(f"{t:7.2f} ms" for t in milliseconds), end="")
        print(f"{(step + targets + products) / plain:7.2f}")


if __name__ == "__main__":
    main()
