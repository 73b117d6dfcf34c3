"""Snapshots of gradients that are taken anew: scores, no harm, resuming, refusals."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from fstat import FInfluence, Snapshots, Storage  # noqa: E402
from fstat_torch import (  # noqa: E402
    Curvature,
    SingleRunSampler,
    Target,
    Targets,
    cross_entropy,
)
from fstat_torch.curvature import (  # noqa: E402
    adapter_parameters,
    last_layer_parameters,
)
from fstat_torch.targets import completion_log_likelihood  # noqa: E402

N, B, V = 24, 6, 11
METRICS = ["plain", "cosine", "second-moment", "second-moment-cosine"]


def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=g, dtype=torch.float64)
    return x, torch.randint(3, (N,), generator=g)


def mlp(dropout=0.0):
    torch.manual_seed(1)
    layers = nn.Linear(5, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 3)
    return nn.Sequential(*layers).double()


def targets():
    x, y = data()
    signed = Target(x[2:4], y[2:4], weights=[1.0, -0.5], higher_is_better=True)
    return {"one": (x[:1], y[:1]), "signed": signed}


def loader(batch_size=7, **options):
    return DataLoader(
        TensorDataset(torch.arange(N), *data()), batch_size=batch_size, **options
    )


def steps(model, optimizer, times=3, sampler=None):
    """Train on batches that are the same whenever it is called."""
    x, y = data()
    g = torch.Generator().manual_seed(3)
    for _ in range(times):
        index = torch.randperm(N, generator=g)[:B]
        optimizer.zero_grad()
        if sampler is None:
            cross_entropy(model(x[index]), y[index]).mean().backward()
        else:
            with sampler.step(index):
                cross_entropy(model(x[index]), y[index]).mean().backward()
        optimizer.step()


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.05)


def scored(metric="plain", times=3, model=None, **options):
    """Train, and take one snapshot."""
    model = model or mlp()
    optimizer = adam(model)
    options = {"targets": targets(), "reference": loader()} | options
    sampler = SingleRunSampler(model, optimizer=optimizer, metric=metric, **options)
    steps(model, optimizer, times)
    sampler.snapshot()
    return sampler


def gradient(value, parameters):
    found = torch.autograd.grad(value, parameters, retain_graph=True)
    return torch.cat([g.flatten() for g in found])


def each(model, x, y, loss=cross_entropy, parameters=None):
    parameters = list(model.parameters()) if parameters is None else parameters
    rows = [loss(model(x[[k]]), y[[k]]).sum() for k in range(len(y))]
    return torch.stack([gradient(row, parameters) for row in rows])


def scaling(optimizer, parameters):
    """Return Adam's 1 / (sqrt(v_hat) + eps), from its own state."""
    group, parts = optimizer.param_groups[0], []
    for p in parameters:
        state = optimizer.state[p]
        v = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"].item())
        parts.append((1 / (v.sqrt() + group["eps"])).flatten())
    return torch.cat(parts)


def compared(g, z, metric, optimizer, parameters):
    """Return scores as the metric is defined, from all gradients."""
    d = torch.ones_like(g[0])
    if metric.startswith("second-moment"):
        d = scaling(optimizer, parameters)
    found = g @ (d * z).T
    if metric.endswith("cosine"):
        found = found / (g * d * g).sum(1).sqrt()[:, None]
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("batch_size", [1, 7, N])
def test_scores_are_of_the_gradients_at_that_moment(metric, batch_size):
    sampler = scored(metric, reference=loader(batch_size))
    model = sampler.model
    g = each(model, *data())
    z = torch.stack([g[0], -(g[2] - 0.5 * g[3])])
    parameters = list(model.parameters())
    expected = compared(g, z, metric, sampler.optimizer, parameters)
    np.testing.assert_allclose(sampler.snapshots.scores[0], expected, rtol=1e-9)
    assert sampler.snapshots.steps == [3] and sampler.trace.n_recorded == 0


@pytest.mark.parametrize("metric", ["plain", "second-moment"])
def test_examples_may_be_their_own_targets(metric):
    sampler = scored(metric, targets="self")
    g = each(sampler.model, *data())
    parameters = list(sampler.model.parameters())
    expected = compared(g, g, metric, sampler.optimizer, parameters).diagonal()
    np.testing.assert_allclose(sampler.snapshots.scores[0][:, 0], expected, rtol=1e-9)
    both = scored(metric, targets={"self": "self"} | targets())
    assert both.snapshots.targets == ["one", "signed", "self"]
    np.testing.assert_allclose(both.snapshots.scores[0][:, 2], expected, rtol=1e-9)


