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

from fstat import FInfluence, Observations, Selection, Snapshots, select
from fstat.influence import UnestimableWarning

from .data import Example

_MANY = 500  # scores from which what most of them look like can be learnt
FloatArray = NDArray[np.float64]


@dataclass
class Scores:
    """How examples, or groups of them, influence targets.

    Parameters
    ----------
    table : pandas.DataFrame
        One row for each example or group, over all targets: text, source, `mu`, `low`,
        `high`, `qvalue`, `selected`, and `n_Q`, the observations that they rest on.
    by_target : pandas.DataFrame
        One row for each of them and each target, with its interval and p-value.
    selection : Selection or None
        At the false discovery rate that was asked for; None where too little is known
        for one.
    """

    table: pd.DataFrame
    by_target: pd.DataFrame
    selection: Selection | None


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
    n_targets = observations.n_pairs // len(told)
    with warnings.catch_warnings():
        # Those that were met in the first steps only have no mu in the table.
        warnings.simplefilter("ignore", UnestimableWarning)
        each, influence = _fit(observations)
        overall = each
        if n_targets > 1:
            overall, influence = _fit(_over_targets(observations, n_targets))
    snapshots = isinstance(recorded, Snapshots)
    if snapshots or getattr(recorded, "compares_at_snapshots", False):
        influence = None  # snapshots are not independent, and test nothing
    selection = _select(
        overall["mu"].to_numpy(), influence, reference, fdr, alternative
    )
    table = told.join(overall[["mu", "low", "high"]])
    table["qvalue"] = np.nan if selection is None else selection.qvalues
    table["selected"] = False if selection is None else selection.selected
    table = table.join(overall[["n_Q", "quantity"]])
    which = told.iloc[:, :1].loc[told.index.repeat(n_targets)].reset_index(drop=True)
    columns = ["target", "mu", "low", "high", "pvalue", "n_Q", "quantity"]
    return Scores(table, which.join(each[columns]), selection)


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
    # Few observations: their variance is shrunk towards that of all pairs.
    influence = FInfluence(shrinkage="moderated").fit(observations)
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


def _over_targets(observations: Observations, n_targets: int) -> Observations:
    """Average the observations of a step over the targets."""
    thing = observations.pair // n_targets
    key = thing * (int(observations.step.max(initial=0)) + 1) + observations.step
    _, first, row = np.unique(key, return_index=True, return_inverse=True)

    def mean(values: FloatArray) -> FloatArray:
        return np.bincount(row, values) / np.bincount(row)

    names = {
        name: column[::n_targets]
        for name, column in observations.names.items()
        if name != "target"
    }
    return Observations(
        thing[first],
        mean(observations.p),
        mean(observations.q),
        step=observations.step[first],
        names={**names, "target": np.full(observations.n_pairs // n_targets, "all")},
        scale=observations.scale,
        quantity=f"{observations.quantity}, mean over targets",
    )


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
    if np.isfinite(mu).sum() >= _MANY:
        try:
            return select(mu, fdr=fdr, null="empirical", alternative=alternative)
        except ValueError as error:
            # The training that the scores are from must not be lost by it.
            warnings.warn(f"Nothing is selected. {error}", stacklevel=3)
            return None
    if influence is None:
        return None
    return select(influence, fdr=fdr, alternative=alternative)
