"""What an estimator of influence learnt: mu of every pair, with errors and tests."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ._validation import FloatArray, confidence, number, option
from ._warnings import warn
from .intervals import Collector, ConfidenceInterval, Dependence, Fit
from .methods import Learner, Method
from .tradeoff import GaussianTradeOff

if TYPE_CHECKING:
    import pandas as pd

_FARTHEST = 1e140
_ROWS_SHOWN = 10


class UnestimableWarning(UserWarning):
    """Some pairs have too few observations, or no spread, and got NaN."""


class Estimates(BaseEstimator):
    """Estimates of mu, their errors and tests, and how they are shown.

    An estimator sets `names_`, `quantity_`, and `_shape`, which is () for one pair, and
    publishes what was learnt.
    """

    def pvalue(
        self, null: float = 0.0, alternative: str = "two-sided"
    ) -> FloatArray | float:
        """Return the p-value of mu against a hypothetical value.

        Parameters
        ----------
        null : float, default=0.0
            Hypothetical mu.
        alternative : {"two-sided", "greater", "less"}, default="two-sided"
            Which mu speak against the null.

        Returns
        -------
        float or ndarray of shape (n_pairs,)
            P-values; NaN for pairs that could not be estimated.

        Raises
        ------
        ValueError
            If `null` is not finite or `alternative` not an option.
        """
        check_is_fitted(self, "mu_")
        option(alternative, "alternative", ("two-sided", "greater", "less"))
        # Further away only the side matters, and squares overflow.
        mu = min(max(number(null, "null"), -_FARTHEST), _FARTHEST)
        return self._out(self._inference.pvalue(mu, alternative))

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """Return the interval of all mu that a two-sided test does not reject.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Probability, over the sampling of the observations, of covering mu.

        Returns
        -------
        ConfidenceInterval
            `low` and `high`; infinite where the observations bound one side only.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.
        """
        check_is_fitted(self, "mu_")
        low, high = self._inference.interval(confidence(confidence_level))
        return ConfidenceInterval(
            self._out(np.asarray(low)), self._out(np.asarray(high))
        )

    def to_frame(self, confidence_level: float = 0.95) -> pd.DataFrame:
        """Return the estimates as a table, one row a pair.

        Parameters
        ----------
        confidence_level : float, default=0.95
            Level of the intervals `low` to `high`.

        Returns
        -------
        pandas.DataFrame
            The names of each pair, `mu`, `stderr`, `low`, `high`, `pvalue`, `n_P`,
            `n_Q` and `quantity`: what mu is and what its interval covers.

        Raises
        ------
        ValueError
            If `confidence_level` is not strictly between 0 and 1.
        """
        import pandas as pd

        low, high = self.confidence_interval(confidence_level)
        return pd.DataFrame(
            {
                **self.names_,
                "mu": self._fit.mu,
                "stderr": np.atleast_1d(self.stderr_),
                "low": np.atleast_1d(low),
                "high": np.atleast_1d(high),
                "pvalue": np.atleast_1d(self.pvalue_),
                "n_P": self._fit.n_P.astype(int),
                "n_Q": self._fit.n_Q.astype(int),
                "quantity": self.quantity_,
            }
        )

    def _repr_html_(self) -> str:
        """Return the first estimates as a table, the parameters where not fitted."""
        if not hasattr(self, "mu_"):
            return str(super()._repr_html_())
        table = self.to_frame().drop(columns="quantity")
        told = f"{self.quantity_}; 95 % intervals"
        if len(table) > _ROWS_SHOWN:
            told += f"; the first {_ROWS_SHOWN} of {len(table)} pairs"
        rows = table.head(_ROWS_SHOWN).to_html(
            index=False, border=0, float_format="{:.3g}".format
        )
        return f"<p><code>{escape(repr(self))}</code>: {escape(told)}</p>{rows}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _forget(self) -> None:
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.__dict__.pop("_learner", None)

    def _publish(self, learner: Learner, collector: Collector) -> None:
        fit, self._unmet = _known_fit(learner)
        self._fit = fit
        self._inference = collector.inference(fit, learner.inference(fit))
        self._unmet += self._inference.unmet()
        stderr = self._inference.stderr()
        pvalue = self._inference.pvalue(0.0, "two-sided")
        self.mu_, self.stderr_ = self._out(fit.mu), self._out(stderr)
        self.pvalue_ = self._out(pvalue)
        size = np.abs(fit.mu) if self._shape else np.abs(fit.mu[0])
        if self._shape or not np.isnan(size):
            self.tradeoff_ = GaussianTradeOff(size)
        self.n_P_, self.n_Q_ = (self._out(x.astype(int)) for x in (fit.n_P, fit.n_Q))
        self.separated_ = self._out(fit.separated > 0)
        self.slope_ = self._out(fit.slope)

    def _report(self) -> None:
        """Raise for one pair, warn with a count for many, that cannot be estimated."""
        for unmet, need in self._unmet:
            if unmet.any() and not self._shape:
                self._forget()
                if need.startswith("at least"):
                    raise ValueError(f"`P` and `Q` must each hold {need}, got fewer.")
                raise ValueError(f"`P` and `Q` must have {need}.")
            if unmet.any():
                warn(
                    f"{int(unmet.sum())} of {unmet.size} pairs got NaN: `P` and `Q` of "
                    f"a pair need {need}.",
                    UnestimableWarning,
                )

    def _out(self, values: np.ndarray) -> Any:
        """Return an array of pairs, or a Python number where the input was 1-D."""
        return values if self._shape else values.reshape(-1)[0].item()


def _known_fit(learner: Learner) -> tuple[Fit, list[tuple[NDArray[np.bool_], str]]]:
    """Return a fit, NaN for the pairs of which too little is known, and who these are.

    Parameters
    ----------
    learner : Learner
        Which took in all observations.

    Returns
    -------
    fit : Fit
        Of all pairs.
    unmet : list of tuple of ndarray of bool and str
        Pairs without an estimate, and what they need.
    """
    fit, method = learner.fit(), learner.method
    few, enough = _too_few(fit, method, learner.design.dependence)
    flat = ~few & ~method.known(fit) & ~(fit.separated > 0)
    unknown = few | flat
    fit.separated = np.where(few, 0.0, fit.separated)
    fit.mu = np.where(unknown, np.nan, fit.mu)
    constant = np.where(unknown | (fit.separated > 0), np.nan, fit.error.constant)
    fit.error = replace(fit.error, constant=constant)
    return fit, [(few, enough), (flat, method.needs)]


def _too_few(
    fit: Fit, method: Method, dependence: Dependence
) -> tuple[NDArray[np.bool_], str]:
    """Return where there are too few observations or clusters, and what is due."""
    least, units = method.least(dependence), dependence.least_units
    few = np.minimum(fit.n_P, fit.n_Q) < least
    if units:
        few |= np.minimum(fit.units_P, fit.units_Q) < units
    enough = f"at least {least} observation" + "s" * (least > 1)
    return few, enough + (f" of {units} clusters" if units else "")
