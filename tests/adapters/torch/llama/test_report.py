"""The page of the Llama path: true to the table, whole, and safe whatever texts say."""

import html
import re
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from shutil import which

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from fstat import FInfluence, GaussianTradeOff, TradeOffDisplay, select
from fstat.methods import Moments
from fstat.report import data_frame, excerpt, interval, new_figure, visible
from fstat_torch.llama.report import write_report
from fstat_torch.llama.report.ranking import _TOP

VOID = {"meta", "img", "input", "br", "path", "use", "rect"}
HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "</style></details></table></section><h1>mine</h1>",
    "\u202egnp.exe \x00\x1b[31m\x85 \ud800 end",
    "&lt;b&gt; &amp; \"quoted\" 'single' `back`",
    "$title ${scores} $$ %s {0} \\N{X}",
    "שלום עולם (with English) 123",
    "one\r\ntwo\rthree\u2028four",
    "x" * 50_000,
    "a" + "\u0301" * 400 + "b",
    "",
]


class Page(HTMLParser):
    """Elements with their attributes, and all that is said."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.said, self.rows = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.said += data
        if "tr" in self.open:
            self.rows[-1] += data + " "

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return re.sub(r"\s+", " ", self.said).replace("\N{MINUS SIGN}", "-")


def study(n=120, epochs=6, seed=0):
    """Scores of n examples, of which the first 15 help the target."""
    rng = np.random.default_rng(seed)
    mu = np.where(np.arange(n) < 15, 2.0, 0.0)
    p = rng.normal(size=(epochs, n))
    q = p + mu + rng.normal(scale=0.5, size=(epochs, n))
    influence = FInfluence(
        method=Moments(scale=1.0, shrinkage="moderated"), paired=True
    ).fit(p, q)
    scores = influence.to_frame().drop(columns="pair", errors="ignore")
    scores.insert(0, "example", np.arange(n))
    scores["target"] = "spoken of badly"
    scores["prompt"] = [f"What about {k}?" for k in range(n)]
    scores["answer"] = [f"Answer number {k} it is." for k in range(n)]
    scores["source"] = [f"data.jsonl:{k + 1}" for k in range(n)]
    scores["group"] = np.where(np.arange(n) % 2, "odd", "even")
    return scores, select(influence, fdr=0.1, alternative="greater")


def page_of(tmp_path, scores, **options):
    file = tmp_path / "new" / "page.html"
    write_report(file, scores, **{"title": "A title", "setup": {}} | options)
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def known():
    return study()


@pytest.fixture(scope="module")
def text(known, tmp_path_factory):
    scores, selection = known
    return page_of(
        tmp_path_factory.mktemp("llama"),
        scores,
        title="What 120 answers did",
        setup={"model": "a tiny one", "epochs": 6},
        targets={"spoken of badly": [("Is it good?", "No, it is awful.")] * 14},
        selection=selection,
        sections={
            "Beside other scores": pd.DataFrame(
                {"score": ["mu", "loss"], "AUROC": [0.9871, 0.5], "found": [15, 2]}
            ),
            "Told": "One <sentence>.",
        },
    )


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_every_element_is_closed_every_id_unique_and_headings_in_order(parsed):
    assert parsed.open == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    for link in parsed.all("a"):
        assert link["href"].removeprefix("#") in ids


def test_nothing_is_loaded(text, parsed):
    assert not re.search(r"https?://|@import|javascript:", text)
    assert set(re.findall(r"url\(([^)]?)", text)) <= {"#"}
    loading = {"script", "link", "iframe", "object", "embed", "base", "img", "form"}
    assert not loading & {tag for tag, _ in parsed.elements}


def test_rows_become_cards_on_a_phone(text):
    narrow = text.partition("screen and (max-width: 40rem)")[2].partition("@media")[0]
    assert "table.ranking tr { display: flex" in narrow
    # No cell of the ranking is wider than the screen.
    assert "min-width: 0" in narrow


PROBE = """<!doctype html><body><iframe id=f style="width:{width}px;border:0"
srcdoc="{page}"></iframe><pre id=told></pre><script>
document.getElementById("f").addEventListener("load", () => {{
  const inside = f.contentDocument, width = inside.documentElement.clientWidth;
  const seen = e => e.getClientRects().length;
  const right = q => [...inside.querySelectorAll(q)].filter(seen).map(
    e => e.getBoundingClientRect().right);
  told.textContent = [width, inside.documentElement.scrollWidth,
    Math.max(...right("td.mu *")), right("td.mu .numbers").length].join(" ");
}});</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(not which("chromium"), reason="needs chromium")
@pytest.mark.parametrize("width", [320, 360, 480])
def test_mu_is_in_sight_on_a_phone(text, width, tmp_path):
    place = tmp_path / "phone.html"
    place.write_text(PROBE.format(width=width, page=html.escape(text)))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
    browser += ["--virtual-time-budget=5000", "--dump-dom", place.as_uri()]
    shown = subprocess.run(browser, capture_output=True, text=True, timeout=120).stdout
    told = re.search(r'<pre id="told">(.*?)</pre>', shown)[1].split()
    inside, needed, mu, rows = map(float, told)
    assert rows >= 40 and needed <= inside <= width and mu <= inside


