"""The sampler in a curvature metric: scores, subsets, refusals, no harm."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import t as student

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from fstat import (  # noqa: E402
    FInfluence,
    Observations,
    Snapshots,
)
from fstat_torch import Curvature, SingleRunSampler, cross_entropy  # noqa: E402
from fstat_torch.curvature import last_layer_parameters  # noqa: E402

N = 40


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=generator, dtype=dtype)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def mlp(dtype=torch.float64):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def train(model, sampler=None, epochs=3, rate=0.3, loss=None, **step):
    """Train, and take a snapshot after each epoch."""
    x, y = data(next(model.parameters()).dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
    loss = loss or nn.functional.cross_entropy
    torch.manual_seed(2)
    for _ in range(epochs):
        for index in torch.randperm(N).split(8):
            optimizer.zero_grad()
            if sampler is None:
                loss(model(x[index]), y[index]).backward()
            else:
                with sampler.step(index, **step):
                    loss(model(x[index]), y[index]).backward()
            optimizer.step()
        if sampler is not None:
            sampler.snapshot()


OWN = ("targets", "loss", "parameters", "reduction", "every", "optimizer")


def sampler_of(model, n=N, **options):
    """Return a sampler; options are its own or those of the metric."""
    own = {name: options.pop(name) for name in OWN if name in options}
    return SingleRunSampler(model, metric=Curvature(n, **options), **own)


def sampled(model=None, epochs=3, rate=0.3, loss=None, step=None, **options):
    model = model or mlp()
    x, y = data(next(model.parameters()).dtype)
    options = {"targets": (x[:4], y[:4]), "landmarks": None} | options
    sampler = sampler_of(model, **options)
    train(model, sampler, epochs, rate, loss, **(step or {}))
    return sampler


def explicit(model, value):
    gradients = torch.autograd.grad(value, list(model.parameters()))
    return torch.cat([g.flatten() for g in gradients])


def margin(output, y):
    p = output.softmax(1).gather(1, y[:, None])[:, 0]
    return torch.log(p / (1 - p))


@pytest.mark.parametrize(
    ("kind", "damping", "weigh"),
    [
        ("residual", 198.0, lambda p: (1 - p).sqrt()),  # nothing is learnt yet
        ("gauss-newton", 3.0, torch.ones_like),
        ("fisher", 1.0, lambda p: 1 - p),
    ],
)
def test_scores_are_those_of_margins_gradients_that_are_weighed(kind, damping, weigh):
    model = mlp()
    sampler = sampled(model, epochs=1, rate=0.0, kind=kind)
    x, y = data()
    margins = torch.stack(
        [explicit(model, margin(model(x[[k]]), y[[k]]).sum()) for k in range(N)]
    )
    p = model(x).softmax(1).gather(1, y[:, None]).detach()
    phi = weigh(p) * margins
    ridge = damping * phi.square().sum(1).mean()
    metric = phi.T @ phi + ridge * torch.eye(phi.shape[1]).double()
    # A gradient of the loss is -(1 - p) times that of the margin.
    losses = -(1 - p) * margins
    expected = losses @ torch.linalg.solve(metric, losses[:4].T)
    torch.testing.assert_close(torch.from_numpy(sampler.snapshots.scores[0]), expected)


def test_one_output_and_squared_loss_are_gauss_and_newtons():
    model = nn.Linear(5, 1).double()
    x, _ = data()
    target = torch.linspace(-2, 2, N).double()[:, None]
    sampler = sampler_of(
        model,
        targets=(x[:3], target[:3]),
        loss=lambda output, y: (output - y).square()[:, 0],
        kind="gauss-newton",
        damping=1.0,
        landmarks=None,
    )
    with sampler.step(torch.arange(N)):
        nn.functional.mse_loss(model(x), target).backward()
    sampler.snapshot()
    features = torch.cat([x, torch.ones(N, 1).double()], 1)
    residual = 2 * (model(x) - target).detach()
    ridge = features.square().sum(1).mean()
    metric = features.T @ features + ridge * torch.eye(6).double()
    g = residual * features
    expected = g @ torch.linalg.solve(metric, g[:3].T)
    torch.testing.assert_close(torch.from_numpy(sampler.snapshots.scores[0]), expected)


def test_averaged_targets_are_averages_and_self_is_the_diagonal():
    x, y = data()
    single = sampled().snapshots.scores[-1]
    targets = {"pair": (x[:2], y[:2]), "third": (x[2:3], y[2:3]), "self": "self"}
    both = sampled(targets=targets).snapshots
    columns = {name: both.scores[-1][:, k] for k, name in enumerate(both.targets)}
    np.testing.assert_allclose(columns["pair"], single[:, :2].mean(axis=1))
    np.testing.assert_allclose(columns["third"], single[:, 2])
    everyone = sampled(rate=0.0, targets=(x, y)).snapshots.scores[-1]
    alone = sampled(rate=0.0, targets="self").snapshots
    np.testing.assert_allclose(alone.scores[-1][:, 0], everyone.diagonal())


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
def test_how_the_loss_is_scaled_makes_no_difference(kind):
    def scores(loss, **options):
        return sampled(kind=kind, rate=0.0, loss=loss, **options).snapshots.scores

    expected = scores(nn.functional.cross_entropy)

    def total(output, y):
        return nn.functional.cross_entropy(output, y, reduction="sum")

    np.testing.assert_allclose(scores(total, reduction="sum"), expected)
    found = scores(
        lambda a, y: 1024 * total(a, y) / 7,
        step=dict(loss_scale=1024.0, denominator=7.0),
    )
    np.testing.assert_allclose(found, expected)


def test_landmarks_and_sketches_come_near_the_exact_scores():
    exact = sampled().observations(None).composed().mu
    for options in ({"landmarks": 25}, {"projection": 10_000}):
        found = sampled(**options).observations(None).composed().mu
        assert np.corrcoef(found, exact)[0, 1] > 0.9
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-8)


def test_the_same_seed_gives_the_same_scores():
    options = {"landmarks": 10, "projection": 6}
    one, two, other = (
        sampled(random_state=seed, **options).snapshots.scores[-1] for seed in (3, 3, 4)
    )
    assert np.array_equal(one, two) and not np.allclose(one, other)


def test_kept_gradients_on_disk_make_no_difference(tmp_path):
    expected = sampled(mlp(torch.float32)).snapshots.scores
    found = sampled(mlp(torch.float32), path=tmp_path / "kept").snapshots.scores
    assert np.array_equal(expected, found)
    assert list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_is_the_same_to_the_last_bit(kind, dtype):
    def build():
        torch.manual_seed(1)
        parts = nn.Linear(5, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3)
        return nn.Sequential(*parts).to(dtype)

    plain, watched = build(), build()
    train(plain)
    state = torch.get_rng_state()
    sampled(watched, kind=kind, landmarks=10, projection=20)
    assert torch.equal(state, torch.get_rng_state())
    for one, two in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, two) and torch.equal(one.grad, two.grad)
    assert not any(m._forward_hooks for m in watched.modules())


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
def test_the_trace_of_every_step_may_be_recorded_too(kind):
    def trained(**options):
        model = mlp()
        x, y = data()
        targets = {"self": "self", "z": (x[:2], y[:2])}
        sampler = SingleRunSampler(model, targets=targets, **options)
        train(model, sampler, epochs=1)
        return sampler

    alone = trained(metric=Curvature(N, kind=kind))
    both = trained(metric=Curvature(N, kind=kind, trace=True))
    assert np.array_equal(alone.snapshots.scores, both.snapshots.scores)
    assert alone.trace.n_recorded == 0 and both.trace.n_recorded == 5
    assert both.trace.n_steps == alone.n_steps == 5


def test_one_door_gives_observations_in_the_metric_that_was_asked_for():
    x, y = data()
    model = mlp()
    plain = SingleRunSampler(model, targets=(x[:2], y[:2]))
    for _ in range(4):
        for index in torch.randperm(N).split(8):
            with plain.step(index):
                cross_entropy(model(x[index]), y[index]).mean().backward()
    found = plain.observations([[0, 1]], "1", window=10)
    expected = plain.trace.observations([[0, 1]], "1", window=10)
    assert np.array_equal(found.q, expected.q) and found.quantity == expected.quantity
    sampler = sampled()
    found = sampler.observations([[0, 1]], "1", discard=1)
    expected = sampler.snapshots.observations([[0, 1]], "1", discard=1)
    assert np.array_equal(found.q, expected.q) and "curvature" in found.quantity


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
@pytest.mark.parametrize("told", [False, True], ids=["mean", "denominator"])
def test_micro_batches_are_parts_of_one_step(kind, told):
    x, y = data()
    model = mlp()
    whole, parts = (
        sampler_of(model, targets=(x[:3], y[:3]), kind=kind) for _ in range(2)
    )
    how = {"denominator": 10.0} if told else {}
    total = 10.0 if told else N

    def pass_over(index):
        (cross_entropy(model(x[index]), y[index]).sum() / total).backward()

    with whole.step(torch.arange(N), **how):
        pass_over(torch.arange(N))
    for index in torch.arange(N).split(15):
        # A mean loss of accumulated micro-batches, weighted by their sizes.
        with parts.step(index, accumulate=bool(index[-1] < N - 1), **how):
            pass_over(index)
        if index[-1] < N - 1:
            with pytest.raises(RuntimeError, match="between updates"):
                parts.snapshot()
    whole.snapshot()
    parts.snapshot()
    assert parts.snapshots.steps == [1]
    np.testing.assert_allclose(*(s.snapshots.scores[0] for s in (whole, parts)))


def test_an_update_that_never_was_whole_leaves_the_gradients_that_were_kept():
    x, y = data()
    model = mlp()
    once, twice = (sampler_of(model, targets=(x[:3], y[:3])) for _ in range(2))
    for sampler in (once, twice):
        with sampler.step(torch.arange(20)):
            cross_entropy(model(x[:20]), y[:20]).mean().backward()
    with twice.step(torch.arange(10, 25), accumulate=True):
        (3 * cross_entropy(model(x[10:25]), y[10:25]).mean()).backward()
    with pytest.raises(ZeroDivisionError), twice.step([15]):
        raise ZeroDivisionError
    once.snapshot(), twice.snapshot()
    found = twice.snapshots.scores[0]
    np.testing.assert_array_equal(found, once.snapshots.scores[0])
    assert np.isnan(found).all(axis=1).nonzero()[0].tolist() == [*range(20, N)]


def test_an_overflow_leaves_the_gradient_that_was_kept():
    x, y = data(torch.float32)
    model = mlp(torch.float32)
    once, twice = (sampler_of(model, targets=(x[:3], y[:3])) for _ in range(2))
    for sampler, scales in ((once, [1.0]), (twice, [1.0, float("inf")])):
        for scale in scales:
            with sampler.step(torch.arange(N), loss_scale=min(scale, 2.0**15)):
                (scale * cross_entropy(model(x), y).mean()).backward()
        sampler.snapshot()
    np.testing.assert_array_equal(once.snapshots.scores, twice.snapshots.scores)


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
def test_the_scalers_scale_is_taken_out(kind):
    def scores(enabled):
        x, y = data(torch.float32)
        model = mlp(torch.float32)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=enabled)
        sampler = SingleRunSampler(
            model, targets=(x[:3], y[:3]), scaler=scaler, metric=Curvature(N, kind=kind)
        )
        with sampler.step(torch.arange(N)):
            scaler.scale(cross_entropy(model(x), y).mean()).backward()
        sampler.snapshot()
        return sampler.snapshots.scores[0]

    np.testing.assert_allclose(scores(True), scores(False), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["residual", "gauss-newton", "fisher"])
@pytest.mark.parametrize("projection", [None, 30])
def test_bfloat16_is_kept_in_single_precision(kind, projection):
    def scores(enabled):
        x, y = data(torch.float32)
        model = mlp(torch.float32)
        sampler = sampler_of(
            model, targets=(x[:3], y[:3]), kind=kind, projection=projection
        )
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=enabled),
            sampler.step(torch.arange(N)),
        ):
            cross_entropy(model(x), y).mean().backward()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            sampler.snapshot()
        return sampler.snapshots.scores[0]

    low, full = scores(True), scores(False)
    assert low.dtype == np.float32
    # Rounding to 8 bits, in inputs, gradients at outputs and targets.
    assert np.linalg.norm(low - full) < 0.05 * np.linalg.norm(full)


def test_clipping_is_no_part_of_the_gradient():
    x, y = data()
    model = mlp()
    plain, clipped = (sampler_of(model, targets=(x[:3], y[:3])) for _ in range(2))
    for sampler in (plain, clipped):
        with sampler.step(torch.arange(N)) as step:
            cross_entropy(model(x), y).mean().backward()
            if sampler is clipped:
                step.clip_factor = 0.1
        sampler.snapshot()
    np.testing.assert_array_equal(plain.snapshots.scores, clipped.snapshots.scores)


def test_steps_that_are_not_recorded_keep_nothing():
    sampler = sampled(every=2, epochs=1, targets="self")
    assert sampler.snapshots.steps == [5]
    assert np.isfinite(sampler.snapshots.scores[0]).sum() == 24


def test_only_chosen_parameters_count():
    model = mlp()
    sampler = sampled(model, parameters=last_layer_parameters(model))
    assert sampler._recorders[0]._store.nbytes == N * (6 + 3) * 8


def test_a_neighbour_helps_and_a_wrong_label_harms():
    x, y = data()
    sampler = sampled(epochs=15, targets=(x, y))
    mu = sampler.observations(None, discard=5).composed().mu.reshape(N, N)
    same = y[:, None] == y[None]
    assert (mu.diagonal() > 0).all()
    assert mu[same].mean() > 0 > mu[~same].mean()


# From scores to P and Q.


def snapshots(n=30, times=4, targets=2, offset=0.0):
    rng = np.random.default_rng(0)
    found = Snapshots([f"z{k}" for k in range(targets)], n)
    for step in range(times):
        found.append(10 * (step + 1), offset + rng.normal(size=(n, targets)))
    return found


SUBSETS = {"a": [0, 1, 2], "b": [5, 9], "both": [0, 1, 2, 5, 9]}


def slowly(scores, subset, standardize=True):
    """P and Q of one snapshot and target, example by example."""
    rest = [k for k in range(len(scores)) if k not in subset]
    whole, without = sum(scores), sum(scores[k] for k in rest)
    if not standardize:
        return without, whole
    centre = without / len(rest)
    variance = sum((scores[k] - centre) ** 2 for k in rest) / len(rest)
    unit = (len(scores) * variance) ** 0.5
    return (without + len(subset) * centre) / unit, whole / unit


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("standardize", [True, False])
def test_p_and_q_are_as_defined(standardize, offset):
    seen = snapshots(offset=offset)
    observations = seen.observations(SUBSETS, standardize=standardize)
    for pair in range(observations.n_pairs):
        P, Q = observations.samples(pair)
        subset = SUBSETS[str(observations.names["subset"][pair])]
        target = seen.targets.index(str(observations.names["target"][pair]))
        expected = [
            slowly(scores[:, target], subset, standardize) for scores in seen.scores
        ]
        np.testing.assert_allclose(np.stack([P, Q], axis=1), expected, rtol=1e-9)


def test_unstandardised_influence_of_disjoint_subsets_adds_up():
    observations = snapshots().observations(SUBSETS, standardize=False)
    shift = observations.q - observations.p
    total = np.bincount(observations.pair, shift).reshape(3, 2)
    np.testing.assert_allclose(total[0] + total[1], total[2])
    assert observations.scale is None


def test_scaling_a_target_changes_nothing():
    one, two = snapshots(), snapshots()
    for scores in two.scores:
        scores *= [3.0, 0.01]
    np.testing.assert_allclose(
        one.observations(SUBSETS).composed().mu, two.observations(SUBSETS).composed().mu
    )


def test_composed_is_the_mean_and_errors_have_few_degrees_of_freedom():
    observations = snapshots(times=4).observations(SUBSETS)
    composed = observations.composed()
    fitted = FInfluence().fit(observations)
    low, high = fitted.confidence_interval(0.9)
    for pair in range(observations.n_pairs):
        P, Q = observations.samples(pair)
        error = np.std(Q - P, ddof=1) / 2
        assert composed.mu[pair] == pytest.approx(np.mean(Q - P))
        assert composed.stderr[pair] == pytest.approx(error)
        assert fitted.mu_[pair] == pytest.approx(np.mean(Q - P))
        half = student(3).ppf(0.95) * error
        assert high[pair] - low[pair] == pytest.approx(2 * half, rel=1e-6)


def test_several_runs_make_runs():
    parts = [snapshots().observations(SUBSETS) for _ in range(3)]
    joined = Observations.concatenate(parts)
    np.testing.assert_allclose(joined.composed().mu, parts[0].composed().mu)
    assert "3 runs" in joined.quantity and "curvature" in joined.quantity


def test_a_subset_waits_until_all_its_members_were_met():
    seen = snapshots(times=2)
    seen.scores[0][9] = np.nan
    observations = seen.observations(SUBSETS)
    steps = [observations.step[observations.pair == 2 * k].tolist() for k in range(3)]
    assert steps == [[10, 20], [20], [20]]
    alone = Snapshots(["z"], 29)
    alone.append(10, np.delete(seen.scores[0][:, :1], 9, axis=0))
    expected = alone.observations([[0, 1, 2]])
    assert observations.p[0] == pytest.approx(expected.p[0])


def test_a_target_without_spread_is_not_observed():
    flat = Snapshots(["z"], 10)
    flat.append(1, np.full((10, 1), 0.1))
    assert len(flat.observations([[0, 1]])) == 0


def test_discarding_leaves_one():
    seen = snapshots(times=3)
    assert set(seen.observations(SUBSETS, discard=1).step) == {20, 30}
    assert set(seen.observations(SUBSETS, discard=9).step) == {30}
    assert seen.observations([3], "z1").n_pairs == 1


def test_saved_snapshots_are_the_same(tmp_path):
    seen = snapshots()
    seen.save(tmp_path / "scores.npz")
    found = Snapshots.load(tmp_path / "scores.npz")
    assert found.targets == seen.targets and found.steps == seen.steps
    assert np.array_equal(found.scores, seen.scores)
    one, two = (s.observations(SUBSETS) for s in (seen, found))
    assert np.array_equal(one.p, two.p) and repr(one) == repr(two)


def untold(epochs, **options):
    """Return scores where nobody says how many examples there are."""
    return sampled(n=None, epochs=epochs, **options).snapshots


@pytest.mark.parametrize(
    "options",
    [{}, {"landmarks": 7}, {"structure": "ekfac"}, {"projection": 5}],
    ids=str,
)
def test_examples_need_not_be_counted(options):
    told = sampled(**options).snapshots
    np.testing.assert_array_equal(untold(3, **options).scores, told.scores)


def test_examples_may_be_met_late():
    x, y = data()
    model, found = mlp(), {}
    for n in (N, None):
        model = mlp()
        sampler = sampler_of(model, n, targets=(x[:4], y[:4]))
        for index in (torch.arange(12), torch.arange(8, 30), torch.arange(N)):
            with sampler.step(index):
                cross_entropy(model(x[index]), y[index]).mean().backward()
            sampler.snapshot()
        found[n] = sampler.snapshots
    np.testing.assert_array_equal(found[None].stacked(), found[N].stacked())
    assert found[None].n_examples == N
    assert np.isnan(found[None].scores[0][12:]).all()
    assert repr(found[None]) == repr(found[N])


def test_numbers_that_count_nothing_are_refused():
    message = "is not told `n_examples`, got 0 to 100000000"
    with (
        pytest.raises(ValueError, match=message),
        sampler_of(mlp(), None).step([0, 10**8]),
    ):
        pass
    with pytest.raises(ValueError, match="`n_examples` must be given with a `path`"):
        Curvature(path="kept")


# Refusals.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "plain"}, "`kind` must be 'auto' or 'residual' or 'gauss"),
        ({"damping": 0.0}, "`damping` must be positive"),
        ({"n_examples": 0}, "`n_examples` must be an integer of at least 1"),
        ({"landmarks": 0}, "`landmarks` must be an integer of at least 1"),
        ({"projection": 2.5}, "`projection` must be an integer of at least 1"),
        ({"random_state": -1}, "`random_state` must be"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Curvature(**({"n_examples": N} | options))


def test_what_a_sampler_says_of_its_metric(tmp_path):
    with pytest.raises(
        ValueError, match="`metric` must be 'plain', 'cosine', 'second-moment', 'sec"
    ):
        SingleRunSampler(mlp(), metric="fisher")
    with pytest.raises(ValueError, match="trace=True"):
        SingleRunSampler(mlp(), metric=Curvature(N), storage=tmp_path)
    plain = SingleRunSampler(mlp())
    for ask in (plain.snapshot, lambda: plain.snapshots):
        with pytest.raises(RuntimeError, match=r"needs metric=Curvature\(\.\.\.\)"):
            ask()


def test_sharded_parameters_are_refused(monkeypatch):
    model = mlp()
    shared = model, SimpleNamespace(size=2, rank=0, sharded=True)
    monkeypatch.setattr("fstat_torch.sampling.sampler.unwrapped", lambda *_: shared)
    with pytest.raises(ValueError, match="needs whole parameters on each process"):
        SingleRunSampler(model, metric=Curvature(N))


def test_what_a_step_needs():
    x, y = data()
    model = mlp()
    sampler = sampler_of(model, kind="residual")
    with pytest.raises(RuntimeError, match="needs a step that was recorded"):
        sampler.snapshot()
    with pytest.raises(ValueError, match="needs a snapshot"):
        sampler.observations()
    for index, message in (([[0]], "1-D"), ([0.5], "1-D"), ([N], "from 0 to 39")):
        with pytest.raises(ValueError, match=message), sampler.step(index):
            pass
    with pytest.raises(RuntimeError, match="one forward pass"), sampler.step([0, 1]):
        parts = [cross_entropy(model(x[at]), y[at]) for at in ([0, 1], [2, 3])]
        torch.cat(parts).mean().backward()
    with sampler.step(torch.arange(N)):
        cross_entropy(model(x), y).mean().backward()
    sampler.snapshot()
    with pytest.raises(RuntimeError, match="since the last one"):
        sampler.snapshot()


def test_outputs_that_are_no_rows_are_sent_to_the_fisher_metric():
    model = nn.Linear(5, 3).double()
    x = torch.randn(4, 2, 5).double()
    sampler = sampler_of(model, n=4, kind="residual")
    with (
        pytest.raises(RuntimeError, match="kind='fisher'"),
        sampler.step(torch.arange(4)),
    ):
        model(x).sum().backward()
    sampler = sampler_of(model, n=4, kind="fisher", landmarks=None)
    with sampler.step(torch.arange(4)):
        model(x).square().mean().backward()
    sampler.snapshot()
    assert (sampler.snapshots.scores[0] > 0).all()


def test_outputs_may_be_called_logits():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            return SimpleNamespace(logits=self.inner(x))

    x, y = data()
    scores = []
    for model, read in ((mlp(), lambda out: out), (Wrapped(), lambda out: out.logits)):
        sampler = sampler_of(
            model,
            targets=(x[:3], y[:3]),
            loss=lambda output, y, read=read: cross_entropy(read(output), y),
        )
        with sampler.step(torch.arange(N)):
            cross_entropy(read(model(x)), y).mean().backward()
        sampler.snapshot()
        scores.append(sampler.snapshots.scores[0])
    np.testing.assert_array_equal(*scores)


def test_a_self_target_beside_others_is_asked_for_by_name():
    both = sampled(targets={"z": data_pair(), "self": "self"}).snapshots
    assert set(both.observations([[1, 2]]).names["target"]) == {"z"}
    assert both.observations(None, "self").self_influence
    with pytest.raises(ValueError, match="single examples"):
        both.observations([[1, 2]], "self")
    with pytest.raises(ValueError, match="alone or without"):
        both.observations(None, ["z", "self"])


def data_pair():
    x, y = data()
    return x[:2], y[:2]


def test_what_snapshots_refuse():
    seen = snapshots()
    with pytest.raises(ValueError, match="unique names"):
        Snapshots(["z", "z"], 3)
    with pytest.raises(ValueError, match=r"floats of shape \(30, 2\)"):
        seen.append(99, np.zeros((30, 3)))
    with pytest.raises(ValueError, match="`scores` must be below"):
        seen.append(99, np.full((30, 2), np.inf))
    with pytest.raises(ValueError, match="`step` must be above 40"):
        seen.append(40, np.zeros((30, 2)))
    with pytest.raises(ValueError, match="`targets` must be among z0, z1"):
        seen.observations(SUBSETS, "z7")
    with pytest.raises(ValueError, match="from 0 to 29"):
        seen.observations([[3, 30]])
    with pytest.raises(ValueError, match="`discard` must be"):
        seen.observations(SUBSETS, discard=-1)
    itself = Snapshots(["self"], 5)
    itself.append(1, np.arange(5.0)[:, None])
    assert itself.observations([2]).self_influence
    with pytest.raises(ValueError, match="single examples"):
        itself.observations([[1, 2]])
