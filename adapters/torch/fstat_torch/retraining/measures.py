"""What a trained model is measured by at the targets, larger where it serves better."""

from __future__ import annotations

import torch
from torch import Tensor


def margin(output: Tensor, y: Tensor) -> Tensor:
    r"""Return the log odds of the right class, :math:`\log p - \log(1 - p)`.

    Parameters
    ----------
    output : Tensor of shape (m, n_classes)
        Logits.
    y : Tensor of shape (m,)
        Classes.

    Returns
    -------
    Tensor of shape (m,)
        One margin for each row; unlike a loss it does not level off where the model is
        sure [1]_.

    References
    ----------
    .. [1] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: attributing
       model behavior at scale", ICML 2023, section 3.

    Examples
    --------
    >>> import torch
    >>> from fstat_torch.retraining import margin
    >>> margin(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))
    tensor([2.])
    """
    own = output.gather(1, y[:, None])[:, 0]
    return own - output.scatter(1, y[:, None], -torch.inf).logsumexp(1)
