"""The page of the MNIST path: complete, true to the table, and loading nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlxtend")

import fstat_torch.mnist.report.page as pages
from fstat.report import inline_svg, new_figure
from fstat_torch.mnist import Config, run
from fstat_torch.mnist.report import (
    draw_gaussian_limit,
    draw_influence,
    draw_intervals,
    draw_mislabelled,
    draw_tradeoff,
    influential_examples,
    write,
)
from fstat_torch.mnist.report.digit import digit_image
from fstat_torch.mnist.report.pictures import misreading
from fstat_torch.overhead import Overhead

SMALL = Config(n_train=1000, n_test=200, n_targets=40, n_trusted=200, epochs=6, fdr=0.2)
VOID = {"meta", "img", "input", "br", "path", "use", "rect", "image"}


class Page(HTMLParser):
    """Elements with their attributes, and text by the id of the nearest ancestor."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        name = next((name for _, name in reversed(self.open) if name), "")
        self.text[name] = self.text.get(name, "") + " " + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, name):
        return re.sub(r"\s+", " ", self.text[name]).replace("\N{MINUS SIGN}", "-")


@pytest.fixture(scope="module")
def result():
    return run(SMALL, progress=False)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    write(result, folder)
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def changed(monkeypatch, result):
    """Return the page of a changed result, without the drawings."""
    blank = dict.fromkeys(
        ("histogram", "curve_digit", "curve_what", "tradeoff", "limits"), ""
    )
    monkeypatch.setattr(pages, "_curves", lambda _: blank)
    return lambda **changes: Page(pages.page(replace(result, **changes)))


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_every_element_is_closed_and_every_id_unique(parsed):
    assert parsed.open == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_and_links_lead_to_written_files(folder, parsed):
    ids = {attributes.get("id") for _, attributes in parsed.elements}
    for tag, attributes in parsed.elements:
        assert tag not in {"script", "link", "iframe", "object", "base"}
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/png;base64,")
        href = attributes.get("href", attributes.get("xlink:href", ""))
        if href.startswith("#"):
            assert href[1:] in ids
        elif tag == "image":
            assert href.startswith("data:")
        elif href:
            assert (folder / href).stat().st_size > 0


def test_nothing_is_loaded_by_the_style_sheet_either(text):
    assert not re.search(r"https?://", text)
    assert "@import" not in text
    assert set(re.findall(r"url\(([^)]?)", text)) <= {"#"}


def test_inks_are_those_of_the_style_sheet(text):
    # Black would be unreadable on dark paper.
    assert "#000000" not in text
    assert "prefers-color-scheme: dark" in text
    for name in set(re.findall(r"var\(--(\w+)\)", text)):
        assert text.count(f"--{name}: #") == 2, "one for light, one for dark"


def test_pictures_say_what_they_show(parsed):
    for picture in parsed.all("img"):
        assert picture["alt"].strip()
    for drawing in parsed.all("svg"):
        assert drawing["role"] == "img"
        assert drawing["aria-label"].strip()


def test_headings_are_in_order_and_the_language_is_stated(parsed):
    assert parsed.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_every_selected_digit_is_there_with_the_numbers_of_the_table(result, parsed):
    chosen = result.table[result.table["selected"]]
    assert len(chosen) == result.selection.n_selected > 0
    cards = {name for name in parsed.text if name.startswith("digit-")}
    assert cards == {f"digit-{example}" for example in chosen["example"]}
    for row in chosen.itertuples():
        said = parsed.said(f"digit-{row.example}")
        assert f"labelled {row.label} " in said
        assert f"mu {row.mu:.2f} [{row.low:.2f}, {row.high:.2f}]" in said
        assert f"q {row.qvalue:.4f}" in said
        assert (f"truly a {row.true_label}" in said) == row.flipped
        assert ("false alarm" in said) == (not row.flipped)


def test_cards_are_sorted_by_q_and_then_by_mu(result, parsed):
    shown = [
        int(attributes["id"].removeprefix("digit-"))
        for attributes in parsed.all("li")
        if attributes.get("id", "").startswith("digit-")
    ]
    table = result.table.set_index("example").loc[shown]
    order = np.lexsort((-table["mu"], table["qvalue"]))
    assert (order == np.arange(len(order))).all()


