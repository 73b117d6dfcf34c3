import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import trapezoid
from scipy.special import ndtr, ndtri

from fstat import (
    FInfluence,
    GaussianTradeOff,
    InfluenceDisplay,
    Observations,
    TradeOffDisplay,
    tradeoff_curve,
)
from fstat.datasets import make_observations
from fstat.display import HARMS, HELPS, UNCLEAR
from fstat.empirical import EmpiricalTradeOff

SAMPLES = make_observations(1.0, n=60, m=40, random_state=0)


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_curves_of_one_pair():
    display = TradeOffDisplay.from_samples(*SAMPLES)
    alpha, beta = tradeoff_curve(*SAMPLES)
    assert_array_equal(display.empirical_line_.get_xdata(), alpha)
    assert_array_equal(display.empirical_line_.get_ydata(), beta)
    x, y = display.line_.get_data()
    assert_allclose(y, FInfluence().fit(*SAMPLES).tradeoff_.f(x), atol=1e-15)
    x, y = display.diagonal_.get_data()
    assert_allclose(x + y, 1.0)
    assert display.ax_.get_xlabel() == "type I error"
    assert display.ax_.get_ylabel() == "type II error"
    assert display.figure_ is display.ax_.figure
    assert display.empirical_line_.get_color() == display.line_.get_color()
    mu = FInfluence().fit(*SAMPLES).mu_
    assert legend(display) == [
        r"$1-\alpha$: no influence",
        rf"$G_\mu$, $\mu$ = {mu:+.2f}",
        r"95% interval of $\mu$",
    ]


def test_harm_is_drawn_above_the_axes_origin_with_its_sign():
    P, Q = SAMPLES
    display = TradeOffDisplay.from_samples(Q, P)
    mu = FInfluence().fit(Q, P).mu_
    assert mu < 0 and f"{mu:+.2f}" in legend(display)[1]
    alpha, beta = display.empirical_line_.get_data()
    # Both samples are negated, so that the curve lies below the diagonal.
    assert trapezoid(beta, alpha) < 0.5
    assert (display.line_.get_ydata() <= 1 - display.line_.get_xdata() + 1e-12).all()


def test_probit_axes_make_the_fit_a_straight_line():
    display = TradeOffDisplay.from_samples(*SAMPLES, axes="probit")
    x, y = display.line_.get_data()
    mu = FInfluence().fit(*SAMPLES).mu_
    inside = np.abs(y) < 5
    assert_allclose((y + x)[inside], -mu, atol=1e-6)
    low, high = display.ax_.get_xlim()
    assert_allclose([low, high], [ndtri(1e-4), -ndtri(1e-4)])
    assert "0.05" in [t.get_text() for t in display.ax_.get_xticklabels()]
    # The corners of the empirical curve are infinitely far away, the rest is not.
    alpha = tradeoff_curve(*SAMPLES)[0]
    assert_array_equal(display.empirical_line_.get_xdata(), ndtri(alpha))


@pytest.mark.parametrize("axes", ["linear", "probit"])
def test_given_axes_are_drawn_on(axes):
    figure, ax = plt.subplots()
    one = TradeOffDisplay.from_samples(*SAMPLES, ax=ax, axes=axes, name="one")
    two = TradeOffDisplay.from_samples(
        *SAMPLES, ax=ax, axes=axes, name="two", color="red"
    )
    assert one.ax_ is two.ax_ is ax and two.figure_ is figure
    assert two.line_.get_color() == "red"
    # The diagonal is in the legend once.
    shown = legend(two)
    assert len(shown) == 5 and sum("no influence" in text for text in shown) == 1
    assert shown[1].startswith("one: ") and shown[3].startswith("two: ")
    figure.canvas.draw()


def test_from_samples_is_plot():
    one = TradeOffDisplay.from_samples(*SAMPLES, name="pair")
    other = TradeOffDisplay(
        tradeoff=one.tradeoff,
        alpha=one.alpha,
        beta=one.beta,
        name="pair",
        band=one.band,
        confidence_level=0.95,
    ).plot()
    assert_array_equal(one.line_.get_ydata(), other.line_.get_ydata())
    curves = [d.empirical_line_.get_xydata() for d in (one, other)]
    assert_array_equal(*curves)
    assert legend(one) == legend(other)


