"""What the page says only where it is known which labels are wrong."""

from __future__ import annotations

from html import escape

import pandas as pd

from ..mislabelled import Result

_TOGGLES = """<fieldset>
<legend>In this demonstration labels were flipped on purpose, so the truth is known: on
these cards</legend>
<label><input type="radio" name="truth" id="truth-hidden" checked> keep it
hidden</label>
<label><input type="radio" name="truth" id="truth-shown"> show it</label>
<label><input type="radio" name="truth" id="truth-false"> only false discoveries
({n_false})</label>
</fieldset>"""
_SCORES = """<section id="scores">
<h2>Beside other scores</h2>
<p>How well each score ranks the mislabelled digits first, on the {n_judged} digits that
are not trusted. In ranking, mu is one score among several good ones; what it adds is
where to cut, with an error rate.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">score</th>{head}</tr></thead>
<tbody>{rows}</tbody></table></div>
</section>
"""


def of_truth(result: Result) -> dict[str, str]:
    """Return what can be said only where it is known which labels are wrong.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    dict of str to str
        What goes into the page; empty texts where it is not known.
    """
    if not result.data.truth:
        return dict.fromkeys(
            ("toggles", "share_false", "missed", "true_labels", "scores", "to_scores"),
            "",
        )
    chosen = result.selection.selected
    data = result.data
    true = int(data.flipped[chosen].sum())
    flipped = int(data.flipped[~data.trusted].sum())
    n_false = f"{int(chosen.sum()) - true:,}"
    return {
        "toggles": _TOGGLES.format(n_false=n_false),
        "share_false": " In this one, whose truth is known, the share is "
        f"{result.false_discovery_proportion:.1%}.",
        "missed": f": {flipped - true:,} of the {flipped:,} are not among the selected",
        "true_labels": " True labels are those before the flips.",
        "scores": _scores(result),
        "to_scores": '<li><a href="#scores">Other scores</a></li>\n',
    }


def expected(result: Result) -> str:
    """Say how many of the selected are expected to be mislabelled.

    Parameters
    ----------
    result : Result
        What a run told.

    Returns
    -------
    str
        A sentence, with the truth where it is known.
    """
    selection, data = result.selection, result.data
    if not selection.n_selected:
        return "Nothing is selected here, so nothing is accused falsely."
    are = f"; {int(data.flipped[selection.selected].sum()):,} are" * data.truth
    return (
        f"From the largest q-value among the selected, "
        f"{selection.expected_true_discoveries:.0f} of the {selection.n_selected:,} "
        f"are <b>expected</b> to be truly mislabelled{are}."
    )


def verdict_in_truth(row: pd.Series) -> tuple[str, str]:
    """Return whether an accusation is right, and the truth to be shown.

    Parameters
    ----------
    row : Series
        Of the table, with the truth.

    Returns
    -------
    kind, said : str
        A class for the style sheet, and an element.
    """
    flipped = bool(row["flipped"])
    said = (
        f"truly a {row['true_label']}" if flipped else "rightly labelled: a false alarm"
    )
    kind = "right" if flipped else "wrong"
    return kind, f'<div class="truth">{said}</div>'


def _scores(result: Result) -> str:
    scores = result.scores
    head = "".join(
        f'<th scope="col" class="number">{escape(str(name))}</th>' for name in scores
    )
    rows = ""
    for k, (name, row) in enumerate(scores.iterrows()):
        cells = "".join(f'<td class="number">{value:.4f}</td>' for value in row)
        own = ' class="own"' if k == 0 else ""
        rows += f'<tr{own}><th scope="row">{escape(str(name))}</th>{cells}</tr>'
    judged = int((~result.table["trusted"]).sum())
    return _SCORES.format(head=head, rows=rows, n_judged=f"{judged:,}")
