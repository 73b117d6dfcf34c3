"""What every Display owes: looks under any name, one diagonal, a repr, dark axes."""

from dataclasses import replace
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba
from numpy.testing import assert_allclose

from fstat import FInfluence, rank_intervals
from fstat.datasets import make_observations
from fstat.display import (
    HELPS,
    AgreementDisplay,
    CompositionDisplay,
    GaussianLimitDisplay,
    InfluenceDisplay,
    RankDisplay,
    TradeOffDisplay,
)
from fstat.ground_truth import agreement
from fstat.intervals import ConfidenceInterval
from fstat.tradeoff import GaussianTradeOff, LaplaceTradeOff

PAIR = make_observations(1.0, n=60, m=40, random_state=0)
MANY = FInfluence().fit(
    *make_observations(list(np.linspace(-1, 1, 70)), n=50, random_state=0)
)


def found():
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(10, 5))
    truth = rng.normal(size=(10, 20, 5)) - mu[:, None], rng.normal(size=(20, 5))
    runs = np.stack([mu, mu + 1])
    return agreement(runs, truth, n_resamples=20, random_state=0)


AGREEMENT = found()
LINES = {
    "tradeoff": TradeOffDisplay.from_samples(*PAIR),
    "composition": CompositionDisplay.from_steps(LaplaceTradeOff(0.5), 4),
    "limit": GaussianLimitDisplay.from_samples(*PAIR),
}
POINTS = {
    "influence": InfluenceDisplay.from_estimator(MANY),
    "ranks": RankDisplay.from_ranks(rank_intervals(MANY), k=7),
    "agreement": AgreementDisplay.from_agreement(AGREEMENT),
}
DISPLAYS = LINES | POINTS
plt.close("all")
each_line = pytest.mark.parametrize("display", LINES.values(), ids=LINES)
each_point = pytest.mark.parametrize("display", POINTS.values(), ids=POINTS)
each = pytest.mark.parametrize("display", DISPLAYS.values(), ids=DISPLAYS)


@each_line
@pytest.mark.parametrize(
    "looks",
    [
        {"linewidth": 3, "color": "green", "linestyle": "--", "label": "mine"},
        {"lw": 3, "c": "green", "ls": "--", "label": "mine", "zorder": 7},
    ],
    ids=["long", "short"],
)
def test_looks_of_lines_under_any_name(display, looks):
    line = display.plot(**looks).line_
    assert line.get_linewidth() == 3 and line.get_linestyle() == "--"
    assert to_rgb(line.get_color()) == to_rgb("green")
    assert line.get_label() == "mine"
    assert line.get_zorder() == looks.get("zorder", line.get_zorder())
    display.figure_.canvas.draw()


@each_point
@pytest.mark.parametrize(
    "looks",
    [
        {"color": "green", "linewidth": 3, "zorder": 9, "label": "mine", "s": 50},
        {"c": "green", "lw": 3, "zorder": 9, "label": "mine", "sizes": [50]},
        {"facecolor": "green", "linewidths": 3, "zorder": 9, "label": "mine", "s": 50},
        {"fc": "green", "linewidths": 3, "zorder": 9, "label": "mine", "s": 50},
        {
            "facecolors": "green",
            "ec": "red",
            "lw": 3,
            "zorder": 9,
            "label": "mine",
            "s": 50,
        },
    ],
    ids=["color", "c", "facecolor", "fc", "facecolors"],
)
def test_looks_of_points_under_any_name(display, looks):
    points = display.plot(**looks).points_
    assert_allclose(points.get_facecolors()[:, :3], [to_rgb("green")])
    assert_allclose(points.get_linewidths(), 3)
    assert_allclose(points.get_sizes(), 50)
    assert points.get_zorder() == 9 and points.get_label() == "mine"
    if "ec" in looks:
        assert_allclose(points.get_edgecolors()[0], to_rgba("red"))
    display.figure_.canvas.draw()


@each
def test_repr_says_what_was_given(display):
    text = repr(display)
    assert text.startswith(f"{type(display).__name__}(")
    assert "\n" not in text and " object at " not in text and len(text) < 600


