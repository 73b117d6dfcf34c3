"""What becomes of one model: exact, or refused with a sentence."""

import sys
import traceback
import warnings
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from oracles.gradients import alone, together

import fstat_torch
from fstat_torch import Curvature, SingleRunSampler, Target
from fstat_torch.gradients import GradientCapture, UnsupportedModelError

PACKAGE = Path(fstat_torch.__file__).parent
SIZES = (4, 3)  # of two training passes


@dataclass
class Outcome:
    """How a model fared.

    ``kind`` is "exact", "refused", "WRONG" or "error"; ``detail`` the largest relative
    error, or the sentence.
    """

    kind: str
    detail: str


def each_loss(output, y):
    """One number an example, of all of the first output."""
    first = first_of_all(output)
    first = torch.view_as_real(first) if first.is_complex() else first
    return (first.flatten(1).sin() * y.unsqueeze(1)).mean(1)


def first_of(output):
    if hasattr(output, "logits") and output.logits is not None:
        return output.logits
    return output[0]


def rows_of(x, rows):
    if isinstance(x, dict):
        return {k: v[rows] for k, v in x.items()}
    return tuple(v[rows] for v in x) if isinstance(x, tuple) else x[rows]


def call(model, x):
    if isinstance(x, dict):
        return model(**x)
    return model(*x) if isinstance(x, tuple) else model(x)


def doubled(x):
    if isinstance(x, dict):
        return {k: doubled(v) for k, v in x.items()}
    if isinstance(x, tuple):
        return tuple(map(doubled, x))
    return x.double() if x.dtype is torch.float32 else x


def outcomes(model, batch, parameters=None):
    """How a model fares in training, and where a reference is gone through.

    In training: inner products of the examples with one another and with targets, of
    two batches of different sizes, with dropout as the model has it. With a reference:
    scores in eval mode, plain and in a curvature metric. Both against brute force.
    """
    torch.manual_seed(0)
    model = model.double().train()
    if parameters is None:
        parameters = [p for p in model.parameters() if p.requires_grad]
    else:
        parameters = parameters(model)
    return {
        "in training": outcome(_in_training, model, batch, parameters),
        "with a reference": outcome(_with_reference, model, batch, parameters),
    }


def outcome(compare, *arguments):
    """Compare with brute force."""
    try:
        errors = compare(*arguments)
    except Exception as error:
        return failed(error)
    worst = max(errors.values())
    kind = "exact" if worst < 1e-6 else "WRONG"
    return Outcome(kind, f"{worst:.0e}" if kind == "exact" else str(errors))


