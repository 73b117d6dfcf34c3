"""An interrupt at any line of the sampler leaves a run that can be gone on with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torture.interrupting import Interrupting

import fstat_torch
from fstat.records import trace, trace_columns
from fstat_torch import SingleRunSampler
from fstat_torch.sampling import (
    aligned_steps,
    block_capture,
    clipping,
    faults,
    loop,
    recorded,
    sampler,
    update,
)

STEPS, BATCH, AT = 4, 4, 1
TARGETS = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)), torch.arange(3)


PACKAGE = str(Path(fstat_torch.__file__).parent)
# Where hooks come on and off.
HOOKING = (
    *("ForwardHook.__init__", "ForwardHook.remove", "Recording.start"),
    *("Recording.stop", "Repetition.watching", "TrainingPass.__enter__"),
    *("TrainingPass.__exit__", "Verification.begin", "Verification.began"),
    *(
        "Verification._listen",
        "Verification.end",
        "BlockCapture._leave",
        "BlockCapture.open",
    ),
)


class Run:
    """A run of few steps, whose updates are counted where they are made."""

    def __init__(self, clip_factor=None, told=True, state=None):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(STEPS * BATCH, 6, generator=generator)
        self.y = torch.arange(STEPS * BATCH) % 3
        self.model = nn.Linear(6, 3)
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        optimizer = self.optimizer if told else None
        self.sampler = SingleRunSampler(
            self.model, targets=TARGETS, optimizer=optimizer
        )
        self.clip_factor = clip_factor
        if state is not None:
            model, saved = state
            self.model.load_state_dict(model)
            self.sampler.load_state_dict(saved)

    def step(self, k):
        rows = slice(k * BATCH, (k + 1) * BATCH)
        self.optimizer.zero_grad()
        with self.sampler.step(torch.arange(STEPS * BATCH)[rows]) as step:
            step.clip_factor = self.clip_factor
            loss = nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows])
            loss.backward()
        self.optimizer.step()

    def state(self):
        model = {k: v.clone() for k, v in self.model.state_dict().items()}
        return model, self.sampler.state_dict()

    def rows(self):
        columns = self.sampler.trace.columns()
        aligned = columns["alignment"].reshape(-1, BATCH * 3)
        rates = columns["learning_rate"][:, None]
        rows = np.concatenate([rates, aligned], axis=1)
        return dict(zip(columns["step"].tolist(), rows, strict=True))


SAMPLER = {
    part.__file__
    for part in (sampler, recorded, loop, faults, aligned_steps, block_capture)
}
ROWS = {part.__file__ for part in (clipping, update, trace, trace_columns)}


def of_the_sampler(code):
    return code.co_filename in SAMPLER


def of_rows(code):
    return code.co_filename in ROWS


def of_hooks(code):
    return code.co_filename.startswith(PACKAGE) and code.co_qualname in HOOKING


def hooks(model):
    held = [p._backward_hooks or {} for p in model.parameters()]
    held += [m._forward_hooks for m in model.modules()]
    held += [m._forward_pre_hooks for m in model.modules()]
    return sum(map(len, held))


def uninterrupted(*options):
    run, weights = Run(*options), []
    for k in range(STEPS):
        weights.append(run.model.weight.detach().clone())
        run.step(k)
    return [*weights, run.model.weight.detach().clone()], run.rows()


@pytest.mark.parametrize(
    ("of_lines", "clip_factor", "told", "every"),
    [
        (of_the_sampler, None, True, 2),
        (of_the_sampler, 0.5, True, 3),
        (of_the_sampler, None, False, 3),
        (of_rows, None, True, 3),
    ],
)
def test_a_run_interrupted_at_any_line_goes_on_from_what_it_saved(
    of_lines, clip_factor, told, every
):
    weights, expected = uninterrupted(clip_factor, told)
    at = 0
    while True:
        run, act = Run(clip_factor, told), Interrupting(at, of_lines)
        for k in range(AT):
            run.step(k)
        with act:
            run.step(AT)
            run.sampler.trace.flush()
        if not act.done:
            break
        weight = run.model.weight.detach()
        made = next(k for k, w in enumerate(weights) if torch.equal(w, weight))
        assert run.sampler.n_steps == made, f"interrupted at line {at}"
        again = Run(clip_factor, told, run.state())
        assert again.sampler.n_steps == made
        for k in range(made, STEPS):
            again.step(k)
        assert torch.equal(again.model.weight, weights[-1])
        found = again.rows()
        assert found.keys() == expected.keys(), f"interrupted at line {at}"
        for step, row in found.items():
            np.testing.assert_array_equal(row, expected[step])
        at += every
    assert at > 50


def test_an_interrupt_where_hooks_come_on_or_off_leaves_none():
    at, act = 0, None
    while act is None or act.done:
        run, act = Run(), Interrupting(at, of_hooks)
        with act:
            run.step(0)
        assert hooks(run.model) == 0, f"interrupted at line {at}"
        at += 1
    assert at > 50


def test_hooks_of_the_user_stay_after_an_interrupt():
    run = Run()
    mine = run.model.register_forward_hook(lambda *_: None)
    run.model.weight.register_hook(lambda _: None)
    with Interrupting(20, of_the_sampler):
        run.step(0)
    assert hooks(run.model) == 2
    mine.remove()
    run.sampler.close()
