"""That sampling on a GPU harms nothing, and sees what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from _gpu_subjects import METRICS, Subject
from torch import Tensor

from fstat_torch import SingleRunSampler

_STEPS = 6
_EXACT = 1e-6  # in double precision
# Bits of the mantissa, 8 and 11, and errors that add up over layers.
_HALF = {torch.bfloat16: 0.1, torch.float16: 0.02}
Make = Callable[..., Subject]


class Check(NamedTuple):
    """One thing that was tried.

    Parameters
    ----------
    what, subject : str
        What is promised, and of which model.
    found : str
        What came out.
    right : bool
        Whether that is what is promised.
    """

    what: str
    subject: str
    found: str
    right: bool


def unharmed(name: str, make: Make, device: str) -> Iterator[Check]:
    """Compare training with and without a sampler, bit by bit."""
    plain = _trained(make(device))
    # A device that does not repeat itself can show nothing.
    again = _differences(plain, _trained(make(device)))
    yield _bits("plain training repeats itself", name, again)
    for metric in METRICS:
        found = _differences(plain, _trained(make(device), metric))
        yield _bits(f"training is unharmed, metric {metric}", name, found)


def _bits(what: str, name: str, different: list[str]) -> Check:
    said = "bit by bit" if not different else f"differs: {', '.join(different[:3])}"
    return Check(what, name, said, not different)


def _trained(
    subject: Subject, metric: str | None = None, **options: Any
) -> dict[str, Tensor]:
    """Return all that training leaves: parameters, losses, states and generators."""
    sampler = None if metric is None else subject.sampler(metric)
    losses = [subject.step(b, sampler, **options) for b in subject.batches(_STEPS)]
    if sampler is not None:
        if sampler.compares_at_snapshots:
            sampler.snapshot()
        sampler.close()
    found = {f"losses[{k}]": loss for k, loss in enumerate(losses)}
    found |= dict(subject.model.state_dict())
    for k, state in subject.optimizer.state_dict()["state"].items():
        found |= {f"optimizer[{k}].{n}": v for n, v in state.items() if v is not None}
    found["generator"] = torch.get_rng_state()
    if subject.device.type == "cuda":
        found["generator of the GPU"] = torch.cuda.get_rng_state()
    return found


def _differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [k for k in one if not torch.equal(torch.as_tensor(one[k]), other[k])]


def exact(name: str, make: Make, device: str) -> Iterator[Check]:
    """Compare alignments and norms with gradients of one example at a time."""
    subject = make(device, dtype=torch.float64)
    index = subject.batches(1)[0]
    expected, norms = _by_hand(subject, index)
    subject.targets["self"] = "self"
    sampler = subject.sampler()
    subject.step(index, sampler)
    columns = sampler.trace.columns()
    sampler.close()
    for what, found, right in (
        ("alignments are exact", columns["alignment"], expected),
        ("norms of gradients are exact", columns["norm_squared"], norms),
    ):
        error = np.abs(found - right).max() / np.abs(right).max()
        yield Check(what, name, f"error {error:.0e}", bool(error <= _EXACT))


def _by_hand(subject: Subject, index: Tensor) -> tuple[np.ndarray, np.ndarray]:
    trained = [p for p in subject.model.parameters() if p.requires_grad]

    def gradient(value: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, trained)])

    goods = []
    for target in subject.targets.values():
        output = subject.output(target.x)
        measure = target.measure or (lambda output, y: -subject.each(output, y))
        goods.append(gradient(measure(output, target.y).mean()))
    rows = []
    for k in range(len(index)):
        one, its = subject.inputs(index[k : k + 1])
        rows.append(gradient(subject.each(subject.output(one), its).sum()))
    own = torch.stack(rows)
    # A step goes down the loss, and so against its gradient.
    aligned = -own @ torch.stack(goods).T
    return aligned.cpu().numpy(), (own**2).sum(dim=1).cpu().numpy()


def half(name: str, make: Make, device: str, dtype: torch.dtype) -> Iterator[Check]:
    """Compare half precision with single, and let a step overflow."""
    said = str(dtype).removeprefix("torch.")
    scaled = dtype == torch.float16
    what = f"{said}{' with GradScaler' if scaled else ''}"

    def scaler() -> Any:
        return _scaler(device) if scaled else None

    def columns(**options: Any) -> dict[str, np.ndarray]:
        subject = make(device)
        sampler = subject.sampler(scaler=options.get("scaler"))
        subject.step(subject.batches(1)[0], sampler, **options)
        sampler.close()
        return sampler.trace.columns()

    single = columns()["alignment"]
    error = np.abs(columns(cast=dtype, scaler=scaler())["alignment"] - single).max()
    error /= np.abs(single).max()
    right = bool(error <= _HALF[dtype])
    yield Check(f"alignments in {what}", name, f"error {error:.0e} of single", right)
    plain = _scaled(make(device), dtype, scaler(), None)
    told = _scaled(make(device), dtype, scaler(), "plain")
    yield _bits(f"training is unharmed in {what}", name, _differences(plain, told))
    if scaled:
        yield _overflow(name, make, device, dtype)


def _scaled(
    subject: Subject, dtype: torch.dtype, scaler: Any, metric: str | None
) -> dict[str, Tensor]:
    options: dict[str, Any] = {"cast": dtype, "scaler": scaler}
    if metric is None:
        return _trained(subject, **options)
    sampler = subject.sampler(metric, scaler=scaler)
    subject.sampler = lambda _: sampler  # type: ignore[method-assign]
    return _trained(subject, metric, **options)


def _overflow(name: str, make: Make, device: str, dtype: torch.dtype) -> Check:
    """A step that the scaler leaves out is no observation, and ends nothing."""
    at, left = 3, []
    for watched in (False, True):
        subject, scaler = make(device), _scaler(device)
        sampler = subject.sampler(scaler=scaler) if watched else None
        for k, index in enumerate(subject.batches(_STEPS)):
            factor = float("inf") if k == at else 1.0
            subject.step(index, sampler, cast=dtype, scaler=scaler, factor=factor)
        left.append(subject.model.state_dict())
    sampler.close()
    aligned = sampler.trace.columns()["alignment"].reshape(_STEPS, -1)
    usable = np.isfinite(aligned).all(axis=1)
    right = usable.tolist() == [k != at for k in range(_STEPS)]
    right = right and not _differences(*left)
    said = f"{int(usable.sum())} of {_STEPS} steps are observations"
    return Check("a step that overflows is passed over", name, said, right)


def _scaler(device: str) -> Any:
    return torch.amp.GradScaler(torch.device(device).type, init_scale=2.0**10)


def one_process(name: str, make: Make, device: str, backend: str) -> Iterator[Check]:
    """Compare DistributedDataParallel of one process with none."""
    alone = _trace(make(device))
    with TemporaryDirectory() as folder:
        dist.init_process_group(
            backend, init_method=(Path(folder) / "store").as_uri(), rank=0, world_size=1
        )
        try:
            subject = make(device)
            wrapped = torch.nn.parallel.DistributedDataParallel(subject.model)
            subject.model = wrapped
            together = _trace(subject, distributed=True)
        finally:
            dist.destroy_process_group()
    error = max(
        np.abs(together[key] - column).max() / max(np.abs(column).max(), 1e-30)
        for key, column in alone.items()
    )
    what = f"one process of {backend} leaves the trace of none"
    yield Check(what, name, f"error {error:.0e}", bool(error <= 1e-5))


def _trace(subject: Subject, **options: Any) -> dict[str, np.ndarray]:
    sampler: SingleRunSampler = subject.sampler(**options)
    for index in subject.batches(_STEPS):
        subject.step(index, sampler)
    sampler.close()
    return sampler.trace.columns()