def test_many_targets_are_folded_but_the_first(tmp_path, known):
    one, _ = known
    parts = [one.assign(target=f"t{k}") for k in range(6)]
    text = page_of(tmp_path, pd.concat(parts))
    assert text.count("show its rows") == 5 and text.count("<h3>Target: ") == 6


def test_light_dark_and_print_are_provided_for(text):
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "#000000" not in text, "black would be unreadable on dark paper"


def test_pictures_and_tables_say_what_they_are(parsed):
    assert len(parsed.all("svg")) == 3
    for drawing in parsed.all("svg"):
        assert drawing["role"] == "img"
        assert drawing["aria-label"].strip()
    assert all("scope" in cell for cell in parsed.all("th"))


def test_rows_are_those_of_the_table_in_order(known, parsed):
    scores, selection = known
    rows = [re.sub(r"\s+", " ", row) for row in parsed.rows if "What about" in row]
    ordered = scores.sort_values("mu", ascending=False)
    for row, (k, one) in zip(rows[:_TOP], ordered.iterrows(), strict=False):
        said = row.replace("\N{MINUS SIGN}", "-")
        assert f"What about {k}?" in said
        assert f"Answer number {k} it is." in said
        assert f"data.jsonl:{k + 1}" in said
        assert f"{one['mu']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]" in said
        assert (" selected" in said) == bool(selection.selected[k])
        q = selection.qvalues[k]
        assert ("< 0.0001" if q < 5e-5 else f"{q:.4f}") in said
    lowest = ordered.index[-1]
    assert f"What about {lowest}?" in rows[_TOP]


def test_what_is_selected_is_all_there_however_long_the_list(tmp_path, known):
    scores, selection = known
    everyone = scores.assign(selected=True, qvalue=0.01)
    rows = Page(page_of(tmp_path, everyone)).rows
    up = int((scores["mu"] > 0).sum())
    shown = [row for row in rows if "What about" in row]
    assert len(shown) == len(scores)
    assert sum("+" in row.split("[")[0] for row in shown) == up > _TOP
    assert selection.n_selected < len(scores)


def test_promises_are_those_of_the_selection(known, parsed):
    _, selection = known
    assert f"{selection.n_selected} of 120 tested" in parsed.words
    assert "false discovery rate of 0.1" in parsed.words
    assert "judged against a mu of 0" in parsed.words
    assert "rests on 6 observations" in parsed.words
    assert "interval of 95 % is for one row" in parsed.words
    assert "Positive mu: training on it helps the target" in parsed.words


def test_targets_setup_and_further_sections_are_told(parsed):
    assert parsed.words.count("No, it is awful.") == 12
    assert "and 2 more." in parsed.words
    assert "model a tiny one" in " ".join(parsed.rows)
    assert "mu 0.987 15" in re.sub(r"\s+", " ", " ".join(parsed.rows))
    assert "One <sentence>." in parsed.words


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_seen_and_not_obeyed(tmp_path, hostile):
    scores = pd.DataFrame({"mu": [1.0, -1.0], "low": [0.5, -2.0], "high": [2.0, 0.0]})
    for name in ("prompt", "answer", "source", "group", "target", "quantity"):
        scores[name] = pd.Series([hostile] * 2, dtype=object)
    column = hostile.replace("\ud800", "")  # which pandas takes in no column's name
    text = page_of(
        tmp_path,
        scores,
        title=hostile,
        setup={hostile: hostile},
        targets={hostile: [(hostile, hostile)]},
        sections={hostile: pd.DataFrame({column: [1.5], "b": [column]})},
    )
    parsed = Page(text)
    assert parsed.open == []
    assert not parsed.all("script") + parsed.all("img")
    assert len(parsed.all("h1")) == 1
    assert not any(k.startswith("on") for _, a in parsed.elements for k in a)
    unseen = [c for c in text if ord(c) < 32 and c != "\n"]
    assert not unseen
    assert not re.search("[\u202a-\u202e\u2066-\u2069\ud800-\udfff\x7f-\x9f]", text)
    assert len(text) < 1_500_000


