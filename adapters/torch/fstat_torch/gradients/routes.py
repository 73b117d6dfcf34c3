"""Finding, at the first pass, how each unit's gradients are formed.

A plan is made from the modules alone, and may be wrong of a model: the examples may not
be first, or a weight may be used outside of its module. Where what was captured is not
what the pass gives, the unit is tried with the examples elsewhere, and then left to the
module around it, which is run again; what no module of the model gives is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .layer_call import row_weights
from .layout import LAYOUTS, SECOND, fits, layout_of
from .per_example import DISAGREES, Captured
from .plan import ONE_BY_ONE, VECTORISED, Plan, Unit, UnsupportedModelError
from .precision import full_precision
from .recording import Recording
from .repeated_pass import Again

Gradients = dict[str, Tensor]


def settle(
    captured: Captured,
    recording: Recording,
    again: Again,
    form: Callable[[Captured, Recording, int, bool], None],
    coupled: bool = False,
) -> None:
    """Change the plan until what is captured is what a pass gives.

    Parameters
    ----------
    captured : Captured
        What was captured, and is replaced where the plan is changed.
    recording : Recording
        Of what it was made.
    again : Again
        The pass.
    form : callable
        Forms the gradients of a recording, given the number of examples and whether
        there must be any.
    coupled : bool, default=False
        Whether examples may depend on one another, so that only sums are compared.

    Raises
    ------
    UnsupportedModelError
        If a parameter's gradients cannot be split by example.
    """
    plan = captured._plan
    failures: dict[str, Exception] = {}
    tried: dict[str, set[str]] = defaultdict(set)
    while True:
        for unit in plan.units:
            first = unit.runs_again or not tried[unit.key]
            if unit.key in recording.failures and first:
                failures.setdefault(unit.key, recording.failures[unit.key])
        summed, mixed = _failing(captured, again)
        mixed = set() if coupled else mixed
        if not summed | mixed:
            _pin(plan, recording)
            return
        if plan.batch_norm is not None and mixed:
            name = _first_of(mixed, plan)
            raise UnsupportedModelError(
                BATCH_NORM.format(name=name, norm=plan.batch_norm)
            )
        if not _replan(plan, summed | mixed, mixed, recording, tried):
            raise _refusal(plan, summed, mixed, failures)
        recording = again.record(compared=True)
        form(captured, recording, captured.n, False)


def _failing(captured: Captured, again: Again) -> tuple[set[str], set[str]]:
    """Parameters whose sums over the examples are wrong, and whose weighed ones are."""
    whole, weighed = again.truth or ({}, {})
    with torch.no_grad(), full_precision(captured.example):
        blocks = captured.blocks.values()
        plain = _merged(block.sums() for block in blocks)
        weights = (
            row_weights(captured.n, next(iter(whole.values())).real) if whole else None
        )
        mine = _merged(block.sums(weights) for block in blocks)
    summed = captured.disagreements(whole, plain)
    return summed, captured.disagreements(weighed, mine) - summed


def _merged(parts: Iterable[Gradients]) -> Gradients:
    found: Gradients = {}
    for part in parts:
        found |= part
    return found


def _replan(
    plan: Plan,
    failing: set[str],
    mixed: set[str],
    recording: Recording,
    tried: dict[str, set[str]],
) -> bool:
    """Try something else for units whose gradients are wrong; False if nothing is left.

    Sums over the examples do not depend on where these are.
    """
    outside: set[str] = set()
    for unit in plan.units:
        names = failing & set(unit.names.values())
        if not names:
            continue
        unknown = unit.key in recording.failures or names & mixed
        layout = None
        if unknown:
            layout = _next_layout(unit, recording, tried[unit.key])
        if unit.rule == "module" and unit.way == VECTORISED and names - mixed:
            unit.way = (
                ONE_BY_ONE  # its forward may go by the parameters that it is lent
            )
        elif unit.rule == "registered" and layout is None:
            unit.handle_by("module")  # the rule is not that of this module
            plan.generation += 1
        elif layout is None:
            outside |= names
        else:
            tried[unit.key].add(unit.layout)
            unit.layout = layout
            unit.places.clear()
            plan.generation += 1
    return not outside or plan.enclose(outside)


def _pin(plan: Plan, recording: Recording) -> None:
    """Note where examples were found in what units that are run again returned.

    Another dimension may be as long as the batch in a later pass.
    """
    for unit in plan.units:
        places = recording.places[unit.key]
        if recording.n == 1 or not unit.runs_again:
            continue
        for place, shape in places:
            found = layout_of(shape, recording.n, unit.layout, flat=True)
            if found is not None:
                unit.places.setdefault(place, found)
        if set(unit.places.values()) == {SECOND}:
            unit.layout = SECOND


def _next_layout(unit: Unit, recording: Recording, tried: set[str]) -> str | None:
    """Where else the examples may be in what a unit returned."""
    shapes = recording.shapes[unit.key]
    if not shapes or unit.rule == "attention":
        return None
    for layout in LAYOUTS:
        if layout in tried or layout == unit.layout:
            continue
        some = any if unit.runs_again else all
        if some(fits(shape, layout, recording.n) for shape in shapes):
            return layout
    return None


def _refusal(
    plan: Plan, summed: set[str], mixed: set[str], failures: dict[str, Exception]
) -> Exception:
    """Say why the gradients of a parameter cannot be split by example."""
    name = _first_of(summed | mixed, plan)
    for unit in plan.units:
        if name in unit.names.values() and unit.key in failures:
            return failures[unit.key]
    return UnsupportedModelError(
        (MIXES if name in mixed else DISAGREES).format(name=name)
    )


def _first_of(names: set[str], plan: Plan) -> str:
    return next(name for name in plan.parameters if name in names)


BATCH_NORM = (
    "parameter {name!r} lies before {norm}, which normalises with the statistics of "
    "the batch, so that no gradient in it belongs to one example alone: choose with "
    "`parameters=` those that lie wholly after the last such layer, or take gradients "
    "anew in eval mode with `reference=`, or keep such layers in eval mode in training."
)
BATCH_NORM_UNKNOWN = (
    "{norm} normalises with the statistics of the batch, and which parameters lie "
    "wholly after the last such layer cannot be told where the model is not called "
    "once and as a whole: call it so, or take gradients anew in eval mode with "
    "`reference=`, or keep such layers in eval mode in training."
)
MIXES = (
    "the rows of what was captured for {name!r} are not the examples: weighing the "
    "examples does not weigh its gradient, since examples depend on one another. Leave "
    "the parameter out with `parameters=`, or use layers that treat examples one by "
    "one."
)
