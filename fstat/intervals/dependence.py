"""What a kind of dependence has to say: covariances of sums, and what units there are.

Each kind is one file: `independent`, `serial`, `clusters`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .._choices import Choice
from .._validation import FloatArray
from .covariance import Covariance
from .sampling_error import SamplingError

Labels = tuple[NDArray[np.intp], NDArray[np.intp]]
Seen = tuple[NDArray[np.bool_], NDArray[np.bool_]]


class Dependence(Choice, ABC):
    """How rows, or pairs of rows, depend on each other."""

    in_order: ClassVar[bool] = False  # rows must come in order of time
    grouped: ClassVar[bool] = False  # rows need labels
    least: ClassVar[int] = 2  # observations of P and of Q
    least_units: ClassVar[int] = 0  # independent units that they must be of

    @abstractmethod
    def covariance(
        self,
        of_P: list[FloatArray],
        of_Q: list[FloatArray],
        seen: Seen,
        *,
        paired: bool,
        labels: Labels | None,
    ) -> Covariance:
        """Return covariances of sums of influence values.

        Parameters
        ----------
        of_P, of_Q : list of ndarray of shape (n, n_pairs) and (m, n_pairs)
            Influence values of each statistic for each observation, already divided
            by the sample size; 0 for unobserved.
        seen : pair of ndarray of bool of shape (n, n_pairs) and (m, n_pairs)
            Where an observation was made.
        paired : bool
            Whether row i of P and row i of Q were observed together.
        labels : pair of ndarray of int, or None
            Clusters of the rows, where `grouped`.

        Returns
        -------
        Covariance
            Covariances, degrees of freedom and numbers of independent units.
        """

    def of_scale(
        self,
        error: SamplingError,
        P: FloatArray,
        Q: FloatArray,
        units: tuple[FloatArray, FloatArray],
        *,
        paired: bool,
    ) -> SamplingError:
        """Return the error of a difference in units of a scale estimated from P and Q.

        Parameters
        ----------
        error : SamplingError
            Of the sums of influence values.
        P, Q : ndarray of shape (n, n_pairs) and (m, n_pairs)
            Observations, NaN for unobserved.
        units : pair of ndarray of shape (n_pairs,)
            Numbers of independent units.
        paired : bool
            Whether row i of P and row i of Q were observed together.

        Returns
        -------
        SamplingError
            As given, unless a kind knows more of how such a scale varies.
        """
        return error

    def separate_units(self, units: FloatArray) -> FloatArray:
        """Return how many independent events it takes for P and Q to separate.

        Parameters
        ----------
        units : ndarray
            Numbers of independent units.

        Returns
        -------
        ndarray
            As given, unless a kind says that there are fewer.
        """
        return units


@dataclass(frozen=True)
class SamplingDesign:
    """How observations belong together.

    Parameters
    ----------
    paired : bool
        Whether row i of P and row i of Q were observed together.
    dependence : Dependence
        Whether rows, or pairs of rows, depend on each other.
    """

    paired: bool
    dependence: Dependence

    def covariance(
        self,
        of_P: list[FloatArray],
        of_Q: list[FloatArray],
        seen: Seen,
        labels: Labels | None,
    ) -> Covariance:
        """Return covariances of sums of influence values, 0 where not `seen`."""
        return self.dependence.covariance(
            of_P, of_Q, seen, paired=self.paired, labels=labels
        )

    def together(self, P: FloatArray, Q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return P and Q, without the rows of a pair of which one half is missing."""
        if not self.paired:
            return P, Q
        both = ~np.isnan(P) & ~np.isnan(Q)
        return np.where(both, P, np.nan), np.where(both, Q, np.nan)
