"""What JSON text says passes the same checks as the arguments of a constructor."""

import json

import pytest

from fstat.composition.composed import ComposedTradeOff
from fstat.composition.laplace_sum import LaplaceSum
from fstat.tradeoff import (
    EpsilonDeltaTradeOff,
    GaussianTradeOff,
    GroupTradeOff,
    LaplaceTradeOff,
    MaximumTradeOff,
    MixtureTradeOff,
    PiecewiseLinearTradeOff,
    SubsampledTradeOff,
    SymmetrizedTradeOff,
    TradeOff,
)

G = {"class": "GaussianTradeOff", "mu": 1.0}
L = {"class": "LaplaceTradeOff", "mu": 1.0}


def of(name, **fields):
    return {"class": name, **fields}


def atoms(loss, p, q):
    return of("PiecewiseLinearTradeOff", loss=loss, p=p, q=q)


def composed(counts, tolerance=1e-4, fs=(L,)):
    return of("ComposedTradeOff", fs=list(fs), counts=counts, tolerance=tolerance)


REFUSED = [
    (of("GaussianTradeOff", mu=-1), "`mu` must be finite and at least 0"),
    (of("GaussianTradeOff", mu="nan"), "`mu` must be a number, got nan"),
    (of("GaussianTradeOff", mu="3"), "`mu` must be numeric"),
    (of("GaussianTradeOff", mu=None), "`mu` must be"),
    (of("GaussianTradeOff", mu=True), "`mu` must be numeric"),
    (of("GaussianTradeOff", mu=10**400), "`mu` must be within the range"),
    (of("GaussianTradeOff", mu=G), "`mu` must be numeric"),
    (of("GaussianTradeOff"), "`text` must give mu of a GaussianTradeOff, got nothing"),
    (of("GaussianTradeOff", sigma=1), "must give mu of a GaussianTradeOff, got sigma"),
    (of("GaussianTradeOff", mu=1, x=2), "must give mu of a GaussianTradeOff, got mu,"),
    (of("LaplaceTradeOff", mu=[1, 2]), "`mu` must be one number"),
    (of("LaplaceTradeOff", mu="inf"), "`mu` must be finite"),
    (of("EpsilonDeltaTradeOff", epsilon=1, delta=1.5), "`delta` must lie in"),
    (of("EpsilonDeltaTradeOff", epsilon=-1, delta=0), "`epsilon` must be finite and"),
    (atoms(["nan", 0], [0.5, 0.5], [0.5, 0.5]), "`loss` must be one number, not NaN"),
    (atoms([1, 2], [0.5, 0.5], [0.5, 0.5]), "`loss` must be log"),
    (atoms([0.0], [0.5, 0.5], [0.5, 0.5]), "`loss` must be one number"),
    (atoms([0, 0], [0.5, 0.4], [0.5, 0.5]), "`p` must add up to 1, got 0.9"),
    (atoms([0, 0], [0.5, 0.5], [0.7, 0.5]), "`q` must add up to 1, got 1.2"),
    (atoms([0, 0], [1.5, -0.5], [0.5, 0.5]), "`p` must be a vector of prob"),
    (atoms([0, 0], [0.5, 0.5], [1]), "`p` and `q` must be of equal length"),
    (atoms([], [], []), "`p` must be a vector of prob"),
    (composed([1.5]), "`counts` must"),
    (composed([0]), "`counts` must be"),
    (composed([-3]), "`counts` must be"),
    (composed([1, 2]), "`counts` must be"),
    (composed([3], tolerance=0), "`tolerance` must"),
    (composed([3], tolerance="nan"), "`tolerance` must"),
    (composed([3], fs=[]), "`fs` must be one trade-off function or more"),
    (composed([3], fs=[1.0]), "`fs` must be a trade-off function"),
    (of("LaplaceSum", mu=1.0, count=0), "`count` must be a whole number"),
    (of("LaplaceSum", mu=-1.0, count=2), "`mu` must"),
    (of("GroupTradeOff", base=L, k=1.5), "`k` must be a whole number"),
    (of("GroupTradeOff", base=L, k=-3), "`k` must be a whole number"),
    (of("GroupTradeOff", base=2, k=2), "`base` must be a trade-off function"),
    (of("InverseTradeOff", base="x"), "`base` must be a trade-off function"),
    (of("SubsampledTradeOff", base=L, p=0), "`p` must be above 0"),
    (of("SubsampledTradeOff", base=L, p=2), "`p` must lie in"),
    (of("SubsampledTradeOff", base=[L], p=0.5), "`base` must be a trade-off function"),
    (of("SymmetrizedTradeOff", base=L), "`base` must be a symmetric trade-off"),
    (of("MixtureTradeOff", fs=[L, G], weights=[0.5, 0.6]), "`weights` must be at"),
    (of("MixtureTradeOff", fs=L, weights=[1]), "`fs` must be one trade-off function"),
    (of("MinimumTradeOff", fs=[]), "`fs` must be one trade-off function or more"),
    (of("MaximumTradeOff", fs=[L, None]), "`fs` must be a trade-off function"),
    (of("ContinuousTradeOff", P=3, Q=3), "`P` must be the name and"),
    (of("ContinuousTradeOff", P=["x", [], []], Q=["norm", [], []]), "`P` must be the"),
    (of("ContinuousTradeOff", P=["norm", ["a"], []], Q=["norm", [], []]), "`P` must"),
    (
        of("ContinuousTradeOff", P=["norm", [0, -1], []], Q=["norm", [], []]),
        "`P` must have valid, finite parameters",
    ),
    (of("TradeOff"), "`text` must name a trade-off function, got 'TradeOff'"),
    (of("Secret", mu=1), "`text` must name a trade-off function, got 'Secret'"),
    (of(["Gaussian"], mu=1), "`text` must name a trade-off function"),
    ({"mu": 1}, "`text` must name a trade-off function, got None"),
    ([G], "`text` must describe a TradeOff"),
    (3, "`text` must describe a TradeOff"),
    # However deep the wrong object lies.
    (
        of("GroupTradeOff", base=of("InverseTradeOff", base=composed([0])), k=2),
        "`counts` must be",
    ),
]


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_the_second_door_has_the_checks_of_the_first(value, message):
    with pytest.raises(ValueError, match=message):
        TradeOff.from_json(json.dumps(value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        '{"class": "GaussianTradeOff", "mu": NaN}',
        '{"class": "GaussianTradeOff", "mu": Infinity}',
        '{"class": "GaussianTradeOff", "mu": 1, "mu": 2}',
        '{"class": "GaussianTradeOff", "mu": ' + "9" * 5000 + "}",
        "[" * 100_000 + "]" * 100_000,
        None,
        3,
        b"{}",
    ],
    ids=range(11),
)
def test_what_is_no_text_of_ours(text):
    with pytest.raises(ValueError, match="`text` must"):
        TradeOff.from_json(text)


