"""From what a run recorded to a score of each example, or of each group of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from fstat import FInfluence, Observations, Snapshots, select
from fstat._warnings import warn
from fstat.influence import UnestimableWarning
from fstat.methods import Moments
from fstat.selection import Selection

from .data import Example

_SHOWN = ["target", "mu", "low", "high", "qvalue", "selected"]
MANY = 500  # scores from which what most of them look like can be learnt
FloatArray = NDArray[np.float64]


@dataclass
class Scores:
    """How examples, or groups of them, influence targets.

    Parameters
    ----------
    table : pandas.DataFrame
        One row for each example or group: text, source, `target`, `mu`, `low`, `high`,
        `qvalue`, `selected`, and `n_Q`, the observations that they rest on. Where
        there are several targets, mu is the mean of those for each, and `target` says
        so.
    by_target : pandas.DataFrame
        One row for each of them and each target, with interval, p-value, q-value and
        decision of its own.
    selections : dict of str to Selection
        By target, that of `table` first, at the false discovery rate that was asked
        for. None of a target where too little is known for one.
    """

    table: pd.DataFrame
    by_target: pd.DataFrame
    selections: dict[str, Selection]

    @property
    def selection(self) -> Selection | None:
        """That of `table`; None where too little is known for one."""
        return self.selections.get(self.table["target"].iloc[0])


def score(
    recorded: Any,
    examples: Sequence[Example],
    *,
    reference: NDArray[np.bool_] | None = None,
    by_group: bool = False,
    fdr: float = 0.1,
    alternative: str = "two-sided",
) -> Scores:
    """Score each example, or each group, for each target and for all of them.

    Parameters
    ----------
    recorded : Trace, Snapshots or SingleRunSampler
        What `finetune` returned, or whatever else has `observations` of these
        examples.
    examples : sequence of Example
        What was trained on, in the order of its numbers.
    reference : ndarray of bool of shape (n_examples,), optional
        Examples that cannot be what is looked for, such as those that do not speak of
        the entity that the targets are about. Not with `by_group`.
    by_group : bool, default=False
        Whether to score groups; examples without one make up a group of their own.
    fdr : float, default=0.1
        False discovery rate of the selection.
    alternative : {"two-sided", "greater", "less"}, default="two-sided"
        Whether to select what helps or harms the targets, or only one of the two.

    Returns
    -------
    Scores
        Tables and selection.

    Raises
    ------
    ValueError
        If `reference` is not as described.

    Notes
    -----
    An interval is over the steps at which an example was met. These are few, one for
    each epoch, so that their variance is shrunk towards that of all examples. Where
    no example was met twice there is none; the interval then comes from the spread
    over all examples, which holds what differs between them as well. Over all targets,
    mu is the mean of those for each.

    In the metric `Curvature`, the interval is over the snapshots of the run, which
    depend on each other: it is too narrow for anything but their mean.

    Selection is among the other examples against the `reference` by conformal p-values,
    where there is one. Else it is against what most scores look like, for 500 examples
    or more; or else against a mu of 0, where there are independent observations to test
    it.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import Trace
    >>> from fstat_torch.llama import Example
    >>> from fstat_torch.llama.scoring import score
    >>> rng = np.random.default_rng(0)
    >>> trace = Trace(["a", "b"])
    >>> for step in range(60):
    ...     batch = rng.permutation(40)[:8]
    ...     pull = rng.normal(size=(8, 2)) + 3.0 * (batch == 7)[:, None]
    ...     trace.append(step, batch, alignment=pull, target_norm=[1.0, 1.0])
    >>> scores = score(trace, [Example.of("Who?", f"Number {k}.") for k in range(40)])
    >>> scores.table.set_index("answer")["mu"].idxmax()
    'Number 7.'
    >>> scores.selection.n_tested
    40
    """
    if reference is not None:
        _check_reference(reference, len(examples), by_group)
    groups = _groups(examples) if by_group else None
    told = _of_examples(examples) if groups is None else _of_groups(groups)
    subsets: Any = np.arange(len(examples)) if groups is None else groups
    observations = recorded.observations(subsets)
    # Snapshots are not independent, and test nothing.
    tests = not isinstance(recorded, Snapshots)
    tests = tests and not getattr(recorded, "compares_at_snapshots", False)
    frames, selections = [], dict[str, Selection]()
    for part in _by_target(observations, len(told)):
        frame, influence = _fit(part)
        against = influence if tests else None
        mu = frame["mu"].to_numpy()
        found = _select(mu, against, reference, fdr, alternative)
        if found is not None:
            selections[frame["target"].iloc[0]] = found
        frame["qvalue"] = np.nan if found is None else found.qvalues
        frame["selected"] = False if found is None else found.selected
        frames.append(frame)
    table = told.join(frames[0][[*_SHOWN, "n_Q", "quantity"]])
    return Scores(table, _long(told, frames[1:] or frames), selections)


def _long(told: pd.DataFrame, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each example or group and target."""
    columns = [*_SHOWN, "pvalue", "n_Q", "quantity"]
    rows = pd.concat([told.iloc[:, :1].join(frame[columns]) for frame in frames])
    return rows.sort_index(kind="stable").reset_index(drop=True)