def llama():
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, attn_implementation="eager",
    )  # fmt: skip
    lora = peft.LoraConfig(
        r=2, lora_dropout=0.1, target_modules=["q_proj", "down_proj"]
    )
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), lora).double()
    for name, p in model.named_parameters():  # B begins at zero, and A's gradient
        if "lora_B" in name:
            nn.init.normal_(p, std=0.3)
    return model


def texts():
    g = torch.Generator().manual_seed(2)
    ids = torch.randint(V, (10, 6), generator=g)
    labels = ids.clone()
    labels[:, :2] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels


def likelihood_loss(output, labels):
    return -completion_log_likelihood(output, labels)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_a_llama_with_adapters(metric):
    model, (inputs, labels) = llama(), texts()
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=1e-2)
    batches = [
        (index, {k: v[index] for k, v in inputs.items()}, labels[index])
        for index in torch.arange(10).split(4)
    ]
    sampler = SingleRunSampler(
        model,
        targets=Targets(
            {"z": Target({k: v[:3] for k, v in inputs.items()}, labels[:3])}, batch=2
        ),
        loss=likelihood_loss,
        optimizer=optimizer,
        metric=metric,
        reference=batches,
    )
    for _ in range(2):
        optimizer.zero_grad()
        likelihood_loss(model(**inputs), labels).mean().backward()
        optimizer.step()
    sampler.snapshot()
    model.eval()
    parameters = adapter_parameters(model)
    g = each(model, inputs["input_ids"], labels, likelihood_loss, parameters)
    expected = compared(g, g[:3].mean(0)[None], metric, optimizer, parameters)
    scores = sampler.snapshots.scores[0]
    np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=1e-10)


FORMS = {
    "kernel": {"landmarks": None},
    "landmarks": {"landmarks": 9},
    "sketch": {"landmarks": None, "projection": 6},
    "fisher": {"landmarks": None, "kind": "fisher"},
    "factored": {"structure": "ekfac"},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_curvature_of_a_model_that_stands_still_is_that_of_kept_gradients(form):
    model, (x, y) = mlp(), data()
    kept = SingleRunSampler(
        model, targets=targets(), metric=Curvature(N, **FORMS[form])
    )
    with kept.step(torch.arange(N)):
        cross_entropy(model(x), y).mean().backward()
    kept.snapshot()
    anew = SingleRunSampler(
        model, targets=targets(), metric=Curvature(N, **FORMS[form]), reference=loader()
    )
    anew.snapshot(step=1)
    np.testing.assert_allclose(*(s.snapshots.scores[0] for s in (kept, anew)))


def test_a_curvature_is_traks_formula_at_that_moment():
    metric = Curvature(N, kind="gauss-newton", landmarks=None, damping=2.0)
    sampler = scored(metric)
    model, (x, y) = sampler.model, data()
    p = model(x).softmax(1).gather(1, y[:, None])[:, 0].detach()
    g = each(model, x, y)
    phi = g / (1 - p)[:, None]
    ridge = 2.0 * phi.square().sum(1).mean()
    metric = phi.T @ phi + ridge * torch.eye(phi.shape[1]).double()
    z = torch.stack([g[0], -(g[2] - 0.5 * g[3])])
    expected = g @ torch.linalg.solve(metric, z.T)
    np.testing.assert_allclose(sampler.snapshots.scores[0], expected, rtol=1e-8)


def test_kept_on_disk_a_pass_gives_the_same(tmp_path):
    expected = scored(Curvature(N)).snapshots.scores
    found = scored(Curvature(N, path=tmp_path / "gradients")).snapshots.scores
    np.testing.assert_allclose(found, expected)


class Drawing:
    """Yields shuffled batches, drawing from every global generator."""

    def __iter__(self):
        x, y = data()
        random.random()
        np.random.rand()  # noqa: NPY002
        for index in torch.randperm(N).split(5):
            yield index, x[index], y[index]


class Counting(nn.Module):
    """Counts its calls in a buffer and in an attribute."""

    def __init__(self):
        super().__init__()
        self.layers, self.calls = mlp(dropout=0.3), 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        return self.layers(x)


OWN = torch.Generator()
LOADERS = {
    "shuffled": lambda: loader(shuffle=True),
    "of a generator": lambda: loader(shuffle=True, generator=OWN),
    "drawing": Drawing,
}


@pytest.mark.parametrize("metric", [*METRICS, Curvature(N)], ids=str)
@pytest.mark.parametrize("kind", LOADERS)
def test_training_is_the_same_to_the_last_bit(metric, kind):
    def run(sampled):
        OWN.manual_seed(5)
        torch.manual_seed(4)
        random.seed(4)
        np.random.seed(4)  # noqa: NPY002
        model = Counting()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        training, sampler = LOADERS[kind](), None
        if sampled:
            sampler = SingleRunSampler(
                model, targets=targets(), optimizer=optimizer, metric=metric,
                reference=LOADERS[kind](),
            )  # fmt: skip
        for _ in range(2):
            for k, (_, x, y) in enumerate(training):
                optimizer.zero_grad()
                cross_entropy(model(x), y).mean().backward()
                optimizer.step()
                if sampler is not None and k % 2:
                    gradients = [p.grad.clone() for p in model.parameters()]
                    sampler.snapshot()
                    pairs = zip(gradients, model.parameters(), strict=True)
                    assert all(torch.equal(a, p.grad) for a, p in pairs)
        assert model.training and all(m.training for m in model.modules())
        drawn = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        return [*model.parameters(), model.seen], (model.calls, *drawn), sampler

    plain, also, _ = run(False)
    found, too, sampler = run(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert also == too and len(sampler.snapshots) == 4


@pytest.mark.parametrize("metric", [*METRICS, Curvature(N, landmarks=9)], ids=str)
def test_the_order_of_the_loader_makes_no_difference(metric):
    x, y = data()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(6))
    batches = [(index, x[index], y[index]) for index in order.split(11)]
    one, other = (scored(metric, reference=r).snapshots for r in (loader(), batches))
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-9)


