"""CPU time and memory of a sampled training step, against a plain one.

Plain and sampled steps alternate; a ratio is the median over pairs of neighbouring
steps, with its 95 % interval. "all steps" is the same over pairs of 32 steps in a row,
which holds what is done once in so many: rows are taken into the trace, gradients
compared. "bound" is the ratio that is left if nothing but the inner products and plain
passes of the targets took time, timed in the same run.

    python tests/benchmarks/bench_gradients.py [--seconds 4] [--write]

`--write` puts the tables into docs/training-loops.md.
"""

import argparse
import ctypes
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import nn

from fstat_torch import SingleRunSampler, Targets
from fstat_torch.overhead import measure_overhead

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "studies"))
from _cache import fill

SELF, SELDOM = "self", "16 targets, refresh 10"
OF_LAYERS = {SELF: {}, "16 targets": {"points": 16}}
OF_LAYERS |= {SELDOM: {"points": 16, "refresh": 10}}
OF_ADAPTERS = {SELF: {}, SELDOM: OF_LAYERS[SELDOM]}
OF_ALL = {"4 targets, refresh 10": {"points": 4, "refresh": 10}}


HEAD = ("model", "watched", "ratio", "all steps", "bound", "plain step", "capture")
HEAD += ("products", "targets", "rest", "memory, MB")
UNIT = "a plain training step"
RATIOS: dict[str, float] = {}
TOGETHER = 32  # steps whose rows are taken into the trace at once


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


class Llama(nn.Module):
    """A small Llama that gives its logits, with adapters or without."""

    def __init__(self, rank=None):
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        from fstat_torch.llama.models import add_lora

        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=2048,
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=4,
                num_attention_heads=4,
                use_cache=False,
            )
        )
        if rank is not None:
            self.model = add_lora(self.model, rank)

    def forward(self, x):
        return self.model(input_ids=x).logits


class Recurrent(nn.Module):
    """A recurrent layer over the rows of an image, and its last state's logits."""

    def __init__(self, kind, packed=False):
        super().__init__()
        self.layer = getattr(nn, kind)(28, 64, batch_first=True)
        self.head, self.packed = nn.Linear(64, 10), packed

    def forward(self, x):
        x = x[:, 0]
        if self.packed:
            lengths = torch.full((len(x),), x.shape[1])
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        state = self.layer(x)[1]
        return self.head((state[0] if isinstance(state, tuple) else state)[-1])


def images():
    return torch.randn(2000, 1, 28, 28), torch.randint(10, (2000,))


def tokens():
    x = torch.randint(2048, (200, 64))
    return x, x


def of_image(output, y):
    return nn.functional.cross_entropy(output, y, reduction="none")


def of_text(output, y):
    logits, y = output[:, :-1].transpose(1, 2), y[:, 1:]
    return nn.functional.cross_entropy(logits, y, reduction="none").mean(1)


# What is trained, on what, in batches of how many, and what is asked of it.
MODELS = {
    "MLP 784-128-10": (partial(mlp, 784, 128, 10), images, 64, OF_LAYERS),
    "MLP 784-512-256-10": (partial(mlp, 784, 512, 256, 10), images, 64, OF_LAYERS),
    "MLP 784-1024-1024-10": (partial(mlp, 784, 1024, 1024, 10), images, 64, OF_LAYERS),
    "small CNN": (small_cnn, images, 64, OF_LAYERS),
    "small Llama, adapters": (partial(Llama, 8), tokens, 16, OF_ADAPTERS),
    "small Llama, all": (Llama, tokens, 8, OF_ALL),
}
RECURRENT = {
    "`nn.LSTM`": partial(Recurrent, "LSTM"),
    "`nn.GRU`": partial(Recurrent, "GRU"),
    "`nn.RNN`": partial(Recurrent, "RNN"),
    "`nn.LSTM`, packed, last state": partial(Recurrent, "LSTM", packed=True),
}


class Run:
    """A model in training, sampled or not."""

    def __init__(self, name, watched=None):
        of_layer = RECURRENT.get(name), images, 64, None
        make, data, self.batch, _ = MODELS.get(name, of_layer)
        torch.manual_seed(0)
        self.x, self.y = data()
        self.each = of_text if data is tokens else of_image
        self.model = make()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=0.01)
        self.batches = self.epochs()
        self.sampler = None
        if watched is not None:
            options = dict(watched)
            points, refresh = options.pop("points", 0), options.pop("refresh", 1)
            if points:
                asked = self.x[:points], self.y[:points]
                options["targets"] = Targets(asked, refresh=refresh)
            self.sampler = SingleRunSampler(
                self.model, optimizer=self.optimizer, loss=self.each, **options
            )

    def epochs(self):
        """Batches of examples in random order, none twice in one."""
        draw, whole = torch.Generator().manual_seed(1), len(self.x) // self.batch
        while True:
            order = torch.randperm(len(self.x), generator=draw)
            yield from order[: whole * self.batch].split(self.batch)

    def step(self):
        index = next(self.batches)
        self.optimizer.zero_grad()
        if self.sampler is None:
            self.backward(index)
        else:
            with self.sampler.step(index):
                self.backward(index)
        self.optimizer.step()

    def backward(self, index):
        self.each(self.model(self.x[index]), self.y[index]).mean().backward()


