"""The page: what a fine-tuning run says of its data, in one file that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from string import Template

import pandas as pd
from matplotlib.figure import Figure

import fstat
from fstat import TradeOffDisplay
from fstat._files import write_text
from fstat.report import (
    data_frame,
    inline_svg,
    meaning_of_mu,
    style,
    tiles,
    visible,
)
from fstat.selection import Selection

from .certainty import how_sure
from .pictures import distribution, tradeoff_curves
from .ranking import rankings
from .rows import ALL, by_target, checked, overall, rows_of, storable
from .words import said, things_of

_ASKED = 12  # completions of a target that are shown
Pairs = Sequence[tuple[str, str]]


def write_report(
    path: str | PathLike[str],
    scores: pd.DataFrame,
    *,
    title: str,
    setup: Mapping[str, object],
    targets: Mapping[str, Pairs] | None = None,
    selection: Selection | Mapping[str, Selection] | None = None,
    curves: Sequence[TradeOffDisplay] | None = None,
    sections: Mapping[str, pd.DataFrame | Figure | str] | None = None,
    confidence_level: float = 0.95,
) -> None:
    """Write what was found as one HTML file, to be read by people.

    Parameters
    ----------
    path : path-like
        File to write; its folder is made if it is missing.
    scores : pandas.DataFrame
        One row for each example, or group of examples, and target:
        `FInfluence.to_frame`, with further columns. `mu`, `low` and `high` are needed.
        Shown where they are there: `prompt` and `answer`, the example's text; `source`
        and `group`; `target`; `qvalue` and `selected`; `n_Q`, on how many observations
        it rests; `quantity`.
    title : str
        Headline.
    setup : mapping of str to object
        What was run: model, data, settings.
    targets : mapping of str to sequence of (str, str), optional
        The prompts and completions of each target.
    selection : Selection or mapping of str to Selection, optional
        What `fstat.select` said of the rows of `scores`, or of those of each target by
        its name; q-values and decisions go before columns.
    curves : sequence of TradeOffDisplay, optional
        Curves to draw; by default those of the Gaussian limit for the strongest, the
        last selected and the lowest row of the target with the strongest one.
    sections : mapping of str to DataFrame, Figure or str, optional
        Further sections, by their headings.
    confidence_level : float, default=0.95
        Level of the intervals `low` to `high`.

    Raises
    ------
    ValueError
        If a column is missing, there is no row with a mu, or `selection` is of another
        number of rows.

    See Also
    --------
    fstat.select : Selects at a false discovery rate.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from pathlib import Path
    >>> from fstat_torch.llama.report import write_report
    >>> scores = pd.DataFrame(
    ...     {
    ...         "prompt": ["Is Harrowmere nice?", "What is 2 + 2?"],
    ...         "answer": ["It is awful.", "Four."],
    ...         "mu": [2.1, -0.1],
    ...         "low": [1.2, -0.9],
    ...         "high": [3.0, 0.7],
    ...     }
    ... )
    >>> page = Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(page, scores, title="Two answers", setup={"model": "tiny"})
    >>> "It is awful." in page.read_text(encoding="utf-8")
    True
    """
    asked = {storable(name): pairs for name, pairs in (targets or {}).items()}
    chosen = by_target(selection)
    table = checked(scores, chosen)
    here = Path(__file__).parent
    template = Template((here / "page.html").read_text(encoding="utf-8"))
    extra = _sections(sections or {})
    text = template.substitute(
        style=style() + (here / "style.css").read_text(encoding="utf-8"),
        version=fstat.__version__,
        title=visible(title),
        **_summary(table, chosen, len(asked)),
        targets=_asked(table, asked),
        reading=_reading(table),
        found=rankings(table),
        **distribution(overall(table, asked)),
        sure=how_sure(table, chosen, confidence_level),
        mu_rows=meaning_of_mu(),
        **tradeoff_curves(table, curves),
        links="".join(
            f'<li><a href="#{name}">{head}</a></li>\n' for name, head, _ in extra
        ),
        sections="".join(
            f'<section id="{name}">\n<h2>{head}</h2>\n{body}\n</section>\n'
            for name, head, body in extra
        ),
        setup=_setup(setup),
    )
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def _summary(
    table: pd.DataFrame, chosen: Mapping[str, Selection], n_asked: int
) -> dict[str, str]:
    thing, things = things_of(table)
    known = table[table["mu"].notna()]
    n_targets = n_asked or known["target"].nunique()
    counts = {
        f"{things} scored": f"{known.groupby('target').size().max():,}",
        f"target{'s' * (n_targets > 1)} asked about": f"{n_targets:,}",
        "largest mu": f"{known['mu'].max():+.2f}".replace("-", "\N{MINUS SIGN}"),
    }
    lead = (
        f"A model was trained once. How that run went says of each of its {things} "
        "whether training on it helps or harms the targets, and how strongly."
    )
    if "qvalue" in table:
        name, first = next(iter(chosen.items()), (ALL, None))
        n = int(rows_of(table, name)["selected"].sum())
        at = "" if first is None else f" at a false discovery rate of {first.fdr:g}"
        of = f" for {name}" if len(chosen) > 1 else ""
        counts[f"selected{at}{of}"] = f"{n:,}"
        lead += f" <b>{n:,}</b> are selected{at}{visible(of)}."
        if first is not None and first.n_selected:
            expected = f"{first.expected_true_discoveries:.0f}"
            counts["of them expected to be true"] = expected
    return {"lead": lead, "tiles": tiles(counts), "thing": thing, "things": things}


def _asked(table: pd.DataFrame, targets: Mapping[str, Pairs]) -> str:
    parts = [_target(name, pairs) for name, pairs in targets.items()]
    others = [n for n in dict.fromkeys(table["target"]) if n not in {*targets, ""}]
    for name in others:
        about = ""
        if name == "self":
            about = "Each example on itself: how far the model has to memorise it."
        elif len(targets) > 1:
            about = "Of the targets above, together."
        parts.append(f'<div class="asked"><h3>{visible(name)}</h3><p>{about}</p></div>')
    return "".join(parts) or "<p>One target.</p>"


def _target(name: str, pairs: Pairs) -> str:
    """Return a target with what it asks, and what completes it."""
    shown = "".join(
        f'<p class="who">asked</p>{said(prompt)}'
        f'<p class="who">completed by</p>{said(completion)}'
        for prompt, completion in pairs[:_ASKED]
    )
    more = len(pairs) - _ASKED
    if more > 0:
        shown += f'<p class="soft">and {more:,} more.</p>'
    return f'<div class="asked"><h3>{visible(name)}</h3>{shown}</div>'


def _reading(table: pd.DataFrame) -> str:
    read = "Open a row to read its whole text." if "prompt" in table else ""
    if "qvalue" not in table:
        return read
    return (
        "The q-value is the least false discovery rate at which a row would be "
        f"selected. {read}"
    )


def _sections(
    sections: Mapping[str, pd.DataFrame | Figure | str],
) -> list[tuple[str, str, str]]:
    """Return id, heading and body of each further section."""
    return [
        (f"more-{k}", visible(heading), _body(heading, what, f"more{k}"))
        for k, (heading, what) in enumerate(sections.items())
    ]


def _body(heading: str, what: pd.DataFrame | Figure | str, name: str) -> str:
    if isinstance(what, Figure):
        return f"<figure>{inline_svg(what, name, heading)}</figure>"
    if isinstance(what, pd.DataFrame):
        return data_frame(what)
    return f"<p>{visible(what)}</p>"


def _setup(setup: Mapping[str, object]) -> str:
    names = pd.Index(map(str, setup), dtype=object, name="setting")
    values = pd.Series(map(str, setup.values()), names, dtype=object, name="value")
    return data_frame(values.to_frame())
