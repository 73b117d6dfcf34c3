"""A question, the pairs it is asked of, and the decision: what every null shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray
from ..influence import FInfluence
from .result import Selection
from .step_up import at_most
from .warnings import MostSelectedWarning, NothingSelectedWarning, SelectionWarning

OPPOSITE = {"greater": "less", "less": "greater"}
_MANY = 20  # tested pairs from which a selection of most is remarkable


@dataclass(frozen=True)
class Asked:
    """What was asked for, checked."""

    fdr: float
    null: str
    alternative: str
    stronger_than: float
    missed: float
    dependence: str


class Pairs(NamedTuple):
    """What is known of the pairs."""

    score: FloatArray
    names: dict[str, NDArray[np.generic]]
    quantity: str
    influence: FInfluence | None


class Found(NamedTuple):
    """A selection, and what speaks against it."""

    selection: Selection
    doubts: list[SelectionWarning]


def of_sides(
    above: FloatArray, below: FloatArray, alternative: str
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return p-values of an alternative from those of both sides, and the side."""
    if alternative == "greater":
        return above, np.ones(len(above), dtype=int)
    if alternative == "less":
        return below, np.full(len(below), -1)
    both = np.minimum(2 * np.minimum(above, below), 1.0)
    return both, np.sign(np.nan_to_num(below - above)).astype(int)


def decided(
    pairs: Pairs,
    asked: Asked,
    pvalues: FloatArray,
    qvalues: FloatArray,
    sign: NDArray[np.int64],
    strata: NDArray[np.generic] | None,
    **found: Any,
) -> Selection:
    """Return the selection that q-values make, with what else was found."""
    selected = at_most(qvalues, asked.fdr)
    return Selection(
        selected=selected,
        qvalues=qvalues,
        pvalues=pvalues,
        sign=np.where(selected, sign, 0),
        fdr=asked.fdr,
        null=asked.null,
        alternative=asked.alternative,
        dependence=asked.dependence,
        scores=pairs.score,
        names=pairs.names,
        quantity=pairs.quantity,
        n_tested=int((~np.isnan(qvalues)).sum()),
        strata=strata,
        influence=pairs.influence,
        **found,
    )


def outcome(
    selection: Selection, reasons: Callable[[Selection], list[str]]
) -> Iterator[SelectionWarning]:
    """Yield what is remarkable in how many pairs were selected."""
    selected, tested = selection.n_selected, selection.n_tested
    if not tested:
        yield NothingSelectedWarning.untested(len(selection.scores))
    elif not selected:
        said = reasons(selection)
        if selection.n_other_side:
            opposite = OPPOSITE[selection.alternative]
            said.insert(
                0,
                f"On the other side alternative={opposite!r} selects "
                f"{selection.n_other_side}.",
            )
        least = float(np.nanmin(selection.qvalues))
        yield NothingSelectedWarning.of(selection.fdr, least, said)
    elif tested >= _MANY and 2 * selected > tested:
        yield MostSelectedWarning.of(selected, tested, selection.null)
