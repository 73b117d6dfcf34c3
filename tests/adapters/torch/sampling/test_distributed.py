"""Several processes leave the trace that one would leave on the same batches.

Run by torchrun, this file trains with and without a sampler and saves what came out.
"""

import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import numpy as np  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402

from fstat import Snapshots, Storage, Trace  # noqa: E402
from fstat_torch import (  # noqa: E402
    PassedOverWarning,
    SingleRunSampler,
    UnsupportedModelError,
)

N, STEPS = 60, 14
ROOT = Path(__file__).parents[4]
SHARES = {"even": [6, 6], "ragged": [7, 5]}


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    ).double()


def data():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(N, 6, generator=g, dtype=torch.float64)
    return x, torch.randint(3, (N,), generator=g)


def targets():
    x, y = data()
    return {"self": "self", "one": (x[:1], y[:1]), "group": (x[1:5], y[1:5])}


def batches():
    g = torch.Generator().manual_seed(2)
    return [torch.randperm(N, generator=g)[:12] for _ in range(STEPS)]


def train(model, shares, rank=None, micro=1, clip=None, **options):
    """Train on the share of a rank, or on all of them with the same weights.

    Each share's loss is a mean, and the shares' gradients are averaged.
    """
    x, y = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    sampler = None
    if options:
        sampler = SingleRunSampler(model, optimizer=optimizer, **options)
    for batch in batches():
        optimizer.zero_grad()
        own = batch if rank is None else batch.split(shares)[rank]
        for k, index in enumerate(own.chunk(micro)):
            last = k + 1 == micro
            sync = getattr(model, "no_sync", None)
            with torch.enable_grad() if last or sync is None else sync():
                if sampler is None:
                    loss_of(model, x, y, index, shares, rank, micro).backward()
                    continue
                with sampler.step(index, accumulate=not last):
                    loss_of(model, x, y, index, shares, rank, micro).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return sampler


def loss_of(model, x, y, index, shares, rank, micro):
    losses = nn.functional.cross_entropy(model(x[index]), y[index], reduction="none")
    if rank is None:
        return torch.stack([part.mean() for part in losses.split(shares)]).mean()
    return losses.mean() / micro


def reference():
    x, y = data()
    return [(index, x[index], y[index]) for index in torch.arange(N).split(25)]


def snapshots(model, folder):
    """Take snapshots of a reference, the batches of which are shared."""
    sampler = SingleRunSampler(
        model, targets=targets(), reference=reference(), storage=folder / "anew"
    )
    sampler.snapshot(step=STEPS)
    assert sampler.snapshots.steps == [STEPS]
    sampler.close()
    again = SingleRunSampler(
        model, targets=targets(), reference=reference(),
        storage=Storage(folder / "anew", resume=True),
    )  # fmt: skip
    assert np.array_equal(again.snapshots.scores, sampler.snapshots.scores)


def faults():
    """Let one process fail to record some steps: all pass them over."""
    x, y = data()
    rank = dist.get_rank()
    found = []
    for watched in (False, True):
        model = nn.parallel.DistributedDataParallel(build())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        sampler = None
        if watched:
            sampler = SingleRunSampler(model, optimizer=optimizer, targets=targets())
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", PassedOverWarning)
            for t, batch in enumerate(batches()):
                optimizer.zero_grad()
                index = batch.split(6)[rank]
                # A number too few, on the second process alone.
                said = index[:-1] if (rank, t % 5) == (1, 3) else index
                block = nullcontext() if sampler is None else sampler.step(said)
                with block:
                    nn.functional.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()
        found.append(parameters(model))
    assert all(map(torch.equal, *found)), "training was changed"
    assert len(told) == 1 and "where 5 examples" in str(told[0].message)
    assert list(sampler.trace.passed_over.values()) == [3]
    assert sampler.trace.n_steps == STEPS
    if rank == 0:
        steps = sampler.trace.columns(["step"])["step"].tolist()
        assert steps == [t for t in range(STEPS) if t % 5 != 3]
    first_step_is_refused(x, y, rank)


def first_step_is_refused(x, y, rank):
    """What one process cannot record at the first step ends all of them."""
    model = nn.parallel.DistributedDataParallel(build())
    sampler = SingleRunSampler(model, targets=targets())
    index = batches()[0].split(6)[rank]
    said = index[:-1] if rank else index
    with pytest.raises(RuntimeError, match="where 5 examples"), sampler.step(said):
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()


