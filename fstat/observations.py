"""Observations of P and Q for many pairs, in long form.

Almost every example is in almost no batch, so a row is one pair observed at one
step, and there is no row for a pair that was not observed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._validation import FloatArray, no_infinity, numeric

IntArray = NDArray[np.int64]
SCHEMA = 1
_BLOCK = 4_000_000


class Block(NamedTuple):
    """Some pairs as dense arrays, NaN where a pair has fewer observations.

    Parameters
    ----------
    pairs : ndarray of int of shape (n_pairs,)
        Which pairs.
    P, Q : ndarray of shape (n, n_pairs)
        Their observations.
    step, run : ndarray of int of shape (n, n_pairs)
        Where they were made.
    weight : ndarray of shape (n, n_pairs)
        What they weigh in a composition.
    """

    pairs: IntArray
    P: FloatArray
    Q: FloatArray
    step: IntArray
    run: IntArray
    weight: FloatArray


@dataclass(frozen=True)
class ComposedInfluence:
    """Influence over a whole run, by composition of its steps.

    Parameters
    ----------
    mu : ndarray of shape (n_pairs,)
        ``sum(w_t mu_t) / sqrt(sum(w_t**2))``: of the test that weighs each step by
        `w_t` (the learning rate where it is known), signed.
    stderr : ndarray of shape (n_pairs,)
        Standard error of `mu`, given the steps at which a pair was observed. NaN
        where one observation cannot tell.
    mu_most_powerful : ndarray of shape (n_pairs,)
        ``sqrt(sum(mu_t**2))``: of the most powerful test, unsigned; biased upwards
        by the noise of each step.
    """

    mu: FloatArray
    stderr: FloatArray
    mu_most_powerful: FloatArray


class Observations:
    """P and Q of many pairs, one row for each pair and step that was observed.

    Parameters
    ----------
    pair : array-like of int of shape (n_rows,)
        Which (subset, target) pair a row belongs to: 0, 1, ..., n_pairs - 1.
    p, q : array-like of shape (n_rows,)
        The statistic without and with the subset; larger means that the target is
        better served. NaN where one of the two was not observed.
    step, run : array-like of int of shape (n_rows,), optional
        Update step and training run of each row; 0 by default.
    weight : array-like of shape (n_rows,), optional
        What a row weighs in `composed`; 1 by default.
    names : mapping of str to array-like of shape (n_pairs,), optional
        Columns that say what each pair is, such as ``{"subset": ..., "target": ...}``.
    n_pairs : int, optional
        Number of pairs, observed or not; from `names` or `pair` by default.
    n_steps : int, optional
        Number of update steps of one run; the number of different steps by default.
    weight_norm : float, optional
        ``sqrt(sum(w_t**2))`` over all steps of one run; ``sqrt(n_steps)`` by default.
    recorded : float, default=1.0
        Share of the steps of a run, by weight, at which pairs could be observed at
        all; the others are taken to be like them.
    paired : bool, default=True
        Whether p and q of a row come from the same step and batch.
    scale : float, optional
        Standard deviation of the statistic, where it is known beforehand: 1 for
        statistics that were standardised step by step. None: to be estimated.
    self_influence : bool, default=False
        Whether each subset's target is the subset itself. Such influence is
        memorisation, positive for nearly everything.
    quantity : str
        What mu of these observations is, and so what an interval for it covers.

    Raises
    ------
    ValueError
        If columns differ in length, are not numeric or hold an infinite value, or if
        `pair` is out of range.

    See Also
    --------
    FInfluence : Estimates mu from observations.
    Trace : What one run recorded, from which observations are formed.

    Examples
    --------
    >>> from fstat import FInfluence, Observations
    >>> seen = Observations(
    ...     pair=[0, 0, 0, 1, 1, 1],
    ...     p=[0.1, -0.3, 0.2, 0.0, 0.4, -0.1],
    ...     q=[0.9, 0.4, 1.3, -0.5, 0.1, -0.4],
    ...     names={"example": ["a", "b"]},
    ...     scale=1.0,
    ... )
    >>> FInfluence().fit(seen).mu_.round(2)
    array([ 0.87, -0.37])
    """

    def __init__(
        self,
        pair: ArrayLike,
        p: ArrayLike,
        q: ArrayLike,
        *,
        step: ArrayLike | None = None,
        run: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        names: Mapping[str, ArrayLike] | None = None,
        n_pairs: int | None = None,
        n_steps: int | None = None,
        weight_norm: float | None = None,
        recorded: float = 1.0,
        paired: bool = True,
        scale: float | None = None,
        self_influence: bool = False,
        quantity: str = "f-influence of the samples",
    ) -> None:
        self.p, self.q = numeric(p, "p"), numeric(q, "q")
        no_infinity(self.p, "p")
        no_infinity(self.q, "q")
        rows = self.p.shape
        self.pair = _integers(pair, "pair", rows)
        self.step = _integers(0 if step is None else step, "step", rows)
        self.run = _integers(0 if run is None else run, "run", rows)
        self.weight = np.broadcast_to(
            numeric(1.0 if weight is None else weight, "weight"), rows
        )
        for name in ("p", "q", "pair", "step", "run", "weight"):
            if getattr(self, name).shape != rows or len(rows) != 1:
                raise ValueError(
                    "Columns must be 1-D and of one length, got `p` of shape "
                    f"{rows} and `{name}` of shape {getattr(self, name).shape}."
                )
        self.names = {k: np.asarray(v) for k, v in (names or {}).items()}
        self.n_pairs = self._count_pairs(n_pairs)
        if not self.names:
            self.names = {"pair": np.arange(self.n_pairs)}
        self.n_steps = len(np.unique(self.step)) if n_steps is None else int(n_steps)
        self.weight_norm = float(
            np.sqrt(self.n_steps) if weight_norm is None else weight_norm
        )
        self.recorded = float(recorded)
        if not 0 < self.recorded <= 1:
            raise ValueError(f"`recorded` must lie in (0, 1], got {recorded!r}.")
        self.paired, self.scale = bool(paired), scale
        if scale is not None and not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"`scale` must be finite and above 0, got {scale!r}.")
        self.self_influence, self.quantity = bool(self_influence), str(quantity)

    def _count_pairs(self, n_pairs: int | None) -> int:
        lengths = {len(column) for column in self.names.values()}
        if n_pairs is not None:
            lengths.add(int(n_pairs))
        if len(lengths) > 1:
            raise ValueError(
                "`names` and `n_pairs` must agree on the number of pairs, got "
                f"{sorted(lengths)}."
            )
        largest = int(self.pair.max(initial=-1)) + 1
        count = lengths.pop() if lengths else largest
        if largest > count or self.pair.min(initial=0) < 0:
            raise ValueError(
                f"`pair` must hold integers from 0 to {count - 1}, got values from "
                f"{self.pair.min()} to {largest - 1}."
            )
        return count

    def __len__(self) -> int:
        return len(self.p)

    def __repr__(self) -> str:
        kind = "paired" if self.paired else "independent"
        return (
            f"Observations({len(self)} rows, {self.n_pairs} pairs, {self.n_steps} "
            f"steps, {kind}; {self.quantity})"
        )

    def samples(self, pair: int) -> tuple[FloatArray, FloatArray]:
        """Return P and Q of one pair, in the order of runs and steps.

        Parameters
        ----------
        pair : int
            Number of the pair.

        Returns
        -------
        P, Q : ndarray of shape (n,)
            Its observations.

        Raises
        ------
        ValueError
            If there is no such pair.
        """
        if not 0 <= pair < self.n_pairs:
            raise ValueError(f"`pair` must be 0 to {self.n_pairs - 1}, got {pair!r}.")
        rows = np.flatnonzero(self.pair == pair)
        rows = rows[np.lexsort((self.step[rows], self.run[rows]))]
        return self.p[rows], self.q[rows]

    def blocks(self, size: int = _BLOCK, *, in_order: bool = False) -> Iterator[Block]:
        """Yield the pairs as dense arrays of bounded size.

        Pairs with similar numbers of observations share a block, so that padding at
        most doubles the work, whatever the numbers are.

        Parameters
        ----------
        size : int
            Elements that a block may have, at least one pair aside.
        in_order : bool
            Whether the observations of a pair are put in the order of runs and steps,
            whatever order they were given in.

        Yields
        ------
        Block
            Each pair stands in one block; pairs never observed stand in none.
        """
        order = np.argsort(self.pair, kind="stable")
        if in_order:
            order = np.lexsort((self.step, self.run, self.pair))
        counts = np.bincount(self.pair, minlength=self.n_pairs)
        starts = np.cumsum(counts) - counts
        by_count = np.argsort(counts, kind="stable")
        first = int(np.searchsorted(counts[by_count], 1))
        while first < self.n_pairs:
            least = counts[by_count[first]]
            last = int(np.searchsorted(counts[by_count], 2 * least, side="right"))
            last = min(last, first + max(1, int(size // (2 * least))))
            chosen = by_count[first:last]
            yield self._block(chosen, starts[chosen], counts[chosen], order)
            first = last

    def _block(
        self, pairs: IntArray, starts: IntArray, counts: IntArray, order: IntArray
    ) -> Block:
        turn = np.arange(counts.max())[:, None]
        filled = turn < counts
        rows = order[np.where(filled, starts + turn, starts)]
        p, q = (np.where(filled, column[rows], np.nan) for column in (self.p, self.q))
        return Block(pairs, p, q, self.step[rows], self.run[rows], self.weight[rows])

    def composed(self) -> ComposedInfluence:
        """Compose the steps of a run into the influence over the whole run.

        A step at which a subset is not met contributes nothing. Two tests are told:
        the one that weighs steps by the learning rate keeps the sign; the most
        powerful one (the root of the sum of squares, by which Gaussian trade-off
        functions compose [1]_) can be far larger and has none. With several runs it
        is the mean over runs, and their spread gives the standard error.

        Returns
        -------
        ComposedInfluence
            One value for each pair; NaN for pairs that were never observed.

        Raises
        ------
        ValueError
            If the statistic has no known scale, so that steps cannot be compared.

        References
        ----------
        .. [1] J. Dong, A. Roth, W. J. Su, "Gaussian differential privacy", Journal
           of the Royal Statistical Society B 84(1), 2022, section 3.1.
        """
        if self.scale is None:
            raise ValueError(
                "`composed` needs observations in units of a known scale; form them "
                "with `trace.observations(..., standardize=True)` or state `scale`."
            )
        mu, stderr, power = (np.full(self.n_pairs, np.nan) for _ in range(3))
        for block in self.blocks():
            shift = (block.Q - block.P) / self.scale
            weighted = block.weight * shift / (self.recorded * self.weight_norm)
            run_sum, n_runs = _mean_over_runs(weighted, block.run)
            mu[block.pairs] = run_sum.mean
            stderr[block.pairs] = run_sum.stderr
            squares = np.nansum(shift**2, axis=0) / self.recorded
            total = squares / np.maximum(n_runs, 1)
            power[block.pairs] = np.where(n_runs > 0, np.sqrt(total), np.nan)
        return ComposedInfluence(mu, stderr, power)

    @classmethod
    def concatenate(cls, parts: Sequence[Observations]) -> Observations:
        """Join observations of the same pairs from several runs.

        Parameters
        ----------
        parts : sequence of Observations
            Of the same pairs and kind; each is taken to be a run of its own.

        Returns
        -------
        Observations
            With `run` 0, 1, ... in the order of `parts`.

        Raises
        ------
        ValueError
            If there is no part, or if parts differ in pairs, design or scale.
        """
        if not parts:
            raise ValueError("`parts` must hold at least one Observations, got none.")
        first = parts[0]
        for other in parts[1:]:
            if other._kind() != first._kind():
                raise ValueError(
                    "`parts` must be observations of the same pairs, design and scale, "
                    f"got {first!r} and {other!r}."
                )
        # Runs may weigh steps in different units: each is brought to one norm.
        norm = float(np.sqrt(np.mean([part.weight_norm**2 for part in parts])))
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("pair", "p", "q", "step")
        }
        share = [part.recorded for part in parts]
        columns["weight"] = np.concatenate(
            [
                part.weight * (norm / part.weight_norm) * (np.mean(share) / one)
                for part, one in zip(parts, share, strict=True)
            ]
        )
        several = f"{len(parts)} runs" if len(parts) > 1 else "this run"
        return cls(
            **columns,
            run=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
            names=first.names,
            n_steps=max(part.n_steps for part in parts),
            weight_norm=norm,
            recorded=float(np.mean(share)),
            paired=first.paired,
            scale=first.scale,
            self_influence=first.self_influence,
            quantity=first.quantity.replace("this run", several),
        )

    def _kind(self) -> tuple[object, ...]:
        names = tuple((key, *column.tolist()) for key, column in self.names.items())
        return (names, self.paired, self.scale, self.self_influence)

    def save(self, path: str | PathLike[str]) -> None:
        """Save as an npz file without pickle.

        Parameters
        ----------
        path : path-like
            File to write; ``.npz`` is appended where missing.

        Raises
        ------
        ValueError
            If a column of `names` holds Python objects.
        """
        columns: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("pair", "p", "q", "step", "run", "weight")
        }
        for key, column in self.names.items():
            if column.dtype.hasobject:
                raise ValueError(
                    f"`names[{key!r}]` must hold numbers or strings, got objects."
                )
            columns[f"name:{key}"] = column
        meta = {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in _META},
        }
        np.savez_compressed(path, meta=np.array(json.dumps(meta)), **columns)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Observations:
        """Load what `save` wrote; nothing in the file can be executed.

        Parameters
        ----------
        path : path-like
            File to read; ``.npz`` may be left out as in `save`.

        Returns
        -------
        Observations
            Equal to what was saved.

        Raises
        ------
        ValueError
            If the file is of a later schema, or holds pickled objects.
        """
        file_path = Path(path)
        if not file_path.exists() and file_path.suffix != ".npz":
            file_path = file_path.with_name(file_path.name + ".npz")
        with np.load(file_path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            if meta.pop("schema") > SCHEMA:
                raise ValueError(f"`{path}` was written by a later version of fstat.")
            names = {
                key.removeprefix("name:"): file[key]
                for key in file.files
                if key.startswith("name:")
            }
            columns = {
                name: file[name] for name in ("pair", "p", "q", "step", "run", "weight")
            }
        return cls(**columns, names=names, **meta)


_META = (
    "n_steps",
    "weight_norm",
    "recorded",
    "paired",
    "scale",
    "self_influence",
    "quantity",
)


class _RunSum(NamedTuple):
    mean: FloatArray
    stderr: FloatArray


def _mean_over_runs(values: FloatArray, run: IntArray) -> tuple[_RunSum, FloatArray]:
    """Return the mean over runs of sums within runs, its error, the number of runs."""
    seen = ~np.isnan(values)
    labels, codes = np.unique(run, return_inverse=True)
    codes = codes.reshape(run.shape)
    pairs = values.shape[1]
    cell = (codes * pairs + np.arange(pairs))[seen]
    cells = len(labels) * pairs
    sums = np.bincount(cell, values[seen], cells).reshape(-1, pairs)
    met = np.bincount(cell, minlength=cells).reshape(-1, pairs) > 0
    n_runs = met.sum(axis=0)
    n = seen.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(axis=0) / n_runs
        between = (np.where(met, sums - mean, 0.0) ** 2).sum(axis=0) / (n_runs - 1)
        centred = np.where(seen, values - np.nansum(values, axis=0) / n, 0.0)
        within = n * (centred**2).sum(axis=0) / (n - 1)
        within = np.where(n > 1, within, np.nan)
        stderr = np.sqrt(np.where(n_runs > 1, between / n_runs, within))
    return _RunSum(np.where(n_runs > 0, mean, np.nan), stderr), n_runs


def _integers(value: ArrayLike, name: str, shape: tuple[int, ...]) -> IntArray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and not (
        array.dtype.kind == "f" and (array == np.round(array)).all()
    ):
        raise ValueError(f"`{name}` must hold integers, got {array.dtype}.")
    return np.broadcast_to(array, shape if array.ndim == 0 else array.shape).astype(
        np.int64
    )
