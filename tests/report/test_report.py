"""The page of a run of one's own: complete, true to the numbers, whole and safe."""

import html
import re
import subprocess
import warnings
from dataclasses import replace
from shutil import which

import numpy as np
import pandas as pd
import pytest
from html_pages import HOSTILE, Page, check_page, plain

from fstat import FInfluence, Observations, Snapshots, Trace, select
from fstat.methods import Moments
from fstat.report import (
    Html,
    gaussian_limits,
    new_figure,
    rankings,
    tradeoff_curves,
    visible,
    write_report,
)
from fstat.report.ranking import TOP

N, STEPS, HELPFUL = 120, 24, 15


@pytest.fixture(scope="module")
def observations():
    """Of 120 examples the first 15 help the target, a series with memory."""
    rng = np.random.default_rng(0)
    mu = np.where(np.arange(N) < HELPFUL, 2.0, 0.0)
    noise = rng.normal(size=(N, STEPS))
    for step in range(1, STEPS):
        noise[:, step] = 0.6 * noise[:, step - 1] + 0.8 * noise[:, step]
    p = rng.normal(size=N * STEPS)
    return Observations(
        np.repeat(np.arange(N), STEPS),
        p=p,
        q=p + np.repeat(mu, STEPS) + 0.5 * noise.ravel(),
        step=np.tile(np.arange(STEPS), N),
        names={"example": np.arange(N), "target": np.repeat("spoken of badly", N)},
        scale=1.0,
        quantity="what <mu> is of",
    )


@pytest.fixture(scope="module")
def influence(observations):
    return FInfluence().fit(observations)


@pytest.fixture(scope="module")
def selection(influence):
    return select(influence, fdr=0.1, alternative="greater")


@pytest.fixture
def drawn_page_of(tmp_path):
    def write(results, **options):
        file = tmp_path / "new" / "page.html"
        write_report(file, results, **options)
        page = Page(file.read_text(encoding="utf-8"))
        check_page(page)
        return page

    return write


@pytest.fixture
def page_of(undrawn, drawn_page_of):
    return drawn_page_of


