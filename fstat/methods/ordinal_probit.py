r"""The binormal model of ordered categories: its likelihood, score and information.

An observation of P or Q falls into a category with the probability that a normal
variable has of lying between two thresholds. Located and scaled such that

.. math:: P \sim N(-\mu / 2, \sigma_P^2), \quad Q \sim N(\mu / 2, \sigma_Q^2), \quad
          (\sigma_P^2 + \sigma_Q^2) / 2 = 1,

the parameters are mu, the logarithm of the slope :math:`\sigma_P / \sigma_Q`, and the
thresholds. Swapping P and Q flips the signs of the first two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from .._validation import FloatArray

_SIGN = np.array([[1.0], [-1.0]])  # of the effect of mu on a standardised threshold


class Information(NamedTuple):
    """Information about mu and the log slope, the thresholds being unknown.

    Parameters
    ----------
    about : ndarray of shape (2, 2, n_pairs)
        Information matrix after elimination of the thresholds.
    border : ndarray of shape (2, n_thresholds, n_pairs)
        Information between the parameters and the thresholds.
    diagonal, beside : ndarray of shape (n_thresholds (- 1), n_pairs)
        Information of the thresholds, which is tridiagonal.
    slack : ndarray of shape (2, n_thresholds, n_pairs)
        How the likeliest thresholds fall as the parameters rise.
    """

    about: FloatArray
    border: FloatArray
    diagonal: FloatArray
    beside: FloatArray
    slack: FloatArray

    def definite(self) -> NDArray[np.bool_]:
        """Return whether the matrices are positive definite."""
        (a, b), (_, d) = self.about
        return np.asarray((a > 0) & (a * d > b * b))

    def solve(self, score: FloatArray) -> FloatArray:
        """Return the inverse of `about` times vectors of shape (..., 2, n_pairs)."""
        (a, b), (_, d) = self.about
        determinant = a * d - b * b
        with np.errstate(divide="ignore", invalid="ignore"):
            one = (d * score[..., 0, :] - b * score[..., 1, :]) / determinant
            two = (a * score[..., 1, :] - b * score[..., 0, :]) / determinant
        return np.stack([one, two], axis=-2)


@dataclass
class OrdinalProbit:
    """Counts in categories, and parameters that give them a likelihood.

    Parameters
    ----------
    counts : ndarray of shape (2, n_categories, n_pairs)
        Of P and of Q.
    parameters : ndarray of shape (2, n_pairs)
        mu and the log slope.
    thresholds : ndarray of shape (n_categories - 1, n_pairs)
        Between the categories, ascending; where a pair has fewer categories, far
        beyond the others.
    """

    counts: FloatArray
    parameters: FloatArray
    thresholds: FloatArray

    def __post_init__(self) -> None:
        mu, log_slope = self.parameters
        share = expit(-2 * log_slope)
        # Derivatives of log sigma_P and log sigma_Q by the log slope, and of these.
        self._rate = np.stack([share, share - 1])
        self._bend = -2 * share * (1 - share)
        self._per_unit = np.exp(
            (np.logaddexp(0.0, -2 * _SIGN * log_slope) - np.log(2)) / 2
        )
        shifted = self.thresholds + _SIGN[:, None] * mu / 2
        self._z = shifted * self._per_unit[:, None]
        self._density = np.exp(-(self._z**2) / 2) / np.sqrt(2 * np.pi)
        self._chance = _between(self._z)

    def take(self, where: NDArray[np.intp] | NDArray[np.bool_]) -> OrdinalProbit:
        """Return the model of some of the pairs."""
        return OrdinalProbit(
            self.counts[..., where],
            self.parameters[:, where],
            self.thresholds[:, where],
        )

    def moved(self, step: FloatArray, shift: FloatArray) -> OrdinalProbit:
        """Return the model with other parameters and thresholds."""
        return OrdinalProbit(
            self.counts, self.parameters + step, self.thresholds + shift
        )

    def log_likelihood(self) -> FloatArray:
        """Return the log likelihood; minus infinity for thresholds out of order."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(self.counts > 0, self.counts * np.log(self._chance), 0.0)
        ordered = (np.diff(self.thresholds, axis=0) >= 0).all(axis=0)
        return np.where(ordered, logs.sum(axis=(0, 1)), -np.inf)

    def score(self) -> tuple[FloatArray, FloatArray]:
        """Return the derivatives by the parameters and by the thresholds."""
        force = self._force()
        by_threshold = np.sum(self._per_unit[:, None] * force, axis=0)
        return np.sum(self._jacobian() * force[:, None], axis=(0, 2)), by_threshold

    def information(self, observed: bool) -> Information:
        """Return the observed or the expected information."""
        rates = self._rates(observed)
        d = self._density
        diagonal = d**2 * (rates[:, :-1] + rates[:, 1:])
        beside = -d[:, :-1] * d[:, 1:] * rates[:, 1:-1]
        force = self._force()
        if observed:
            diagonal = diagonal + force * self._z
        jacobian, unit = self._jacobian(), self._per_unit[:, None]
        turned = _tridiagonal(diagonal[:, None], beside[:, None], jacobian)
        border = np.sum(unit[:, None] * turned, axis=0)
        about = np.einsum("sijp,skjp->ikp", jacobian, turned)
        if observed:
            rate = self._rate[:, None]
            border[1] += np.sum(force * unit * rate, axis=0)
            about[0, 1] += np.sum(force * jacobian[:, 0] * rate, axis=(0, 1))
            about[1, 0] = about[0, 1]
            about[1, 1] -= np.sum(force * self._z * (rate**2 - self._bend), axis=(0, 1))
        diagonal = np.sum(unit**2 * diagonal, axis=0)
        beside = np.sum(unit**2 * beside, axis=0)
        slack = solve_tridiagonal(diagonal, beside, border)
        about = about - np.einsum("ijp,kjp->ikp", border, slack)
        return Information(about, border, diagonal, beside, slack)

    def efficient_scores(self, information: Information) -> FloatArray:
        """Return what one observation of each category says of the parameters.

        Parameters
        ----------
        information : Information
            Of this model.

        Returns
        -------
        ndarray of shape (2, n_categories, 2, n_pairs)
            Scores of P's and of Q's categories, those of the thresholds projected
            out; the last axis but one is mu and the log slope.
        """
        free = self._jacobian() - self._per_unit[:, None, None] * information.slack
        flow = np.pad(self._density[:, None] * free, ((0, 0), (0, 0), (1, 1), (0, 0)))
        scores = np.diff(flow, axis=2) * _reciprocal(self._chance)[:, None]
        return np.moveaxis(scores, 1, 2)

    def _force(self) -> FloatArray:
        """Return derivatives of the log likelihood by standardised thresholds."""
        ratio = self.counts * _reciprocal(self._chance)
        return np.asarray(self._density * (ratio[:, :-1] - ratio[:, 1:]))

    def _rates(self, observed: bool) -> FloatArray:
        inverse = _reciprocal(self._chance)
        if observed:
            return self.counts * inverse**2
        return np.asarray(self.counts.sum(axis=1, keepdims=True) * inverse)

    def _jacobian(self) -> FloatArray:
        """Return derivatives of the standardised thresholds by the parameters."""
        by_mu = np.broadcast_to((_SIGN * self._per_unit / 2)[:, None], self._z.shape)
        return np.stack([by_mu, -self._z * self._rate[:, None]], axis=1)