def test_inputs_may_be_several_and_numbers_a_list():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3).double()

        def forward(self, a, b):
            return self.layer(a + b)

    x, y = data()
    pairs = [(k, (x[k] / 2, x[k] / 2), y[k]) for k in range(N)]
    model = Sum()
    for reference in (
        DataLoader(pairs, batch_size=9),
        [([0, 1], (x[:2], x[:2]), y[:2])],
    ):
        sampler = SingleRunSampler(
            model, targets={"z": ((x[:1], x[1:2]), y[:1])}, reference=reference
        )
        sampler.snapshot(step=5)
        assert np.isfinite(sampler.snapshots.scores[0]).all()


def test_only_chosen_parameters_count_and_examples_may_be_missing():
    model, (x, y) = mlp(), data()
    rows = torch.tensor([3, 9, 4])
    parameters = last_layer_parameters(model)
    sampler = scored(
        model=model, parameters=parameters, reference=[(rows, x[rows], y[rows])]
    )
    scores = sampler.snapshots.scores[0]
    assert scores.shape == (10, 2)
    assert np.isfinite(scores).all(axis=1).nonzero()[0].tolist() == [3, 4, 9]
    g = each(model, x, y, parameters=parameters)
    np.testing.assert_allclose(
        scores[rows], (g[rows] @ torch.stack([g[0], -(g[2] - 0.5 * g[3])]).T)
    )


def test_steps_are_counted_however_they_are_made():
    model = mlp()
    optimizer = adam(model)
    sampler = SingleRunSampler(
        model, targets=targets(), optimizer=optimizer, reference=loader()
    )
    sampler.snapshot()
    steps(model, optimizer, 3)
    sampler.snapshot()
    steps(model, optimizer, 2, sampler)
    sampler.snapshot()
    steps(model, optimizer, 4)
    sampler.snapshot()
    sampler.snapshot(step=100)
    assert sampler.snapshots.steps == [0, 3, 5, 9, 100]
    assert sampler.trace.n_recorded == 0


def test_a_trace_is_recorded_where_the_curvature_says_so():
    model = mlp()
    optimizer = adam(model)
    sampler = SingleRunSampler(
        model, targets=targets(), optimizer=optimizer, reference=loader(),
        metric=Curvature(N, trace=True),
    )  # fmt: skip
    steps(model, optimizer, 4, sampler)
    sampler.snapshot()
    assert sampler.trace.n_recorded == 4 and sampler.snapshots.steps == [4]