@each
def test_everything_can_be_seen_on_a_dark_background(display):
    with plt.style.context("dark_background"):
        display.plot()
        axes = np.ravel(np.asarray(display.ax_, dtype=object))
        for ax in axes:
            shown = [line.get_color() for line in ax.lines]
            shown += [c for part in ax.collections for c in part.get_edgecolors()]
            for colour in shown:
                *rgb, opacity = to_rgba(colour)
                if opacity > 0.3:
                    assert np.dot(rgb, (0.299, 0.587, 0.114)) > 0.25, colour
        display.figure_.canvas.draw()
    # And again on a light one.
    display.plot()
    for ax in np.ravel(np.asarray(display.ax_, dtype=object)):
        for line in ax.lines:
            assert np.dot(to_rgb(line.get_color()), (0.299, 0.587, 0.114)) < 0.75


@each
def test_what_are_no_axes_is_refused(display):
    with pytest.raises(ValueError, match="`ax` must be"):
        display.plot(ax="here")


@pytest.mark.parametrize("name", ["tradeoff", "composition"])
def test_curves_on_the_same_axes_share_the_diagonal(name):
    ax = plt.subplots()[1]
    one = LINES[name].plot(ax=ax)
    first, count = one.diagonal_, len(ax.lines)
    two = LINES[name].plot(ax=ax)
    assert two.diagonal_ is first and len(ax.lines) == 2 * count - 1


def test_the_label_says_what_is_drawn():
    def last(display):
        return display.ax_.get_legend().get_texts()[-1].get_text()

    assert last(TradeOffDisplay(tradeoff=LaplaceTradeOff(1.0)).plot()) == (
        "LaplaceTradeOff(mu=1)"
    )
    deep = GaussianTradeOff(1.0).subsample(0.1).inverse()
    assert last(TradeOffDisplay(tradeoff=deep).plot()) == "InverseTradeOff"


@pytest.mark.parametrize("swapped", [False, True])
def test_the_band_is_that_of_the_interval_of_mu(swapped):
    P, Q = PAIR[::-1] if swapped else PAIR
    fitted = FInfluence().fit(P, Q)
    display = TradeOffDisplay.from_samples(P, Q, confidence_level=0.8)
    sizes = sorted(abs(float(end)) for end in fitted.confidence_interval(0.8))
    assert_allclose([g.mu for g in display.band], sizes[::-1])
    assert display.ax_.get_legend().get_texts()[-1].get_text() == (
        r"80% interval of $\mu$"
    )
    assert TradeOffDisplay.from_samples(P, Q, confidence_level=None).band_ is None


def test_a_band_around_no_influence_reaches_the_diagonal():
    P, Q = make_observations(0.05, n=50, random_state=0)
    display = TradeOffDisplay.from_samples(P, Q)
    assert display.band[1] == GaussianTradeOff(0.0)
    assert display.band[0].mu > 0


def test_of_many_pairs_the_break_is_seen():
    display = POINTS["influence"].plot()
    assert display.n_hidden == 30 and len(display.mu) == 40
    y = np.asarray(display.points_.get_offsets())[:, 1]
    gaps = np.diff(y)
    assert_allclose(gaps[19], 2.5)
    assert_allclose(np.delete(gaps, 19), 1.0)
    assert display.break_.get_text() == "30 pairs between are not shown"
    assert_allclose(display.break_.get_position()[1], (y[19] + y[20]) / 2)
    few = InfluenceDisplay.from_estimator(MANY, pairs=range(40))
    assert few.break_ is None
    assert_allclose(np.diff(np.asarray(few.points_.get_offsets())[:, 1]), 1.0)


def test_ranks_show_the_certain_and_the_possible_of_the_pairs_drawn():
    ranks = rank_intervals(MANY)
    chosen = [69, 3, 40]
    display = RankDisplay.from_ranks(ranks, k=7, pairs=chosen)
    top = ranks.top_k(7)
    assert display.certain.tolist() == top.certain[chosen].tolist()
    assert display.possible.tolist() == top.possible[chosen].tolist()
    assert top.possible[chosen].tolist() == [True, False, False] or (
        len(set(top.possible[chosen].tolist())) > 1
    )
    assert_allclose(display.low, ranks.low[chosen])
    assert_allclose(display.high, ranks.high[chosen])
    expected = [HELPS if may else "#8a8a8a" for may in display.possible[display.order_]]
    assert_allclose(
        display.points_.get_edgecolors()[:, :3], [to_rgb(c) for c in expected]
    )
    assert "60 of 70 pairs shown" in POINTS["ranks"].plot().ax_.get_title(loc="left")
    assert "shown" not in display.ax_.get_title(loc="left") or "3 of 70" in (
        display.ax_.get_title(loc="left")
    )