def parameters(model):
    whole = [p.detach() for p in model.parameters()]
    return [p.full_tensor() if hasattr(p, "full_tensor") else p for p in whole]


def main(kind, share, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    micro = 2 if kind == "accumulated" else 1

    def wrapped():
        model = build()
        if kind != "fsdp":
            return nn.parallel.DistributedDataParallel(model)
        from torch.distributed.fsdp import fully_shard

        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        return fully_shard(model)

    plain, sampled = wrapped(), wrapped()
    train(plain, SHARES[share], rank, micro, clip=1.0)
    sampler = train(
        sampled, SHARES[share], rank, micro, clip=1.0,
        targets=targets(), storage=folder / "trace",
    )  # fmt: skip
    sampler.close()
    assert sampler.trace.n_steps == STEPS
    assert sampler.trace.n_recorded == (STEPS if rank == 0 else 0)
    same = zip(parameters(plain), parameters(sampled), strict=True)
    assert all([torch.equal(a, b) for a, b in same]), "training was changed"
    assert sampler.agree(rank == 0) and not sampler.agree(rank == 1)
    if kind == "fsdp":
        sharded_refusals()
        with pytest.raises(ValueError, match="`reference` needs whole parameters"):
            SingleRunSampler(sampled, reference=reference())
    else:
        snapshots(sampled, folder)
        faults()
    refusals(build())
    final = parameters(sampled)
    if rank == 0:
        torch.save(final, folder / "parameters.pt")
    dist.barrier()
    dist.destroy_process_group()


class Scaled(nn.Module):
    """A module without a rule of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(6, 3), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.layer(x) * self.scale[:3]


def sharded_refusals():
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    with pytest.raises(UnsupportedModelError, match="have to be run again"):
        SingleRunSampler(fully_shard(Scaled()))
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    fully_shard(model[0])
    with pytest.raises(UnsupportedModelError, match="all sharded by fully_shard"):
        SingleRunSampler(model)
    older = FullyShardedDataParallel(nn.Linear(4, 4), device_id=torch.device("cpu"))
    with pytest.raises(UnsupportedModelError, match="flattens the parameters"):
        SingleRunSampler(older)


def refusals(model):
    with pytest.raises(ValueError, match="`distributed` must be said"):
        SingleRunSampler(model)
    SingleRunSampler(model, distributed=False)
    assert SingleRunSampler(model, distributed=True)._run.processes.size == 2


def torchrun(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", "2", __file__, *arguments, str(folder)],
        capture_output=True, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "share"),
    [("ddp", "even"), ("ddp", "ragged"), ("accumulated", "even"), ("fsdp", "even")],
)
def test_two_processes_leave_the_trace_of_one(kind, share, tmp_path):
    torchrun(tmp_path, kind, share)
    model = build()
    one = train(model, SHARES[share], clip=1.0, targets=targets()).trace.columns()
    trace = Trace.load(tmp_path / "trace")
    two = trace.columns()
    assert trace.n_steps == STEPS and one.keys() == two.keys()
    if kind == "accumulated":  # the same rows of a step, in another order
        order = [np.argsort(c["index"].reshape(STEPS, -1), axis=1) for c in (one, two)]
        for columns, rows in zip((one, two), order, strict=True):
            rows = (rows + 12 * np.arange(STEPS)[:, None]).ravel()
            for name in columns.keys() - {"step", "batch_size", "target_norm"}:
                if len(columns[name]) == len(rows):
                    columns[name] = columns[name][rows]
    for name, column in one.items():
        scale = np.abs(column).max()
        np.testing.assert_allclose(column, two[name], rtol=0, atol=1e-6 * scale)
    if kind != "fsdp":
        sampler = SingleRunSampler(model, targets=targets(), reference=reference())
        sampler.snapshot(step=STEPS)
        (file,) = (tmp_path / "anew" / "snapshots").iterdir()
        found, expected = Snapshots.load(file).scores, sampler.snapshots.scores
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    final = torch.load(tmp_path / "parameters.pt", weights_only=True)
    for mine, theirs in zip(model.parameters(), final, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-8, atol=1e-10)


def test_data_parallel_in_one_process_is_refused():
    with pytest.raises(UnsupportedModelError, match="one process a device"):
        SingleRunSampler(nn.DataParallel(nn.Linear(2, 2)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
