"""What influence is asked on, as the user declares it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fstat._validation import flag
from fstat.records.subsets import SELF

from .measures import completion_log_likelihood, language_loss, predicted

Measure = Callable[[Any, Any], Tensor]
Inputs = Tensor | dict[str, Tensor] | tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Target:
    r"""A function of the model that influence is asked on.

    It is the weighted sum of a measure of the model's output over some points. An
    example's influence is positive where training on it makes the target *better*.

    Parameters
    ----------
    x : Tensor, mapping of str to Tensor, or tuple of Tensor
        What the model is called with, of m rows each: ``model(x)``, ``model(**x)`` or
        ``model(*x)``.
    y : Tensor of m rows
        What the output is measured against.
    measure : callable, optional
        ``measure(output, y)`` returns one number for each point, shape ``(m,)``; by
        default the sampler's loss. See `fstat_torch.targets` for ready ones.
    higher_is_better : bool, default=False
        Whether the target is better served when the measure is higher; a loss is
        lower.
    weights : array-like of shape (m,), optional
        Weight of each point in the sum, of either sign; by default 1/m, the mean.

    See Also
    --------
    SingleRunSampler : Takes targets, and says when they are refused.

    Notes
    -----
    With measure :math:`h`, weights :math:`w` and points :math:`z_k` the goodness of
    the target is :math:`\pm\sum_k w_k h(z_k)`. What is recorded of an example is the
    rate at which a gradient step on it raises that goodness.

    Examples
    --------
    The log-odds of the true class of a test point, and how much more likely the model
    finds one class than another, of the same x:

    >>> import torch
    >>> from torch import nn
    >>> from fstat_torch import SingleRunSampler, Target
    >>> from fstat_torch.targets import log_likelihood, log_odds
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(200, 5), torch.randint(3, (200,))
    >>> twice = x[:1].expand(2, 5), torch.tensor([0, 1])
    >>> targets = {
    ...     "margin": Target(x[:1], y[:1], measure=log_odds, higher_is_better=True),
    ...     "0 against 1": Target(
    ...         *twice, measure=log_likelihood, higher_is_better=True, weights=[1, -1]
    ...     ),
    ... }
    >>> sampler = SingleRunSampler(nn.Linear(5, 3), targets=targets)
    >>> sampler.trace.targets
    ['margin', '0 against 1']
    """

    x: Any
    y: Any
    measure: Measure | None = field(default=None, kw_only=True)
    higher_is_better: bool = field(default=False, kw_only=True)
    weights: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        flag(self.higher_is_better, "higher_is_better")

    @classmethod
    def each(
        cls,
        x: Any,
        y: Any,
        *,
        measure: Measure | None = None,
        higher_is_better: bool = False,
    ) -> dict[str, Target]:
        """Make each row a target of its own.

        Parameters
        ----------
        x : Tensor, mapping of str to Tensor, or tuple of Tensor
            What the model is called with, of m rows each.
        y : Tensor of m rows
            What the output is measured against.
        measure : callable, optional
            As `Target` takes it.
        higher_is_better : bool, default=False
            As `Target` takes it.

        Returns
        -------
        dict of str to Target
            Named ``"0"``, ``"1"``, ...

        Raises
        ------
        ValueError
            If x and y do not have the same number of rows, or none.

        Examples
        --------
        >>> import torch
        >>> from fstat_torch import Target
        >>> list(Target.each(torch.randn(3, 5), torch.tensor([0, 1, 0])))
        ['0', '1', '2']
        """
        x, y = _tensors(x), torch.as_tensor(y)
        _check_rows(x, y, "`targets`")
        return {
            str(k): cls(
                tree_map(itemgetter(slice(k, k + 1)), x),
                y[k : k + 1],
                measure=measure,
                higher_is_better=higher_is_better,
            )
            for k in range(len(y))
        }


def settled(name: str, target: Any, loss: Measure) -> Target:
    """Return a target of tensors, in full, of which lower is better."""
    if isinstance(target, tuple) and len(target) == 2:
        target = Target(*target)
    if not isinstance(target, Target) or name == SELF:
        raise ValueError(
            "`targets` must map names to pairs (x, y) or Target(...), or 'self' to "
            f"'self', got {type(target).__name__} for {name!r}."
        )
    x, y = _tensors(target.x), torch.as_tensor(target.y)
    _check_rows(x, y, f"Target {name!r}")
    measure = loss if target.measure is None else target.measure
    if not callable(measure):
        raise ValueError(
            f"Target {name!r} must have a callable `measure`, got {measure!r}."
        )
    _check_labels(y, measure, name)
    weights = _weights(target.weights, len(y), name)
    sign = -1.0 if target.higher_is_better else 1.0
    return replace(
        target,
        x=x,
        y=y,
        measure=measure,
        higher_is_better=False,
        weights=sign * weights,
    )


def _weights(given: Any, m: int, name: str) -> Tensor:
    if given is None:
        return torch.full((m,), 1 / m, dtype=torch.float64)
    weights = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    if weights.shape != (m,):
        raise ValueError(
            f"Target {name!r} must have one of `weights` for each of its {m} points, "
            f"got shape {tuple(weights.shape)}."
        )
    if not bool(weights.isfinite().all() and weights.any()):
        raise ValueError(
            f"Target {name!r} must have finite `weights` that are not all zero, got "
            f"{weights.tolist()}."
        )
    return weights


def _check_rows(x: Inputs, y: Tensor, owner: str) -> None:
    if y.ndim == 0 or len(y) == 0:
        raise ValueError(f"{owner} must have at least one point, got none.")
    leaves = tree_leaves(x)
    rows = [len(t) if t.ndim else 0 for t in leaves]
    if not leaves or set(rows) != {len(y)}:
        raise ValueError(
            f"{owner} must have as many x as y, got "
            f"{', '.join(map(str, rows)) or 'none'} and {len(y)}."
        )


def _check_labels(y: Tensor, measure: Measure, name: str) -> None:
    if measure not in (completion_log_likelihood, language_loss) or y.ndim != 2:
        return
    empty = (~predicted(y).any(dim=1)).nonzero()[:, 0]
    if len(empty):
        raise ValueError(
            f"Target {name!r} must have a token to predict in each row of y, got none "
            f"in row {int(empty[0])}: the first token and labels of -100 do not count."
        )


def _tensors(x: Any) -> Inputs:
    """Return what a model is called with as tensors, each kind of call as it was."""
    if isinstance(x, Mapping):
        return {str(k): torch.as_tensor(v) for k, v in x.items()}
    if isinstance(x, tuple):
        return tuple(torch.as_tensor(v) for v in x)
    return torch.as_tensor(x)