def several(metric="cosine", times=3, **options):
    sampler = scored(metric, **options)
    for _ in range(times - 1):
        steps(sampler.model, sampler.optimizer, 2)
        sampler.snapshot()
    return sampler


def test_one_door_gives_observations_that_say_what_they_are():
    sampler = several()
    observations = sampler.observations([[0, 1], [5]], discard=1)
    assert observations.n_steps == 2
    assert observations.quantity == (
        "mu in the metric 'cosine', of gradients taken anew, mean over snapshots of "
        "this run"
    )
    curved = several(Curvature(N)).observations([[0, 1]])
    assert "a curvature metric, of gradients taken anew" in curved.quantity
    assert FInfluence().fit(observations).mu_.shape == (4,)


def test_saved_snapshots_say_their_metric(tmp_path):
    seen = several().snapshots
    seen.save(tmp_path / "scores.npz")
    assert Snapshots.load(tmp_path / "scores.npz").metric == seen.metric


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("metric", ["second-moment", Curvature(N)], ids=str)
def test_a_run_that_goes_on_has_the_snapshots_of_the_uninterrupted_one(
    metric, on_disk, tmp_path
):
    storage = tmp_path / "run" if on_disk else None
    sampler = several(metric, times=2, storage=storage)
    model, optimizer = sampler.model, sampler.optimizer
    saved = model.state_dict(), optimizer.state_dict(), sampler.state_dict()
    saved = torch.load(_through(saved, tmp_path), weights_only=True)
    for _ in range(2):
        steps(model, optimizer, 2)
        sampler.snapshot()
    sampler.close()
    model = mlp()
    optimizer = adam(model)
    again = SingleRunSampler(
        model, targets=targets(), optimizer=optimizer, metric=metric,
        reference=loader(), storage=storage and Storage(storage, resume=True),
    )  # fmt: skip
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    assert again.snapshots.steps == [3, 5]
    for _ in range(2):
        steps(model, optimizer, 2)
        again.snapshot()
    assert again.snapshots.steps == sampler.snapshots.steps == [3, 5, 7, 9]
    np.testing.assert_array_equal(again.snapshots.scores, sampler.snapshots.scores)
    if on_disk:
        files = sorted((tmp_path / "run" / "snapshots").iterdir())
        assert [int(f.stem.split("-")[1]) for f in files] == [3, 5, 7, 9]