@pytest.fixture(scope="module")
def page(selection, observations, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "page.html"
    write_report(
        file,
        selection,
        title="What 120 examples did",
        observations=observations,
        show=lambda k: f"What about {k}? " + "And so on. " * 100,
        targets={"spoken of badly": "Is it good?"},
        setup={"model": "a tiny one", "epochs": 6},
        sections={
            "Beside other scores": pd.DataFrame(
                {"score": ["mu", "loss"], "AUROC": [0.9871, 0.5], "found": [15, 2]}
            ),
            "Told": ["One <sentence>.", Html("<em>And</em> another.")],
        },
    )
    return Page(file.read_text(encoding="utf-8"))


def numbers(row):
    return f"{row['mu']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def test_a_page_is_whole_and_loads_nothing(page):
    check_page(page)
    assert "@media print" in page.source


def test_what_was_asked_is_told(page, selection):
    said = page.said("What was asked")
    assert "What mu is here: what <mu> is of." in said
    assert "Positive mu: training on it helps the target" in said
    assert "spoken of badly Is it good?" in said
    # Pairs, targets, observations and what was selected, in large.
    tiles = plain(page.text.partition("What was asked")[0])
    for told in ("examples scored120", "target listed1", "observations2,880"):
        assert told in tiles
    n = selection.n_selected
    assert f"{n} are selected at a false discovery rate of 0.1" in tiles


def test_cards_are_those_of_the_table_in_order(influence, selection, page):
    table = influence.to_frame().sort_values("mu", ascending=False)
    for card, (k, row) in zip(page.cards[:TOP], table.iterrows(), strict=False):
        said = plain(card)
        assert f"no. {k} " in said and f"What about {k}?" in said
        assert numbers(row) in said
        assert (", selected" in said) == bool(selection.selected[k])
        q = selection.qvalues[k]
        assert ("q < 0.0001" if q < 5e-5 else f"q {q:.4f}") in said
    lowest = [plain(card) for card in page.cards if plain(card).startswith(f" {N} ")]
    assert lowest[0].startswith(f" {N} no. {table.index[-1]} ")
    left = sum(map(int, re.findall(r"(\d+) more are not shown", page.text)))
    assert len(page.cards) + left == N


def test_promises_are_those_of_the_selection(selection, page):
    said = page.said("How sure")
    assert f"{selection.n_selected} of {N} tested examples" in said
    assert f"{selection.expected_true_discoveries:.0f} true discoveries" in said
    assert "false discovery rate of 0.1" in said
    assert "judged against a mu of 0" in said
    assert repr(selection) in said  # its side and conditions
    assert f"rests on {STEPS} observations" in said
    assert "interval of 95 % is for one row" in said


def test_curves_of_the_samples_and_checks_are_drawn(page):
    labels = [drawing["aria-label"] for drawing in page.all("svg")]
    assert len(labels) == 1 + 2 + 2 * 3
    assert (
        "Of the target spoken of badly: highest, rank 1, lowest, rank 120, weakest "
        in (page.said("Trade-off curves"))
    )
    said = page.said("Checks")
    assert said.count("Variances look") == 3
    assert "Goodness of fit, of the 120 examples" in said
    # The series has an autocorrelation of 0.6: a factor of 2, less what 24 steps hide.
    factor = float(re.search(r"standard errors of ([\d.]+) times", said)[1])
    assert 1.6 < factor < 2.2 and 'dependence="serial"' in said


def test_further_sections_stand_before_the_run(page):
    assert list(page.sections)[-3:] == ["Beside other scores", "Told", "The run"]
    assert "mu 0.987 15" in page.said("Beside other scores")
    assert page.said("Told") == " One <sentence>. And another. "
    assert "model a tiny one" in page.said("The run")


def test_sections_take_the_place_of_others_or_remove_them(page_of, influence):
    page = page_of(
        influence, sections={"How sure": "Not at all.", "Trade-off curves": None}
    )
    assert page.said("How sure").strip() == "Not at all."
    assert "Trade-off curves" not in page.sections
    assert list(page.sections) == [
        "What was asked",
        "What was found",
        "How sure",
        "How to read mu",
    ]


def recorded():
    """What a run left, of six examples, the first aligned with the target."""
    rng = np.random.default_rng(0)
    trace = Trace(["a"])
    for step in range(60):
        index = rng.permutation(6)[:4]
        trace.append(
            step=step,
            index=index,
            target_norm=[1.0],
            alignment=rng.normal(size=(4, 1)) + 3.0 * (index[:, None] == 0),
            learning_rate=0.1,
        )
    return trace


def snapshots():
    rng = np.random.default_rng(0)
    kept = Snapshots(["a"], n_examples=40)
    for step in range(5):
        kept.append(
            step, rng.normal(size=(40, 1)) + 9.0 * (np.arange(40) == 0)[:, None]
        )
    return kept


@pytest.mark.parametrize("left", [recorded, snapshots])
def test_what_a_run_left_becomes_a_page(page_of, left):
    results = left()
    page = page_of(results)
    table = FInfluence().fit(results.observations()).to_frame()
    assert "Nothing was selected at an error rate" in page.said("How sure")
    assert visible(table["quantity"][0]) in page.source
    best = table["mu"].idxmax()
    assert plain(page.cards[0]).startswith(f" 1 no. {table['example'][best]} ")
    assert numbers(table.loc[best]) in plain(page.cards[0])
    assert "Checks" in page.sections


def test_observations_give_the_page_of_their_estimates(
    page_of, observations, influence
):
    ours = page_of(observations)
    given = page_of(influence, observations=observations)
    assert ours.source == given.source
    without = page_of(influence)
    assert "Checks" not in without.sections
    assert "thin: the samples" in ours.text and "thin" not in without.said(
        "Trade-off curves"
    )


def test_references_are_marked_and_told(page_of):
    rng = np.random.default_rng(0)
    mu = np.r_[np.full(30, 3.0), np.zeros(270)]
    p = rng.normal(size=(8, 300))
    influence = FInfluence(method=Moments(scale=1.0), paired=True)
    influence.fit(p, p + mu + 0.3 * rng.normal(size=p.shape))
    trusted = np.arange(300) >= 200
    selection = select(influence, fdr=0.1, reference=trusted)
    page = page_of(selection)
    largest, mus = influence.mu_[trusted].max(), influence.to_frame()
    assert "marks the largest mu of the references" in page.said("What was found")
    start, end = min(mus["low"].min(), 0) * 1.02, mus["high"].max() * 1.02
    place = 100 * (largest - start) / (end - start)
    marks = set(re.findall(r'<u style="left:([\d.]+)%', page.source))
    assert marks == {f"{place:.1f}"}
    assert f"least p-value is 1/{trusted.sum() + 1}" in page.said("How sure")
    assert f"at least {selection.least_selected} of 200" in page.said("How sure")


def test_what_was_looked_for_comes_first(page_of, observations):
    swapped = FInfluence(paired=True).fit(
        *(x.reshape(N, STEPS).T for x in (observations.q, observations.p))
    )
    found = select(swapped, fdr=0.01, alternative="less", stronger_than=0.5)
    page = page_of(found)
    said = page.said("What was found")
    assert said.index("Harm the target most") < said.index("Help the target most")
    cards = [plain(card) for card in page.cards]
    assert all(", selected" in card for card in cards[: min(TOP, found.n_selected)])
    assert f"against an abs(mu) of {found.threshold:.3g}" in page.said("How sure")


def test_what_is_selected_is_all_there_however_long_the_list(page_of, influence):
    table = influence.to_frame().assign(selected=True, qvalue=0.01)
    assert len(page_of(table).cards) == N


def test_many_targets_have_lists_of_their_own_folded_but_the_first(page_of, influence):
    one = influence.to_frame()
    parts = [one.assign(target=f"t{k}", mu=(-1) ** k * one["mu"]) for k in range(6)]
    page = page_of(pd.concat(parts).iloc[::-1])
    assert page.source.count("show its rows") == 5
    assert page.source.count("<h3>Target: ") == 6
    assert "for all 6 targets" in page.text
    first = one["mu"].idxmax()
    said = [plain(card) for card in page.cards]
    assert sum(card.startswith(f" 1 no. {first} ") for card in said) == 3
    assert sum(card.startswith(f" {N} no. {first} ") for card in said) == 3


def test_selections_of_targets_are_their_own(page_of, influence, selection):
    one = influence.to_frame()
    both = pd.concat([one.assign(target="a"), one.assign(target="b")])
    other = select(influence, fdr=0.01, alternative="greater")
    page = page_of(both, selection={"a": selection, "b": other})
    assert "of each target by itself, not of all lists together" in page.text
    assert "selected for b at a false discovery rate of 0.01" in page.said("How sure")
    assert sum(", selected" in card for card in map(plain, page.cards)) == (
        selection.n_selected + other.n_selected
    )
    assert "Mu of all examples for the target a." in page.said("What was found")


def test_groups_without_estimates_are_told(page_of):
    ends = [np.nan, np.nan]
    table = pd.DataFrame(
        {
            "subset": ["forum <a>", "papers"],
            "mu": [1.0, np.nan],
            "low": [-np.inf, np.nan],
            "high": [np.inf, np.nan],
            "n_Q": [1, 0],
            "qvalue": ends,
            "selected": False,
        }
    )
    page = page_of(table)
    assert "forum <a>" in page.cards[0]
    assert "+1.00 [-\N{INFINITY}, +\N{INFINITY}]" in plain(page.cards[0])
    assert "rests on one observation" in page.said("How sure")
    assert "1 were not met" in page.said("What was found")
    assert "groups scored" in page.text


def test_names_of_curves_are_no_formulas(observations):
    ends = pd.DataFrame({"mu": [1.0], "low": [0.5], "high": [1.5]})
    # What no font draws is left out.
    names = dict.fromkeys((one.replace("\ud800", "") for one in HOSTILE[:7]), 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        drawn = tradeoff_curves(ends, names, observations)
        page = Page(gaussian_limits(observations, {"".join(names): 0}))
    assert drawn.count("<svg") == 2
    assert not page.open and not page.all("script") + page.all("img")


def test_a_quantity_may_be_anything(page_of):
    table = pd.DataFrame({"mu": [1.0, -1.0], "low": [0.5, -2.0], "high": [2.0, 0.0]})
    table["subset"], table["target"] = ["a", "b"], "z"
    table["quantity"] = pd.Series([["odd"], ["odd"]], dtype=object)
    assert page_of(table).source.count("[&#x27;odd&#x27;]") >= 1


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_seen_and_not_obeyed(page_of, hostile):
    table = pd.DataFrame({"mu": [1.0, -1.0], "low": [0.5, -2.0], "high": [2.0, 0.0]})
    for name in ("subset", "target", "quantity"):
        table[name] = pd.Series([hostile] * 2, dtype=object)
    column = hostile.replace("\ud800", "")  # which pandas takes in no column's name
    image = np.zeros((2, 2))
    noise = np.random.default_rng(0).normal(size=(9, 2))
    two = select(FInfluence().fit(noise, noise[::-1] + np.array([9, -9])))
    page = page_of(
        table,
        title=hostile,
        lead=hostile,
        show=lambda name: [hostile, image, Html(visible(name))],
        targets={hostile: [hostile, image]},
        selection={hostile: two, "b": replace(two, selected=two.selected[:0])},
        setup={hostile: hostile},
        sections={hostile: [pd.DataFrame({column: [1.5], "b": [column]}), image]},
    )
    assert not page.all("script")
    assert len(page.all("img")) == 2 + 1 + 1 and len(page.all("h1")) == 1
    assert not [c for c in page.source if ord(c) < 32 and c != "\n"]
    assert not re.search(
        "[\u202a-\u202e\u2066-\u2069\ud800-\udfff\x7f-\x9f]", page.source
    )
    assert len(page.source) < 1_500_000


def test_figures_have_their_own_ids(drawn_page_of, influence):
    figure = new_figure(2, 2)
    figure.add_subplot().plot([0, 1])
    page = drawn_page_of(influence, sections={"More": [figure, figure]})
    labels = [drawing["aria-label"] for drawing in page.all("svg")]
    assert labels[-2:] == ["More", "More"]


def test_the_same_results_give_the_same_page(drawn_page_of, selection):
    pages = [drawn_page_of(selection) for _ in range(2)]
    assert pages[0].source == pages[1].source


def test_doubts_of_the_selection_are_told(page_of, selection):
    page = page_of(replace(selection, notes=("Most are <selected>.",)))
    assert "Doubt: Most are <selected>." in page.said("How sure")


@pytest.mark.parametrize("show", [3.0, b"GIF89a", np.zeros(3), np.zeros((2, 2), "U1")])
def test_what_cannot_be_shown_is_refused_in_one_sentence(page_of, influence, show):
    with pytest.raises(ValueError, match=r"^(What a page shows|A picture)"):
        page_of(influence, show=lambda _: show)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s.drop(columns="low"), {}, "columns .* got none named 'low'"),
        (lambda s: s.assign(mu=np.nan), {}, "must have a row with a mu"),
        (lambda s: s[:5], {"selection": True}, "`selection` must be of the 5 rows"),
        (lambda s: s[:5], {"observations": True}, "`observations` must be of the 5"),
        (lambda s: s["mu"].to_numpy(), {}, "`results` must be a Trace, Snapshots"),
        (lambda s: s.assign(mu="a"), {}, r"`results\['mu'\]` must be numeric"),
        (lambda s: s.assign(mu=np.inf), {}, r"`results\['mu'\]` must be finite"),
        (lambda s: pd.concat([s, s], axis=1), {}, "one column of each name"),
        (lambda s: s, {"title": 3}, "`title` must be"),
        (lambda s: s, {"show": 3}, "`show` must be a function"),
        (lambda s: s, {"setup": 3}, "`setup` must be a Mapping"),
        (lambda s: s, {"selection": {"spoken of badly": 3}}, "`selection` must be a S"),
        (lambda s: s, {"observations": 3}, "`observations` must be a"),
    ],
)
def test_wrong_results_get_one_sentence(
    tmp_path, influence, selection, observations, change, options, message
):
    known = {"selection": selection, "observations": observations}
    options = {k: known[k] if value is True else value for k, value in options.items()}
    table = influence.to_frame()
    with pytest.raises((ValueError, TypeError), match=message):
        write_report(tmp_path / "new" / "page.html", change(table), **options)
    assert not (tmp_path / "new").exists()