def failed(error):
    """Tell a sentence of ours from the errors of others."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(frames[-1].filename).is_relative_to(PACKAGE)
    if isinstance(error, UnsupportedModelError | ValueError | RuntimeError) and ours:
        return Outcome("refused", str(error))
    traceback.print_exception(error, file=sys.stderr)
    where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
    return Outcome("error", f"{type(error).__name__} at {where}: {error}")


def _in_training(model, batch, parameters):
    capture = GradientCapture(model, parameters)
    buffers = [b.clone() for b in model.buffers()]
    errors = {}

    def restored():
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.data = value.clone()

    torch.manual_seed(1)
    x, y = doubled(batch(3)), torch.randn(3).double()
    model.eval()
    expected = alone(model, _losses(x, y), 3, parameters)
    targets = capture.of(each_loss, x, y)
    errors["targets"] = _error(targets.gram(), expected @ expected.mT)
    for number, n in enumerate(SIZES):
        torch.manual_seed(2 + number)
        x, y = doubled(batch(n)), torch.randn(n).double()
        model.train()

        def losses(m, rows, x=x, y=y):
            restored()
            return _losses(x, y)(m, rows)

        rows = together(model, losses, n, parameters)
        captured = _captured(capture, losses, n, restored)
        captured.verify({k: p.grad for k, p in model.named_parameters()})
        errors[f"self {n}"] = _error(captured.norms_squared(), rows.square().sum(1))
        errors[f"plain {n}"] = _error(captured.cross(targets), rows @ expected.mT)
        restored()
    return errors


def _with_reference(model, batch, parameters):
    torch.manual_seed(1)
    x, y = doubled(batch(4)), torch.randn(4).double()
    x_targets, y_targets = doubled(batch(3)), torch.randn(3).double()
    found = {}
    for metric in ("plain", Curvature(4, kind="fisher", landmarks=None)):
        sampler = SingleRunSampler(
            model,
            targets=Target.each(x_targets, y_targets),
            loss=each_loss,
            parameters=parameters,
            metric=metric,
            reference=[(torch.arange(4), x, y)],
        )
        sampler.snapshot(step=1)
        found[str(metric)] = torch.as_tensor(sampler.snapshots.scores[0])
    model.eval()
    each = alone(model, _losses(x, y), 4, parameters)
    aims = alone(model, _losses(x_targets, y_targets), 3, parameters)
    model.train()
    ridge = each.square().sum(1).mean()
    # E (E'E + r)^-1 = (EE' + r)^-1 E, the latter of a small matrix.
    small = each @ each.mT + ridge * torch.eye(4).double()
    plain = each @ aims.mT
    expected = plain, torch.linalg.solve(small, plain)
    return {
        name: _error(scores, right)
        for (name, scores), right in zip(found.items(), expected, strict=True)
    }


def _captured(capture, losses, n, restored, tries=3):
    """Capture a pass, once more where a layer was used for the first time."""
    restored()
    capture.model.zero_grad()
    torch.manual_seed(0)
    try:
        with capture.training(n) as captured:
            losses(capture.model, slice(0, n)).sum().backward()
    except UnsupportedModelError as error:
        if tries == 0 or "the next step compares" not in str(error):
            raise
        return _captured(capture, losses, n, restored, tries - 1)
    return captured


def _losses(x, y):
    return lambda m, rows: each_loss(call(m, rows_of(x, rows)), y[rows])


def _error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def harm(model, batch):
    """What training leaves otherwise when a sampler watches it, a list of words."""
    states = []
    for watched in (False, True):
        torch.manual_seed(4)
        own = deepcopy(model).train()
        optimizer = torch.optim.SGD(own.parameters(), lr=0.01)
        sampler = SingleRunSampler(own, optimizer=optimizer) if watched else None
        seen = {}
        for number in range(2):
            optimizer.zero_grad()
            x, y = batch(4), torch.randn(4)
            with _watched(sampler):
                output = call(own, x)
                loss = each_loss(output, y).mean()
                loss.backward()
            seen[f"output {number}"] = first_of_all(output).detach().clone()
            seen[f"loss {number}"] = loss.detach()
            for name, p in own.named_parameters():
                grad = p.grad if p.grad is not None else torch.zeros(())
                seen[f"gradient {number} of {name}"] = grad.to_dense().clone()
            optimizer.step()
        seen |= {f"buffer {name}": b for name, b in own.named_buffers()}
        seen |= {f"flag {n}": torch.tensor(m.training) for n, m in own.named_modules()}
        seen["random state"] = torch.get_rng_state()
        states.append(seen)
    plain, other = states
    keys = plain.keys() | other.keys()
    return [k for k in keys if not _same(plain.get(k), other.get(k))]


def first_of_all(output):
    return output if isinstance(output, torch.Tensor) else first_of(output)


def _same(a, b):
    if a is None or b is None or a.shape != b.shape:
        return False
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


@contextmanager
def _watched(sampler):
    """Watch a step; what is refused must not have changed anything."""
    if sampler is None:
        yield
        return
    try:
        with warnings.catch_warnings(), sampler.step(range(4)):
            warnings.simplefilter("ignore")
            yield
    except UnsupportedModelError:
        pass
