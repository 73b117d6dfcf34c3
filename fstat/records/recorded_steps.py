"""What is formed of the steps that a run recorded: columns, and P and Q of subsets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from .._validation import flag, listed, string, whole_number
from ..observations import Observations
from .long_form import of_steps
from .shards import Part, column, join
from .standardized_p_and_q import observe_self, observe_targets
from .subsets import SELF, Members, Subsets, chosen_targets


class RecordedSteps(ABC):
    """Steps that can be asked, however they came to be recorded.

    Attributes
    ----------
    targets : list of str
        What was aligned with.
    metric : str
        In what metric.
    n_steps : int
        Update steps of the run, recorded or not.
    """

    targets: list[str]
    metric: str
    n_steps: int

    @abstractmethod
    def _recorded(self) -> list[Part]:
        """Return all that was recorded, in order."""

    def columns(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return what was recorded, one array a column.

        Parameters
        ----------
        names : sequence of str, optional
            Which columns; all by default, which loads the alignments with all targets.

        Returns
        -------
        dict of str to ndarray
            By step: `step`, `batch_size`, `learning_rate`, `target_norm`. By example
            and step, in the same order: `index`, `alignment`, `norm_squared`,
            `gram_sum`, `gram_squares` and ``extra:...``.

        Raises
        ------
        ValueError
            If nothing was recorded, or there is no such column.
        """
        names = None if names is None else [string(x, "names") for x in listed(names)]
        parts = self._recorded()
        if not parts:
            raise ValueError(
                "`append` has recorded no step yet: the trace is empty. Where a "
                "sampler takes snapshots, ask `observations` of the sampler itself."
            )
        known = set(parts[-1])
        chosen = sorted(known) if names is None else names
        unknown = set(chosen) - known
        if unknown:
            raise ValueError(
                f"`names` must be among {sorted(known)}, got {sorted(unknown)}."
            )
        return {name: join([part[name] for part in parts]) for name in chosen}

    def _aligned(self, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the alignments with one target, and its norms."""
        parts = self._recorded()
        return (
            join([column(part, "alignment", target) for part in parts]),
            join([column(part, "target_norm", target) for part in parts]),
        )

    def observations(
        self,
        subsets: Subsets | None = None,
        targets: Sequence[str] | str | None = None,
        *,
        standardize: bool = True,
        window: int = 20,
    ) -> Observations:
        r"""Form P and Q of any subsets, for any of the recorded targets.

        At a step whose batch B meets S, Q is the mean alignment of the batch and P
        that of the batch without the members of S. Standardised, the places of the
        members are taken by typical examples and both means are given in units of the
        standard error that such a mean has:

        .. math:: P_t = \frac{\sum_{B \setminus S} (s - c_t)}{\sqrt b \, \sigma_t},
                  \quad Q_t = \frac{\sum_B (s - c_t)}{\sqrt b \, \sigma_t}

        where s is the alignment with the *unit* gradient of the target and the centre
        c and the standard deviation :math:`\sigma` come from the `window` recorded
        steps before t. The mean of Q - P is then the influence of one step at which S
        is met. Not standardised, P is the plain mean of the others.

        Parameters
        ----------
        subsets : optional
            None: each recorded example on its own. An integer or a 1-D array of
            integers: these examples, each on its own. A sequence of arrays: each one a
            subset. A mapping: subsets by name.
        targets : str or sequence of str, optional
            Which targets; by default all but ``"self"``, or ``"self"`` where it is
            the only one. ``"self"`` cannot be mixed with others.
        standardize : bool, default=True
            Whether to standardise; otherwise P and Q are plain means of alignments.
        window : int, default=20
            Recorded steps from which the centre and scale of a step come. A step with
            fewer than 10 recorded steps before it is not observed.

        Returns
        -------
        Observations
            Paired; one pair for each subset and target, subsets varying slowest. A
            step is not observed for a pair if its batch does not meet S or has fewer
            than two examples outside of S.

        Raises
        ------
        ValueError
            If a target is not in the trace, a subset is empty or not of integers, no
            example of any subset was met, or ``"self"`` is asked for subsets of
            several examples.

        Warns
        -----
        UserWarning
            If no step was observed for any pair.

        Notes
        -----
        The interval of such a mu covers the mean influence per step along this run.
        """
        chosen = chosen_targets(targets, self.targets)
        needed = ["index", "step", "batch_size", "learning_rate"]
        if chosen == [SELF]:
            needed += ["norm_squared", "gram_sum", "gram_squares"]
        columns = self.columns(needed)
        members = Members.of(subsets, columns["index"])
        members.check_alone(chosen)
        members.check_met(columns["index"])
        window = whole_number(window, "window", 10)
        standardize = flag(standardize, "standardize")
        if chosen == [SELF]:
            rows = observe_self(columns, members, standardize, window)
        else:
            names = [name for name in self.targets if name != SELF]
            picked = [names.index(name) for name in chosen]
            aligned = map(self._aligned, picked)
            rows = observe_targets(
                columns, members, aligned, len(picked), standardize, window
            )
        what = "mu per step" if standardize else "mu of unstandardised alignments"
        plain = self.metric == "plain"
        metric = "" if plain else f", in the metric {self.metric!r}"
        return of_steps(
            rows,
            columns,
            self.n_steps,
            members,
            chosen,
            standardize,
            f"{what}, this run{metric}",
        )