def test_a_selection_of_scores_alone_has_no_intervals(tmp_path, selection):
    with pytest.raises(ValueError, match=r"`results` must be a Trace.* got Selection"):
        write_report(tmp_path / "page.html", replace(selection, influence=None))


@pytest.mark.parametrize(
    "change",
    [
        {"mu": 0.0, "low": 0.0, "high": 0.0},
        {"mu": -1.0, "low": -2.0, "high": -0.5},
        {"low": np.nan, "high": np.nan},
        {"mu": [1e9, -1e-9, np.nan]},
        {"selected": [True, None, False], "qvalue": [0.01, np.nan, 0.5]},
        {"example": [0.0, np.nan, 7.0], "target": [None, "a", "a"]},
    ],
)
def test_odd_tables_have_pages(drawn_page_of, change):
    table = pd.DataFrame(
        {"mu": [1.0, -1, 0.5], "low": [0.0, -2, 0], "high": [2.0, 0, 1]}
    )
    page = drawn_page_of(table.assign(**change))
    assert len(page.cards) == table.assign(**change)["mu"].notna().sum()
    marked = [card for card in page.cards if ", selected" in plain(card)]
    assert len(marked) == ("selected" in change)


@pytest.mark.parametrize("n_observations", [2, 3, 30])
def test_one_pair_of_few_observations_has_a_page(drawn_page_of, n_observations):
    p, noise = np.random.default_rng(0).normal(size=(2, n_observations))
    page = drawn_page_of(
        Observations(np.zeros(n_observations, int), p=p, q=p + 1 + noise)
    )
    few = n_observations < 3
    assert ("Not drawn: " in page.said("Checks")) == few
    assert ("too few to tell" in page.said("Checks")) == (n_observations < 20)


