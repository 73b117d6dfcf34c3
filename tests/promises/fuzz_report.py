"""What the fuzz harness calls of pages."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from promises.fuzz_entries import Arguments, entry, many, values

import fstat
from fstat.report import Html, rankings, write_report


@cache
def left() -> list[Any]:
    """Return what a run may have left."""
    rng = np.random.default_rng(0)
    p, noise = rng.normal(size=(2, 60))
    pair = np.repeat(np.arange(3), 20)
    observations = fstat.Observations(pair, p=p, q=p + pair - 1 + noise)
    chosen = fstat.select(fstat.FInfluence().fit(observations), fdr=0.5)
    return [observations, chosen, many()[0], many()[2]]


def table(a: Arguments) -> pd.DataFrame:
    """Return a table of what may be scores."""
    n = int(a.rng.integers(1, 6))
    mu = values(a.rng, (n,))
    given = {"mu": mu, "low": mu - 1, "high": mu + 1, "example": np.arange(n)}
    more = {
        "qvalue": a.rng.random(n),
        "selected": a.rng.random(n) < 0.5,
        "target": a.rng.choice(["a", "$b_", ""], n),
        "n_Q": a.rng.integers(0, 9, n),
        "quantity": np.repeat("<mu>", n),
    }
    given |= {name: column for name, column in more.items() if a.rng.random() < 0.4}
    name = a.choice(list(given))
    if a.rng.random() < a.oddness:
        given[name] = [a("name") for _ in range(n)]
    return pd.DataFrame(given)


def results(a: Arguments) -> Any:
    return table(a) if a.rng.random() < 0.6 else a("option", *left())


def shown(a: Arguments) -> Any:
    """Return what shows an example."""
    thing = a(
        "option", "text", Html("<b>"), np.eye(3), np.zeros((2, 2, 3)), ["a", None]
    )
    return a("option", None, lambda name: thing)


def looks(a: Arguments) -> dict[str, Any]:
    """Return what both ways of showing results take."""
    return {
        "show": shown(a),
        **a.options(0.1, selection=("option", None, left()[1], {"a": left()[1]})),
        **a.options(
            0.3, targets=("option", None, {}, {"a": "what"}), confidence_level="level"
        ),
    }


@entry
def report__rankings(a: Arguments) -> Any:
    return rankings(results(a), **looks(a), **a.options(0.3, top="few", bottom="few"))


@entry
def report__write_report(a: Arguments) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        write_report(
            Path(folder) / "page.html",
            results(a),
            **looks(a),
            **a.options(
                0.3,
                title="name",
                lead=("option", "text", None, Html("")),
                observations=("option", None, left()[0]),
                setup=("option", None, {}, {"a": 1, 2: "b"}),
                sections=("option", None, {}, {"How sure": None, "More": np.eye(2)}),
            ),
        )
