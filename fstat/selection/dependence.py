"""How the estimates of many pairs hang together, and draws of their joint error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._units import column_exponents, in_units
from .._validation import FloatArray, numeric

_BLOCK = 2_000_000
_ROUNDING = 1e-8

InfluenceValues = ArrayLike | tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True)
class Dependence:
    """Correlation among the errors of estimates, as a root that draws them.

    Parameters
    ----------
    root : ndarray of shape (n_rows, n_pairs)
        Columns of length 1, or 0; the correlation of what pairs share is their inner
        product.
    own : ndarray of shape (n_pairs,)
        Share of its variance that each pair has for itself alone, in [0, 1].
    """

    root: FloatArray
    own: FloatArray

    @property
    def independent(self) -> bool:
        """Whether no two pairs are correlated."""
        return bool((self.own == 1).all())

    def draws(
        self, n_draws: int, rng: np.random.RandomState
    ) -> Iterator[NDArray[np.float64]]:
        """Yield blocks of joint errors, of shape (some draws, n_pairs)."""
        n_rows, n_pairs = self.root.shape
        size = max(1, _BLOCK // n_pairs)
        for start in range(0, n_draws, size):
            count = min(size, n_draws - start)
            z = rng.standard_normal((count, n_rows)) @ self.root
            z *= np.sqrt(1 - self.own)
            if self.own.any():
                z += np.sqrt(self.own) * rng.standard_normal((count, n_pairs))
            yield z


def dependence_among(
    tested: NDArray[np.bool_],
    correlation: ArrayLike | str | None,
    influence_values: InfluenceValues | None,
) -> Dependence | None:
    """Return the dependence among the tested pairs, None where it is not known."""
    if correlation is not None and influence_values is not None:
        raise ValueError("`correlation` and `influence_values` must not both be given.")
    if influence_values is not None:
        return _of_values(influence_values, tested)
    if correlation is None:
        return None
    if isinstance(correlation, str):
        if correlation != "independent":
            raise ValueError(
                "`correlation` must be 'independent' or a matrix, got "
                f"{correlation!r:.80}."
            )
        return Dependence(np.zeros((0, int(tested.sum()))), np.ones(tested.sum()))
    root = _root_of_matrix(correlation, tested)
    return Dependence(root, np.zeros(root.shape[1]))


def _root_of_matrix(correlation: ArrayLike, tested: NDArray[np.bool_]) -> FloatArray:
    given = numeric(correlation, "correlation")
    if given.shape != (len(tested), len(tested)):
        raise ValueError(
            f"`correlation` must have shape {(len(tested), len(tested))}, got "
            f"{given.shape}."
        )
    matrix = given[np.ix_(tested, tested)]
    if not (
        np.allclose(np.diag(matrix), 1.0, rtol=0, atol=_ROUNDING)
        and np.allclose(matrix, matrix.T, rtol=0, atol=_ROUNDING)
    ):
        raise ValueError(
            "`correlation` must be finite and symmetric with ones on its diagonal."
        )
    if not matrix.size:
        return matrix
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values[0] < -_ROUNDING * len(matrix):
        raise ValueError(
            "`correlation` must have no negative eigenvalue, got one of "
            f"{values[0]:.3g}."
        )
    root = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return np.asarray(root / np.linalg.norm(root, axis=0))


def _of_values(
    influence_values: InfluenceValues, tested: NDArray[np.bool_]
) -> Dependence:
    r"""Return the dependence that influence values show, shrunk towards none.

    The correlation of few rows overstates how alike many pairs are. It is drawn
    towards the identity with Ledoit and Wolf's intensity, and by Sidak's (1968)
    monotonicity what is lost is only tightness: intervals grow as all correlations
    shrink together. Pairs without influence values, such as separated ones, are taken
    to be independent of the others.
    """
    parts = (
        influence_values if isinstance(influence_values, tuple) else (influence_values,)
    )
    if not parts:
        raise ValueError("`influence_values` must hold at least one array, got ().")
    given = [_checked(part, tested) for part in parts]
    unit = column_exponents(*given)  # correlations have none
    root = np.concatenate([_centred(in_units(part, unit)) for part in given])
    length = np.linalg.norm(root, axis=0)
    root /= np.where(length > 0, length, 1.0)
    return Dependence(root, np.where(length > 0, _shrinkage(root), 1.0))


def _shrinkage(root: FloatArray) -> float:
    """Return Ledoit and Wolf's intensity, towards no correlation."""
    n_rows, n_pairs = root.shape
    gram = root @ root.T if n_rows < n_pairs else root.T @ root
    squares, sizes = np.sum(gram**2), np.sum(root**2, axis=1)
    apart = squares - sizes.sum()
    noise = np.sum(sizes**2) - squares / n_rows
    return 1.0 if apart <= _ROUNDING else float(np.clip(noise / apart, 0.0, 1.0))


def _checked(values: ArrayLike, tested: NDArray[np.bool_]) -> FloatArray:
    """Return the influence values of the pairs that are tested."""
    given = numeric(values, "influence_values")
    if given.ndim != 2 or given.shape[1] != len(tested) or not len(given):
        raise ValueError(
            f"`influence_values` must have shape (n_rows, {len(tested)}), or be a "
            f"tuple (of_P, of_Q) of such arrays, got {given.shape}."
        )
    if np.isinf(given).any():
        raise ValueError(
            "`influence_values` must be finite (NaN marks unobserved), got inf."
        )
    return given[:, tested]


def _centred(values: FloatArray) -> FloatArray:
    seen = ~np.isnan(values)
    mean = np.nansum(values, axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen, values - mean, 0.0)
