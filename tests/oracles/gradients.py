"""Per-example gradients by brute force: one backward pass for each example."""

import torch


def alone(model, loss_of, n, parameters):
    """Gradients of examples that go through the model one at a time.

    ``loss_of(model, rows)`` gives the losses of the examples in a slice, shape (m,).
    Returns (n, size), the parameters one after the other.
    """
    return torch.stack(
        [_flat(loss_of(model, slice(i, i + 1)).sum(), parameters) for i in range(n)]
    )


def together(model, loss_of, n, parameters, seed=0):
    """Gradients of examples in one batch, of which the loss of only one counts.

    Each pass begins from the same random state, so that dropout is repeated.
    """
    rows = []
    for i in range(n):
        torch.manual_seed(seed)
        rows.append(_flat(loss_of(model, slice(0, n))[i], parameters))
    return torch.stack(rows)


def in_turn(model, loss_of_each, x, y, seed=1):
    """The same as `together`, by whole backward passes, which checkpoints need."""
    trained, rows = [p for p in model.parameters() if p.requires_grad], []
    for i in range(len(y)):
        model.zero_grad()
        torch.manual_seed(seed)
        loss_of_each(model(x), y)[i].backward()
        rows.append(torch.cat([p.grad.flatten() for p in trained]))
    return torch.stack(rows)


def _flat(loss, parameters):
    found = torch.autograd.grad(
        loss, parameters, allow_unused=True, materialize_grads=True
    )
    return torch.cat([_real(g.to_dense()).flatten() for g in found])


def _real(g):
    return torch.view_as_real(g.resolve_conj()) if g.is_complex() else g