def parts(name, watched, steps):
    """Median milliseconds of what a sampled step is made of.

    Returns
    -------
    tuple of float
        Capturing, beyond a plain pass; inner products; a pass of the targets, watched
        and plain.
    """
    run = Run(name, watched)
    run.step()
    capture, points = run.sampler._capture, slice(watched.get("points", 0))
    found = []
    for _ in range(steps):
        index = next(run.batches)
        clock = [time.process_time()]

        def tick(clock=clock):
            clock.append(time.process_time())

        run.backward(index)
        tick()
        with capture.training(run.batch) as batch:
            run.backward(index)
        tick()
        if points.stop:
            targets = capture.of(run.each, run.x[points], run.y[points])
            tick()
            batch.cross(targets)
            tick()
            run.backward(points)
        else:
            tick()
            batch.gram()
            tick()
        tick()
        run.optimizer.step(), run.optimizer.zero_grad()
        found.append([1e3 * (b - a) for a, b in pairwise(clock)])
    plain, captured, aims, products, passed = (
        median(p) for p in zip(*found, strict=True)
    )
    return captured - plain, products, aims, passed


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


def several(run):
    """Take as many steps as have their rows taken in at once."""
    for _ in range(TOGETHER):
        run.step()


def in_turn(name, watched, seconds):
    """Time plain and sampled steps; return their runs, the cost, and the pairs."""
    plain, sampled = Run(name), Run(name, watched)
    for run in (plain, sampled):
        run.step()
    began = time.process_time()
    plain.step(), sampled.step()
    pairs = max(30, min(1000, int(seconds / (time.process_time() - began))))
    return plain, sampled, measure_overhead(plain.step, sampled.step, pairs), pairs


def row(name, what, watched, seconds):
    """Measure one case; return its line of the table."""
    plain, sampled, cost, pairs = in_turn(name, watched, seconds)
    rows = max(10, pairs // TOGETHER)
    pair = partial(several, plain), partial(several, sampled)
    every = measure_overhead(*pair, rows, warm_up=1)
    captured, products, aims, passed = parts(name, watched, min(pairs, 200))
    refresh = watched.get("refresh", 1)
    ms = 1e3 * cost.plain
    # The ratio, and not the difference of two medians, is what contention spares.
    rest = (cost.ratio - 1) * ms - captured - products - aims / refresh
    bound = 1 + (products + passed / refresh) / ms
    memory = peak(Run(name)), peak(Run(name, watched))
    RATIOS[f"{name}: {what}"] = cost.ratio
    return (
        f"| {name} | {what} | {cost.ratio:.2f} ({cost.low:.2f}-{cost.high:.2f}) "
        f"| {every.ratio:.2f} ({every.low:.2f}-{every.high:.2f}) "
        f"| {bound:.2f} | {ms:.2f} | {captured:.2f} | {products:.2f} "
        f"| {aims / refresh:.2f} | {rest:.2f} "
        f"| {memory[0] / 2**20:.0f} to {memory[1] / 2**20:.0f} |"
    )


def line(*cells):
    """Print one line of a table, and return it."""
    text = f"| {' | '.join(cells)} |"
    print(text, flush=True)
    return text


def of_models(seconds):
    """Return the table of sampled steps and what they are made of."""
    lines = [line(*HEAD), line(*["---"] * len(HEAD))]
    for name, (*_, asked) in MODELS.items():
        for what, watched in asked.items():
            lines.append(row(name, what, watched, seconds))
            print(lines[-1], flush=True)
    return "\n".join(lines)


def of_recurrent_layers(seconds):
    """Return the table of recurrent layers: 28 times, 64 states, batches of 64."""
    lines = [line("layer", "plain step, ms", "sampled over plain")]
    lines.append(line("---", "---", "---"))
    for name in RECURRENT:
        cost = in_turn(name, {}, seconds)[2]
        RATIOS[name.replace("`", "")] = cost.ratio
        ratio = f"{cost.ratio:.1f} ({cost.low:.1f}-{cost.high:.1f})"
        lines.append(line(name, f"{1e3 * cost.plain:.1f}", ratio))
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="CPU time a row")
    parser.add_argument("--write", action="store_true", help="write the tables")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    tables = {
        "overhead": of_models(given.seconds),
        "recurrent layers": of_recurrent_layers(given.seconds),
    }
    if given.write:
        for name, table in tables.items():
            fill("training-loops.md", name, table, __file__, "fstat_torch")


if __name__ == "__main__":
    main()