def test_a_curve_without_samples():
    display = TradeOffDisplay(tradeoff=GaussianTradeOff(2.0)).plot()
    assert display.empirical_line_ is None
    assert legend(display)[-1] == r"$G_\mu$, $\mu$ = +2.00"


def test_a_fitted_estimator_is_kept():
    influence = FInfluence(method="rank").fit(*SAMPLES)
    mu = influence.mu_
    display = TradeOffDisplay.from_samples(*SAMPLES, estimator=influence)
    assert influence.mu_ == mu and display.tradeoff == influence.tradeoff_
    unfitted = FInfluence(method="rank")
    display = TradeOffDisplay.from_samples(*SAMPLES, estimator=unfitted)
    assert display.tradeoff == influence.tradeoff_


def test_unobserved_values_are_not_drawn():
    P, Q = SAMPLES
    display = TradeOffDisplay.from_samples(np.append(P, np.nan), Q)
    assert_array_equal(display.alpha, tradeoff_curve(P, Q)[0])


def ends_of_band(display, axes):
    """The lower and upper end that the drawn polygon has at each place."""
    polygon = display.band_.get_paths()[0].vertices
    x = np.unique(polygon[:, 0])
    ends = [polygon[polygon[:, 0] == place, 1] for place in x]
    error = ndtr if axes == "probit" else np.asarray
    low, high = ([end(y) for y in ends] for end in (min, max))
    return error(x), error(np.array(low)), error(np.array(high))


@pytest.mark.parametrize("axes", ["linear", "probit"])
@pytest.mark.parametrize("method", ["equal_level", "dkw"])
def test_the_band_of_an_empirical_curve(axes, method):
    estimator = EmpiricalTradeOff().fit(*SAMPLES)
    display = TradeOffDisplay.from_estimator(
        estimator, confidence_level=0.9, method=method, axes=axes
    )
    low, high = estimator.confidence_band(0.9, method=method)
    alpha, drawn_low, drawn_high = ends_of_band(display, axes)
    inside = slice(1, -1)
    assert_allclose(drawn_low[inside], low.f(alpha[inside]), atol=1e-9)
    assert_allclose(drawn_high[inside], high.f(alpha[inside]), atol=1e-9)
    assert display.tradeoff == estimator.tradeoff_
    assert_array_equal(display.alpha, estimator.alpha_)
    assert legend(display)[1:] == ["convex hull of the tests", "90% confidence band"]
    colour = to_rgb(display.line_.get_color())
    assert_allclose(display.band_.get_facecolor()[0, :3], colour)
    display.figure_.canvas.draw()


def test_a_band_without_a_level():
    band = EmpiricalTradeOff().fit(*SAMPLES).confidence_band()
    display = TradeOffDisplay(tradeoff=GaussianTradeOff(1.0), band=band).plot()
    assert legend(display)[-1] == "confidence band"
    assert TradeOffDisplay(tradeoff=GaussianTradeOff(1.0)).plot().band_ is None


def test_unknown_axes():
    with pytest.raises(ValueError, match="`axes` must be one of 'linear', 'probit'"):
        TradeOffDisplay(tradeoff=GaussianTradeOff(1.0)).plot(axes="log")


# Many pairs


def many(mu=(-1.0, 0.0, 1.0, -0.1), n=60):
    return FInfluence().fit(*make_observations(list(mu), n=n, random_state=0))


