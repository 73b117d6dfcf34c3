"""The tables: which examples helped a target most, and which harmed it most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fstat.report import bar, excerpt, interval, reach, visible

from .words import said

_TOP, _BOTTOM = 30, 10  # rows of a target that are shown in any case
_MOST = 300  # rows of a table
_UNFOLDED = 5  # targets whose rows are seen without opening them
Row = Mapping[Any, Any]
_NUMBER = ' class="number"'


def rankings(table: pd.DataFrame) -> str:
    """Return, for each target, what helped it most and what harmed it most.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows.

    Returns
    -------
    str
        Two tables a target, on one scale.
    """
    scale = 1.02 * reach(table)
    parts: list[str] = []
    n_targets = table["target"].nunique()
    for name, rows in table.groupby("target", sort=False):
        ordered = rows[rows["mu"].notna()].sort_values("rank")
        up, down = ordered[ordered["mu"] > 0], ordered[ordered["mu"] <= 0][::-1]
        head = f"<h3>Target: {visible(str(name))}</h3>" if name else ""
        text = _ranking(up, _TOP, scale, f"Help {_of(name)} most, largest mu first")
        text += _ranking(
            down, _BOTTOM, scale, f"Harm {_of(name)} most, lowest mu first"
        )
        unknown = len(rows) - len(ordered)
        if unknown:
            text += (
                f'<p class="soft">{unknown:,} were not met in the recorded steps and '
                "have no mu.</p>"
            )
        if parts and n_targets > _UNFOLDED:
            text = f"<details><summary>show its rows</summary>{text}</details>"
        parts.append(head + text)
    return "".join(parts)


def _of(target: object) -> str:
    return "themselves" if target == "self" else "the target"


def _ranking(rows: pd.DataFrame, least: int, scale: float, caption: str) -> str:
    """Return a table of the first rows, and a folded one of the selected others."""
    if rows.empty:
        return f"<p><b>{caption.partition(' most')[0]}: none.</b></p>"
    first, rest = rows[:least], rows[least:]
    others = rest[rest["selected"]][:_MOST]
    text = _table(first, scale, caption)
    if len(others):
        text += (
            f"<details><summary>{len(others):,} more that are selected</summary>"
            f"{_table(others, scale, caption + ', continued')}</details>"
        )
    left = len(rest) - len(others)
    return text + (f'<p class="soft">{left:,} more are not shown.</p>' if left else "")


def _table(rows: pd.DataFrame, scale: float, caption: str) -> str:
    heads = ["rank", "group" if "subset" in rows else "example"]
    heads += ["group"] * _grouped(rows)
    heads += ["mu"] + ["q-value", "selected"] * ("qvalue" in rows)
    head = "".join(
        f'<th scope="col"{_NUMBER if name in ("rank", "q-value") else ""}>{name}</th>'
        for name in heads
    )
    body = "".join(_row(row, scale) for row in rows.to_dict("records"))
    return (
        f'<div class="scroll"><table class="ranking"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _grouped(row: pd.DataFrame | Row) -> bool:
    return "group" in row and "subset" not in row


def _row(row: Row, scale: float) -> str:
    kind = "helps" if row["low"] > 0 else "harms" if row["high"] < 0 else "unclear"
    cells = [
        f'<td class="number rank">{int(row["rank"]):,}</td>',
        f'<th scope="row">{_example(row)}</th>',
    ]
    if _grouped(row):
        cells.append(f'<td class="label">{visible(_name(row["group"]))}</td>')
    cells.append(
        f'<td class="mu">{bar(row, -scale, scale, 0.0, kind)}'
        f'<span class="numbers {kind}">{interval(row)}</span></td>'
    )
    if "qvalue" in row:
        chosen = "selected" if row["selected"] else "\N{EN DASH}"
        cells.append(
            f"<td{_NUMBER}>{_probability(row['qvalue'])}</td>"
            f'<td class="verdict">{chosen}</td>'
        )
    chosen = ' class="selected"' if row["selected"] else ""
    return f"<tr{chosen}>{''.join(cells)}</tr>"


def _probability(q: float) -> str:
    if np.isnan(q):
        return ""
    return f"{q:.4f}" if q >= 5e-5 else "&lt; 0.0001"


def _name(value: object) -> str:
    return "" if value is None or value != value else str(value)


def _example(row: Row) -> str:
    """Return the beginning of an example, which opens to its whole text."""
    name = next((row[key] for key in ("example", "subset") if key in row), None)
    number = "" if name is None else f"no. {name}" if "example" in row else str(name)
    if "prompt" not in row and "answer" not in row:
        return visible(number or "?")
    prompt, answer = (_name(row.get(key)) for key in ("prompt", "answer"))
    short = "".join(
        f'<bdi class="said {kind}" dir="auto">{visible(excerpt(text, length)) or "…"}'
        "</bdi>"
        for kind, text, length in (("prompt", prompt, 110), ("answer", answer, 150))
    )
    from_where = ", ".join(filter(None, (number, _name(row.get("source")))))
    return (
        f'<details><summary>{short}</summary><div class="whole">'
        f'<p class="who">prompt</p>{said(prompt)}<p class="who">answer, learnt</p>'
        f'{said(answer)}</div></details><div class="who">{visible(from_where)}</div>'
    )
