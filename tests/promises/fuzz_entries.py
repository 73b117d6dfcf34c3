"""What is called by the fuzz harness, and where its arguments are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from scipy import stats
from sklearn.linear_model import LogisticRegression

import fstat
from fstat import (
    datasets,
    display,
    empirical,
    ground_truth,
    intervals,
    methods,
    selection,
)

Rng = np.random.Generator
NAN = np.nan


def _nothing(*_: Any, **__: Any) -> None:
    """Take anything."""


# Where a scalar is meant
ODD = [
    None,
    True,
    False,
    np.True_,
    "0.95",
    "",
    b"x",
    NAN,
    np.inf,
    -np.inf,
    0,
    1,
    2,
    -1,
    -5,
    0.0,
    0.5,
    1.0,
    2.5,
    1e-300,
    1e300,
    5e-324,
    -1e-9,
    1 - 1e-12,
    1e-12,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**30,
    1j,
    np.float32(0.9),
    np.float16(0.5),
    np.longdouble(0.5),
    np.array(0.9),
    np.array([0.9]),
    [0.9],
    [],
    (),
    {},
    set(),
    object(),
    _nothing,
    Decimal("0.5"),
    Fraction(1, 2),
    pd.NA,
    pd.NaT,
    np.datetime64("NaT"),
    np.timedelta64(1),
    np.ma.masked,
    range(3),
    "auto",
    np.str_("moments"),
    np.int8(3),
    np.uint64(2**63),
    slice(3),
]


def odd(rng: Rng) -> Any:
    """Return something that is seldom meant."""
    if rng.random() < 0.1:
        return iter([0.5])
    if rng.random() < 0.3:
        return odd_array(rng)
    return ODD[rng.integers(len(ODD))]


def values(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of one of many distributions and scales."""
    kind = rng.integers(12)
    x = rng.normal(size=shape)
    if kind == 0:
        x = x * 10.0 ** rng.uniform(-320, 307)
    elif kind == 1:
        x = np.full(shape, rng.choice([0.0, 0.3, 1e300, -1e-310]))
    elif kind == 2:
        x = np.round(x)
    elif kind == 3:
        x = np.where(rng.random(shape) < rng.random(), NAN, x)
    elif kind == 4:
        x = np.exp(20 * x)
    elif kind == 5:
        x = x + 10.0 ** rng.uniform(0, 16)
    elif kind == 6:
        x = np.where(rng.random(shape) < 0.1, rng.choice([np.inf, -np.inf]), x)
    elif kind == 7:
        x = 1.0 * (x > 0)
    elif kind == 8:
        x = np.full(shape, NAN)
    elif kind == 9:
        x = np.abs(x)
    return x


def odd_shape(rng: Rng) -> tuple[int, ...]:
    """Return a shape, now and then one that is refused."""
    n, k = int(rng.integers(0, 12)), int(rng.integers(0, 4))
    return [(n,), (n, k), (), (n, k, 2), (1,), (2,), (0,), (n, 1), (1, k)][
        rng.integers(9)
    ]


def encoded(rng: Rng, x: np.ndarray) -> Any:
    """Return an array as one of the types, orders and strides that numbers come in."""
    with np.errstate(all="ignore"):
        dtype = [
            np.float16,
            np.float32,
            np.longdouble,
            np.int64,
            np.int8,
            np.uint64,
            bool,
            complex,
            object,
            str,
            ">f8",
            ">i4",
            "datetime64[s]",
            "timedelta64[s]",
            "S8",
        ][rng.integers(15)]
        safe = np.nan_to_num(np.clip(x, -100, 100)) if dtype not in ("S8", str) else x
        other = np.asarray(safe).astype(dtype)
    ways: list[Callable[[], Any]] = [
        lambda: other,
        lambda: x.tolist(),
        lambda: tuple(x.tolist()) if x.ndim else x.tolist(),
        lambda: np.asfortranarray(x),
        lambda: np.repeat(x, 2, axis=0)[::2] if x.ndim else x,
        lambda: x[::-1] if x.ndim else x,
        lambda: np.broadcast_to(x[:1], x.shape) if x.ndim and len(x) else x,
        lambda: np.ma.array(x, mask=rng.random(x.shape) < 0.3),
        lambda: np.ma.array(other, mask=rng.random(x.shape) < 0.3),
        lambda: (
            pd.DataFrame(x)
            if x.ndim == 2
            else pd.Series(x, index=None)
            if x.ndim == 1
            else x
        ),
        lambda: pd.Series(x, index=rng.permutation(len(x))) if x.ndim == 1 else x,
        lambda: (
            pd.DataFrame(x, columns=list("cadb")[: x.shape[1]])
            if x.ndim == 2 and x.shape[1] < 5
            else x
        ),
        lambda: pd.Series(x).astype("Float64") if x.ndim == 1 else x,
        lambda: (
            pd.Series(np.round(np.nan_to_num(np.clip(x, -9, 9)))).astype("Int64")
            if x.ndim == 1
            else x
        ),
        lambda: pd.Series(x > 0).astype("boolean") if x.ndim == 1 else x,
        lambda: pd.Series(x).astype(str) if x.ndim == 1 else x,
        lambda: scipy.sparse.csr_matrix(np.atleast_2d(x)) if x.ndim < 3 else x,
        lambda: [[1.0], [1.0, 2.0]],
        lambda: iter(x.ravel().tolist()),
        lambda: (
            np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:]
            .view(x.dtype)
            .reshape(x.shape)
            if x.size
            else x
        ),
        lambda: np.array([*x.ravel().tolist(), None], dtype=object),
        lambda: [*x.ravel().tolist(), "a"],
        lambda: memoryview(np.ascontiguousarray(x)),
    ]
    made = ways[rng.integers(len(ways))]()
    if isinstance(made, np.ndarray) and rng.random() < 0.3 and made.flags.owndata:
        made.setflags(write=False)
    return made


