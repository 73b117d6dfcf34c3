"""What a target may measure of a model's output.

`log_odds`, `log_likelihood` and `completion_log_likelihood` are higher where the model
does better: give them to `Target` with ``higher_is_better=True``. `cross_entropy`,
`language_loss` and `token_loss` are losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100  # torch's own number for what is not to be predicted


def log_likelihood(output: Any, y: Tensor) -> Tensor:
    r"""Return the log-probability of each example's class, :math:`\log p_y`.

    Parameters
    ----------
    output : Tensor of shape (m, n_classes), or an object with such `logits`
        Logits.
    y : Tensor of int of shape (m,)
        Classes.

    Returns
    -------
    Tensor of shape (m,)
        At most 0; higher is better.

    Raises
    ------
    ValueError
        If `output` does not hold one row of logits an example.

    Examples
    --------
    >>> import torch
    >>> from fstat_torch.targets import log_likelihood
    >>> log_likelihood(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    return -nn.functional.cross_entropy(_of_classes(output, y), y, reduction="none")


def log_odds(output: Any, y: Tensor) -> Tensor:
    r"""Return the margin of each example, :math:`\log(p_y / (1 - p_y))`.

    It does not level off where the model is sure, as the loss does: its gradient is
    that of :math:`\log p_y` divided by :math:`1 - p_y`.

    Parameters
    ----------
    output : Tensor of shape (m, n_classes), or an object with such `logits`
        Logits of two classes or more.
    y : Tensor of int of shape (m,)
        Classes.

    Returns
    -------
    Tensor of shape (m,)
        Above 0 where the class has more than half of the probability; higher is
        better.

    Raises
    ------
    ValueError
        If `output` does not hold one row of logits an example.

    Examples
    --------
    >>> import torch
    >>> from fstat_torch.targets import log_odds
    >>> log_odds(torch.tensor([[5.0, 2.0]]), torch.tensor([0]))
    tensor([3.])
    """
    logits = _of_classes(output, y)
    place = y[:, None]
    others = logits.scatter(1, place, -torch.inf).logsumexp(dim=1)
    return logits.gather(1, place)[:, 0] - others


def completion_log_likelihood(output: Any, labels: Tensor) -> Tensor:
    """Return the log-probability of each completion, given what precedes it.

    Parameters
    ----------
    output : Tensor of shape (m, length, vocabulary), or an object with such `logits`
        Logits, of which those at one position predict the label at the next; of all
        positions, or of those alone that predict a label of any row.
    labels : Tensor of int of shape (m, length)
        Tokens of the completion; -100 at the prompt, at padding, and wherever else
        none is to be predicted.

    Returns
    -------
    Tensor of shape (m,)
        Sum over the labelled tokens, zero where there is none; higher is better.

    Raises
    ------
    ValueError
        If `labels` is not of the logits' shape.

    Examples
    --------
    >>> import torch
    >>> from fstat_torch.targets import completion_log_likelihood
    >>> labels = torch.tensor([[-100, -100, 3, 1]])
    >>> completion_log_likelihood(torch.zeros(1, 4, 10), labels).exp()
    tensor([0.0100])
    """
    return _sums_over_tokens(output, labels)[0]


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each example.

    Parameters
    ----------
    output : Tensor of shape (m, n_classes), or an object with such `logits`
        Logits of two classes or more.
    y : Tensor of int of shape (m,)
        Classes.

    Returns
    -------
    Tensor of shape (m,)
        One loss an example.

    Raises
    ------
    ValueError
        If `output` and `y` are not logits and numbers of classes. Other losses, such
        as those of a regression or of several labels an example, are given as `loss`.
    """
    logits = getattr(output, "logits", output)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits)
    classes = not (y.is_floating_point() or y.is_complex() or y.dtype is torch.bool)
    if not isinstance(logits, Tensor) or not (
        classes and logits.ndim == 2 and y.shape == shape[:1] and shape[1] > 1
    ):
        raise ValueError(
            "The default loss is the cross-entropy of one class an example, and needs "
            "logits of shape (m, n_classes) and whole numbers y of shape (m,), got "
            f"{shape} and {y.dtype} of shape {tuple(y.shape)}: say `loss=`, one number "
            "an example, such as lambda output, y: (output - y).square().flatten(1)"
            ".sum(1)."
        )
    return nn.functional.cross_entropy(logits, y, reduction="none")


def language_loss(output: Any, labels: Tensor) -> Tensor:
    r"""Return the loss of each example, of a language model or a classifier.

    Parameters
    ----------
    output : Tensor or object with `logits`
        Logits of shape (m, length, vocabulary), where those at one position predict
        the label at the next, of all positions or of those alone that predict a label
        of any row; or of shape (m, n_classes).
    labels : Tensor of shape (m, length) or (m,)
        Tokens, -100 where none is to be predicted; or classes.

    Returns
    -------
    Tensor of shape (m,)
        Mean cross-entropy over the predicted tokens of each example, zero where there
        is none; or the cross-entropy of its class. Lower is better.

    Raises
    ------
    ValueError
        If `labels` is not of the logits' shape.
    """
    if labels.ndim == 1:
        return -log_likelihood(output, labels)
    sums, counts = _sums_over_tokens(output, labels)
    return -sums / counts.clamp(min=1)


def token_loss(output: Any, labels: Tensor) -> Tensor:
    r"""Return the loss of each example, of a model that predicts a label in place.

    So do masked language models, token classifiers and the decoders of models from
    sequence to sequence, where the logits at one position predict the label there.

    Parameters
    ----------
    output : Tensor of shape (m, length, n_classes), or an object with such `logits`
        Logits.
    labels : Tensor of int of shape (m, length)
        Classes or tokens, -100 where none is to be predicted.

    Returns
    -------
    Tensor of shape (m,)
        Mean cross-entropy over the predicted positions of each example, zero where
        there is none. Lower is better.

    Raises
    ------
    ValueError
        If `labels` is not of the logits' shape.
    """
    logits = _logits(output)
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        raise ValueError(
            "`labels` must be of shape (m, length) for logits of shape (m, length, "
            f"n_classes), got {tuple(labels.shape)} and {tuple(logits.shape)}."
        )
    counted = labels != IGNORED
    each = nn.functional.cross_entropy(
        _precise(logits[counted]), labels[counted], reduction="none"
    )
    rows = counted.nonzero()[:, 0]
    sums = each.new_zeros(len(labels)).index_add(0, rows, each)
    return sums / counted.sum(dim=1).clamp(min=1)


def predicted(labels: Tensor) -> Tensor:
    """Return which labels a language model predicts: all but the first, and -100.

    Parameters
    ----------
    labels : Tensor of int of shape (m, length)
        Tokens.

    Returns
    -------
    Tensor of bool of shape (m, length - 1)
        By the position that predicts.
    """
    return labels[:, 1:] != IGNORED


def predicting(labels: Tensor) -> Tensor:
    """Return the positions at which a language model predicts a label of any row.

    Parameters
    ----------
    labels : Tensor of int of shape (m, length)
        Tokens, -100 where none is to be predicted.

    Returns
    -------
    Tensor of int of shape (n_positions,)
        In order, as causal models of transformers take them for `logits_to_keep`.
    """
    return predicted(labels).any(dim=0).nonzero()[:, 0]


def _sums_over_tokens(output: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum log-probabilities over the predicted tokens of each row, and count these."""
    logits = _logits(output)
    counted, tokens = predicted(labels), labels[:, 1:]
    if logits.ndim == 3 and logits.shape[:2] == labels.shape:
        logits = logits[:, :-1]
    elif labels.ndim == 2:
        some = predicting(labels)
        counted, tokens = counted[:, some], tokens[:, some]
    if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        raise ValueError(
            "`labels` must be of shape (m, length) for logits of shape (m, length, "
            f"vocabulary), got {tuple(labels.shape)} and {tuple(logits.shape)}."
        )
    # Logits of prompts and padding are left alone: the vocabulary is large.
    each = -nn.functional.cross_entropy(
        _precise(logits[counted]), tokens[counted], reduction="none"
    )
    rows = counted.nonzero()[:, 0]
    sums = each.new_zeros(len(labels)).index_add(0, rows, each)
    return sums, counted.sum(dim=1)


def _of_classes(output: Any, y: Tensor) -> Tensor:
    logits = _logits(output)
    if logits.ndim != 2 or y.shape != logits.shape[:1] or logits.shape[1] < 2:
        raise ValueError(
            "`output` must hold logits of shape (m, n_classes), of two classes or "
            f"more, for y of shape (m,), got {tuple(logits.shape)} and "
            f"{tuple(y.shape)}."
        )
    return _precise(logits)


def _logits(output: Any) -> Tensor:
    logits: Tensor = getattr(output, "logits", output)
    return logits


def _precise(logits: Tensor) -> Tensor:
    return logits.float() if logits.element_size() < 4 else logits
