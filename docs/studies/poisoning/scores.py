"""What other tools would rank by, from the same run or from the texts alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def tracin(columns: Mapping[str, np.ndarray], n_examples: int) -> FloatArray:
    """Return the sum over steps of the learning rate times the inner product.

    Parameters
    ----------
    columns : mapping of str to ndarray
        What `Trace.columns` returned.
    n_examples : int
        Number of training examples.

    Returns
    -------
    ndarray of shape (n_examples,)
        Scores, averaged over the targets; 0 for examples that were not met.

    References
    ----------
    .. [1] G. Pruthi, F. Liu, M. Sundararajan, S. Kale, "Estimating training data
       influence by tracing gradient descent", NeurIPS 2020, section 3.1.
    """
    rate = np.repeat(columns["learning_rate"], columns["batch_size"])
    aligned = np.asarray(columns["alignment"], dtype=float).mean(axis=1)
    total = np.bincount(columns["index"], rate * aligned, minlength=n_examples)
    return np.asarray(total, dtype=float)


def gradient_cosine(columns: Mapping[str, np.ndarray], n_examples: int) -> FloatArray:
    """Return the mean over steps of the cosine of gradients, averaged over targets.

    Parameters
    ----------
    columns : mapping of str to ndarray
        What `Trace.columns` returned, with squared norms.
    n_examples : int
        Number of training examples.

    Returns
    -------
    ndarray of shape (n_examples,)
        Scores; 0 for examples that were not met.
    """
    norms = np.repeat(columns["target_norm"], columns["batch_size"], axis=0)
    own = np.sqrt(columns["norm_squared"].astype(float))[:, None]
    cosine = (columns["alignment"] / (own * norms)).mean(axis=1)
    count = np.bincount(columns["index"], minlength=n_examples)
    total = np.bincount(columns["index"], cosine, n_examples)
    return np.asarray(total / np.maximum(count, 1))


def bm25(
    texts: Sequence[str], query: str, *, k1: float = 1.5, b: float = 0.75
) -> FloatArray:
    r"""Return Okapi BM25 scores of texts for a query.

    Parameters
    ----------
    texts : sequence of str
        What is ranked.
    query : str
        What it is ranked for; a word that occurs twice counts twice.
    k1, b : float
        Saturation of repeated words, and how far long texts are discounted.

    Returns
    -------
    ndarray of shape (n_texts,)
        Higher is more similar.

    References
    ----------
    .. [1] S. Robertson, H. Zaragoza, "The probabilistic relevance framework: BM25 and
       beyond", Foundations and Trends in Information Retrieval 3(4), 2009, section 3.5.

    Examples
    --------
    >>> from poisoning.scores import bm25
    >>> bm25(["a red fox", "a blue bird", "the sea"], "blue fox blue").argmax()
    np.int64(1)
    """
    bags = [Counter(_words(text)) for text in texts]
    length = np.array([bag.total() for bag in bags], dtype=float)
    longer = k1 * (1 - b + b * length / length.mean())
    score = np.zeros(len(texts))
    for word, times in Counter(_words(query)).items():
        often = np.array([bag[word] for bag in bags], dtype=float)
        n = np.count_nonzero(often)
        rarity = np.log1p((len(texts) - n + 0.5) / (n + 0.5))
        score += times * rarity * often * (k1 + 1) / (often + longer)
    return score


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def embedding_similarity(embedded: ArrayLike, query: ArrayLike) -> FloatArray:
    """Return cosines with the mean embedding of a query, about the mean of all.

    Parameters
    ----------
    embedded : array-like of shape (n_examples, width)
        Embeddings of the examples.
    query : array-like of shape (m, width)
        Embeddings of what is asked.

    Returns
    -------
    ndarray of shape (n_examples,)
        From -1 to 1; higher is more similar.

    Notes
    -----
    Hidden states share a large common part, which is taken out.
    """
    rows = np.asarray(embedded, dtype=float)
    middle = rows.mean(axis=0)
    rows = rows - middle
    aim = np.asarray(query, dtype=float).mean(axis=0) - middle
    return rows @ aim / (np.linalg.norm(rows, axis=1) * np.linalg.norm(aim))
