"""Observations of P and Q for many pairs, in long form.

Almost every example is in almost no batch, so a row is one pair observed at one
step, and there is no row for a pair that was not observed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._files import Npz, npz_place, refusing, write_npz
from ._samples import checked_names, index_of, same_rows
from ._validation import (
    FloatArray,
    IntArray,
    flag,
    integers,
    listed,
    no_infinity,
    number,
    numeric,
    path_of,
    shown,
    whole_number,
)

SCHEMA = 1
_BLOCK = 4_000_000
_LARGEST = 1e100  # influence of a step, whose square is a float
_PAIRS = 1_000_000, 100  # that may be unobserved: so many, and so many a row


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
        If columns differ in length or, as series, in their index, are not numeric or
        hold an infinite value, if `pair` is out of range or numbers far more pairs
        than there are rows, or if an option is not of its kind.

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
        self.pair = integers(pair, "pair")
        self.step = self._column(0 if step is None else integers(step, "step"))
        self.run = self._column(0 if run is None else integers(run, "run"))
        self.weight = self._column(1.0 if weight is None else numeric(weight, "weight"))
        given = {"pair": pair, "p": p, "q": q, "step": step, "run": run}
        self._check_columns({**given, "weight": weight})
        if n_pairs is not None:
            n_pairs = whole_number(n_pairs, "n_pairs", 0, 2**62)
        self.names = checked_names({} if names is None else names, n_pairs)
        self.n_pairs = self._count_pairs(n_pairs)
        if not self.names:
            self.names = {"pair": np.arange(self.n_pairs)}
        self.n_steps = self._count_steps(n_steps)
        self.weight_norm = float(np.sqrt(self.n_steps))
        if weight_norm is not None:
            self.weight_norm = number(weight_norm, "weight_norm", "(0, inf)")
        self.recorded = number(recorded, "recorded", "(0, 1]")
        self.paired = flag(paired, "paired")
        self.scale = None if scale is None else number(scale, "scale", "(0, inf)")
        self.self_influence = flag(self_influence, "self_influence")
        if not isinstance(quantity, str):
            raise ValueError(f"`quantity` must be a string, got {shown(quantity)}.")
        self.quantity = str(quantity)

    def _column(self, values: Any) -> Any:
        return np.broadcast_to(values, self.p.shape) if np.ndim(values) == 0 else values

    def _check_columns(self, given: dict[str, object]) -> None:
        rows = self.p.shape
        for name in given:
            column = getattr(self, name)
            if column.shape != rows or len(rows) != 1:
                raise ValueError(
                    "Columns must be 1-D and of one length, got `p` of shape "
                    f"{rows} and `{name}` of shape {column.shape}."
                )
            same_rows(index_of(given[name]), index_of(given["p"]), name, "p")
        if not (np.isfinite(self.weight) & (self.weight >= 0)).all():
            raise ValueError(
                f"`weight` must be finite and at least 0, got {shown(given['weight'])}."
            )

    def _count_pairs(self, n_pairs: int | None) -> int:
        least, largest = int(self.pair.min(initial=0)), int(self.pair.max(initial=-1))
        count = largest + 1
        if self.names:
            count = len(next(iter(self.names.values())))
        elif n_pairs is not None:
            count = n_pairs
        if largest >= count or least < 0:
            raise ValueError(
                f"`pair` must hold integers from 0 to {count - 1}, got values from "
                f"{least} to {largest}."
            )
        most = _PAIRS[0] + _PAIRS[1] * len(self.p)
        if count > most and not self.names:
            raise ValueError(
                f"`{'pair' if n_pairs is None else 'n_pairs'}` must number at most "
                f"{most} pairs for {len(self.p)} rows, got {count}: number the pairs "
                "0, 1, ... with `np.unique(pair, return_inverse=True)`, or name them "
                "all in `names`."
            )
        return count

    def _count_steps(self, n_steps: int | None) -> int:
        seen = len(np.unique(self.step))
        if n_steps is None:
            return seen
        count = whole_number(n_steps, "n_steps", 0)
        if seen > count and seen > 0:
            runs, code = np.unique(self.run, return_inverse=True)
            cells = np.unique(np.stack([code, self.step]), axis=1)[0]
            seen = int(np.bincount(cells, minlength=len(runs)).max())
        if seen > count:
            raise ValueError(
                f"`n_steps` must count the steps of one run, at least the {seen} that "
                f"rows were observed at, got {n_steps!r}."
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
        number_of_pair = whole_number(pair, "pair", 0, self.n_pairs - 1)
        rows = np.flatnonzero(self.pair == number_of_pair)
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
        size = whole_number(size, "size", 1, 2**62)
        order = np.argsort(self.pair, kind="stable")
        if flag(in_order, "in_order"):
            order = np.lexsort((self.step, self.run, self.pair))
        counts = np.bincount(self.pair, minlength=self.n_pairs)
        starts = np.cumsum(counts) - counts
        by_count = np.argsort(counts, kind="stable")
        first = int(np.searchsorted(counts[by_count], 1))
        while first < self.n_pairs:
            least = counts[by_count[first]]
            last = int(np.searchsorted(counts[by_count], 2 * least, side="right"))
            last = min(last, first + max(1, size // (2 * int(least))))
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
            with np.errstate(over="ignore"):
                shift = (block.Q - block.P) / self.scale
                weighted = block.weight * shift / (self.recorded * self.weight_norm)
            if (np.maximum(np.abs(shift), np.abs(weighted)) > _LARGEST).any():
                raise ValueError(
                    f"`p` and `q` must differ by less than {_LARGEST:g} in units of "
                    "`scale`, weighted or not, got more."
                )
            run_sum, n_runs = _mean_over_runs(weighted, block.run)
            mu[block.pairs] = run_sum.mean
            stderr[block.pairs] = run_sum.stderr
            squares = np.nansum(shift**2, axis=0) / self.recorded
            total = squares / np.maximum(n_runs, 1)
            power[block.pairs] = np.where(n_runs > 0, np.sqrt(total), np.nan)
        return ComposedInfluence(mu, stderr, power)

    @classmethod
    def concatenate(cls, parts: Iterable[Observations]) -> Observations:
        """Join observations of the same pairs from several runs.

        Parameters
        ----------
        parts : iterable of Observations
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
        parts = listed(parts)
        if not parts:
            raise ValueError("`parts` must hold at least one Observations, got none.")
        if not all(isinstance(part, Observations) for part in parts):
            raise ValueError(f"`parts` must hold Observations, got {shown(parts)}.")
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
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
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
        arrays = {"meta": json.dumps(meta), **columns}
        write_npz(npz_place(path), arrays, compress=True)

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
            If the file is damaged, of a later schema, or no regular file.
        """
        file_path = path_of(path)
        if not file_path.exists():
            file_path = npz_place(path)
        file = Npz(file_path, "a file of Observations")
        with refusing(file_path, "a file of Observations"):
            meta = json.loads(str(file.array("meta")))
            schema = int(meta.pop("schema"))
            names = {
                key.removeprefix("name:"): file.array(key)
                for key in file.names
                if key.startswith("name:")
            }
            columns: dict[str, Any] = {name: file.array(name) for name in _COLUMNS}
        if schema > SCHEMA:
            raise ValueError(f"`{path}` was written by a later version of fstat.")
        with refusing(file_path, "a file of Observations"):
            return cls(**columns, names=names, **meta)


_COLUMNS = ("pair", "p", "q", "step", "run", "weight")
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
