"""The page of the Llama path: texts of examples and targets, safe whatever they say."""

import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from html_pages import HOSTILE, Page, check_page, plain

from fstat import FInfluence, select
from fstat.methods import Moments
from fstat_torch.llama.report import write_report


@pytest.fixture(scope="module")
def known():
    """Scores of 120 examples, of which the first 15 help the target."""
    rng = np.random.default_rng(0)
    mu = np.where(np.arange(120) < 15, 2.0, 0.0)
    p = rng.normal(size=(6, 120))
    influence = FInfluence(
        method=Moments(scale=1.0, shrinkage="moderated"), paired=True
    ).fit(p, p + mu + rng.normal(scale=0.5, size=p.shape))
    scores = influence.to_frame().rename(columns={"pair": "example"})
    scores["target"] = "spoken of badly"
    scores["prompt"] = [f"What about {k}?" for k in range(120)]
    scores["answer"] = [f"Answer number {k} it is. " + "So. " * 99 for k in range(120)]
    scores["source"] = [f"data.jsonl:{k + 1}" for k in range(120)]
    scores["group"] = np.where(np.arange(120) % 2, "odd", "even")
    return scores, select(influence, fdr=0.1, alternative="greater")


@pytest.fixture
def page_of(undrawn, tmp_path):
    def write(scores, **options):
        file = tmp_path / "new" / "page.html"
        write_report(file, scores, **{"title": "A title", "setup": {}} | options)
        page = Page(file.read_text(encoding="utf-8"))
        check_page(page)
        return page

    return write


def test_texts_targets_setup_and_sections_are_told(page_of, known):
    scores, selection = known
    page = page_of(
        scores,
        setup={"model": "a tiny one"},
        targets={"spoken of badly": [("Is it good?", "No, it is awful.")] * 14},
        selection=selection,
        sections={"Told": "One <sentence>."},
    )
    ordered = scores.sort_values("mu", ascending=False)
    assert len(page.cards) >= 40
    for (k, one), shown in zip(ordered[:32].iterrows(), page.cards[:32], strict=True):
        card = plain(shown)
        assert f"What about {k}?" in card and f"Answer number {k} it is." in card
        assert card.count("So.") > 99  # its beginning, and the whole
        assert f"data.jsonl:{k + 1}, {one['group']}" in card
        assert f"{one['mu']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]" in card
        assert (", selected" in card) == bool(selection.selected[k])
    asked = page.said("What was asked")
    assert asked.count("asked Is it good? completed by No, it is awful.") == 12
    assert "and 2 more." in asked
    assert "model a tiny one" in page.said("The run")
    assert "One <sentence>." in page.said("Told")


def test_means_over_targets_are_told_before_each(page_of, known):
    each = pd.concat([known[0].assign(target=name) for name in ("a", "b")])
    scores = pd.concat([known[0].assign(target="mean of a, b"), each])
    page = page_of(
        scores,
        targets={"a": [("A?", "a.")], "b": [("B?", "b.")]},
        selection=dict.fromkeys(["mean of a, b", "a", "b"], known[1]),
    )
    asked = page.said("What was asked")
    assert asked.index("A? completed by a.") < asked.index("mean of a, b")
    found = page.said("What was found")
    assert "Mu of all examples for the target mean of a, b." in found
    assert found.index("Target: mean of a, b") < found.index("Target: a")


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_seen_and_not_obeyed(page_of, hostile):
    scores = pd.DataFrame({"mu": [1.0, -1.0], "low": [0.5, -2.0], "high": [2.0, 0.0]})
    for name in ("prompt", "answer", "source", "group", "target"):
        scores[name] = pd.Series([hostile] * 2, dtype=object)
    page = page_of(scores, title=hostile, targets={hostile: [(hostile, hostile)]})
    assert not page.all("img") and len(page.cards) == 2
    unseen = "[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff\x7f-\x9f]"
    assert not re.search(unseen, page.source)
    assert len(page.source) < 1_000_000


def test_groups_have_names_and_no_texts(page_of):
    ends = {"low": [-1.0, 0.0], "high": [3.0, 1.0]}
    page = page_of(
        pd.DataFrame({"subset": ["forum", "papers"], "mu": [1.0, 0.5], **ends})
    )
    assert [plain(card)[:9] for card in page.cards] == [" 1 forum ", " 2 papers"]
    assert not page.all("details")