def test_the_intervals_are_those_of_the_run():
    ends = [AGREEMENT.estimate + by for by in (-0.3, 0.4)]
    given = replace(AGREEMENT, interval=ConfidenceInterval(*ends))
    display = AgreementDisplay.from_agreement(given, run=1)
    segments = np.array(display.intervals_.get_segments())
    assert_allclose(segments[:, 0, 0], AGREEMENT.estimate[1].ravel() - 0.3)
    assert_allclose(segments[:, 1, 0], AGREEMENT.estimate[1].ravel() + 0.4)


@pytest.mark.parametrize("run", [0, 1])
def test_each_run_of_an_agreement_is_its_own(run):
    display = AgreementDisplay.from_agreement(AGREEMENT, run=run)
    assert_allclose(display.estimate, AGREEMENT.estimate[run].ravel())
    offsets = np.asarray(display.points_.get_offsets())
    assert_allclose(offsets[:, 0], AGREEMENT.estimate[run].ravel())
    assert_allclose(offsets[:, 1], AGREEMENT.truth.ravel())
    reach = 1.959963984540054 * AGREEMENT.truth_stderr.ravel()
    segments = np.array(display.truth_intervals_.get_segments())
    assert_allclose(segments[:, 0, 1], AGREEMENT.truth.ravel() - reach, rtol=1e-9)
    assert_allclose(segments[:, 1, 1], AGREEMENT.truth.ravel() + reach, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: InfluenceDisplay.from_estimator(MANY, pairs=[70]),
            "`pairs` must hold",
        ),
        (
            lambda: InfluenceDisplay.from_estimator(MANY, pairs=[-1]),
            "`pairs` must hold",
        ),
        (lambda: InfluenceDisplay.from_estimator(MANY, pairs=[0.5]), "`pairs` must"),
        (lambda: InfluenceDisplay.from_estimator(MANY, pairs="ab"), "`pairs` must"),
        (
            lambda: InfluenceDisplay.from_estimator(MANY, pairs=[0, 1], names=["a"]),
            "`names` must have shape",
        ),
        (
            lambda: RankDisplay.from_ranks(rank_intervals(MANY), pairs=[70]),
            "`pairs` must hold",
        ),
        (lambda: RankDisplay.from_ranks(rank_intervals(MANY), k=71), "`k` must be"),
        (lambda: RankDisplay.from_ranks(rank_intervals(MANY), k=1.5), "`k` must be"),
        (
            lambda: RankDisplay.from_ranks(rank_intervals(MANY), pairs=[1], names=[]),
            "`names` must have shape",
        ),
        (lambda: AgreementDisplay.from_agreement(AGREEMENT, run=2), "`run` must be"),
        (
            lambda: TradeOffDisplay.from_samples(*PAIR, confidence_level=2),
            "`confidence_level` must",
        ),
    ],
)
def test_what_is_not_there_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_written_must_be_words():
    points = {"estimate": [0.0, 1.0], "truth": [0.0, 1.0], "truth_reach": [0.1, 0.1]}
    points |= {"line": (1.0, 0.0), "threshold": 0.5}
    for name in ("text", "quantity"):
        given = {"text": "r = 1", "quantity": "mu"} | {name: np.zeros((2, 2))}
        with pytest.raises(ValueError, match=f"`{name}` must be a string"):
            AgreementDisplay(**points, **given).plot()


def test_levels_of_any_kind_of_number():
    curves = {"tradeoff": GaussianTradeOff(1.0), "band": [GaussianTradeOff(1.0)] * 2}
    display = TradeOffDisplay(**curves, confidence_level=Fraction(1, 2)).plot()
    assert display.band_.get_label() == r"50% interval of $\mu$"
    with pytest.raises(ValueError, match="`confidence_level` must"):
        TradeOffDisplay(**curves, confidence_level=[[1], [2, 3]]).plot()
    with pytest.raises(ValueError, match="`sign` must be"):
        TradeOffDisplay(**curves, sign=iter([1.0])).plot()
    assert "<2 values>" in repr(TradeOffDisplay(**curves, alpha=[[1], [2, 3]]))
