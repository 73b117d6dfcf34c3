import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import ndtr, ndtri

from fstat import GaussianTradeOff
from fstat.composition import compose, gaussian_limit
from fstat.display.composition import CompositionDisplay
from fstat.tradeoff import EpsilonDeltaTradeOff, LaplaceTradeOff

ALPHA = np.append(10.0 ** -np.arange(1.0, 8.0), np.linspace(0.0, 1.0, 41))
SELDOM = GaussianTradeOff(1.0).subsample(0.01)


@pytest.fixture(scope="module")
def display():
    return CompositionDisplay.from_steps(LaplaceTradeOff(0.5), 4, name="four")


# What is shown of the limit holds for the compositions shown.
@pytest.mark.parametrize(
    ("fs", "counts"),
    [
        ([LaplaceTradeOff(0.1)], [100]),
        ([EpsilonDeltaTradeOff(0.1)], [200]),
        ([SELDOM], [1000]),
        ([SELDOM.inverse()], [1000]),
        ([SELDOM, LaplaceTradeOff(0.1), GaussianTradeOff(0.05)], [500, 50, 30]),
    ],
)
def test_the_band_encloses_the_composition(fs, counts):
    f, limit = compose(*fs, counts=counts), gaussian_limit(fs, counts)
    assert limit.gamma < 0.5
    beta = f(ALPHA)
    assert (limit.lower(ALPHA) <= beta + 1e-12).all()
    assert (beta <= limit.upper(ALPHA) + 1e-12).all()


def test_lines_show_the_curves(display):
    display.plot()
    alpha = ndtr(display.line_.get_xdata())
    inner = (alpha > 1e-6) & (alpha < 1 - 1e-6)
    for line, curve in (
        (display.line_, display.tradeoff),
        (display.limit_line_, display.limit.tradeoff),
    ):
        shown = line.get_ydata()[inner]
        beta = np.clip(curve(alpha[inner]), 1e-15, 1 - 1e-15)
        assert_allclose(shown, ndtri(beta), atol=1e-8)
    slope = np.diff(display.limit_line_.get_ydata()[inner]) / np.diff(
        display.limit_line_.get_xdata()[inner]
    )
    assert_allclose(slope, -1.0, atol=1e-6)
    assert display.ax_.get_title(loc="left") == "four"
    assert len(display.ax_.get_legend().get_texts()) == 4


def test_linear_axes_and_looks(display):
    _, ax = plt.subplots()
    drawn = display.plot(ax=ax, axes="linear", name="", color="green", legend=False)
    assert drawn is display and display.ax_ is ax and display.figure_ is ax.figure
    assert display.line_.get_color() == "green" and ax.get_legend() is None
    x, y = display.line_.get_data()
    assert_allclose(y, display.tradeoff(x))
    assert ax.get_xlim() == (0, 1)


def test_tail_axes_show_ratios_of_powers(display):
    display.plot(axes="tail", least=1e-8)
    alpha, ratio = display.line_.get_data()
    limit = display.limit.tradeoff.power(alpha)
    assert_allclose(ratio, display.tradeoff.power(alpha) / limit)
    assert_allclose(display.limit_line_.get_ydata(), 1.0)
    assert display.ax_.get_xscale() == "log"


def test_unknown_axes(display):
    with pytest.raises(ValueError, match="`axes` must be one of"):
        display.plot(axes="polar")
