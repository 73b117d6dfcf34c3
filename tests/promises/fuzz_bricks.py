"""What the fuzz harness calls of the bricks of estimators, and of pictures.

Bricks take arrays of floats that were checked before: of any values, in two
dimensions. Their options are as odd as any.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from promises.fuzz_entries import (
    Arguments,
    curves,
    entry,
    fitted,
    many,
    observations,
    ranks,
    tradeoffs,
    truth,
    values,
)

import fstat
from fstat import _ties, display, ground_truth, intervals, methods

# Methods


def _arrays(a: Arguments) -> tuple[np.ndarray, np.ndarray]:
    """Return P and Q as estimators hand them on: floats, none of them infinite."""
    n, m, pairs = (int(size) for size in a.rng.integers([1, 1, 1], [30, 30, 4]))
    m = n if a.rng.random() < 0.5 else m
    made = [np.asarray(values(a.rng, (size, pairs)), float) for size in (n, m)]
    P, Q = (np.where(np.isinf(x) | (np.abs(x) > 1e100), np.nan, x) for x in made)
    a.drawn += [("P", P), ("Q", Q)]
    return P, Q


@entry
def methods__estimate(a: Arguments) -> Any:
    name = a.choice(["moments", "rank", "binormal", "quantile"])
    given = {}
    if name == "moments":
        given = a.options(0.3, equal_var="flag", scale="positive")
    found = getattr(methods, f"estimate_{name}")(*_arrays(a), **given)
    found.influence_at(0.5)
    return found


@entry
def methods__supremum(a: Arguments) -> Any:
    return methods.estimate_supremum(
        *_arrays(a), **a.options(0.5, floor=("option", 0.01, 0.2))
    )


@entry
def merge_ties(a: Arguments) -> Any:
    P, Q = _arrays(a)
    before = P.copy(), Q.copy()
    found = _ties.merge_ties(P, Q)
    np.testing.assert_equal((P, Q), before)
    return found


@entry
def methods__goodness_of_fit(a: Arguments) -> Any:
    given = a.options(0.3, paired="flag", confidence_level="level", random_state="seed")
    P, Q = _arrays(a)
    if "paired" in given:
        P, Q = P[: len(Q)], Q[: len(P)]
    draws = a("option", 19, 30)
    found = methods.goodness_of_fit(P, Q, **{"n_draws": draws, **given})
    return {"test": found, "slope": found.slope_interval, "said": found.message()}


@entry
def Covariance(a: Arguments) -> Any:
    influence = a.choice(many())
    n = len(influence.mu_)
    return fstat.simultaneous_intervals(
        influence, correlation=a("option", np.eye(n), np.ones((n, n))), n_draws=20
    )


@entry
def threshold_bounds(a: Arguments) -> Any:
    return intervals.bernoulli_upper_bound(
        a("sample", (3,)), a("sample", (3,)), a("level")
    )


# Pictures


def _looks(a: Arguments) -> dict[str, Any]:
    """Return axes, mostly good ones, and looks, which are good."""
    looks: dict[str, Any] = {}
    for name, good in (("color", "red"), ("alpha", 0.5), ("zorder", 3)):
        if a.rng.random() < 0.2:
            looks[name] = good
    if a.rng.random() < 0.3:
        looks["ax"] = a("option", None, _axes())
    return looks


def _closed(made: Any) -> Any:
    plt.close("all")
    return repr(made)


@entry
def AgreementDisplay(a: Arguments) -> Any:
    given = a.options(0.4, run=("option", 0))
    return _closed(
        display.AgreementDisplay.from_agreement(
            a("option", *agreements()), **given, **_looks(a)
        )
    )


@entry
def AgreementDisplay__plot(a: Arguments) -> Any:
    n = int(a.rng.integers(1, 6))
    made = display.AgreementDisplay(
        estimate=a("sample", (n,)),
        truth=a("sample", (n,)),
        truth_reach=np.abs(a.rng.normal(size=n)),
        **a.options(0.3, threshold="share", line=("option", (1.0, 0.0)), text="name"),
    )
    return _closed(made.plot())


@entry
def TradeOffDisplay__plot(a: Arguments) -> Any:
    made = display.TradeOffDisplay(
        tradeoff=a("option", *tradeoffs()),
        **a.options(0.3, name="name", confidence_level="level", sign="real"),
    )
    given = a.options(0.3, axes=("option", "linear", "probit"), name="name")
    return _closed(made.plot(**given, **_looks(a)))


@entry
def InfluenceDisplay__plot(a: Arguments) -> Any:
    n = int(a.rng.integers(0, 6))
    made = display.InfluenceDisplay(
        mu=a("sample", (n,)),
        low=a("sample", (n,)),
        high=a("sample", (n,)),
        names=a("labels", n),
        **a.options(0.3, quantity="name", n_hidden="few"),
    )
    return _closed(made.plot(**_looks(a)))


@entry
def RankDisplay__plot(a: Arguments) -> Any:
    given = a.options(0.4, k="few", pairs=("indices", 12), names=("labels", 12))
    return _closed(
        display.RankDisplay.from_ranks(a("option", ranks()), **given, **_looks(a))
    )


@entry
def CompositionDisplay__plot(a: Arguments) -> Any:
    given = a.options(
        0.4,
        axes=("option", "probit", "linear", "tail"),
        name="name",
        least=("option", 1e-6, 1e-3),
        legend="flag",
    )
    return _closed(composition().plot(**given, **_looks(a)))


@entry
def GaussianLimitDisplay__from_observations(a: Arguments) -> Any:
    given = a.options(0.3, confidence_level="level", random_state="seed", name="name")
    return _closed(
        display.GaussianLimitDisplay.from_observations(
            a("option", *observations()), a("option", 0, 1, 2), **given
        )
    )


@entry
def TradeOffDisplay__of_estimator(a: Arguments) -> Any:
    n = int(a.rng.integers(2, 20))
    given = a.options(
        0.4, estimator=("option", *fitted()[-3:], *curves()), confidence_level="level"
    )
    return _closed(
        display.TradeOffDisplay.from_samples(
            a("sample", (n,)), a("sample", (n,)), **given, **_looks(a)
        )
    )


@cache
def composition() -> display.CompositionDisplay:
    """Return a picture of a composition."""
    return display.CompositionDisplay.from_steps(fstat.LaplaceTradeOff(0.5), 4)


@cache
def agreements() -> list[Any]:
    """Return agreements of estimates with retraining."""
    rng = np.random.default_rng(0)
    shape = truth().n_pairs
    return [
        ground_truth.agreement(
            rng.normal(size=shape), truth(), n_resamples=20, random_state=0, **given
        )
        for given in ({}, {"interval": (np.full(shape, -9.0), np.full(shape, 9.0))})
    ]


def _axes() -> Any:
    return plt.subplots()[1]