def test_pairs_are_sorted_and_coloured_by_sign():
    influence = many()
    display = InfluenceDisplay.from_estimator(influence, pairs=range(4))
    low, high = influence.confidence_interval()
    order = np.argsort(influence.mu_)
    assert_array_equal(display.order_, order)
    offsets = display.points_.get_offsets()
    assert_allclose(offsets[:, 0], influence.mu_[order])
    assert_array_equal(offsets[:, 1], range(4))
    segments = np.array(display.intervals_.get_segments())
    assert_allclose(segments[:, 0, 0], low[order])
    assert_allclose(segments[:, 1, 0], high[order])
    expected = [
        HELPS if l > 0 else HARMS if h < 0 else UNCLEAR
        for l, h in zip(low[order], high[order], strict=True)  # noqa: E741
    ]
    assert len(set(expected)) == 3
    for colours in (display.points_.get_facecolors(), display.intervals_.get_colors()):
        assert_allclose(colours[:, :3], [to_rgb(c) for c in expected])
    assert "harms" in display.ax_.get_xlabel() and "helps" in display.ax_.get_xlabel()
    assert "f-influence of the samples" in display.ax_.get_xlabel()


def test_chosen_pairs_and_names():
    names = ["up", "down"]
    display = InfluenceDisplay.from_estimator(many(), pairs=[2, 0], names=names)
    shown = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert shown == ["down", "up"]
    assert len(display.points_.get_offsets()) == 2


def test_names_come_from_the_observations():
    rng = np.random.default_rng(0)
    pair = np.tile([0, 1], 20)
    rows = Observations(
        pair, rng.normal(size=40), rng.normal(size=40) + 2 * pair,
        names={"example": [17, 4], "target": ["z", "z"]},
    )  # fmt: skip
    display = InfluenceDisplay.from_estimator(FInfluence().fit(rows))
    shown = [label.get_text() for label in display.ax_.get_yticklabels()]
    # What is the same for all pairs tells nothing.
    assert shown == ["17", "4"]


def test_of_many_pairs_the_extremes_are_shown():
    influence = many(np.linspace(-1, 1, 90))
    display = InfluenceDisplay.from_estimator(influence)
    order = np.argsort(influence.mu_)
    shown = display.points_.get_offsets()[:, 0]
    assert_allclose(shown, influence.mu_[np.r_[order[:20], order[-20:]]])


def test_confidence_level_and_given_axes():
    influence = many()
    figure, ax = plt.subplots()
    display = InfluenceDisplay.from_estimator(
        influence, pairs=range(4), confidence_level=0.5, ax=ax
    )
    assert display.ax_ is ax and display.figure_ is figure
    assert_array_equal(display.low, influence.confidence_interval(0.5).low)


def test_from_estimator_is_plot():
    one = InfluenceDisplay.from_estimator(many())
    other = InfluenceDisplay(
        mu=one.mu, low=one.low, high=one.high, names=one.names, quantity=one.quantity
    ).plot()
    assert_array_equal(one.points_.get_offsets(), other.points_.get_offsets())
    assert one.ax_.get_xlim() == other.ax_.get_xlim()
    assert one.ax_.get_xlabel() == other.ax_.get_xlabel()


def test_one_sided_intervals_reach_the_edge():
    display = InfluenceDisplay(
        mu=np.array([1.0, -2.0]), low=np.array([0.5, -np.inf]),
        high=np.array([np.inf, -0.5]), names=["a", "b"],
    ).plot()  # fmt: skip
    left, right = display.ax_.get_xlim()
    segments = np.array(display.intervals_.get_segments())[:, :, 0]
    assert_allclose(segments, [[left, -0.5], [0.5, right]])
    assert np.isfinite([left, right]).all()
    display.figure_.canvas.draw()


@pytest.mark.filterwarnings("ignore::fstat.influence.UnestimableWarning")
def test_unknown_pairs_are_left_out_unless_asked_for():
    P, Q = make_observations([0.0, 1.0, 0.0], n=30, random_state=0)
    P[:, 1] = np.nan
    influence = FInfluence().fit(P, Q)
    display = InfluenceDisplay.from_estimator(influence)
    assert len(display.points_.get_offsets()) == 2
    asked = InfluenceDisplay.from_estimator(influence, pairs=[0, 1, 2])
    assert np.isfinite(asked.ax_.get_xlim()).all()
    asked.figure_.canvas.draw()


def test_one_pair():
    display = InfluenceDisplay.from_estimator(FInfluence().fit(*SAMPLES))
    assert len(display.points_.get_offsets()) == 1