def solve_tridiagonal(
    diagonal: FloatArray, beside: FloatArray, right: FloatArray
) -> FloatArray:
    """Solve symmetric tridiagonal systems, one for each pair, by elimination.

    Parameters
    ----------
    diagonal, beside : ndarray of shape (k, n_pairs) and (k - 1, n_pairs)
        The matrices; rows of zeros have solution 0.
    right : ndarray of shape (..., k, n_pairs)
        Right-hand sides.

    Returns
    -------
    ndarray of shape (..., k, n_pairs)
        Solutions.
    """
    pivot = np.where(diagonal == 0, 1.0, diagonal)
    solution = right.copy()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for i in range(1, len(pivot)):
            factor = beside[i - 1] / pivot[i - 1]
            pivot[i] -= factor * beside[i - 1]
            solution[..., i, :] -= factor * solution[..., i - 1, :]
        solution[..., -1, :] /= pivot[-1]
        for i in range(len(pivot) - 2, -1, -1):
            solution[..., i, :] -= beside[i] * solution[..., i + 1, :]
            solution[..., i, :] /= pivot[i]
    return solution


def _tridiagonal(
    diagonal: FloatArray, beside: FloatArray, vector: FloatArray
) -> FloatArray:
    """Return symmetric tridiagonal matrices times vectors."""
    product = diagonal * vector
    product[..., 1:, :] += beside * vector[..., :-1, :]
    product[..., :-1, :] += beside * vector[..., 1:, :]
    return product


def _between(z: FloatArray) -> FloatArray:
    """Return normal probabilities between thresholds, precise in both tails."""
    ends = ((0, 0), (1, 1), (0, 0))
    low = np.pad(ndtr(z), ends, constant_values=((0, 0), (0, 1), (0, 0)))
    high = np.pad(ndtr(-z), ends, constant_values=((0, 0), (1, 0), (0, 0)))
    from_below = low[:, 1:] - low[:, :-1]
    return np.where(low[:, :-1] > 0.5, high[:, :-1] - high[:, 1:], from_below)


def _reciprocal(chance: FloatArray) -> FloatArray:
    """Return 1 / chance, 0 for categories without any."""
    inverse = np.zeros_like(chance)
    return np.divide(1.0, chance, out=inverse, where=chance > 1e-150)
