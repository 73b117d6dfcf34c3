"""Training again and again, with all data and without a subset."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from os import PathLike
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._validation import (
    FloatArray,
    indices,
    listed,
    numeric,
    option,
    shown,
    whole_number,
)
from .._validation import random_state as checked
from ..observations import Observations
from ._cache import RunCache, digest_of, read, write
from ._fingerprint import fingerprint

IntArray = NDArray[np.int64]
Train = Callable[..., ArrayLike]
Subsets = Sequence[ArrayLike] | Mapping[str, ArrayLike]


def retrain(
    train: Train,
    n_examples: int,
    subsets: Subsets,
    n_runs: int,
    *,
    n_runs_without: int | None = None,
    targets: ArrayLike | None = None,
    keep: str | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    backend: str | None = None,
    cache: str | PathLike[str] | None = None,
    key: str = "",
    verbose: int = 0,
) -> Observations:
    """Train many times with all data, and many times without each subset.

    The runs with all data (Q) are shared by all subsets: they cost little, and their
    errors are common to all subsets. Each run has a seed of its own, that depends on
    `random_state`, on what is left out and on the number of the run alone. So further
    runs, subsets or workers change nothing that was there before.

    Parameters
    ----------
    train : callable
        ``train(indices, seed)`` trains on the examples `indices`, a sorted array of
        int, and returns statistics of shape (n_targets,), larger where a target is
        better served: a margin, or minus a loss. `seed` is an int below 2**32, the
        only source of its randomness.
    n_examples : int
        Number of training examples.
    subsets : sequence of array-like of int, or mapping of str to array-like
        The subsets to leave out, by index or as masks of shape (n_examples,).
    n_runs : int
        Runs with all data.
    n_runs_without : int, optional
        Runs without each subset; `n_runs` by default.
    targets : array-like of shape (n_targets,), optional
        Names of the targets; numbers by default.
    keep : {"epochs", "steps"}, optional
        What stays the same when a subset is left out. It is passed to `train` where
        that takes an argument of this name, whose default holds here too, else it says
        what `train` does. It is told with every result.
    random_state : int, RandomState instance or None, default=None
        Source of the seeds; an int gives the same ones each time.
    n_jobs : int, optional
        Number of joblib workers; as joblib's configuration says by default.
    backend : str, optional
        `"loky"`, `"threading"`, `"dask"` (with a `distributed.Client` running) or
        `"ray"`; as joblib's configuration says by default.
    cache : path-like, optional
        Folder for finished runs, which are not run again: an interrupted study goes
        on, a larger one reuses. Workers on other machines must see it too.
    key : str, default=""
        Version of what the cache cannot see: files that `train` reads, and data of
        modules that are not in Python. Runs under another key are not reused.
    verbose : int, default=0
        How much progress joblib prints; 10 or more for every run.

    Returns
    -------
    Observations
        Unpaired, one row for each run and pair, of p without the subset and of q with
        it. Pairs are ordered by subset, then by target. Runs with all data have the
        numbers 0 to ``n_runs - 1``.

    Raises
    ------
    ValueError
        If a subset is empty, everything, out of range or given twice, numbers of runs
        are below 2, `train` returns no finite array of the same shape each time, or
        the same numbers each time, or
        `cache` is given without an int as `random_state` or cannot be written to.
    RuntimeError
        If a worker is killed; finished runs are in the cache.

    See Also
    --------
    MultiRunInfluence : Mu of such observations.
    agreement : How well an estimate agrees with them.
    sklearn_trainer : Makes `train` from a scikit-learn estimator.

    Notes
    -----
    In the cache, `train` is known by its source, comments and docstrings apart, by the
    data that it holds (defaults, closure, state), and by the global variables and
    functions that it uses, followed in the same way. Installed packages are known by
    their version. Entries that are damaged are run again.

    A `train` with a method ``many(indices, seeds)``, which returns the statistics of
    several runs, and a number `at_once` is given so many runs at a time.

    With one thread each (``OMP_NUM_THREADS=1``) results do not depend on `n_jobs`;
    linear algebra on several threads may round differently.

    Examples
    --------
    >>> import numpy as np
    >>> from fstat.ground_truth import retrain
    >>> y = np.r_[np.zeros(20), np.ones(5)]
    >>> def train(indices, seed):
    ...     noise = np.random.default_rng(seed).normal(0, 0.1, 2)
    ...     return np.array([1, -1]) * y[indices].mean() + noise
    >>> retrain(train, 25, {"ones": y == 1}, n_runs=20, random_state=0)
    Observations(80 rows, 2 pairs, 1 steps, independent; f-influence of retraining ...)
    """
    left_out, names = _subsets(subsets, n_examples)
    n_runs_without = n_runs if n_runs_without is None else n_runs_without
    whole_number(n_runs, "n_runs", 2)
    whole_number(n_runs_without, "n_runs_without", 2)
    option(keep, "keep", (None, "epochs", "steps"))
    _check_work(train, n_jobs, verbose, key)
    kept = _default_keep(train) if keep is None else keep
    entropy = _entropy(random_state, cache)
    plan = _plan(left_out, int(n_runs), int(n_runs_without), entropy)
    store = None
    if cache is not None:
        same = {"train": fingerprint(train), "key": key, "keep": kept}
        store = RunCache(cache, {**same, "n_examples": int(n_examples)})
    passed = {"keep": kept} if kept is not None and _takes_keep(train) else {}
    work = _Work(train, int(n_examples), passed, store)
    table = _table(_finished(work, plan, n_jobs, backend, verbose))
    _check_random(table[: int(n_runs)])
    quantity = _quantity(n_runs, n_runs_without, kept)
    return _observations(table, int(n_runs), names, targets, quantity)


def _check_work(train: object, n_jobs: object, verbose: object, key: object) -> None:
    if not callable(train):
        raise TypeError(
            "`train` must be a function of the indices to train on and a seed, got "
            f"{shown(train)}."
        )
    if n_jobs is not None and whole_number(n_jobs, "n_jobs", -(2**31)) == 0:
        raise ValueError("`n_jobs` must be None or a whole number other than 0, got 0.")
    whole_number(verbose, "verbose", 0)
    if not isinstance(key, str):
        raise TypeError(f"`key` must be a string, got {shown(key)}.")


class _Run(NamedTuple):
    subset: int  # -1: nothing is left out
    left_out: IntArray
    seed: int

    def __str__(self) -> str:
        what = "all data" if self.subset < 0 else f"no subset {self.subset}"
        return f"the run with {what} and seed {self.seed}"


class _Work(NamedTuple):
    train: Train
    n_examples: int
    passed: dict[str, str]
    store: RunCache | None

    def __call__(self, runs: list[_Run]) -> list[FloatArray]:
        """Train for some runs, and keep what they give."""
        indices = [np.setdiff1d(np.arange(self.n_examples), r.left_out) for r in runs]
        seeds = [run.seed for run in runs]
        if len(runs) == 1:
            found = [self.train(indices[0], seeds[0], **self.passed)]
        else:
            found = self.train.many(indices, seeds, **self.passed)  # type: ignore[attr-defined]
        return [self._keep(run, one) for run, one in zip(runs, found, strict=True)]

    def _keep(self, run: _Run, found: ArrayLike) -> FloatArray:
        statistics = numeric(found, "train").copy()
        if statistics.ndim != 1 or not np.isfinite(statistics).all():
            raise ValueError(
                "`train` must return finite statistics of shape (n_targets,), got "
                f"{found!r:.80} of {run}."
            )
        if self.store is not None:
            write(self.store.path(run.left_out, run.seed), statistics)
        return statistics

    def kept(self, run: _Run) -> FloatArray | None:
        """Return what a run gave before, if it is known."""
        if self.store is None:
            return None
        return read(self.store.path(run.left_out, run.seed))


def _work(work: _Work, runs: list[_Run]) -> list[FloatArray]:
    """Work; a function, since the dask backend asks for a hash of what it calls."""
    return work(runs)


def _finished(
    work: _Work, plan: list[_Run], n_jobs: int | None, backend: str | None, verbose: int
) -> list[FloatArray]:
    """Return what every run gives, after running those that were not yet."""
    found = [work.kept(run) for run in plan]
    missing = [i for i, statistics in enumerate(found) if statistics is None]
    if missing:
        size = int(getattr(work.train, "at_once", 1))
        stacks = [missing[i : i + size] for i in range(0, len(missing), size)]
        options: dict[str, Any] = {} if backend is None else {"backend": backend}
        if backend == "ray":
            from ray.util.joblib import register_ray  # type: ignore[import-not-found]

            register_ray()
        if work.store is not None:
            work.store.prepare()
        calls = [joblib.delayed(_work)(work, [plan[i] for i in s]) for s in stacks]
        try:
            with joblib.parallel_config(**options):
                results = joblib.Parallel(n_jobs=n_jobs, verbose=verbose)(calls)
        except BrokenProcessPool as error:
            raise RuntimeError(_died(work, plan)) from error
        for stack, together in zip(stacks, results, strict=True):
            for i, statistics in zip(stack, together, strict=True):
                found[i] = statistics
    return [statistics for statistics in found if statistics is not None]


def _died(work: _Work, plan: list[_Run]) -> str:
    """Return what happened to the runs when a worker was killed."""
    found = "A worker of the pool was killed, perhaps for want of memory: "
    if work.store is None:
        return found + "no runs are kept, since no `cache` was given."
    kept = sum(work.kept(run) is not None for run in plan)
    return found + (
        f"{kept} of {len(plan)} runs are kept in `cache`; call again to go on, with "
        "smaller `n_jobs` if memory is short."
    )


def _table(found: list[FloatArray]) -> FloatArray:
    shapes = {statistics.shape for statistics in found}
    if len(shapes) > 1:
        raise ValueError(
            "`train` must return as many statistics in every run, got shapes "
            f"{sorted(shapes)}."
        )
    return np.stack(found)


def _check_random(table: FloatArray) -> None:
    if (table == table[0]).all():
        raise ValueError(
            "`train` must be random, and `seed` its only source of randomness, got the "
            "same statistics in every run with all data; `sklearn_trainer` has "
            "`resample=True` for estimators without randomness of their own."
        )


def _plan(
    left_out: list[IntArray], n_runs: int, n_runs_without: int, entropy: int
) -> list[_Run]:
    nothing = np.empty(0, dtype=np.int64)
    plan = [_Run(-1, nothing, _seed(entropy, nothing, r)) for r in range(n_runs)]
    return plan + [
        _Run(s, subset, _seed(entropy, subset, r))
        for s, subset in enumerate(left_out)
        for r in range(n_runs_without)
    ]


def _seed(entropy: int, left_out: IntArray, run: int) -> int:
    words = np.frombuffer(digest_of(left_out), dtype="<u4").tolist()
    sequence = np.random.SeedSequence(entropy, spawn_key=(*words, run))
    return int(sequence.generate_state(1)[0])


def _entropy(random_state: int | np.random.RandomState | None, cache: object) -> int:
    generator = checked(random_state)
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    if cache is not None:
        raise ValueError(
            "`cache` needs an int as `random_state`, so that runs can be found again, "
            f"got {random_state!r}."
        )
    return int(generator.randint(2**31 - 1))


def _takes_keep(train: Train) -> bool:
    return _keep_of(train) is not None


def _default_keep(train: Train) -> str | None:
    parameter = _keep_of(train)
    default = None if parameter is None else parameter.default
    return default if default in ("epochs", "steps") else None


def _keep_of(train: Train) -> inspect.Parameter | None:
    try:
        return inspect.signature(train).parameters.get("keep")
    except (TypeError, ValueError):
        return None


def _subsets(subsets: Subsets, n_examples: int) -> tuple[list[IntArray], list[Any]]:
    whole_number(n_examples, "n_examples", 2)
    names: list[Any]
    if isinstance(subsets, Mapping):
        given, names = list(subsets.values()), list(subsets)
    else:
        given = listed(subsets)
        names = [*range(len(given))]
    found = [_indices(subset, n_examples) for subset in given]
    if not found:
        raise ValueError("`subsets` must hold at least one subset, got none.")
    if len({digest_of(subset) for subset in found}) < len(found):
        raise ValueError("`subsets` must differ from each other, got one twice.")
    return found, names


def _indices(subset: ArrayLike, n_examples: int) -> IntArray:
    unique = np.unique(indices(subset, "subsets", n_examples))
    if not 0 < len(unique) < n_examples:
        raise ValueError(
            f"`subsets` must hold some, not all, indices from 0 to {n_examples - 1} "
            f"or masks of shape ({n_examples},), got {shown(subset)}."
        )
    return unique


def _quantity(n_runs: int, n_runs_without: int, keep: str | None) -> str:
    fixed = "what `train` keeps fixed" if keep is None else f"as many {keep}"
    return (
        f"f-influence of retraining ({n_runs} runs with all data, {n_runs_without} "
        f"without the subset, {fixed}); intervals cover that of all seeds"
    )


def _observations(
    table: FloatArray,
    n_runs: int,
    subsets: list[Any],
    targets: ArrayLike | None,
    quantity: str,
) -> Observations:
    n_subsets, n_targets = len(subsets), table.shape[1]
    names = np.arange(n_targets) if targets is None else np.asarray(targets)
    if names.shape != (n_targets,):
        raise ValueError(
            f"`targets` must name the {n_targets} statistics that `train` returns, got "
            f"shape {names.shape}."
        )
    pair = np.arange(n_subsets * n_targets).reshape(n_subsets, 1, n_targets)
    Q = np.broadcast_to(table[:n_runs], (n_subsets, n_runs, n_targets))
    P = table[n_runs:].reshape(n_subsets, -1, n_targets)
    values = np.concatenate([P, Q], axis=1)
    of_P = (np.arange(values.shape[1]) < P.shape[1])[None, :, None]
    run_P = n_runs + np.arange(len(table) - n_runs).reshape(n_subsets, -1, 1)
    run_Q = np.broadcast_to(np.arange(n_runs)[None, :, None], (n_subsets, n_runs, 1))
    run = np.concatenate([run_P, run_Q], axis=1)
    return Observations(
        pair=np.broadcast_to(pair, values.shape).ravel(),
        p=np.where(of_P, values, np.nan).ravel(),
        q=np.where(of_P, np.nan, values).ravel(),
        run=np.broadcast_to(run, values.shape).ravel(),
        names={
            "subset": np.repeat(np.asarray(subsets), n_targets),
            "target": np.tile(names, n_subsets),
        },
        n_steps=1,
        paired=False,
        quantity=quantity,
    )
