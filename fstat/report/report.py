"""The page of a run: what was asked, what was found, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from .._files import write_text
from .._validation import confidence, path_of, string
from ..observations import Observations
from ..selection import Selection
from ..tradeoff import GaussianTradeOff
from .certainty import how_sure
from .content import Html, content, data_frame
from .figures import checks, distribution, gaussian_limits, tradeoff_curves
from .page import page
from .ranking import Show, ranked
from .rows import ALL, Rows, Selections, by_name, read, telling
from .visible import visible


def write_report(
    path: str | PathLike[str],
    results: Any,
    *,
    title: str = "Influence of the training data",
    lead: Any = None,
    observations: Observations | None = None,
    selection: Selection | Selections | None = None,
    show: Show | None = None,
    targets: Mapping[str, Any] | None = None,
    setup: Mapping[str, object] | None = None,
    sections: Mapping[str, Any] | None = None,
    confidence_level: float = 0.95,
) -> None:
    """Write what a run told as one HTML file that loads nothing.

    The page says what mu is, how many pairs were observed how often, what was
    selected and at which error rate, and ranks all pairs with their intervals; it
    draws trade-off curves of the strongest and checks the Gaussian limit.

    Parameters
    ----------
    path : path-like
        File to write; its folder is made if it is missing.
    results : Trace, Snapshots, Observations, FInfluence, Selection or DataFrame
        What is told. Of a trace or snapshots, each example on its own; of
        observations, what `FInfluence` estimates with its defaults. A DataFrame has
        one row for each pair: `mu`, `low` and `high`, and where they are there
        `example` or `subset`, its name; `target`; `qvalue` and `selected`; `n_Q`, the
        number of observations; `quantity`, what mu is.
    title : str
        Headline.
    lead : object, optional
        What stands below it; by default what was selected.
    observations : Observations, optional
        P and Q of each row, in the same order: for curves of the samples and the
        checks.
    selection : Selection or mapping of str to Selection, optional
        What `select` said of the rows, or of those of each target by its name.
    show : callable, optional
        Returns what an example is, given its name (the value of `example`, `subset` or
        `pair`): text, a picture (an array, or the bytes of a PNG, JPEG or SVG file), a
        matplotlib Figure, a DataFrame, `Html`, or a list of these. Text is
        escaped.
    targets : mapping of str to object, optional
        What each target is, of the same kinds.
    setup : mapping of str to object, optional
        What was run: model, data, settings.
    sections : mapping of str to object, optional
        Further sections by their headings, of the same kinds. One with the heading of
        a section that is there takes its place, and None removes it.
    confidence_level : float, default=0.95
        Level of the intervals; of a DataFrame, that of its `low` and `high`.

    Raises
    ------
    ValueError
        If `results` are of no known kind or lack a column, no row has a mu,
        `selection` or `observations` are of other rows, or something to be shown is of
        no known kind.
    TypeError
        If `selection`, `observations`, a mapping or `show` is no such object.

    See Also
    --------
    fstat.select : Selects at a false discovery rate.
    rankings : Rankings of other results, for a further section.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fstat import FInfluence, select
    >>> from fstat.datasets import make_observations
    >>> from fstat.report import write_report
    >>> P, Q = make_observations([2.0] * 3 + [0.0] * 9, n=100, random_state=0)
    >>> influence = FInfluence().fit(P, Q)
    >>> page = Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(
    ...     page,
    ...     select(influence, fdr=0.1),
    ...     show=lambda pair: f"the text of example {pair}",
    ...     sections={"Notes": "Made for an example."},
    ... )
    >>> "the text of example 2" in page.read_text(encoding="utf-8")
    True
    """
    level = confidence(confidence_level)
    rows = read(results, observations, selection, level)
    settings = by_name(setup, "setup")
    pairs = telling(rows)
    of = rows.table["target"][next(iter(pairs.values()))]
    parts: dict[str, Any] = {
        "What was asked": _asked(rows, by_name(targets, "targets")),
        "What was found": _found(rows, show),
        "How sure": how_sure(rows, level),
        "How to read mu": _meaning(rows),
        "Trade-off curves": [
            f"Of the target {of}: {', '.join(pairs)}." if of else [],
            tradeoff_curves(rows.table, pairs, rows.observations),
        ],
    }
    if rows.observations is not None:
        parts["Checks"] = [
            checks(rows, rows.observations),
            gaussian_limits(rows.observations, pairs),
        ]
    parts |= by_name(sections, "sections")
    if settings:
        parts.setdefault("The run", _setup(settings))
    text = page(
        string(title, "title"),
        parts,
        lead=_lead(rows) if lead is None else lead,
        numbers=_numbers(rows),
    )
    file = path_of(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def _first(rows: Rows) -> tuple[str, Selection | None]:
    return next(iter(rows.selections.items()), (ALL, None))


def _numbers(rows: Rows) -> dict[str, str]:
    known = rows.known
    n_targets = known["target"].nunique()
    numbers = {
        f"{rows.many} scored": f"{known.groupby('target').size().max():,}",
        f"target{'s' * (n_targets > 1)} listed": f"{n_targets:,}",
    }
    if "n_Q" in known:
        numbers["observations"] = f"{known['n_Q'].sum():,.0f}"
    largest = known.loc[known["mu"].abs().idxmax(), "mu"]
    numbers["strongest mu"] = f"{largest:+.2f}".replace("-", "\N{MINUS SIGN}")
    if "qvalue" in rows.table:
        name, found = _first(rows)
        at = "" if found is None else f" at a false discovery rate of {found.fdr:g}"
        of = f" for {name}" if len(rows.selections) > 1 else ""
        numbers[f"selected{at}{of}"] = f"{int(rows.of(name)['selected'].sum()):,}"
        if found is not None and found.n_selected:
            expected = f"{found.expected_true_discoveries:.0f}"
            numbers["of them expected to be true"] = expected
    return numbers


def _lead(rows: Rows) -> Html:
    lead = (
        f"For each of these {rows.many}: whether training on it helps or harms the "
        "target, and how strongly."
    )
    name, found = _first(rows)
    if found is not None:
        of = f" for {visible(name)}" if len(rows.selections) > 1 else ""
        lead += (
            f" <b>{found.n_selected:,}</b> are selected at a false discovery rate of "
            f"{found.fdr:g}{of}."
        )
    return Html(f"<p>{lead}</p>")


def _asked(rows: Rows, targets: Mapping[str, Any]) -> Html:
    asked = (
        f"<p>Which {rows.many} made the model better at its targets, and which made it "
        "worse? <b>Positive mu: training on it helps the target</b>, so that its loss "
        "falls, or its completion becomes likelier. <b>Negative mu: training on it "
        "harms the target.</b> Whether that is what anybody wants is not part of the "
        "question: where the target is what a model should not do or say, the "
        f"{rows.many} to worry about are those with a large positive mu.</p>"
    )
    table = rows.table
    if "quantity" in table:
        quantities = "; ".join(dict.fromkeys(map(str, table["quantity"].dropna())))
        asked += f"<p>What mu is here: {visible(quantities)}.</p>"
    others = [n for n in dict.fromkeys(table["target"]) if n not in {*targets, ""}]
    told = dict.fromkeys(others, "") | dict(targets)
    if "self" in others:
        told["self"] = "Each example on itself: how far the model has to memorise it."
    for name, target in sorted(told.items(), key=lambda pair: pair[0] in others):
        body = content(target, f"target {name}")
        asked += f'<div class="asked"><h3>{visible(name)}</h3>{body}</div>'
    return Html(asked)


def _found(rows: Rows, show: Show | None) -> Html:
    first, found = _first(rows)
    n_targets = rows.table["target"].nunique()
    of = f"for the target {first}" if first != ALL else f"for all {n_targets} targets"
    of = f"{rows.many} {of}" if n_targets > 1 else rows.many
    q = ""
    if "qvalue" in rows.table:
        q = (
            " The q-value is the least false discovery rate at which a row would be "
            "selected."
        )
    mark, references = "0", rows.known["mu"][:0]
    if found is not None:
        references = rows.references(first)
    if len(references):
        mark = "the largest mu of the references"
    return Html(
        f"{distribution(rows.of(first), references, of)}<p>Bars show mu with its "
        f"interval on one scale; the line marks {mark}.{q}</p>{ranked(rows, show, {})}"
    )


def _meaning(rows: Rows) -> Html:
    """Return a table of what the best test achieves at a size of mu."""
    sizes = np.array([0, 0.25, 0.5, 0.75, 1, 2, 4])
    g = GaussianTradeOff(sizes)
    columns = {
        "AUC": g.auc(),
        "error at even odds": g.bayes_error(),
        "power at 5 % false alarms": g.power(0.05),
    }
    index = pd.Index([f"{size:g}" for size in sizes], name="size of mu")
    table = pd.DataFrame(columns, index)
    return Html(
        f"<p>Let P be what is seen without {rows.one} and Q what is seen with it. The "
        "size of mu says how well the best test tells Q from P that sees one "
        "observation; its sign says on which side Q lies.</p>"
        + data_frame(table, "What the best test achieves at a given size of mu")
    )


def _setup(setup: Mapping[str, object]) -> pd.DataFrame:
    names = pd.Index(map(str, setup), dtype=object, name="setting")
    values = pd.Series(map(str, setup.values()), names, dtype=object, name="value")
    return values.to_frame()
