"""P and Q from scores of all examples at a few moments of one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._files import Npz, npz_place, refusing, write_npz
from .._validation import (
    flag,
    instance,
    numeric,
    path_of,
    string,
    whole_number,
)
from .._warnings import warn
from ..observations import Observations
from .divergence import DivergedWarning
from .long_form import of_snapshots
from .standardized_p_and_q import LARGEST, observe_snapshot
from .subsets import Members, Subsets, chosen_targets, target_names

SCHEMA = 2


class Snapshots:
    """Scores of every training example for every target, at moments of one run.

    Parameters
    ----------
    targets : sequence of str
        Names of the targets. ``"self"``: each example is its own target.
    n_examples : int, optional
        Number of training examples; by default that of the first snapshot.
    metric : str, default="a curvature metric"
        In what scores compare gradients; what is formed of them says so.

    Attributes
    ----------
    steps : list of int
        Update steps made before each snapshot.
    scores : list of ndarray of shape (n_examples, n_targets)
        Scores; NaN for examples that were not met before.

    Raises
    ------
    ValueError
        If there is no target, or names are not unique.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat import Snapshots
    >>> rng = np.random.default_rng(0)
    >>> snapshots = Snapshots(["z"], n_examples=100)
    >>> for step in (60, 120, 180):
    ...     scores = rng.normal(size=(100, 1))
    ...     scores[:5] += 2.0
    ...     snapshots.append(step, scores)
    >>> observations = snapshots.observations([np.arange(5)])
    >>> bool(observations.composed().mu[0] > 0.5)
    True
    """

    def __init__(
        self,
        targets: Sequence[str],
        n_examples: int | None = None,
        metric: str = "a curvature metric",
    ) -> None:
        self.targets = target_names(targets)
        given = 0 if n_examples is None else n_examples
        self.n_examples = whole_number(given, "n_examples", 0)
        self.metric = string(metric, "metric")
        # Of each, step and scores together, which no interrupt is to part.
        self._taken: list[tuple[int, NDArray[Any]]] = []
        self._run = uuid4().hex

    @property
    def steps(self) -> list[int]:
        """Update steps made before each snapshot."""
        return [step for step, _ in self._taken]

    @property
    def scores(self) -> list[NDArray[Any]]:
        """Scores of each snapshot, of shape (n_examples, n_targets)."""
        return [scores for _, scores in self._taken]

    def remove(self, step: int) -> None:
        """Let go of the snapshot at a step, if there is one.

        Parameters
        ----------
        step : int
            Update steps made before it.
        """
        self._taken = [one for one in self._taken if one[0] != step]

    def __len__(self) -> int:
        return len(self._taken)

    def __repr__(self) -> str:
        return (
            f"Snapshots({len(self)} of {self.n_examples} examples, "
            f"{len(self.targets)} targets)"
        )

    def empty(self) -> Snapshots:
        """Return snapshots of the same run, targets and metric, with none in them.

        Returns
        -------
        Snapshots
            To which those of the same run can be appended.
        """
        found = Snapshots(self.targets, self.n_examples, self.metric)
        found._run = self._run
        return found

    def go_on_from(self, other: Snapshots) -> None:
        """Take what others hold for one's own, as a run does that is resumed.

        Parameters
        ----------
        other : Snapshots
            Of the same targets and metric.

        Raises
        ------
        ValueError
            If they are of others.
        """
        instance(other, "other", Snapshots)
        if (other.targets, other.metric) != (self.targets, self.metric):
            raise ValueError(
                f"`other`, to go on from, must be of targets {self.targets} in "
                f"{self.metric}, got {other.targets} in {other.metric}."
            )
        if self.n_examples and other.steps and other.n_examples != self.n_examples:
            raise ValueError(
                f"`other`, to go on from, must be of {self.n_examples} examples, "
                f"got {other.n_examples}."
            )
        self._run, self.n_examples = other._run, other.n_examples or self.n_examples
        self._taken = [*other._taken]

    def is_like(self, other: Snapshots) -> bool:
        """Return whether others are of the same run, targets and metric.

        Parameters
        ----------
        other : Snapshots
            The others.

        Returns
        -------
        bool
            Whether both can stand together.
        """

        def kind(of: Snapshots) -> tuple[object, ...]:
            return of._run, of.targets, of.n_examples, of.metric

        return isinstance(other, Snapshots) and kind(self) == kind(other)

    def grow(self, n_examples: int) -> None:
        """Let there be more examples, which were not met at earlier snapshots.

        Parameters
        ----------
        n_examples : int
            How many there are now; no fewer than before.

        Raises
        ------
        ValueError
            If there are fewer.
        """
        n = whole_number(n_examples, "n_examples", self.n_examples)
        more = np.full((n - self.n_examples, len(self.targets)), np.nan)
        if len(more):
            self._taken = [
                (step, np.concatenate([scores, more.astype(scores.dtype)]))
                for step, scores in self._taken
            ]
        self.n_examples = n

    def append(self, step: int, scores: ArrayLike) -> None:
        """Add a snapshot.

        Parameters
        ----------
        step : int
            Update steps made before it; more than before the last one.
        scores : array-like of shape (n_examples, n_targets)
            Scores, larger where an example serves the target; NaN where unknown.

        Raises
        ------
        ValueError
            If the shape or the order is another, or a score is infinite.
        """
        step = whole_number(step, "step", 0, 2**62)
        is_plain = type(scores) is np.ndarray and scores.dtype.kind == "f"
        array = np.array(scores if is_plain else numeric(scores, "scores"))
        n = self.n_examples
        if not n and not self.steps:
            n = len(array) if array.ndim else 0
        shape = (n, len(self.targets))
        if array.shape != shape or array.dtype.kind != "f":
            raise ValueError(
                f"`scores` must be floats of shape {shape}, got {array.dtype} of shape "
                f"{array.shape}."
            )
        largest = np.finfo(array.dtype).max if array.dtype.itemsize < 8 else LARGEST
        if (np.abs(array) > largest).any():
            raise ValueError(f"`scores` must be below {LARGEST:g} in size, got more.")
        if self.steps and step <= self.steps[-1]:
            raise ValueError(
                f"`step` must be above {self.steps[-1]}, that of the last snapshot, "
                f"got {step!r}."
            )
        self.n_examples = n
        self._taken.append((int(step), array))

    def observations(
        self,
        subsets: Subsets | None = None,
        targets: Sequence[str] | str | None = None,
        *,
        standardize: bool = True,
        discard: int = 0,
    ) -> Observations:
        r"""Form P and Q of any subsets, one observation a snapshot.

        With the scores :math:`s_i` of the examples for a target, and centre c and
        standard deviation :math:`\sigma` of those of the examples *outside* of S,

        .. math:: Q = \frac{\sum_i s_i}{\sqrt n \, \sigma}, \quad
                  P = \frac{\sum_{i \notin S} s_i + |S| c}{\sqrt n \, \sigma} :

        to first order, what the training set does for the target, with S and with
        typical examples in its place, in units of the standard deviation that this
        has when training examples are drawn anew (the infinitesimal jackknife [1]_).

        Parameters
        ----------
        subsets : optional
            As `fstat.Trace.observations` takes them: None for each example on its
            own, numbers of examples, or several arrays, named or not.
        targets : str or sequence of str, optional
            Which targets; by default all but ``"self"``, or ``"self"`` where it is
            the only one. ``"self"`` cannot be mixed with others.
        standardize : bool, default=True
            Whether to standardise; otherwise Q and P are sums with S and without.
        discard : int, default=0
            Snapshots left out at the start of the run, as long as one remains.

        Returns
        -------
        Observations
            Paired; one pair for each subset and target, subsets varying slowest. A
            subset is not observed at a snapshot before all its members were met.
            ``composed().mu`` is the *mean* over snapshots.

        Raises
        ------
        ValueError
            If there is no snapshot, a target is unknown, no example of any subset was
            met, or a subset is empty, not of integers, not among the examples, or of
            several for ``"self"``.

        Notes
        -----
        Snapshots of one run are few and depend on each other; the standard error is
        from their spread, with one degree of freedom less than there are, and speaks of
        the mean over the snapshots of this run. That of retraining is another number,
        which only retraining can tell.

        References
        ----------
        .. [1] L. A. Jaeckel, "The infinitesimal jackknife", Bell Laboratories
           Memorandum MM 72-1215-11, 1972.
        """
        if not len(self):
            raise ValueError(
                "`observations` needs a snapshot: call `snapshot` of the sampler, such "
                "as at the end of each epoch."
            )
        discard = whole_number(discard, "discard", 0)
        standardize = flag(standardize, "standardize")
        chosen = chosen_targets(targets, self.targets)
        columns = [self.targets.index(name) for name in chosen]
        members = Members.of(subsets, np.arange(self.n_examples))
        members.check_alone(chosen)
        self._check_range(members)
        met = [np.isfinite(scores).any(axis=1) for scores in self.scores]
        members.check_met(np.flatnonzero(np.any(met, axis=0)))
        first = min(discard, len(self) - 1)
        told = self._telling(columns, first)
        found = [
            observe_snapshot(
                self.scores[k][:, columns].astype(float), members, standardize
            )
            for k in told
        ]
        p, q = (np.stack(x).reshape(len(found), -1) for x in zip(*found, strict=True))
        steps = np.array(self.steps)[told]
        kind = "mu" if standardize else "mu of unstandardised scores"
        return of_snapshots(
            p,
            q,
            steps,
            members,
            chosen,
            standardize,
            f"{kind} in {self.metric}, mean over snapshots of this run",
        )

    def _telling(self, columns: list[int], first: int) -> list[int]:
        """Return which snapshots say anything of some targets."""
        places = range(first, len(self))
        told = [k for k in places if np.isfinite(self.scores[k][:, columns]).any()]
        if len(told) < len(places):
            at = [self.steps[k] for k in places if k not in told]
            warn(
                f"Nothing is finite in the snapshots of steps {at}, as after a run "
                "diverged: observations are of the others.",
                DivergedWarning,
            )
        return told or list(places)

    def _check_range(self, members: Members) -> None:
        low, high = members.example.min(), members.example.max()
        if low < 0 or high >= self.n_examples:
            raise ValueError(
                f"`subsets` must hold examples from 0 to {self.n_examples - 1}, got "
                f"{low} to {high}."
            )

    def save(self, path: str | PathLike[str]) -> None:
        """Save as an npz file without pickle, whole or not at all.

        Parameters
        ----------
        path : path-like
            File to write; ``.npz`` is appended where missing.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        meta = {
            "schema": SCHEMA,
            "targets": self.targets,
            "n": self.n_examples,
            "metric": self.metric,
            "run": self._run,
        }
        arrays = {
            "meta": json.dumps(meta),
            "steps": np.array(self.steps, dtype=np.int64),
            "scores": self.stacked(),
        }
        write_npz(npz_place(path), arrays)

    def stacked(self) -> NDArray[Any]:
        """Return all scores as one array.

        Returns
        -------
        ndarray of shape (n_snapshots, n_examples, n_targets)
            The scores.
        """
        shape = (len(self), self.n_examples, len(self.targets))
        return np.reshape(self.scores, shape)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Snapshots:
        """Load what `save` wrote; nothing in the file can be executed.

        Parameters
        ----------
        path : path-like
            File to read; ``.npz`` may be left out as in `save`.

        Returns
        -------
        Snapshots
            Equal to what was saved.

        Raises
        ------
        ValueError
            If the file is damaged, of a later schema, or no regular file.
        OSError
            If it cannot be read.
        """
        place, what = path_of(path), "a file of Snapshots"
        if not place.exists():
            place = npz_place(path)
        file = Npz(place, what)
        with refusing(place, what):
            meta = json.loads(str(file.array("meta")))
            schema = int(meta["schema"])
        if schema > SCHEMA:
            raise ValueError(f"`{place}` was written by a later version of fstat.")
        with refusing(place, what):
            found = cls(meta["targets"], meta["n"], meta["metric"])
            found._run = str(meta["run"])
            steps, scores = file.array("steps"), file.array("scores")
            for step, each in zip(steps, scores, strict=True):
                found.append(int(step), each)
        return found
