"""How well scores find mislabelled digits, where the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from .data import Data


def score(table: pd.DataFrame) -> pd.DataFrame:
    """Say how well each score ranks mislabelled digits first.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `flipped`, `trusted` and the scores.

    Returns
    -------
    pandas.DataFrame
        AUROC, and the share of the mislabelled digits that are found when a tenth is
        inspected, on the digits that are not trusted.
    """
    judged = table[~table["trusted"]]
    flipped = judged["flipped"].to_numpy()
    rows = {}
    for column in judged:
        name, sign = name_of_score(str(column))
        if not name:
            continue
        values = sign * judged[column].to_numpy()
        values = np.where(np.isnan(values), np.nanmin(values), values)
        inspected = np.argsort(-values)[: round(0.1 * len(values))]
        rows[name] = {
            "AUROC": roc_auc_score(flipped, values) if flipped.any() else np.nan,
            "recall at 10 %": flipped[inspected].sum() / max(flipped.sum(), 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


_SCORES = {
    "mu": ("mu of self-influence", 1),
    "gradient_norm": ("gradient norm", 1),
    "aum": ("AUM", -1),
    "mean_loss": ("mean loss over training", 1),
    "final_loss": ("final loss", 1),
    "out_of_fold": ("out-of-fold confidence (cleanlab)", -1),
    "knn_shapley": ("KNN-Shapley", -1),
}


def name_of_score(column: str) -> tuple[str, int]:
    """Return what a column of the table is called, and which end is suspicious.

    Parameters
    ----------
    column : str
        Name of a column.

    Returns
    -------
    name : str
        Empty for columns that are no score.
    sign : int
        1 where large values are suspicious, -1 where small ones are.
    """
    kind, _, where = column.partition("_")[2].partition("_")
    if column.startswith("mu_") and kind == "self":
        return f"mu of self-influence ({where})", 1
    if column.startswith("mu_"):
        return f"mu of harm to validation digits ({where})", -1
    return _SCORES.get(column, ("", 0))


def share_false(selected: NDArray[np.bool_], data: Data) -> float:
    """Return the share of the selected digits that are labelled rightly.

    Parameters
    ----------
    selected : ndarray of bool of shape (n_train,)
        Which are selected.
    data : Data
        With the truth, where it is known.

    Returns
    -------
    float
        NaN where the truth is not known.
    """
    if not data.truth:
        return np.nan
    return float(1 - data.flipped[selected].mean()) if selected.any() else 0.0