def test_another_class_is_refused():
    with pytest.raises(ValueError, match="must describe a LaplaceTradeOff"):
        LaplaceTradeOff.from_json(GaussianTradeOff(1.0).to_json())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupTradeOff(LaplaceTradeOff(1.0), 0), "`k` must be a whole number"),
        (lambda: GroupTradeOff(LaplaceTradeOff(1.0), True), "`k` must be a whole"),
        (lambda: SubsampledTradeOff(3, 0.5), "`base` must be a trade-off function"),
        (lambda: SymmetrizedTradeOff(LaplaceTradeOff(1.0)), "`base` must be a symm"),
        (lambda: MaximumTradeOff([]), "`fs` must be one trade-off function or more"),
        (lambda: MixtureTradeOff("ab", [1]), "`fs` must be one trade-off function"),
        (lambda: ComposedTradeOff([LaplaceTradeOff(1.0)], [1.5]), "`counts` must"),
        (lambda: LaplaceSum(1.0, 1.5), "`count` must be a whole number"),
        (lambda: EpsilonDeltaTradeOff(True), "`epsilon` must be numeric"),
        (
            lambda: PiecewiseLinearTradeOff.from_probabilities(
                [0.5, 0.5], [0.4, 0.6], loss=[0.0, 0.0]
            ),
            "`loss` must be log",
        ),
    ],
)
def test_the_first_door(make, message):
    with pytest.raises(ValueError, match=message):
        make()
