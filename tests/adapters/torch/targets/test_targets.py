"""Targets: what is measured, in which direction, on which inputs."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from fstat_torch import (  # noqa: E402
    Curvature,
    GradientCapture,
    SingleRunSampler,
    Target,
    Targets,
)
from fstat_torch.gradients.projection import Projection  # noqa: E402
from fstat_torch.targets import measures  # noqa: E402
from fstat_torch.targets.batches import Points  # noqa: E402

N, B = 30, 8


def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, 6, generator=g, dtype=torch.float64)
    return x, torch.randint(3, (N,), generator=g)


def mlp():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def flat_gradient(model, value):
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(value, trained, allow_unused=True)
    zeros = map(torch.zeros_like, trained)
    pairs = zip(grads, zeros, strict=True)
    return torch.cat([(z if g is None else g).flatten() for g, z in pairs])


def expected_alignment(model, losses, goodness):
    """Return minus the slope of each example's loss along that of each goodness."""
    own = torch.stack([flat_gradient(model, loss) for loss in losses()])
    goals = torch.stack([flat_gradient(model, good()) for good in goodness])
    return (-own @ goals.T).numpy(), goals.norm(dim=1).numpy()


def own_losses(model, x, y):
    return lambda: (cross_entropy(model(x[[k]]), y[[k]]) for k in range(len(y)))


def recorded(model, targets, inputs=None, **options):
    """Return the columns of one sampled step on the first examples."""
    x, y = data()
    inputs = (x[:B],) if inputs is None else inputs
    sampler = SingleRunSampler(model, targets=targets, **options)
    with sampler.step(range(B)):
        cross_entropy(model(*inputs), y[:B]).backward()
    return sampler.trace.columns(), sampler.trace.targets


def naive_margin(logits, y):
    p = logits.softmax(1)[torch.arange(len(y)), y]
    return torch.log(p) - torch.log(1 - p)


def naive_log_p(logits, y):
    return logits.softmax(1)[torch.arange(len(y)), y].log()


def squares(output, y):
    return (output - nn.functional.one_hot(y, 3)).square().sum(dim=1)