def test_promise_and_its_truth_are_those_of_the_selection(result, parsed):
    said = parsed.said("promise")
    selection = result.selection
    true = int(result.table["flipped"][result.table["selected"]].sum())
    assert f"{selection.expected_true_discoveries:.0f} of the " in said
    assert f"mislabelled; {true} are" in said
    assert f"the share is {result.false_discovery_proportion:.1%}" in said
    assert f"at least {selection.least_selected} of 800 digits" in said
    assert "least p-value is 1/201" in said


def test_influences_on_misread_digits_are_those_of_their_table(result, parsed):
    said = parsed.said("misread")
    for row in influential_examples(result).itertuples():
        assert f"mu {row.mu:+.2f} [{row.low:+.2f}, {row.high:+.2f}]" in said
        assert f"no. {row.example}" in said


def test_scores_and_settings_are_told(result, parsed):
    for name, row in result.scores.iterrows():
        values = " ".join(f"{value:.4f}" for value in row)
        assert f"{name} {values}" in parsed.said("scores")
    assert "run(Config(epochs=6, n_train=1000, n_test=200, n_targets=40" in (
        parsed.said("run")
    )
    assert "seed is 0" in parsed.said("run")
    assert "Not measured" in parsed.said("cost")


def test_cost_is_told_where_it_was_measured(changed):
    cost = {"a < b": Overhead(1.5, 1.25, 1.75, 0.001, 0.0015)}
    said = changed(overhead=cost).said("cost")
    assert "a < b 1.50 1.25 to 1.75 1.00 1.50" in said


def test_what_users_name_is_escaped(result, changed):
    config = replace(result.config, model='<b onclick="x">&amp;', noise_kind="<i>")
    scores = result.scores.rename(index={"AUM": "<script>AUM</script>"})
    parsed = changed(config=config, scores=scores)
    assert not parsed.all("script")
    assert not any("onclick" in attributes for attributes in parsed.all("b"))
    assert '<b onclick="x">&amp;' in parsed.said("run")
    assert "(<i> noise" in parsed.said("run")
    assert "<script>AUM</script>" in parsed.said("scores")


def test_the_page_is_small_enough_to_send(text):
    # 2 kB a card at the most, and the drawings.
    assert len(text.encode()) < 1_000_000


def test_a_run_that_selects_nothing_says_so(result, changed):
    nobody = np.zeros(1000, dtype=bool)
    selection = replace(result.selection, selected=nobody, least_selected=900)
    table = result.table.assign(selected=False)
    said = changed(selection=selection, table=table)
    assert "No digit is selected." in said.said("suspects")
    assert "too small" in said.said("promise")
    assert "Nothing is selected" in said.said("promise")
    assert not any(box.get("id") == "show-all" for box in said.all("input"))


def test_of_very_many_selected_the_rest_is_left_to_the_table(result, changed):
    table = result.table.assign(selected=~result.table["trusted"])
    chosen = table["selected"].to_numpy()
    selection = replace(result.selection, selected=chosen)
    parsed = changed(selection=selection, table=table)
    assert sum(name.startswith("digit-") for name in parsed.text) == 400
    assert "400 more are in examples.csv" in parsed.said("suspects")


def test_the_same_result_gives_the_same_page(result, text):
    assert pages.page(result) == text


def test_tables_and_pictures_lie_beside_the_page(result, folder):
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "examples.csv"), result.table, check_dtype=False
    )
    for name in ("mislabelled", "influence", "intervals", "tradeoff", "gaussian_limit"):
        assert (folder / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("draw", "n_axes"),
    [
        (draw_mislabelled, 1 + 32),
        (draw_influence, 4 * 13),
        (draw_intervals, 1),
        (draw_tradeoff, 2),
        (draw_gaussian_limit, 6),
    ],
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


def test_a_digit_read_rightly_is_not_called_misread(result):
    right = np.flatnonzero(result.predictions == result.data.y_test.numpy())
    eight = right[result.predictions[right] == 8][0]
    assert misreading(result, eight) == "an 8"


def test_inline_pictures_have_their_own_ids_and_escaped_words():
    drawings = []
    for name in ("one", "two"):
        figure = new_figure(2, 2)
        figure.add_subplot().plot([0, 1], [0, 1])
        drawings.append(Page(inline_svg(figure, name, 'a "b" <c>')))
    one, two = (
        {attributes["id"] for _, attributes in drawing.elements if "id" in attributes}
        for drawing in drawings
    )
    assert one
    assert not one & two
    assert drawings[0].all("svg")[0]["aria-label"] == 'a "b" <c>'
    image = Page(digit_image(np.zeros((1, 28, 28), np.float32), 'a "b"')).all("img")[0]
    assert image["alt"] == 'a "b"'