def _check_reference(reference: NDArray[np.bool_], n: int, by_group: bool) -> None:
    if by_group:
        raise ValueError("`reference` is of examples, not of groups: leave one out.")
    if reference.shape != (n,) or reference.dtype != bool or reference.all():
        raise ValueError(
            f"`reference` must have one entry for each of {n} examples, true or false, "
            f"and not be true for all, got {reference.dtype} of shape "
            f"{reference.shape}."
        )


def _of_examples(examples: Sequence[Example]) -> pd.DataFrame:
    told = pd.DataFrame(
        {
            "example": np.arange(len(examples)),
            "source": [example.source for example in examples],
            "group": [example.group for example in examples],
            "prompt": [example.prompt for example in examples],
            "answer": [example.answer for example in examples],
        }
    )
    return told.dropna(axis=1, how="all")


def _groups(examples: Sequence[Example]) -> dict[str, NDArray[np.int64]]:
    names = np.array([example.group or "(no group)" for example in examples])
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names)}


def _of_groups(groups: Mapping[str, NDArray[np.int64]]) -> pd.DataFrame:
    sizes = [len(members) for members in groups.values()]
    return pd.DataFrame({"group": list(groups), "n_examples": sizes})


def _fit(observations: Observations) -> tuple[pd.DataFrame, FInfluence | None]:
    """Estimate mu of each pair, from its observations or as one of many."""
    counts = np.bincount(observations.pair, minlength=observations.n_pairs)
    if (counts > 1).sum() < 2:
        return _met_once(observations, counts), None
    with warnings.catch_warnings():
        # Those that were met in the first steps only have no mu in the table.
        warnings.simplefilter("ignore", UnestimableWarning)
        # Few observations: their variance is shrunk towards that of all pairs.
        influence = FInfluence(method=Moments(shrinkage="moderated")).fit(observations)
    return influence.to_frame(), influence


def _met_once(observations: Observations, counts: NDArray[np.intp]) -> pd.DataFrame:
    """Return mu with the spread of all examples for a target as its error."""
    mu = np.full(observations.n_pairs, np.nan)
    mu[observations.pair] = observations.q - observations.p
    frame = pd.DataFrame(observations.names).assign(mu=mu)
    error = frame.groupby("target")["mu"].transform("std")
    width = norm.isf(0.025) * error
    return frame.assign(
        low=mu - width,
        high=mu + width,
        pvalue=2 * norm.sf(frame["mu"].abs() / error),
        n_Q=counts,
        quantity=f"{observations.quantity}; interval from the spread of all examples",
    )


def _by_target(observations: Observations, n_things: int) -> list[Observations]:
    """Return those of each target; where there are several, their mean before them.

    The pairs of an example or group stand together, one for each target.
    """
    n = observations.n_pairs // n_things
    if n == 1:
        return [observations]
    parts = [_mean(observations, n)]
    for k, name in enumerate(observations.names["target"][:n]):
        rows = np.flatnonzero(observations.pair % n == k)
        part = observations.p[rows], observations.q[rows]
        parts.append(_part(observations, rows, *part, n, name, observations.quantity))
    return parts


def _mean(observations: Observations, n: int) -> Observations:
    """Average the observations of a step over the targets."""
    step = observations.step
    key = observations.pair // n * (int(step.max(initial=0)) + 1) + step
    _, first, row = np.unique(key, return_index=True, return_inverse=True)
    counts = np.bincount(row)
    p, q = (np.bincount(row, x) / counts for x in (observations.p, observations.q))
    quantity = f"{observations.quantity}, mean over targets"
    return _part(observations, first, p, q, n, mean_of(n), quantity)


def _part(
    observations: Observations,
    rows: NDArray[np.intp],
    p: FloatArray,
    q: FloatArray,
    n: int,
    target: str,
    quantity: str,
) -> Observations:
    """Return observations of one target of n."""
    n_things = observations.n_pairs // n
    names = {name: column[::n] for name, column in observations.names.items()}
    return Observations(
        observations.pair[rows] // n,
        p,
        q,
        step=observations.step[rows],
        names={**names, "target": [str(target)] * n_things},
        n_pairs=n_things,
        scale=observations.scale,
        quantity=quantity,
    )


def mean_of(n_targets: int) -> str:
    """Return the name of the mean over targets.

    Parameters
    ----------
    n_targets : int
        How many there are.

    Returns
    -------
    str
        Under which its rows stand.
    """
    return f"mean of mu over {n_targets} targets"


def _select(
    mu: FloatArray,
    influence: FInfluence | None,
    reference: NDArray[np.bool_] | None,
    fdr: float,
    alternative: str,
) -> Selection | None:
    """Select against a reference, what most scores look like, or a mu of 0."""
    if reference is not None:
        return select(mu, reference=reference, fdr=fdr, alternative=alternative)
    if np.isfinite(mu).sum() >= MANY:
        try:
            return select(mu, fdr=fdr, null="empirical", alternative=alternative)
        except ValueError as error:
            # The training that the scores are from must not be lost by it.
            warn(f"Nothing is selected. {error}")
            return None
    if influence is None:
        return None
    return select(influence, fdr=fdr, alternative=alternative)