def _through(state, folder):
    torch.save(state, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def test_a_checkpoint_of_before_a_snapshot_takes_it_again(tmp_path):
    sampler = several(times=1, storage=tmp_path / "run")
    sampler.close()
    again = SingleRunSampler(
        sampler.model, targets=targets(), metric="cosine", reference=loader(),
        storage=Storage(tmp_path / "run", resume=True), optimizer=sampler.optimizer,
    )  # fmt: skip
    again.start_at(3)
    assert again.snapshots.steps == [3]
    again.snapshot()
    assert again.snapshots.steps == [3]


def test_lost_and_superseded_snapshots_are_told(tmp_path):
    sampler = several(storage=tmp_path / "run")
    with pytest.raises(FileExistsError):
        several(storage=tmp_path / "run")
    sampler.close()
    storage = Storage(tmp_path / "run", resume=True)
    with pytest.warns(UserWarning, match="step 3 supersedes those of later steps"):
        again = several(times=1, storage=storage)
    assert again.snapshots.steps == [3]
    assert len(list((tmp_path / "run" / "snapshots").iterdir())) == 1
    again.close()
    with pytest.raises(ValueError, match="must be of targets"):
        scored("plain", storage=storage)
    with pytest.warns(UserWarning, match="before step 7, where the run goes on, are"):
        several().start_at(7)


def test_an_overflow_leaves_an_example_out():
    x, y = data()
    x = x.clone()
    x[4] = torch.inf
    sampler = scored(reference=[(torch.arange(N), x, y)])
    unknown = np.isnan(sampler.snapshots.scores[0]).all(axis=1)
    assert unknown.nonzero()[0].tolist() == [4]
    model = sampler.model
    steps(model, sampler.optimizer, 1)
    with torch.no_grad():
        model[0].bias.fill_(torch.nan)
    with pytest.warns(UserWarning, match="No example has a finite gradient at step 4"):
        sampler.snapshot()
    assert sampler.snapshots.steps == [3]


def yielding(*batches):
    return list(batches)


def wrong_batches():
    x, y = data()
    return {
        "must yield (index, x, y), got 2 parts": yielding((x[:2], y[:2])),
        "must yield (index, x, y), got no parts": yielding(x[:2]),
        "`index` must be a 1-D array of integers": yielding((y[:2] / 2, x[:2], y[:2])),
        "from 0 on, got -1": yielding(([-1, 0], x[:2], y[:2])),
        "one number for each example, got 1 for 2": yielding(([0], x[:2], y[:2])),
        "must yield each example once, got number 7 2 times": yielding(
            ([0, 7], x[:2], y[:2]), ([7], x[:1], y[:1])
        ),
        "must yield examples, got none": yielding(),
    }


@pytest.mark.parametrize("message", wrong_batches())
def test_batches_that_cannot_be_are_refused(message):
    with pytest.raises(ValueError) as caught:
        scored(reference=wrong_batches()[message])
    assert message in str(caught.value)


def test_other_examples_at_a_later_snapshot_are_refused():
    x, y = data()
    batches = [(torch.arange(4), x[:4], y[:4])]
    sampler = scored(reference=batches)
    batches.append((torch.tensor([8]), x[:1], y[:1]))
    steps(sampler.model, sampler.optimizer, 1)
    with pytest.raises(ValueError, match="the same examples at each snapshot, got 5"):
        sampler.snapshot()
    assert len(sampler.snapshots) == 1


def test_what_a_reference_cannot_be_is_said_at_once():
    for reference, got in ((iter([]), "list_iterator"), (3, "int")):
        with pytest.raises(ValueError, match=f"iterated anew .* got {got}"):
            SingleRunSampler(mlp(), reference=reference)
    for metric in ("cosine", "second-moment-cosine"):
        with pytest.raises(ValueError, match="must not hold 'self' where"):
            scored(metric, targets="self")
    with pytest.raises(ValueError, match="`projection` keeps less"):
        scored("second-moment-cosine", targets=Targets(targets(), projection=4))


def test_what_a_snapshot_needs():
    model = mlp()
    sampler = SingleRunSampler(model, targets=targets(), reference=loader())
    with pytest.raises(ValueError, match="needs to know how many update steps"):
        sampler.snapshot()
    with pytest.raises(ValueError, match="`step` must be an integer"):
        sampler.snapshot(step=1.5)
    with pytest.raises(ValueError, match="needs a snapshot"):
        sampler.observations()
    sampler.snapshot(step=2)
    with pytest.raises(RuntimeError, match="needs an update step since the last one"):
        sampler.snapshot(step=2)
    with pytest.raises(RuntimeError, match="second moment needs a step"):
        scored("second-moment", times=0)
    with pytest.raises(ValueError, match="as `n_examples` of the metric says, got 21"):
        scored(Curvature(N - 1), times=0)


def test_projected_targets_are_unbiased():
    exact = scored().snapshots.scores[0]
    sampler = scored(targets=Targets(targets(), projection=2000))
    found = sampler.snapshots.scores[0]
    # A sketch adds about (|g|^2 |z|^2 + (g'z)^2) / size to the variance.
    g = each(sampler.model, *data())
    z = torch.stack([g[0], -(g[2] - 0.5 * g[3])])
    norms = np.outer(g.square().sum(1), z.square().sum(1))
    error = np.sqrt((norms + exact**2) / 2000)
    assert (np.abs(found - exact) < 5 * error).all()


def test_a_wrong_label_harms():
    torch.manual_seed(0)
    x = torch.randn(200, 5)
    y = (x[:, 0] > 0).long()
    wrong = y.clone()
    wrong[:10] = 1 - wrong[:10]
    model = nn.Linear(5, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    reference = [(i, x[i], wrong[i]) for i in torch.arange(200).split(64)]
    sampler = SingleRunSampler(
        model, targets={"all": (x, y)}, optimizer=optimizer, reference=reference,
        metric="second-moment-cosine",
    )  # fmt: skip
    for _ in range(4):
        for i in torch.randperm(200).split(20):
            optimizer.zero_grad()
            cross_entropy(model(x[i]), wrong[i]).mean().backward()
            optimizer.step()
        sampler.snapshot()
    mu = sampler.observations([np.arange(10), np.arange(10, 20)]).composed().mu
    assert mu[0] < -0.5 < mu[1]