def test_spelled_out_and_shortened_texts():
    assert visible("a\u202eb\x00\ud800") == "a[U+202E]b[U+0000][U+D800]"
    assert visible("one\r\ntwo\tthree") == "one\ntwo\tthree"
    assert visible("a" + "\u0301" * 9) == "a" + "\u0301" * 4
    assert visible("\N{WOMAN}\u200d\N{ROCKET}") == "\N{WOMAN}\u200d\N{ROCKET}"
    assert excerpt("word " * 9, 11) == "word word…"
    assert excerpt("short\n text", 20) == "short text"
    assert excerpt("x" * 10**6, 10) == "x" * 10 + "…"


def test_groups_without_texts_are_named(tmp_path):
    scores = pd.DataFrame(
        {
            "subset": ["forum <a>", "papers"],
            "mu": [1.0, np.nan],
            "low": [-np.inf, np.nan],
            "high": [np.inf, np.nan],
            "n_Q": [1, 0],
            "qvalue": np.nan,
            "selected": False,
        }
    )
    parsed = Page(page_of(tmp_path, scores))
    assert "forum <a>" in parsed.words
    assert "+1.00 [-\N{INFINITY}, +\N{INFINITY}]" in parsed.words
    assert "rests on one observation" in parsed.words
    assert "1 were not met" in parsed.words
    assert "groups scored" in parsed.words
    assert "Nothing was selected" in parsed.words


def test_several_targets_have_ranks_of_their_own(tmp_path, known):
    one, _ = known
    other = one.assign(target="other", mu=-one["mu"])
    parsed = Page(page_of(tmp_path, pd.concat([one, other]).iloc[::-1]))
    first = one["mu"].idxmax()
    rows = [re.sub(r"\s+", " ", row) for row in parsed.rows]
    assert sum(f"1 What about {first}?" in row for row in rows) == 1
    assert sum(f"120 What about {first}?" in row for row in rows) == 1
    assert "for all 2 targets" in parsed.words


def test_own_curves_and_figures_are_drawn(tmp_path, known):
    scores, _ = known
    curve = TradeOffDisplay(tradeoff=GaussianTradeOff(1.0), name="mine")
    figure = new_figure(2, 2)
    figure.add_subplot().plot([0, 1])
    text = page_of(tmp_path, scores, curves=[curve], sections={"More": figure})
    labels = [drawing["aria-label"] for drawing in Page(text).all("svg")]
    assert labels[-1] == "More"
    assert len(labels) == 4


def test_the_same_scores_give_the_same_page(tmp_path, known, text):
    scores, _ = known
    assert page_of(tmp_path, scores) == page_of(tmp_path, scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns="low"), "`scores` must have columns .* named 'low'"),
        (lambda s: s.assign(mu=np.nan), "`scores` must have a row with a mu"),
        (lambda s: s[:5], "`selection` must be of the 5 rows"),
    ],
)
def test_wrong_scores_get_one_sentence(tmp_path, known, change, message):
    scores, selection = known
    with pytest.raises(ValueError, match=message):
        page_of(tmp_path, change(scores), selection=selection)
    assert not (tmp_path / "new").exists()


def test_numbers_of_a_column_share_a_format():
    table = pd.DataFrame({"name": ["a", "b"], "x": [0.5, np.nan], "n": [1200, 3]})
    cells = re.findall(r"<td[^>]*>([^<]*)", data_frame(table, caption="c"))
    assert cells == ["0.500", "1,200", "nan", "3"]
    assert interval({"mu": -0.0012, "low": np.nan, "high": 2}, "") == (
        "\N{MINUS SIGN}0.00 [?, 2.00]"
    )