def odd_array(rng: Rng) -> Any:
    """Return an array of any shape, values and type."""
    return encoded(rng, values(rng, odd_shape(rng)))


class Arguments:
    """Arguments of one call: mostly good ones, and some odd."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.oddness = rng.choice([0.0, 0.1, 0.3, 0.6])
        self.drawn: list[tuple[str, Any]] = []
        self._before: list[tuple[str, np.ndarray, np.ndarray]] = []

    def __call__(self, kind: str, *of: Any) -> Any:
        """Return an argument of a kind, or something odd in its place."""
        rng = self.rng
        strange = rng.random() < self.oddness
        value = odd(rng) if strange else KINDS[kind](rng, *of)
        self.drawn.append((kind, value))
        base = value.data if isinstance(value, np.ma.MaskedArray) else value
        if isinstance(base, np.ndarray) and base.dtype.kind in "fiub":
            self._before.append((kind, base, base.copy()))
        return value

    def options(self, often: float = 0.3, **kinds: Any) -> dict[str, Any]:
        """Return some of the optional arguments."""
        given = {}
        for name, kind in kinds.items():
            if self.rng.random() < often:
                given[name] = self(*((kind,) if isinstance(kind, str) else kind))
        return given

    def choice(self, items: Any) -> Any:
        """Return one of several good objects."""
        return items[self.rng.integers(len(items))]

    def written(self) -> str:
        """Return the kind of an argument that was written to, or nothing."""
        for kind, now, before in self._before:
            if now.tobytes() != before.tobytes():
                return kind
        return ""


def _sample(rng: Rng, shape: tuple[int, ...]) -> Any:
    x = values(rng, shape) if rng.random() < 0.5 else rng.normal(size=shape)
    return encoded(rng, x) if rng.random() < 0.3 else x


def _one_of(*items: Any) -> Callable[[Rng], Any]:
    return lambda rng: items[rng.integers(len(items))]


def _labels(rng: Rng, n: int) -> Any:
    codes = rng.integers(0, max(n // 3, 2), n)
    ways = [
        codes,
        codes.tolist(),
        codes.astype(str),
        pd.Series(codes),
        codes.astype(float),
        np.array([f"run {k}" for k in codes], dtype=object),
        [*codes[1:].tolist(), None],
        np.where(codes == 1, NAN, codes),
        [1, "1"] * (n // 2) + [2] * (n % 2),
        np.ma.array(codes, mask=codes == 0),
        pd.Series(codes).astype("Int64"),
        pd.Categorical(codes.astype(str)),
        codes.astype("datetime64[s]"),
        (codes, codes),
    ]
    return ways[rng.integers(len(ways))]


KINDS: dict[str, Callable[..., Any]] = {
    "sample": _sample,
    "labels": _labels,
    "batch": lambda rng, b: rng.integers(0, 20, b),
    "level": _one_of(0.9, 0.95, 0.5, 0.999, 1 - 1e-12, 1e-6),
    "share": lambda rng: float(rng.random()),
    "positive": lambda rng: float(10 ** rng.uniform(-3, 3)),
    "wide": lambda rng: float(10 ** rng.uniform(-300, 300)),
    "real": lambda rng: float(rng.normal()),
    "whole": lambda rng: int(rng.integers(1, 30)),
    "few": lambda rng: int(rng.integers(2, 5)),
    "draws": lambda rng: int(rng.integers(20, 60)),
    "flag": _one_of(True, False),
    "seed": lambda rng: int(rng.integers(0, 99)),
    "alternative": _one_of("two-sided", "greater", "less"),
    "dependence": _one_of("independent", "serial", "clustered"),
    "fdr dependence": _one_of("positive", "arbitrary"),
    "alpha": lambda rng: (
        rng.random(rng.integers(0, 5))
        if rng.random() < 0.5
        else float(rng.choice([0, 1, 1e-15, 1 - 1e-15, rng.random()]))
    ),
    "epsilon": lambda rng: (
        rng.normal(0, 10, rng.integers(0, 5))
        if rng.random() < 0.5
        else float(rng.choice([0, 700, -700, 1e-12, np.inf]))
    ),
    "probabilities": lambda rng: rng.dirichlet(np.ones(4)),
    "indices": lambda rng, n: [
        rng.permutation(n)[: rng.integers(1, n + 1)],
        rng.random(n) < 0.4,
        [0],
        [-1],
        [n],
    ][rng.integers(5)],
    "per pair": lambda rng, n: encoded(rng, rng.normal(size=n)),
    "option": lambda rng, *items: items[rng.integers(len(items))],
    "name": _one_of("a", "b c", None),
}


def _odd(rng: Rng, *good: Any) -> Any:
    """Return one of the good parameters of a choice, seldom one that is none."""
    bad = (0, -1, NAN, "", "hac ", True, [], None)
    items = bad if rng.random() < 0.1 else good
    return items[rng.integers(len(items))]


def _method(rng: Rng) -> Any:
    scale = _odd(rng, None, "pooled", 1.0, np.ones(2), 10.0 ** rng.integers(-300, 300))
    made = [
        methods.Moments(scale=scale, shrinkage=_odd(rng, None, "moderated")),
        methods.Supremum(alpha_min=_odd(rng, 0.01, 0.1)),
        methods.Rank(),
        methods.Moments,
    ]
    return made[rng.choice(4, p=[0.6, 0.2, 0.15, 0.05])]


def _series(rng: Rng) -> Any:
    made = [
        intervals.Serial(_odd(rng, "batch_means", "ar1", "hac")),
        intervals.Clustered(),
        intervals.Independent(),
        intervals.Serial,
    ]
    return made[rng.choice(4, p=[0.6, 0.2, 0.15, 0.05])]


def _kind(rng: Rng) -> Any:
    made = [
        intervals.Bootstrap(_odd(rng, 10, 30), random_state=_odd(rng, 0, 1)),
        intervals.Sequence(_odd(rng, 1, 200)),
        intervals.InvertedTest(),
        methods.Rank(),
    ]
    return made[rng.choice(4, p=[0.4, 0.4, 0.15, 0.05])]


KINDS |= {"method": _method, "series": _series, "kind": _kind}


def _pair_of_samples(a: Arguments) -> tuple[Any, Any]:
    """Return P and Q whose shapes mostly fit."""
    rng = a.rng
    n, m = rng.integers(1, 30, 2)
    if rng.random() < 0.5:
        m = n
    pairs = () if rng.random() < 0.5 else (int(rng.integers(1, 5)),)
    return a("sample", (n, *pairs)), a("sample", (m, *pairs))


ENTRIES: dict[str, Callable[[Arguments], Any]] = {}


def entry(call: Callable[[Arguments], Any]) -> Callable[[Arguments], Any]:
    """Put a call on the list under its own name."""
    ENTRIES[call.__name__.replace("__", ".")] = call
    return call


# Estimation


def estimator(a: Arguments, often: float = 0.2) -> fstat.FInfluence:
    """Return an estimator whose choices are names, objects, or neither."""
    given = a.options(
        often,
        method=("option", "moments", "rank", "binormal", "quantile", "supremum"),
        paired="flag",
        dependence="dependence",
        interval=("option", "auto", "sequence", "bootstrap"),
    )
    objects = a.options(often, method="method", dependence="series", interval="kind")
    given = {"interval": "auto", **given, **objects}
    if str(given["interval"]) == "bootstrap":
        given["interval"] = intervals.Bootstrap(30)
    influence = fstat.FInfluence(**given)
    nested = a.options(
        often / 4,
        method__shrinkage=("option", None, "moderated"),
        method__scale="positive",
        dependence__long_run=("option", "ar1", "hac"),
        interval__optimal_at="whole",
    )
    return influence.set_params(**nested) if nested else influence


@entry
def FInfluence__fit(a: Arguments) -> Any:
    P, Q = _pair_of_samples(a)
    n = len(P) if isinstance(P, np.ndarray) and P.ndim else 3
    labels = a.options(0.2, runs=("labels", n), steps=("labels", n))
    fitted = estimator(a).fit(P, Q, **labels)
    fitted.to_frame()
    return fitted


@entry
def FInfluence__fit_observations(a: Arguments) -> Any:
    return estimator(a, 0.15).fit(a.choice(observations()))


@entry
def FInfluence__partial_fit(a: Arguments) -> Any:
    P, Q = _pair_of_samples(a)
    influence = estimator(a, 0.1).partial_fit(P, Q)
    P, Q = (P, Q) if a.rng.random() < 0.7 else _pair_of_samples(a)
    return influence.partial_fit(P, Q)


@entry
def FInfluence__goodness_of_fit(a: Arguments) -> Any:
    if a.rng.random() < 0.2:
        return estimator(a, 0.1).goodness_of_fit(a.choice(observations()))
    P, Q = _pair_of_samples(a)
    return estimator(a, 0.1).goodness_of_fit(P, Q)


@entry
def FInfluence__pvalue(a: Arguments) -> Any:
    given = a.options(0.7, null="real", alternative="alternative")
    p = np.asarray(a.choice(fitted()).pvalue(**given), float)
    return {"p": fstat.intervals.ConfidenceInterval(np.zeros_like(p), p)}


@entry
def FInfluence__confidence_interval(a: Arguments) -> Any:
    return a.choice(fitted()).confidence_interval(a("level"))


@entry
def FInfluence__to_frame(a: Arguments) -> Any:
    return a.choice(fitted()).to_frame(a("level"))


@entry
def FInfluence__score(a: Arguments) -> Any:
    influence = a.choice(fitted())
    shape = (int(a.rng.integers(2, 9)), *np.shape(influence.mu_))
    return influence.score(a("sample", shape), a("sample", shape))


@entry
def FInfluence__influence_values(a: Arguments) -> Any:
    P, Q = _pair_of_samples(a)
    return estimator(a, 0.1).influence_values(P, Q)


@entry
def ConfidenceSequence(a: Arguments) -> Any:
    sequence = fstat.ConfidenceSequence(
        **a.options(
            0.3,
            confidence_level="level",
            paired="flag",
            dependence="dependence",
            scale="positive",
            subgaussian="positive",
            optimal_at="whole",
            burn_in="whole",
            running_intersection="flag",
        )
    )
    P, Q = _pair_of_samples(a)
    return sequence.update(P, Q).update(P, Q).interval()


def _mean_shift(P: Any, Q: Any) -> Any:
    return np.nanmean(Q, axis=0) - np.nanmean(P, axis=0)


RESAMPLING = {
    "paired": "flag",
    "dependence": "dependence",
    "block_length": "few",
    "n_resamples": "draws",
    "random_state": "seed",
}


@entry
def bootstrap_distribution(a: Arguments) -> Any:
    P, Q = _pair_of_samples(a)
    given = {"n_resamples": 30, **a.options(0.2, **RESAMPLING)}
    draws = fstat.intervals.bootstrap_distribution(P, Q, _mean_shift, **given)
    return draws.interval(a("level"), a("option", "bca", "percentile"))


@entry
def bootstrap_interval(a: Arguments) -> Any:
    P, Q = _pair_of_samples(a)
    given = {"n_resamples": 30, **a.options(0.2, kind="name", confidence_level="level")}
    return intervals.bootstrap_interval(P, Q, _mean_shift, **given)


@entry
def threshold_lower_bound(a: Arguments) -> Any:
    counts = [a("whole") for _ in range(4)]
    return fstat.intervals.threshold_lower_bound(
        *counts, **a.options(0.5, level="level")
    )


@entry
def bernoulli_upper_bound(a: Arguments) -> Any:
    return intervals.bernoulli_upper_bound(a("few"), a("whole"), a("level"))


@entry
def normal_mixture(a: Arguments) -> Any:
    rho = intervals.normal_mixture_rho(a("positive"), a("level"))
    return intervals.normal_mixture_boundary(
        a("positive"), a("level"), a("option", rho)
    )


@entry
def make_observations(a: Arguments) -> Any:
    return datasets.make_observations(
        a("real"),
        **a.options(
            0.3,
            n="whole",
            m="whole",
            sd_ratio="positive",
            correlation="share",
            autocorrelation="share",
            random_state="seed",
            distribution=("option", "normal", "t3", "lognormal", "rounded"),
        ),
    )


@entry
def flip_labels(a: Arguments) -> Any:
    return datasets.flip_labels(
        a("labels", 12),
        a("share"),
        **a.options(
            0.3,
            kind=("option", "uniform", "class", "instance"),
            n_classes="whole",
            probabilities=("sample", (12, 4)),
            random_state="seed",
        ),
    )


# Observations


@entry
def Observations(a: Arguments) -> Any:
    n = int(a.rng.integers(0, 12))
    rows = fstat.Observations(
        a("indices", 5) if a.rng.random() < 0.1 else a.rng.integers(0, 4, n),
        a("sample", (n,)),
        a("sample", (n,)),
        **a.options(
            0.2,
            step=("option", np.arange(n), 0),
            run=("option", np.arange(n) % 2),
            weight="positive",
            n_pairs="whole",
            n_steps="whole",
            weight_norm="positive",
            names=("option", {"a": np.arange(4)}, {"a": list("abcd")}),
            recorded="share",
            paired="flag",
            scale="positive",
            self_influence="flag",
            quantity="name",
        ),
    )
    list(rows.blocks(**a.options(0.3, size="whole", in_order="flag")))
    if rows.scale is not None:
        rows.composed()
    return rows


@entry
def Observations__samples(a: Arguments) -> Any:
    return a.choice(observations()).samples(a("few"))


@entry
def Observations__concatenate(a: Arguments) -> Any:
    rows = observations()
    return fstat.Observations.concatenate(
        a("option", rows[:2], iter(rows[:1]), rows, [])
    )


# Empirical curves


@entry
def tradeoff_curve(a: Arguments) -> Any:
    return fstat.tradeoff_curve(*_pair_of_samples(a))


@entry
def EmpiricalTradeOff__fit(a: Arguments) -> Any:
    n, m = a.rng.integers(1, 30, 2)
    curve = fstat.EmpiricalTradeOff(
        **a.options(
            0.3,
            direction=("option", "greater", "less", "both", "likelihood_ratio"),
            paired="flag",
            train_size="share",
            random_state="seed",
        )
    ).fit(a("sample", (n,)), a("sample", (n if a.rng.random() < 0.5 else m,)))
    curve.confidence_band()
    return curve


def _asked(curve_name: str) -> Callable[[Arguments], Any]:
    def ask(a: Arguments) -> Any:
        given = a.options(
            0.3,
            method=("option", "equal_level", "dkw", "split", "clopper_pearson"),
            threshold="real",
        )
        if curve_name == "lower_bound_epsilon":
            given["delta"] = a("share")
        return getattr(a.choice(curves()), curve_name)(a("level"), **given)

    return ask


for _name in ("lower_bound_mu", "lower_bound_epsilon", "upper_bound_f"):
    ENTRIES[f"EmpiricalTradeOff.{_name}"] = _asked(_name)


@entry
def EmpiricalTradeOff__confidence_band(a: Arguments) -> Any:
    given = a.options(0.5, method=("option", "equal_level", "dkw", "bootstrap"))
    return a.choice(curves()).confidence_band(
        a("level"), **{"n_resamples": a("draws"), **given}
    )


@entry
def EmpiricalTradeOff__score(a: Arguments) -> Any:
    n = int(a.rng.integers(1, 20))
    curve = a.choice(curves())
    curve.statistic(a("sample", (n,)))
    return curve.score(a("sample", (n,)), a("sample", (n,)))


# Trade-off functions


def _tradeoff(a: Arguments) -> Any:
    return a("option", *tradeoffs())


@entry
def GaussianTradeOff(a: Arguments) -> Any:
    f = fstat.GaussianTradeOff(a("wide") if a.rng.random() < 0.3 else a("positive"))
    f.delta(1.0), f.epsilon(1e-5), f.power(0.05), f.auc(), f.advantage(), f.f(0.5)
    return f


@entry
def GaussianTradeOff__from_epsilon_delta(a: Arguments) -> Any:
    return fstat.GaussianTradeOff.from_epsilon_delta(
        a("option", a.rng.exponential(5.0)), a("share")
    )


@entry
def LaplaceTradeOff(a: Arguments) -> Any:
    f = fstat.LaplaceTradeOff(a("wide") if a.rng.random() < 0.3 else a("positive"))
    f.delta(1.0), f.epsilon(1e-5), f.power(0.05), f.auc(), f.advantage(), f.f(0.5)
    return f


@entry
def EpsilonDeltaTradeOff(a: Arguments) -> Any:
    f = fstat.EpsilonDeltaTradeOff(a("positive"), a("share"))
    f.delta(1.0), f.epsilon(1e-5), f.power(0.05), f.auc(), f.advantage(), f.f(0.5)
    return f


@entry
def PiecewiseLinearTradeOff(a: Arguments) -> Any:
    alpha = np.sort(np.append(a.rng.random(3), [0, 1]))
    f = fstat.PiecewiseLinearTradeOff(
        a("option", alpha),
        a("option", 1 - alpha, (1 - alpha) ** 2),
        **a.options(0.5, convexify="flag"),
    )
    f.delta(1.0), f.epsilon(1e-5), f.power(0.05)
    return f


@entry
def PiecewiseLinearTradeOff__from_probabilities(a: Arguments) -> Any:
    return fstat.PiecewiseLinearTradeOff.from_probabilities(
        a("probabilities"), a("probabilities"), **a.options(0.2, loss=("sample", (4,)))
    )


QUESTIONS = {
    "f": ("alpha",),
    "power": ("alpha",),
    "delta": ("epsilon",),
    "epsilon": ("alpha",),
    "conjugate": ("epsilon",),
    "bayes_error": ("alpha",),
    "group": ("few",),
    "likelihood_ratio_test": ("epsilon",),
    "tightest_mu": ("share",),
    "subsample": ("share",),
    "regret": ("positive",),
}


def _question(name: str, kinds: tuple[str, ...]) -> Callable[[Arguments], Any]:
    return lambda a: getattr(a.choice(tradeoffs()), name)(*map(a, kinds))


for _name, _kinds in QUESTIONS.items():
    ENTRIES[f"TradeOff.{_name}"] = _question(_name, _kinds)


@entry
def TradeOff__from_json(a: Arguments) -> Any:
    text = a.choice(tradeoffs()).to_json()
    if a.rng.random() < 0.5:
        start = int(a.rng.integers(0, len(text)))
        text = (
            text[:start]
            + str(a.choice(["", "nan", "-1", "}", '"']))
            + text[start + 1 :]
        )
    f = fstat.TradeOff.from_json(a("option", text))
    f.epsilon(1e-3)
    return f


@entry
def TradeOff__compare(a: Arguments) -> Any:
    return a.choice(tradeoffs()).compare(_tradeoff(a))


@entry
def tradeoff_between(a: Arguments) -> Any:
    def distribution() -> Any:
        scale = a("positive")
        return a(
            "option",
            stats.norm(0, scale),
            stats.laplace(a("real")),
            stats.expon(),
            stats.poisson(3),
            stats.binom(5, 0.5),
            stats.norm(0, 1),
            stats.uniform(),
        )

    f = fstat.tradeoff_between(distribution(), distribution())
    f.f(0.05)
    return f


@entry
def mixture(a: Arguments) -> Any:
    fs = [_tradeoff(a) for _ in range(2)]
    w = a.rng.random()
    return fstat.tradeoff.mixture(a("option", fs), a("option", [w, 1 - w]))


@entry
def maximum(a: Arguments) -> Any:
    return fstat.tradeoff.maximum(*[_tradeoff(a) for _ in range(a.rng.integers(0, 4))])


@entry
def minimum(a: Arguments) -> Any:
    return fstat.tradeoff.minimum(*[_tradeoff(a) for _ in range(a.rng.integers(0, 4))])


@entry
def compose(a: Arguments) -> Any:
    fs = [_tradeoff(a) for _ in range(a.rng.integers(0, 3))]
    f = fstat.compose(
        *fs,
        **a.options(
            0.3,
            counts=("option", [a("few") for _ in fs]),
            tolerance="share",
            method=("option", "auto", "numeric"),
        ),
    )
    f.epsilon(1e-3)
    return f


@entry
def gaussian_limit(a: Arguments) -> Any:
    fs = [_tradeoff(a) for _ in range(a.rng.integers(0, 3))]
    limit = fstat.gaussian_limit(
        a("option", fs, *tradeoffs()), **a.options(0.5, counts="few")
    )
    limit.lower(a("alpha")), limit.edgeworth(a("alpha")), limit.upper(a("alpha"))
    return limit.f(a("alpha"))


# Many pairs


def _scores(a: Arguments) -> Any:
    if a.rng.random() < 0.5:
        return a("option", *many())
    return a("per pair", 12)


@entry
def select(a: Arguments) -> Any:
    return fstat.select(
        _scores(a),
        **a.options(
            0.3,
            fdr="share",
            null=("option", None, "theoretical", "reference", "empirical"),
            reference=("indices", 12),
            alternative="alternative",
            stronger_than="share",
            dependence="fdr dependence",
            strata=("labels", 12),
        ),
    )


@entry
def select_missed(a: Arguments) -> Any:
    scores = a.choice([a("per pair", 60), np.arange(60.0)])
    return fstat.select(
        scores,
        reference=a("option", np.arange(40)),
        missed=a("share"),
        **a.options(0.3, fdr="share", alternative="alternative"),
    )


@entry
def shortlist(a: Arguments) -> Any:
    given = a.options(0.4, miss_rate="share", alternative="alternative")
    return selection.shortlist(a("per pair", 12), a("indices", 12), **given)


@entry
def select_signs(a: Arguments) -> Any:
    return fstat.select_signs(
        a("option", *many()),
        **a.options(
            0.3,
            fdr="share",
            stronger_than="share",
            dependence="fdr dependence",
            strata=("labels", 12),
        ),
    )


@entry
def estimate_local_fdr(a: Arguments) -> Any:
    fit = selection.estimate_local_fdr(
        a("per pair", 600),
        **a.options(0.3, method=("option", "likelihood", "matching")),
    )
    return fit.pvalue(a("per pair", 5), a("alternative"))


MANY = {
    "correlation": ("option", "estimate", 0.5, np.eye(12)),
    "n_draws": "draws",
    "random_state": "seed",
    "influence_values": ("sample", (12, 12)),
}


@entry
def simultaneous_intervals(a: Arguments) -> Any:
    return fstat.simultaneous_intervals(
        a("option", *many()),
        a("level"),
        **a.options(0.3, method=("option", "max-t", "sidak", "bonferroni"), **MANY),
    )


@entry
def rank_intervals(a: Arguments) -> Any:
    ranks = fstat.rank_intervals(
        a("option", *many()),
        a("level"),
        **a.options(0.3, method=("option", None, "comparison", "joint"), **MANY),
    )
    return {"k": ranks.top_k(a("few")), "ranks": ranks}


@entry
def fcr_intervals(a: Arguments) -> Any:
    influence = a.choice(many())
    chosen = a("option", fstat.select(influence), np.arange(12) < 4, [0, 1])
    given = a.options(0.3, dependence="fdr dependence")
    return fstat.fcr_intervals(influence, chosen, a("level"), **given)


@entry
def sign_errors(a: Arguments) -> Any:
    given = a.options(0.5, alpha="share", df="positive")
    return fstat.sign_errors(a("sample", (4,)), a("positive"), **given)


# Ground truth


@entry
def agreement(a: Arguments) -> Any:
    given = a.options(
        0.3,
        stderr=("sample", (12,)),
        threshold="share",
        confidence_level="level",
        n_resamples="draws",
        random_state="seed",
        interval=("option", (np.full(12, -9.0), np.full(12, 9.0))),
    )
    return ground_truth.agreement(
        a("sample", (12,)), a("option", truth()), **{"n_resamples": 20, **given}
    )


@entry
def CalibratedInfluence(a: Arguments) -> Any:
    calibrated = ground_truth.CalibratedInfluence(
        **a.options(0.3, method=("option", "linear", "isotonic"), normalize="flag")
    ).fit(a("sample", (6, 2)), a("sample", (6, 2)))
    calibrated.predict(a("sample", (4,)))
    return calibrated.predict_interval(a("sample", (4,)), a("level"))


@entry
def MultiRunInfluence(a: Arguments) -> Any:
    influence = ground_truth.MultiRunInfluence(
        train=a("option", _train),
        **a.options(0.3, n_runs="few", n_runs_without="few", random_state="seed"),
    )
    return influence.fit(a("option", [[0], [1, 2]], {"a": [0]}, [3]), a("option", 8))


@entry
def linear_datamodelling_score(a: Arguments) -> Any:
    subsets = [[0, 1], [2, 3], [0, 4], a("indices", 6)]
    return ground_truth.linear_datamodelling_score(
        a("sample", (6, 2)), a("option", subsets), a("sample", (4, 2))
    )


def _train(indices: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([np.mean(indices), np.ptp(indices), 1.0]) + rng.normal(size=3)


@entry
def retrain(a: Arguments) -> Any:
    return ground_truth.retrain(
        a("option", _train),
        a("option", 8),
        a("option", [[0], [1, 2]], {"a": [0]}, [3]),
        a("few"),
        **a.options(
            0.3,
            n_runs_without="few",
            targets=("option", ["x", "y"], [1, 2]),
            keep=("option", None, "epochs", "steps"),
            random_state="seed",
            n_jobs=("option", None, 1),
            key="name",
            verbose=("option", 0),
        ),
    )


@entry
def sklearn_trainer(a: Arguments) -> Any:
    X, y = a.rng.normal(size=(20, 2)), np.arange(20) % 2
    trainer = ground_truth.sklearn_trainer(
        a("option", LogisticRegression()),
        a("option", X),
        a("option", y),
        a("option", X[:3]),
        a("option", y[:3]),
        **a.options(
            0.3, statistic=("option", "margin", "log_odds", "loss"), resample="flag"
        ),
    )
    return trainer(np.arange(10), 0)


# Displays


def _shown(made: Any) -> Any:
    import matplotlib.pyplot as plt

    plt.close("all")
    return made


@entry
def TradeOffDisplay__from_samples(a: Arguments) -> Any:
    n = int(a.rng.integers(2, 20))
    P, Q = a("sample", (n,)), a("sample", (n,))
    given = a.options(0.3, name="name", axes=("option", "linear", "probit"))
    return _shown(display.TradeOffDisplay.from_samples(P, Q, **given))


@entry
def TradeOffDisplay__from_estimator(a: Arguments) -> Any:
    given = a.options(
        0.3, confidence_level="level", axes=("option", "linear", "probit")
    )
    return _shown(
        display.TradeOffDisplay.from_estimator(a("option", *curves()), **given)
    )


@entry
def InfluenceDisplay__from_estimator(a: Arguments) -> Any:
    given = a.options(
        0.4, pairs=("indices", 12), names=("labels", 12), confidence_level="level"
    )
    made = display.InfluenceDisplay.from_estimator(a("option", *many()), **given)
    return _shown(made)


@entry
def RankDisplay__from_ranks(a: Arguments) -> Any:
    given = a.options(0.4, k="few", pairs=("indices", 12), names=("labels", 12))
    return _shown(display.RankDisplay.from_ranks(a("option", ranks()), **given))


@entry
def CompositionDisplay__from_steps(a: Arguments) -> Any:
    given = a.options(
        0.4, counts="few", name="name", axes=("option", "probit", "linear", "tail")
    )
    return _shown(display.CompositionDisplay.from_steps(_tradeoff(a), **given))


@entry
def GaussianLimitDisplay__from_samples(a: Arguments) -> Any:
    n = int(a.rng.integers(2, 20))
    P, Q = a("sample", (n,)), a("sample", (n,))
    given = a.options(0.3, confidence_level="level", random_state="seed", name="name")
    return _shown(display.GaussianLimitDisplay.from_samples(P, Q, **given))


# Good objects, made once


@cache
def observations() -> list[fstat.Observations]:
    """Return observations of a few designs."""
    rng = np.random.default_rng(0)
    pair, step = np.repeat(np.arange(3), 8), np.tile(np.arange(8), 3)
    p, q = rng.normal(size=(2, 24))
    runs = step % 2
    return [
        fstat.Observations(pair, p, q, step=step, scale=1.0),
        fstat.Observations(pair, p, q + 1, step=step, scale=1.0),
        fstat.Observations(pair, p, q, step=step, run=runs),
        fstat.Observations(pair, p, q, paired=False, names={"subset": list("abc")}),
        fstat.Observations([], [], [], n_pairs=3),
    ]


@cache
def fitted() -> list[fstat.FInfluence]:
    """Return estimators of one pair and of three, by every method."""
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=(15, 3)), rng.normal(1, 1, size=(15, 3))
    options: list[dict[str, Any]] = [
        {},
        {"method": "rank"},
        {"method": "binormal"},
        {"method": "quantile"},
        {"method": "supremum"},
        {"method": methods.Moments(scale="pooled")},
        {"paired": True},
        {"method": methods.Moments(scale=1.0)},
        {"interval": "sequence"},
        {"dependence": "serial"},
        {"interval": intervals.Bootstrap(50)},
    ]
    made = [fstat.FInfluence(**o).fit(P, Q) for o in options]
    with_nan = np.where(rng.random((15, 3)) < 0.2, NAN, P)
    return [
        *made,
        *(fstat.FInfluence(**o).fit(P[:, 0], Q[:, 0]) for o in options),
        fstat.FInfluence().fit(pd.DataFrame(with_nan, columns=list("abc")), Q),
    ]


@cache
def many() -> list[fstat.FInfluence]:
    """Return estimators of twelve pairs."""
    rng = np.random.default_rng(1)
    shift = np.repeat([0.0, 2.0, -2.0], 4)
    P, Q = rng.normal(size=(20, 12)), rng.normal(shift, 1, size=(20, 12))
    return [
        fstat.FInfluence().fit(P, Q),
        fstat.FInfluence(method="rank").fit(P, Q),
        fstat.FInfluence(paired=True).fit(P, Q),
        fstat.FInfluence(interval=intervals.Bootstrap(50)).fit(P, Q),
    ]


@cache
def ranks() -> Any:
    """Return rank intervals."""
    return fstat.rank_intervals(many()[0], n_draws=50, random_state=0)


@cache
def curves() -> list[fstat.EmpiricalTradeOff]:
    """Return fitted curves of every direction."""
    rng = np.random.default_rng(0)
    P, Q = rng.normal(size=30), rng.normal(1, 1, size=30)
    return [
        empirical.EmpiricalTradeOff(random_state=0, **options).fit(P, Q)
        for options in (
            {},
            {"direction": "less"},
            {"direction": "both"},
            {"paired": True},
            {"direction": "likelihood_ratio"},
        )
    ]


@cache
def tradeoffs() -> list[fstat.TradeOff]:
    """Return a trade-off function of each family."""
    G, L = fstat.GaussianTradeOff, fstat.LaplaceTradeOff
    return [
        G(0.0),
        G(1.0),
        G(20.0),
        L(0.5),
        L(50.0),
        fstat.EpsilonDeltaTradeOff(1.0, 0.01),
        fstat.EpsilonDeltaTradeOff(0.0, 1.0),
        G(1.0).subsample(0.1),
        L(1.0).group(2),
        fstat.PiecewiseLinearTradeOff([0, 0.2, 1], [1, 0.3, 0]),
        G(1.0).subsample(0.3) ** 3,
        fstat.PiecewiseLinearTradeOff([0, 0.2, 1], [1, 0.3, 0]).inverse(),
        fstat.tradeoff.mixture([G(1.0), L(1.0)], [0.5, 0.5]),
        fstat.tradeoff.minimum(G(1.0), L(1.0)),
        fstat.tradeoff.maximum(G(1.0), L(1.5)),
        G(1.0).subsample(0.2).symmetrized(),
        fstat.tradeoff_between(stats.norm(0, 1), stats.norm(1, 2)),
    ]


@cache
def truth() -> fstat.Observations:
    """Return retrainings without each of four subsets, and three targets."""
    subsets = [[0], [1, 2], [7], [3, 4, 5]]
    return ground_truth.retrain(_train, 8, subsets, 8, random_state=0)
