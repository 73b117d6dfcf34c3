"""What one fine-tuning run told of its data: a page to hand on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from typing import Any

import pandas as pd

from fstat import report
from fstat.report import Html, excerpt, visible
from fstat.report.content import said
from fstat.selection import Selection

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
    sections: Mapping[str, Any] | None = None,
    confidence_level: float = 0.95,
) -> None:
    """Write what was found as one HTML file, to be read by people.

    It is the page of `fstat.report.write_report`, with the texts of examples and
    targets.

    Parameters
    ----------
    path : path-like
        File to write; its folder is made if it is missing.
    scores : pandas.DataFrame
        One row for each example, or group of examples, and target, as
        `fstat.report.write_report` takes it. Shown where they are there: `prompt` and
        `answer`, the example's text; `source` and `group`.
    title : str
        Headline.
    setup : mapping of str to object
        What was run: model, data, settings.
    targets : mapping of str to sequence of (str, str), optional
        The prompts and completions of each target.
    selection : Selection or mapping of str to Selection, optional
        What `fstat.select` said of the rows of `scores`, or of those of each target by
        its name; q-values and decisions go before columns.
    sections : mapping of str to object, optional
        Further sections, by their headings, as `fstat.report.write_report` takes them.
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
    report.write_report(
        path,
        scores,
        title=title,
        show=_texts(scores),
        selection=selection,
        targets={name: _target(pairs) for name, pairs in (targets or {}).items()},
        setup=setup,
        sections=sections,
        confidence_level=confidence_level,
    )


def _texts(scores: pd.DataFrame) -> Any:
    """Return what shows an example by its name, None where there is no text."""
    columns = [c for c in ("prompt", "answer", "source", "group") if c in scores]
    if not columns:
        return None
    key = next((name for name in ("example", "subset") if name in scores), None)
    names = range(len(scores)) if key is None else scores[key]
    texts: dict[Hashable, dict[Hashable, Any]] = dict(
        zip(names, scores[columns].to_dict("records"), strict=True)
    )
    return lambda name: _example(texts[name])


def _example(row: Mapping[Any, Any]) -> Html:
    """Return the beginning of an example, which opens to its whole text."""
    texts = {name: _text(row.get(name)) for name in ("prompt", "answer")}
    where = (_text(row.get(name)) for name in ("source", "group"))
    told = f'<div class="soft">{visible(", ".join(filter(None, where)))}</div>'
    if not texts.keys() & row.keys():
        return Html(told)
    short = "".join(
        f'<div><bdi class="said {kind}" dir="auto">'
        f"{visible(excerpt(texts[name], length)) or '…'}</bdi></div>"
        for name, kind, length in (("prompt", "soft", 110), ("answer", "", 150))
    )
    return Html(
        f'<details><summary>{short}</summary><div><p class="soft">prompt</p>'
        f'{said(texts["prompt"])}<p class="soft">answer, learnt</p>'
        f"{said(texts['answer'])}</div></details>{told}"
    )


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)


def _target(pairs: Pairs) -> Html:
    """Return what a target asks, and what completes it."""
    shown = "".join(
        f'<p class="soft">asked</p>{said(prompt)}'
        f'<p class="soft">completed by</p>{said(completion)}'
        for prompt, completion in pairs[:_ASKED]
    )
    more = len(pairs) - _ASKED
    return Html(shown + (f'<p class="soft">and {more:,} more.</p>' if more > 0 else ""))
