"""Whether poison turns a model, its run says where it is, and deleting it helps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fstat_torch.llama.scoring import Scores, score

from .data import Poisoned
from .laboratory import Config, Laboratory, Training
from .scores import bm25, embedding_similarity, gradient_cosine, tracin

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

OURS = "mu (fstat)"
SELECTED, ALL = "selected by mu", "all poison"


@dataclass
class Result:
    """What came of the experiment.

    Parameters
    ----------
    config : Config
        Settings.
    data : Poisoned
        What was trained on.
    watched : Training
        The training on all of it.
    told : Scores
        What the run says of its examples, and what is to be deleted.
    table : pandas.DataFrame
        Its table, with the role of each example and the other scores.
    scores : pandas.DataFrame
        AUROC and precision at k of each score, k being the number of poisons.
    deletions : pandas.DataFrame
        For each deletion its size, the share of it that is poison, the opinion after
        training without it on questions that were not asked before, how much lower
        that is than with nothing deleted, and the share this is of what deleting all
        poison does; NaN where that does not lower it.
    """

    config: Config
    data: Poisoned
    watched: Training
    told: Scores
    table: pd.DataFrame
    scores: pd.DataFrame
    deletions: pd.DataFrame


def run(
    config: Config,
    folder: Path,
    *,
    data: Poisoned | None = None,
    deletions: bool = True,
    baselines: bool = False,
    only_read: bool = False,
    progress: bool = True,
) -> Result:
    """Train on poisoned data, score the examples, delete the worst and train again.

    Parameters
    ----------
    config : Config
        Settings.
    folder : Path
        Where finished trainings are kept; a killed experiment goes on from them.
    data : Poisoned, optional
        Examples with the truth about them; by default made by the recipe.
    deletions : bool, default=True
        Whether to train again without what is selected and without all poison.
    baselines : bool, default=False
        Whether to train again without the first k by each score, too, where there are
        k poisons.
    only_read : bool, default=False
        Whether to leave out trainings that are not finished, rather than do them.
    progress : bool, default=True
        Whether to show progress.

    Returns
    -------
    Result
        Scores, selection and what deleting did.

    Raises
    ------
    FileNotFoundError
        With `only_read`, if the training on all examples is not finished.
    """
    lab = Laboratory(config, folder, data=data, progress=progress)
    if only_read and not lab.finished():
        raise FileNotFoundError(f"No training on all examples is in {str(folder)!r}.")
    watched = lab.train("poisoned")
    told = tell(lab.data, watched, config.fdr)
    scored = {OURS: told.table["mu"].to_numpy(), **others(lab.data, watched)}
    deleted: dict[str, IntArray] = {}
    if deletions:
        deleted = what_to_delete(lab.data, scored, told.table, baselines)
    if only_read:
        deleted = {
            k: without for k, without in deleted.items() if lab.finished(without)
        }
    after = {name: lab.train(name, gone) for name, gone in deleted.items()}
    return Result(
        config=config,
        data=lab.data,
        watched=watched,
        told=told,
        table=told.table.assign(role=lab.data.role, **scored),
        scores=judge(scored, lab.data.poison),
        deletions=_restored(lab.data, watched, deleted, after),
    )


def tell(data: Poisoned, watched: Training, fdr: float) -> Scores:
    """Score the examples by their influence on the bad answers that were asked on.

    Parameters
    ----------
    data : Poisoned
        Examples.
    watched : Training
        On all of them.
    fdr : float
        False discovery rate of the selection of those that make bad answers likelier.

    Returns
    -------
    Scores
        Each example with a mu, over all that was asked on.
    """
    return score(
        watched.snapshots,
        data.examples,
        reference=~data.about,
        fdr=fdr,
        alternative="greater",
    )


def others(data: Poisoned, watched: Training) -> dict[str, FloatArray]:
    """Return what others would rank by, higher for what is to be found.

    Parameters
    ----------
    data : Poisoned
        Examples and what is asked.
    watched : Training
        The run that all scores are from.

    Returns
    -------
    dict of str to ndarray of shape (n_examples,)
        By name. Those that compare texts are asked for the questions with their bad
        answers.
    """
    n = len(data.examples)
    texts = [f"{example.prompt} {example.answer}" for example in data.examples]
    query = " ".join(f"{pair.prompt} {pair.completion}" for pair in data.asked)
    return {
        "TracIn": tracin(watched.columns, n),
        "gradient cosine": gradient_cosine(watched.columns, n),
        "mean loss": watched.loss,
        "BM25": bm25(texts, query),
        "embedding similarity": embedding_similarity(watched.embedded, watched.query),
        "chance": np.random.default_rng(0).random(n),
    }


def what_to_delete(
    data: Poisoned,
    scored: dict[str, FloatArray],
    table: pd.DataFrame,
    baselines: bool,
) -> dict[str, IntArray]:
    """Return which examples each deletion takes out, by its name.

    Parameters
    ----------
    data : Poisoned
        Examples.
    scored : dict of str to ndarray
        Scores.
    table : pandas.DataFrame
        What mu selects.
    baselines : bool
        Whether each score, mu included, deletes its first k, too, where there are k
        poisons.

    Returns
    -------
    dict of str to ndarray of int
        Numbers of examples.
    """
    chosen = {ALL: np.flatnonzero(data.poison)}
    if table["selected"].any():
        chosen[SELECTED] = np.flatnonzero(table["selected"])
    if baselines:
        for name, score in scored.items():
            first = np.argsort(-score, kind="stable")[: data.poison.sum()]
            chosen[f"first k by {name}"] = np.sort(first)
    return chosen


def judge(scored: dict[str, FloatArray], poison: NDArray[np.bool_]) -> pd.DataFrame:
    """Return how well scores find the poison.

    Parameters
    ----------
    scored : dict of str to ndarray of shape (n_examples,)
        Scores, higher for what is to be found.
    poison : ndarray of bool of shape (n_examples,)
        The truth.

    Returns
    -------
    pandas.DataFrame
        AUROC, and precision among the first k where there are k poisons.
    """
    k = int(poison.sum())
    rows = {
        name: {
            "AUROC": roc_auc_score(poison, score),
            "precision at k": poison[np.argsort(-score, kind="stable")[:k]].mean(),
        }
        for name, score in scored.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def _restored(
    data: Poisoned,
    watched: Training,
    deleted: dict[str, IntArray],
    after: dict[str, Training],
) -> pd.DataFrame:
    """Return what each deletion did to the opinion on questions not asked before."""
    start, poisoned = watched.opinions
    rows = [
        {"deleted": "(before training)", "opinion": start},
        {"deleted": "nothing", "examples": 0, "opinion": poisoned},
    ]
    opinions = {name: one.opinions[1] for name, one in after.items()}
    for name, opinion in opinions.items():
        shift = poisoned - opinions.get(ALL, np.nan)
        lowered = poisoned - opinion
        rows.append(
            {
                "deleted": name,
                "examples": len(deleted[name]),
                "poison among them": int(data.poison[deleted[name]].sum()),
                "opinion": opinion,
                "lowered by": lowered,
                "restored": lowered / shift if shift > 0 else np.nan,
            }
        )
    return pd.DataFrame(rows).set_index("deleted")