def test_rankings_show_as_many_as_asked(influence):
    page = Page(rankings(influence, top=2, bottom=1))
    assert len(page.cards) == 3


PROBE = """<!doctype html><body><iframe id=f style="width:{width}px;border:0"
srcdoc="{page}"></iframe><pre id=told></pre><script>
document.getElementById("f").addEventListener("load", () => {{
  const inside = f.contentDocument, width = inside.documentElement.clientWidth;
  const seen = e => e.getClientRects().length;
  const right = q => [...inside.querySelectorAll(q)].filter(seen).map(
    e => e.getBoundingClientRect().right);
  told.textContent = [width, inside.documentElement.scrollWidth,
    Math.max(...right(".told *")), right(".told .numbers").length].join(" ");
}});</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(not which("chromium"), reason="needs chromium")
@pytest.mark.parametrize("width", [320, 360, 480])
@pytest.mark.parametrize("picture", [False, True])
def test_mu_is_in_sight_on_a_phone(page, page_of, influence, width, picture, tmp_path):
    if picture:
        image = np.zeros((28, 28))
        page = page_of(influence, show=lambda k: [image, f"labelled {k}"])
    place = tmp_path / "phone.html"
    place.write_text(PROBE.format(width=width, page=html.escape(page.source)))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
    browser += ["--virtual-time-budget=5000", "--dump-dom", place.as_uri()]
    shown = subprocess.run(browser, capture_output=True, text=True, timeout=120).stdout
    told = re.search(r'<pre id="told">(.*?)</pre>', shown)[1].split()
    inside, needed, mu, rows = map(float, told)
    assert rows >= 40 and needed <= inside <= width and mu <= inside


def test_what_is_drawn_stays_within_its_frame(
    drawn_page_of, observations, selection, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        "fstat.report.content.inline_svg",
        lambda figure, alt: drawn.append(figure) or "",
    )
    drawn_page_of(selection, observations=observations)
    assert len(drawn) == 1 + 2 + 2 * 3
    for figure in drawn:
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) > -0.01
        assert box.x1 < width + 0.01 and box.y1 < height + 0.01
        for ax in figure.axes:
            legend = ax.get_legend().get_window_extent()
            frame = ax.get_window_extent()
            assert frame.x0 <= legend.x0 and legend.x1 <= frame.x1
