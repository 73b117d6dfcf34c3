"""Observations of a record in long form: one row a pair and a step, or a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._validation import FloatArray, IntArray
from .._warnings import warn
from ..observations import Observations
from .divergence import DivergedWarning, telling_steps
from .subsets import SELF, Members


def of_steps(
    rows: dict[str, NDArray[Any]],
    columns: Mapping[str, np.ndarray],
    n_steps: int,
    members: Members,
    targets: list[str],
    standardize: bool,
    quantity: str,
) -> Observations:
    """Put what was observed at the steps of a trace in long form.

    Parameters
    ----------
    rows : dict of str to ndarray
        What `observe_targets` or `observe_self` returned; `p` and `q` are taken out
        of it, so that they are not held twice.
    columns : mapping of str to ndarray
        `step` and `learning_rate` of the trace.
    n_steps : int
        Update steps of the run.
    members : Members
        The subsets.
    targets : list of str
        The targets.
    standardize : bool
        Whether P and Q are standardised.
    quantity : str
        What their mu is.

    Returns
    -------
    Observations
        Of the steps before the run diverged, if it did.
    """
    n_targets = len(targets)
    rate, usable, until = columns["learning_rate"], rows["usable"], ""
    live = telling_steps(rows["finite"])
    if live < len(rate):
        n_steps = int(columns["step"][live])
        rate, usable, until = rate[:live], usable[:live], _until(n_steps)
    weight = np.ones(len(rate)) if np.isnan(rate).any() else rate
    # Steps that were not recorded are taken to be like those that were; of those
    # that were, but cannot be observed, the learning rate is known.
    seen = len(weight) / n_steps if live else 1.0
    used = float(weight[usable].sum())
    recorded = seen * (used / weight.sum() if used > 0 else 1.0)
    norm = np.sqrt(np.sum(weight**2) / seen)
    of_step = np.append(weight, np.zeros(len(rows["finite"]) - live))
    at: IntArray = rows["at"]
    keep = np.isfinite(rows["p"]) & np.isfinite(rows["q"])
    if not keep.any():
        warn(
            "No step was observed: a batch must meet the subset and hold two "
            "examples outside of it, and standardising needs 10 recorded steps "
            "before it."
        )

    def kept(of_row: np.ndarray) -> np.ndarray:
        return np.broadcast_to(of_row[:, None], keep.shape)[keep]

    pair = kept(rows["subset"] * n_targets)
    pair += np.broadcast_to(np.arange(n_targets), keep.shape)[keep]
    return Observations(
        pair=pair,
        p=rows.pop("p")[keep],
        q=rows.pop("q")[keep],
        step=kept(columns["step"][at]),
        weight=kept(of_step[at]),
        names=members.pair_names(targets),
        n_steps=n_steps,
        weight_norm=float(norm) if norm > 0 else None,
        recorded=recorded,
        paired=True,
        scale=1.0 if standardize else None,
        self_influence=targets == [SELF],
        quantity=quantity + until,
    )


def _until(step: int) -> str:
    """Say that a run diverged."""
    warn(
        f"The run diverged: from step {step} on nothing recorded is finite. "
        "Observations are of the steps before.",
        DivergedWarning,
    )
    return f", which diverged at step {step}"


def of_snapshots(
    p: FloatArray,
    q: FloatArray,
    steps: NDArray[np.int64],
    members: Members,
    targets: list[str],
    standardize: bool,
    quantity: str,
) -> Observations:
    """Put what was observed in snapshots in long form.

    Parameters
    ----------
    p, q : ndarray of shape (n_snapshots, n_subsets * n_targets)
        P and Q; NaN where not observed.
    steps : ndarray of int of shape (n_snapshots,)
        Update steps before each snapshot.
    members : Members
        The subsets.
    targets : list of str
        The targets.
    standardize : bool
        Whether P and Q are standardised.
    quantity : str
        What their mu is.

    Returns
    -------
    Observations
        Whose sum over snapshots is their mean.
    """
    keep = np.isfinite(p) & np.isfinite(q)
    at, pair = np.nonzero(keep)
    return Observations(
        pair=pair,
        p=p[keep],
        q=q[keep],
        step=steps[at],
        names=members.pair_names(targets),
        n_steps=len(steps),
        # Snapshots repeat one question: they are averaged, not added up.
        weight_norm=float(len(steps)),
        paired=True,
        scale=1.0 if standardize else None,
        self_influence=targets == [SELF],
        quantity=quantity,
    )