def test_alignment_is_with_the_ascent_of_goodness_whatever_is_measured():
    model, (x, y) = mlp(), data()
    goal, truth = x[20:25], y[20:25]
    weights = torch.tensor([1.0, -1.0, 0.5, 0.0, -2.0])
    targets = {
        "mean margin": Target(
            goal, truth, measure=measures.log_odds, higher_is_better=True
        ),
        "loss": (goal[:1], truth[:1]),
        "one margin": Target(
            goal[:1], truth[:1], measure=measures.log_odds, higher_is_better=True
        ),
        "signed": Target(
            goal, truth, measure=measures.log_likelihood, higher_is_better=True,
            weights=weights,
        ),
        "minus": Target(goal[1:2], truth[1:2], weights=[-3.0]),
        "squares": Target(goal, truth, measure=squares),
        "signed loss": Target(goal, truth, weights=weights.tolist()),
    }  # fmt: skip
    goodness = [
        lambda: naive_margin(model(goal), truth).mean(),
        lambda: -cross_entropy(model(goal[:1]), truth[:1]),
        lambda: naive_margin(model(goal[:1]), truth[:1]).sum(),
        lambda: weights.double() @ naive_log_p(model(goal), truth),
        lambda: 3.0 * cross_entropy(model(goal[1:2]), truth[1:2]),
        lambda: -squares(model(goal), truth).mean(),
        lambda: weights.double() @ naive_log_p(model(goal), truth),
    ]
    columns, names = recorded(model, targets)
    alignment, norms = expected_alignment(
        model, own_losses(model, x[:B], y[:B]), goodness
    )
    assert names == list(targets)
    found = columns["alignment"]
    np.testing.assert_allclose(found, alignment, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(columns["target_norm"][0], norms, rtol=1e-9)


def test_a_step_on_an_aligned_example_raises_the_margin():
    model, (x, y) = mlp(), data()
    margins = Target.each(
        x[20:22], y[20:22], measure=measures.log_odds, higher_is_better=True
    )
    columns, names = recorded(model, margins)
    assert names == ["0", "1"]
    before = naive_margin(model(x[20:22]), y[20:22])
    for k, expected in enumerate(columns["alignment"]):
        moved = mlp()
        cross_entropy(moved(x[[k]]), y[[k]]).backward()
        with torch.no_grad():
            for p in moved.parameters():
                p -= 1e-6 * p.grad
        gain = (naive_margin(moved(x[20:22]), y[20:22]) - before).detach().numpy()
        np.testing.assert_allclose(gain / 1e-6, expected, rtol=1e-3, atol=1e-5)


class TwoInputs(nn.Module):
    """Scores a pair of inputs, of which a mask takes out places of the second."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Linear(6, 3), nn.Linear(4, 3)
        self.double()

    def forward(self, x, more, mask=None):
        more = more if mask is None else more * mask
        return self.first(x).tanh() + self.second(more)


def test_a_model_is_called_with_a_tuple_or_a_mapping():
    model, (x, y) = TwoInputs(), data()
    g = torch.Generator().manual_seed(3)
    more = torch.randn(N, 4, generator=g, dtype=torch.float64)
    mask = (torch.rand(N, 4, generator=g) < 0.5).double()
    named = {"x": x[20:23], "more": more[20:23], "mask": mask[20:23]}
    each = [{k: v[j : j + 1] for k, v in named.items()} for j in range(3)]
    targets = {
        "tuple": ((x[20:23], more[20:23]), y[20:23]),
        **{str(j): (each[j], y[20 + j : 21 + j]) for j in range(3)},
        "group": (named, y[20:23]),
    }
    goodness = [
        lambda: -cross_entropy(model(x[20:23], more[20:23]), y[20:23]),
        *(
            lambda j=j: -cross_entropy(model(**each[j]), y[20 + j : 21 + j])
            for j in range(3)
        ),
        lambda: -cross_entropy(model(**named), y[20:23]),
    ]
    inputs = x[:B], more[:B], mask[:B]
    columns, _ = recorded(model, targets, inputs)

    def rows():
        return (
            cross_entropy(model(*(t[[k]] for t in inputs)), y[[k]]) for k in range(B)
        )

    alignment, _ = expected_alignment(model, rows, goodness)
    np.testing.assert_allclose(columns["alignment"], alignment, rtol=1e-9, atol=1e-12)
    alone, names = recorded(model, (named, y[20:23]), inputs)
    assert names == ["0", "1", "2"]
    np.testing.assert_allclose(alone["alignment"], alignment[:, 1:4], atol=1e-12)


def test_targets_that_are_run_apart_are_recorded_in_the_users_order():
    model, (x, y) = mlp(), data()
    targets = {
        "b": (x[20:24], y[20:24]),
        "self": "self",
        "a": (x[20:21], y[20:21]),
        "d": Target(x[21:22], y[21:22], measure=squares),
        "c": (x[22:23], y[22:23]),
    }
    columns, names = recorded(model, targets)
    assert names == ["b", "a", "d", "c", "self"]
    for k, name in enumerate(names[:-1]):
        alone, _ = recorded(model, {name: targets[name]})
        found, norm = columns["alignment"][:, k], columns["target_norm"][0, k]
        np.testing.assert_allclose(found, alone["alignment"][:, 0], rtol=1e-12)
        np.testing.assert_allclose(norm, alone["target_norm"][0, 0], rtol=1e-12)


def test_refreshed_targets_are_those_of_the_last_refresh():
    model, (x, y) = mlp(), data()
    goal = Target(x[20:22], y[20:22], measure=measures.log_odds, higher_is_better=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sampler = SingleRunSampler(
        model, targets=Targets({"margin": goal}, refresh=3), optimizer=optimizer
    )
    expected, kept = [], None
    for step in range(5):
        if step % 3 == 0:
            margin = naive_margin(model(x[20:22]), y[20:22]).mean()
            kept = flat_gradient(model, margin)
        rows = own_losses(model, x[:B], y[:B])()
        expected.append([-flat_gradient(model, loss) @ kept for loss in rows])
        optimizer.zero_grad()
        with sampler.step(range(B)):
            cross_entropy(model(x[:B]), y[:B]).backward()
        optimizer.step()
    found = sampler.trace.columns()["alignment"][:, 0].reshape(5, B)
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9, atol=1e-12)


class Text(nn.Module):
    """Embeds, mixes and predicts tokens, by the same table if so wished."""

    def __init__(self, tied):
        super().__init__()
        torch.manual_seed(8)
        self.table = nn.Embedding(9, 6, padding_idx=0)
        self.inner = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 6))
        self.outer = nn.Linear(6, 9, bias=False)
        if tied:
            self.outer.weight = self.table.weight
        self.double()

    def forward(self, tokens):
        h = self.table(tokens)
        return self.outer(h + self.inner(h).cumsum(dim=1))


def cnn():
    torch.manual_seed(9)
    return nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2, groups=2), nn.Tanh(), nn.Flatten(),
        nn.Linear(8, 3),
    ).double()  # fmt: skip


def gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(10)
    config = transformers.GPT2Config(
        vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config).double().eval()


FAMILIES = {
    "mlp": (mlp, None),
    "cnn": (cnn, None),
    "text": (lambda: Text(False), measures.language_loss),
    "tied text": (lambda: Text(True), measures.language_loss),
    "gpt2": (gpt2, measures.language_loss),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_recorded_does_not_depend_on_how_many_points_go_at_once(family):
    model, loss, x, y = family_of(family)
    targets = {
        "one": (x[10:11], y[10:11]),
        "five": Target(x[11:16], y[11:16], weights=[1.0, -2.0, 0.0, 0.5, 3.0]),
        "two": Target(x[14:16], y[14:16], weights=[1.0, -1.0]),
        **{str(k): (x[k : k + 1], y[k : k + 1]) for k in range(16, 20)},
        "seven": (x[20:27], y[20:27]),
    }

    def columns(size):
        sampler = SingleRunSampler(
            model, targets=Targets(targets, batch=size), loss=loss
        )
        with sampler.step(range(B)):
            loss(model(x[:B]), y[:B]).mean().backward()
        return sampler.trace.columns()

    whole = columns(100)
    for size in (1, 3, 5, 8):
        parts = columns(size)
        for name in ("alignment", "target_norm"):
            scale = np.abs(whole[name]).max()
            np.testing.assert_allclose(
                parts[name], whole[name], rtol=1e-9, atol=1e-12 * scale
            )


def family_of(family):
    build, loss = FAMILIES[family]
    x, y = data()
    if loss is not None:
        g = torch.Generator().manual_seed(11)
        x = y = torch.randint(9, (N, 7), generator=g)
    return build(), loss or measures.language_loss, x, y


@pytest.mark.parametrize("family", FAMILIES)
def test_projections_are_unbiased_with_the_stated_variance(family):
    model, loss, x, y = family_of(family)
    capture = GradientCapture(model)
    one, other = capture.of(loss, x[:3], y[:3]), capture.of(loss, x[3:7], y[3:7])
    k, draws = 16, 600
    found = []
    for seed in range(draws):
        projection = Projection(k, seed)
        found.append(projection.of(one) @ projection.of(other).T)
    found = torch.stack(found)
    g, t = (
        torch.cat([p.flatten(1) for p in c.per_example().values()], 1)
        for c in (one, other)
    )
    exact = g @ t.T
    squares = g.square().sum(1)[:, None] * t.square().sum(1)
    variance = (squares + exact.square() - 2 * g.square() @ t.square().T) / k
    error = (variance / draws).sqrt()
    assert ((found.mean(0) - exact).abs() < 5 * error).all()
    # A sample variance is as sure as the fourth moment lets it be.
    away = (found - exact).square()
    assert ((away.mean(0) - variance).abs() < 5 * away.std(0) / draws**0.5).all()


def test_the_noise_of_a_projection_is_reported():
    model, (x, y) = mlp(), data()
    targets = {
        "many": Target(x[11:17], y[11:17], measure=measures.log_odds),
        "self": "self",
        "one": (x[10:11], y[10:11]),
        "two": (x[12:14], y[12:14]),
    }
    asked = Targets(targets, projection=32, batch=4)
    sampler = SingleRunSampler(model, targets=asked)
    assert np.isnan(list(sampler.projection_noise.values())).all()
    draws = 100
    for _ in range(draws):
        with sampler.step(range(B)):
            cross_entropy(model(x[:B]), y[:B]).backward()
    plain, names = recorded(model, targets)
    columns = sampler.trace.columns()
    exact, noisy = plain["alignment"], columns["alignment"].reshape(draws, B, 3)
    np.testing.assert_allclose(columns["target_norm"][0], plain["target_norm"][0])
    np.testing.assert_array_equal(columns["norm_squared"][:B], plain["norm_squared"])
    error = noisy.std(axis=0) / np.sqrt(draws)
    assert (np.abs(noisy.mean(axis=0) - exact) < 5 * error).all()
    added = np.square(noisy - exact).mean(axis=(0, 1))
    spread = noisy.var(axis=1, ddof=1).mean(axis=0)
    squares = plain["norm_squared"][:, None] * plain["target_norm"] ** 2
    stated = (squares + np.square(noisy)).mean(axis=(0, 1)) / 32
    # Equal but for what a product of two entries adds to itself.
    assert (0.8 * stated < added).all() and (added < 1.05 * stated).all()
    assert list(sampler.projection_noise) == names[:-1] == ["many", "one", "two"]
    found = np.array(list(sampler.projection_noise.values()))
    # Norms are known from projections: to sqrt(2 / 32) each, and many are averaged.
    rtol = 5 * np.sqrt(2 / 32 / draws)
    np.testing.assert_allclose(found, stated / spread, rtol=rtol)
    assert sampler_without_projection(model).projection_noise == {"0": 0.0}


def sampler_without_projection(model):
    x, y = data()
    return SingleRunSampler(model, targets=(x[:1], y[:1]))


def test_a_projection_is_kept_until_the_next_refresh():
    model, (x, y) = mlp(), data()
    sampler = SingleRunSampler(
        model,
        targets=Targets({"z": (x[10:13], y[10:13])}, refresh=2, projection=8),
    )
    for _ in range(4):
        with sampler.step(range(B)):
            cross_entropy(model(x[:B]), y[:B]).backward()
    steps = sampler.trace.columns()["alignment"].reshape(4, B)
    np.testing.assert_array_equal(steps[0], steps[1])
    np.testing.assert_array_equal(steps[2], steps[3])
    assert not np.allclose(steps[0], steps[2])


def test_a_projection_is_of_alignments_that_are_recorded():
    with pytest.raises(ValueError, match="`projection` is of the alignments"):
        SingleRunSampler(
            mlp(), metric=Curvature(n_examples=N), targets=Targets(projection=8)
        )
    with pytest.raises(ValueError, match="`projection` must be a whole number"):
        SingleRunSampler(mlp(), targets=Targets(projection=0))


def sick(output, y):
    """Not finite once the model has moved."""
    return cross_entropy(output, y, reduction="none") * output.new_tensor(sick.factor)


def sequences():
    torch.manual_seed(12)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x = torch.randn(N, 9, 4, dtype=torch.float64)
    return model, x, x.flatten(1).sum(1)


def of_sequences(output, y):
    return (output.sum((1, 2)) - y).square()


WEIGHTS = [[1.0, -1.0], [0.5, 2.0, -3.0]]


def sampled_sequences(model, x, y):
    said = {"measure": of_sequences, "higher_is_better": True}
    targets = {
        "two": Target(x[20:22], y[20:22], weights=WEIGHTS[0], **said),
        "three": Target(x[22:25], y[22:25], weights=WEIGHTS[1], **said),
    }
    return SingleRunSampler(model, targets=Targets(targets, refresh=2))


def test_of_points_that_make_up_a_target_the_sum_is_kept_where_it_is_smaller():
    model, x, y = sequences()
    sampler = sampled_sequences(model, x, y)
    with sampler.step(range(B)):
        of_sequences(model(x[:B]), y[:B]).mean().backward()
    assert [g.n for g in sampler._recorders[0]._targets.gradients] == [2]
    expected, norms = expected_alignment(
        model,
        lambda: (of_sequences(model(x[[k]]), y[[k]]).sum() for k in range(B)),
        [
            lambda: of_sequences(model(x[20:22]), y[20:22]) @ y.new_tensor(WEIGHTS[0]),
            lambda: of_sequences(model(x[22:25]), y[22:25]) @ y.new_tensor(WEIGHTS[1]),
        ],
    )
    found = sampler.trace.columns()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        found["alignment"], expected, rtol=1e-6, atol=1e-6 * scale
    )
    np.testing.assert_allclose(found["target_norm"][0], norms, rtol=1e-6)


def test_a_sum_of_points_that_overflows_costs_its_own_target_only():
    model, x, y = sequences()
    sampler = sampled_sequences(model, x.clone(), y)
    for step in range(3):
        with sampler.step(range(B)):
            of_sequences(model(x[:B]), y[:B]).mean().backward()
        if step == 0:
            sampler._recorders[0]._targets._batches[0].x[0, 0] = float("inf")
    found = sampler.trace.columns()["alignment"].reshape(3, B, 2)
    assert np.isnan(found[2, :, 0]).all()
    np.testing.assert_array_equal(found[0, :, 1], found[2, :, 1])


def test_a_measure_that_overflows_later_costs_its_own_target_only():
    model, (x, y) = mlp(), data()
    targets = {
        "well": (x[20:22], y[20:22]),
        "sick": Target(x[20:22], y[20:22], measure=sick),
    }
    sampler = SingleRunSampler(model, targets=targets)
    for sick.factor in (1.0, float("inf")):
        with sampler.step(range(B)):
            cross_entropy(model(x[:B]), y[:B]).backward()
    well, ill = sampler.trace.columns()["alignment"].reshape(2, B, 2).transpose(2, 0, 1)
    np.testing.assert_array_equal(well[0], well[1])
    np.testing.assert_array_equal(ill[0], well[0])
    assert np.isnan(ill[1]).all()


def test_a_point_that_overflows_costs_its_own_target_only():
    model, (x, y) = mlp(), data()
    one, two = (x[20:22].clone(), y[20:22]), (x[22:24].clone(), y[22:24])
    sampler = SingleRunSampler(model, targets={"one": one, "two": two})
    for step in range(2):
        with sampler.step(range(B)):
            cross_entropy(model(x[:B]), y[:B]).backward()
        if step == 0:
            sampler._recorders[0]._targets._batches[0].x[0, 0] = float("inf")
    found = sampler.trace.columns()["alignment"].reshape(2, B, 2)
    assert np.isnan(found[1, :, 0]).all()
    np.testing.assert_array_equal(found[0, :, 1], found[1, :, 1])


def two_numbers(output, y):
    return output[:, :2]


def one_number(output, y):
    return output.sum()


def not_a_number(output, y):
    return output.sum(dim=1) / (y - y)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (
            two_numbers,
            r"'z' must return one number for each point, .* \(2,\), got \(2, 2\)",
        ),
        (one_number, r"'z' must return one number for each point"),
        (not_a_number, r"'z' must be finite where it is first taken, got (-?inf|nan)"),
    ],
)
def test_what_a_measure_must_return_is_said(measure, message):
    x, y = data()
    target = Target(x[:2], y[:2], measure=measure)
    with pytest.raises(ValueError, match=message):
        recorded(mlp(), {"a": (x[:3], y[:3]), "z": target})


LABELS = torch.tensor([[4, 5, 6], [-100, -100, -100]])
FIRST_ONLY = torch.tensor([[4, -100, -100]])
X = torch.zeros(2, 6)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            Target(X, torch.zeros(2), weights=[1.0]),
            "one of `weights` for each of its 2",
        ),
        (Target(X, torch.zeros(2), weights=[0, 0]), "not all zero"),
        (Target(X, torch.zeros(2), weights=[1.0, float("nan")]), "must have finite"),
        (Target(X, torch.zeros(2), measure="loss"), "a callable `measure`, got 'loss'"),
        (Target(X, torch.zeros(3)), "as many x as y, got 2 and 3"),
        (({"x": X, "more": X[:1]}, torch.zeros(2)), "got 2, 1 and 2"),
        (({}, torch.zeros(2)), "got none and 2"),
        ((X[:0], torch.zeros(0)), "at least one point"),
        (
            Target(X, LABELS, measure=measures.completion_log_likelihood),
            "token to predict in each row of y, got none in row 1",
        ),
        (Target(X[:1], FIRST_ONLY, measure=measures.language_loss), "in row 0"),
    ],
)
def test_a_target_that_cannot_be_is_refused_by_name(target, message):
    with pytest.raises(ValueError, match=rf"Target 'z' .*{message}"):
        SingleRunSampler(nn.Linear(6, 3), targets={"z": target})


def test_names_are_unique_as_they_are_written():
    x, y = data()
    with pytest.raises(ValueError, match="unique names"):
        SingleRunSampler(mlp(), targets={1: (x, y), "1": (x[:1], y[:1])})
    with pytest.raises(ValueError, match="got Target for 'self'"):
        SingleRunSampler(mlp(), targets={"self": Target(x, y)})


# The measures


def test_measures_are_those_of_the_probabilities():
    g = torch.Generator().manual_seed(4)
    logits = torch.randn(7, 4, generator=g, dtype=torch.float64)
    y = torch.randint(4, (7,), generator=g)
    torch.testing.assert_close(measures.log_odds(logits, y), naive_margin(logits, y))
    torch.testing.assert_close(
        measures.log_likelihood(logits, y), naive_log_p(logits, y)
    )


def test_the_margin_is_finite_where_probabilities_are_rounded():
    logits = torch.tensor([[300.0, 0.0, -5.0], [-300.0, 0.0, 0.0]], requires_grad=True)
    margin = measures.log_odds(logits, torch.tensor([0, 0]))
    expected = torch.tensor([300.0 - np.log1p(np.exp(-5.0)), -300.0 - np.log(2.0)])
    torch.testing.assert_close(margin, expected.float())
    margin.sum().backward()
    assert logits.grad[:, 0].tolist() == [1.0, 1.0]
    torch.testing.assert_close(logits.grad.sum(dim=1), torch.zeros(2))


def test_completions_sum_over_their_labelled_tokens():
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 6, 9, generator=g, dtype=torch.float64)
    labels = torch.randint(9, (3, 6), generator=g)
    labels[0, :3] = labels[1, 4:] = labels[2] = -100
    log_p = logits.log_softmax(dim=-1)
    expected = [
        sum(log_p[k, t - 1, labels[k, t]] for t in range(1, 6) if labels[k, t] != -100)
        for k in range(3)
    ]
    found = measures.completion_log_likelihood(logits, labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    mean = measures.language_loss(logits, labels)
    torch.testing.assert_close(mean, -found / torch.tensor([3.0, 3.0, 1.0]))


def test_measures_of_half_precision_are_taken_in_single():
    logits = torch.tensor([[[9.0, 1.0], [2.0, 1.0]]], dtype=torch.bfloat16)
    labels = torch.tensor([[0, 1]])
    assert measures.completion_log_likelihood(logits, labels).dtype is torch.float32
    assert measures.log_odds(logits[0], labels[0]).dtype is torch.float32


@pytest.mark.parametrize(
    ("measure", "output", "y", "message"),
    [
        (measures.log_odds, torch.zeros(3, 1), torch.zeros(3), "two classes or more"),
        (measures.log_likelihood, torch.zeros(3, 2), torch.zeros(2), "got"),
        (
            measures.completion_log_likelihood,
            torch.zeros(3, 2),
            torch.zeros(3, 2),
            r"got \(3, 2\) and \(3, 2\)",
        ),
    ],
)
def test_outputs_of_another_shape_are_refused(measure, output, y, message):
    with pytest.raises(ValueError, match=message):
        measure(output, y.long())


# Language models


def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(6)
    config = transformers.LlamaConfig(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, attn_implementation="sdpa",
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).double()


PROMPT = [3, 9, 4, 1]
COMPLETIONS = {"A": [5, 2, 8], "B": [7, 11, 12, 6, 2]}


def completion(name, left=0, right=0):
    """Return x and labels of a completion, padded."""
    tokens = PROMPT + COMPLETIONS[name]
    ids = [0] * left + tokens + [0] * right
    mask = [0] * left + [1] * len(tokens) + [0] * right
    ignored = [-100] * (left + len(PROMPT))
    labels = ignored + COMPLETIONS[name] + [-100] * right
    x = {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([mask])}
    return x, torch.tensor([labels])


def log_probability(model, name):
    """Sum over the tokens of a completion, one call of the model for each."""
    tokens, total = list(PROMPT), 0.0
    for token in COMPLETIONS[name]:
        logits = model(torch.tensor([tokens])).logits[0, -1]
        total = total + logits.log_softmax(0)[token]
        tokens.append(token)
    return total


def completions(**padding):
    kind = {"measure": measures.completion_log_likelihood, "higher_is_better": True}
    (a, for_a), (b, for_b) = completion("A", right=2), completion("B")
    both = {k: torch.cat([a[k], b[k]]) for k in a}
    return {
        "A": Target(*completion("A", **padding), **kind),
        "A against B": Target(both, torch.cat([for_a, for_b]), weights=[1, -1], **kind),
        "B": Target(*completion("B"), **kind),
    }


def texts():
    g = torch.Generator().manual_seed(7)
    return torch.randint(1, 17, (B, 6), generator=g)


def sampled_texts(model, targets, **options):
    ids = texts()
    sampler = SingleRunSampler(
        model, targets=targets, loss=measures.language_loss, **options
    )
    with sampler.step(range(B)):
        model(input_ids=ids, labels=ids).loss.backward()
    return sampler.trace


@pytest.mark.parametrize(
    "padding", [{}, {"right": 3}, {"left": 2}, {"left": 1, "right": 1}]
)
def test_completions_are_weighed_against_each_other_whatever_the_padding(padding):
    model, ids = llama(), texts()
    trace = sampled_texts(model, completions(**padding))

    def losses():
        return (
            cross_entropy(model(ids[[k]]).logits[0, :-1], ids[k, 1:]) for k in range(B)
        )

    goodness = [
        lambda: log_probability(model, "A"),
        lambda: log_probability(model, "A") - log_probability(model, "B"),
        lambda: log_probability(model, "B"),
    ]
    alignment, norms = expected_alignment(model, losses, goodness)
    columns = trace.columns()
    # Llama takes its norms and angles in single precision, whatever the model's.
    scale = np.abs(alignment).max()
    np.testing.assert_allclose(columns["alignment"], alignment, atol=1e-5 * scale)
    np.testing.assert_allclose(columns["target_norm"][0], norms, rtol=1e-5)


# Where targets are taken


def test_the_curvature_sampler_scores_the_ascent_of_goodness():
    x, y = data()
    scores = []
    targets = {
        "margins": Target(
            x[20:23], y[20:23], measure=measures.log_odds, higher_is_better=True,
            weights=[1.0, -0.5, 2.0],
        ),
        "loss": (x[20:21], y[20:21]),
        "likelihood": Target(
            x[20:21], y[20:21], measure=measures.log_likelihood, higher_is_better=True
        ),
    }  # fmt: skip
    model = mlp()
    metric = Curvature(N, kind="fisher", damping=2.0, landmarks=None)
    sampler = SingleRunSampler(model, targets=targets, metric=metric)
    with sampler.step(torch.arange(N)):
        cross_entropy(model(x), y).backward()
    sampler.snapshot()
    g = torch.stack([flat_gradient(model, v) for v in own_losses(model, x, y)()])
    margin = torch.tensor([1.0, -0.5, 2.0]).double() @ naive_margin(
        model(x[20:23]), y[20:23]
    )
    goals = torch.stack([flat_gradient(model, margin), -g[20], -g[20]])
    ridge = 2.0 * g.square().sum(1).mean()
    metric = g.T @ g + ridge * torch.eye(g.shape[1]).double()
    expected = -g @ torch.linalg.solve(metric, goals.T)
    scores = sampler.snapshots.scores[0]
    assert sampler.snapshots.targets == list(targets)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-8, atol=1e-11)


def test_the_trainers_callback_takes_targets_with_masks(tmp_path):
    transformers = pytest.importorskip("transformers")
    from fstat_torch import TransformersCallback

    def train(callback):
        model = llama().float()
        rows = [
            {"input_ids": row, "labels": row, "index": k}
            for k, row in enumerate(texts())
        ]
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=B,
            remove_unused_columns=False, use_cpu=True, report_to="none",
            save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
        trainer.add_callback(callback)
        trainer.train()
        return callback.trace

    trace = train(TransformersCallback(targets=completions(left=1)))
    columns, plain = trace.columns(), sampled_texts(llama(), completions()).columns()
    order = np.argsort(columns["index"])
    assert trace.targets == ["A", "A against B", "B"]
    np.testing.assert_allclose(
        columns["alignment"][order], plain["alignment"], rtol=1e-3, atol=1e-4
    )


def test_lightnings_callback_takes_targets(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning.pytorch")
        from fstat_torch import LightningCallback
    x, y = data()

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = mlp()

        def forward(self, x):
            return self.layers(x)

        def training_step(self, batch, batch_idx):
            return cross_entropy(self(batch[1]), batch[2])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    margins = {
        "margin": Target(
            {"x": x[20:22]}, y[20:22], measure=measures.log_odds, higher_is_better=True
        )
    }
    callback = LightningCallback(index=0, targets=margins)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, callbacks=[callback],
        )  # fmt: skip
        rows = torch.utils.data.TensorDataset(torch.arange(B), x[:B], y[:B])
        trainer.fit(Module(), torch.utils.data.DataLoader(rows, batch_size=B))
    model = mlp()
    goodness = [lambda: naive_margin(model(x[20:22]), y[20:22]).mean()]
    expected, _ = expected_alignment(model, own_losses(model, x[:B], y[:B]), goodness)
    np.testing.assert_allclose(
        callback.trace.columns()["alignment"], expected, rtol=1e-8
    )


@pytest.mark.filterwarnings("ignore")  # of peft
@pytest.mark.parametrize("adapters", [False, True])
def test_language_models_are_asked_for_the_logits_that_are_measured(adapters):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=13,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    if adapters:
        peft = pytest.importorskip("peft")
        options = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False}
        model = peft.get_peft_model(model, peft.LoraConfig(**options))
    model.double()
    tokens = torch.randint(13, (3, 9))
    labels = tokens.clone()
    labels[:, :5] = -100
    labels[1, 7:] = -100
    shapes = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: shapes.append(tuple(output.shape))
    )
    capture = GradientCapture(model)
    for measure in (measures.completion_log_likelihood, measures.language_loss):
        shapes.clear()

        def everywhere(output, y, measure=measure):
            return measure(output, y)

        few, every = (
            Points.of(
                {
                    str(k): Target(
                        {"input_ids": tokens[k : k + 1]},
                        labels[k : k + 1],
                        measure=each,
                        weights=torch.ones(1, dtype=torch.float64),
                    )
                    for k in range(3)
                }
            )[0].gradients(capture)
            for each in (measure, everywhere)
        )
        assert shapes == [(3, 4, 13), (3, 9, 13)]
        torch.testing.assert_close(few.gram(), every.gram(), rtol=1e-10, atol=0)
        torch.testing.assert_close(
            few.cross(every), every.gram(), rtol=1e-10, atol=1e-15
        )
