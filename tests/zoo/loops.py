"""Losses and optimisers, in loops as their users write them."""

import torch
from torch import nn
from torch.nn import functional as F

from fstat_torch import SingleRunSampler

from . import language
from .outcome import first_of

B, D = 4, 5


def mlp(out=2):
    return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, out)).double()


def gradients(losses, model):
    rows = [
        torch.autograd.grad(loss, [*model.parameters()], retain_graph=True)
        for loss in losses
    ]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def error(sampler, expected):
    """Largest relative error of the squared norms that were recorded."""
    found = torch.from_numpy(sampler.trace.columns(["norm_squared"])["norm_squared"])
    norms = torch.cat(expected).square().sum(1)
    if found.shape != norms.shape:
        return {"rows": float("inf")}
    return {"self": float((found - norms).abs().max() / norms.max())}


def supervised(optimizer_of):
    """Three steps of an optimiser."""
    model, expected = mlp(), []
    optimizer = optimizer_of(model)
    # A step moves each group by its own rate: gradients are compared in the metric of
    # the rates over the largest.
    rates = [
        torch.full((p.numel(),), group["lr"]).double()
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    weights = (torch.cat(rates) / max(map(torch.max, rates))).sqrt()
    sampler = SingleRunSampler(model, optimizer=optimizer)
    for _ in range(3):
        x, y = torch.randn(B, D).double(), torch.randint(2, (B,))

        def closure(x=x, y=y):
            optimizer.zero_grad()
            each = F.cross_entropy(model(x), y, reduction="none")
            expected.append(gradients(each, model) * weights)
            with sampler.step(range(B)):
                loss = F.cross_entropy(model(x), y)
                loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return error(sampler, expected)


def groups(kind):
    return lambda model: kind(
        [
            {"params": model[0].parameters()},
            {"params": model[2].parameters(), "lr": 0.02},
        ],
        lr=0.01,
    )


def adversarial():
    """The discriminator's step of a GAN: real examples, and as many made ones."""
    model, maker = mlp(1), nn.Linear(3, D).double()
    sampler = SingleRunSampler(model)
    x, made = torch.randn(B, D).double(), maker(torch.randn(B, 3).double()).detach()

    def losses():
        real, false = model(x)[:, 0], model(made)[:, 0]
        return F.softplus(-real) + F.softplus(false)

    expected = gradients(losses(), model)
    with sampler.step(range(B)):
        losses().mean().backward()
    maker_loss = F.softplus(-model(maker(torch.randn(B, 3).double()))).mean()
    maker_loss.backward()  # the maker's step is not watched
    return error(sampler, [expected])


def penalised():
    """A gradient penalty, as of WGAN-GP."""
    model, x = mlp(1), torch.randn(B, D).double().requires_grad_()
    sampler = SingleRunSampler(model)

    def losses():
        out = model(x)[:, 0]
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return out + (slope.norm(dim=1) - 1).square()

    expected = gradients(losses(), model)
    with sampler.step(range(B)):
        losses().mean().backward()
    return error(sampler, [expected])


def attacked():
    """Adversarial training: the input moves along its gradient first."""
    model, y = mlp(), torch.randint(2, (B,))
    x = torch.randn(B, D).double().requires_grad_()
    sampler = SingleRunSampler(model)
    with sampler.step(range(B)):
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
        moved = (x + 0.1 * slope.sign()).detach()
        F.cross_entropy(model(moved), y).backward()
    each = F.cross_entropy(model(moved), y, reduction="none")
    return error(sampler, [gradients(each, model)])


def penalty_of_weights():
    model, x, y = mlp(), torch.randn(B, D).double(), torch.randint(2, (B,))
    sampler = SingleRunSampler(model)
    with sampler.step(range(B)):
        penalty = sum(p.square().sum() for p in model.parameters())
        (F.cross_entropy(model(x), y) + 0.1 * penalty).backward()
    each = F.cross_entropy(model(x), y, reduction="none")
    return error(sampler, [gradients(each, model)])


class Pair(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.left, self.right, self.inside = nn.Linear(D, 3), nn.Linear(D, 3), inside

    def forward(self, x):
        left, right = self.left(x), self.right(x.flip(1))
        return left @ right.mT if self.inside else (left, right)


def contrastive(inside, declared):
    """Negatives of the batch, compared inside of the model or outside."""
    model, x = Pair(inside).double(), torch.randn(B, D).double()
    sampler = SingleRunSampler(model, coupled=declared)
    numbers = torch.arange(B)
    with sampler.step(range(B)):
        found = model(x)
        scores = found if inside else found[0] @ found[1].mT
        F.cross_entropy(scores, numbers).backward()
    rows = []
    for i in range(B):
        mine = (numbers == i).unsqueeze(1)
        pair = [torch.where(mine, z, z.detach()) for z in Pair.forward_parts(model, x)]
        loss = F.cross_entropy(pair[0] @ pair[1].mT, numbers, reduction="sum")
        rows.append(gradients([loss], model))
    return error(sampler, [torch.cat(rows)])


Pair.forward_parts = lambda self, x: (self.left(x), self.right(x.flip(1)))


def tuned(masked):
    """Supervised fine-tuning as of TRL: the model's loss of completions."""
    model, batch = language.causal("Llama")
    model = model.double()
    tokens = batch(B)["input_ids"]
    labels = tokens.clone()
    labels[:, : 3 if masked else 0] = -100
    sampler = SingleRunSampler(model)
    with sampler.step(range(B)):
        model(input_ids=tokens, labels=labels).loss.backward()
    each = [
        model(input_ids=tokens[i : i + 1], labels=labels[i : i + 1]).loss
        for i in range(B)
    ]
    return error(sampler, [gradients(each, model)])


def preferred():
    """Direct preference optimisation as of TRL: both answers in one batch."""
    model, batch = language.causal("Llama")
    model = model.double()
    tokens, beta = batch(2 * B)["input_ids"], 0.1
    reference = torch.randn(2 * B).double()

    def log_likelihood(tokens):
        logits = first_of(model(input_ids=tokens))[:, :-1].log_softmax(-1)
        return logits.gather(2, tokens[:, 1:, None])[..., 0].sum(1)

    def losses():
        ratio = log_likelihood(tokens) - reference
        chosen, rejected = ratio.chunk(2)
        return -F.logsigmoid(beta * (chosen - rejected))

    sampler = SingleRunSampler(
        model,
        targets={"one": (tokens[:1], torch.zeros(1))},
        loss=lambda output, y: first_of(output).flatten(1).sin().sum(1),
        reduction="sum",
    )
    with sampler.step([*range(B), *range(B)]):
        losses().sum().backward()
    columns = sampler.trace.columns()
    index, found = columns["index"], columns["alignment"][:, 0]
    of_pairs = torch.stack(
        [torch.from_numpy(found[index == k]).sum() for k in range(B)]
    )
    target = first_of(model(input_ids=tokens[:1])).flatten(1).sin().sum()
    expected = gradients(losses(), model) @ gradients([target], model)[0]
    return {"pairs": float((of_pairs - expected).abs().max() / expected.abs().max())}


OPTIMISERS = {
    "SGD with groups": groups(torch.optim.SGD),
    "AdamW with groups": groups(torch.optim.AdamW),
    "Adagrad": lambda m: torch.optim.Adagrad(m.parameters()),
    "RMSprop": lambda m: torch.optim.RMSprop(m.parameters()),
    "L-BFGS, a step in the closure": lambda m: torch.optim.LBFGS(
        m.parameters(), max_iter=2
    ),
}
LOOPS = {
    **{name: lambda make=make: supervised(make) for name, make in OPTIMISERS.items()},
    "GAN, discriminator": adversarial,
    "gradient penalty": penalised,
    "adversarial training": attacked,
    "penalty of weights in the loss": penalty_of_weights,
    "contrastive, formed outside, undeclared": lambda: contrastive(False, False),
    "contrastive, formed inside, undeclared": lambda: contrastive(True, False),
    "contrastive, formed outside, declared": lambda: contrastive(False, True),
    "contrastive, formed inside, declared": lambda: contrastive(True, True),
    "SFT": lambda: tuned(False),
    "SFT, completions only": lambda: tuned(True),
    "DPO, pairs of one number": preferred,
}
