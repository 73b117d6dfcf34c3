"""Retraining of torch models: against loops written by hand, and on workers."""

import copy
import os
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.optim import SGD, AdamW  # noqa: E402
from torch.optim.lr_scheduler import CosineAnnealingLR  # noqa: E402

from fstat.ground_truth import MultiRunInfluence, agreement, retrain  # noqa: E402
from fstat.ground_truth._fingerprint import fingerprint  # noqa: E402
from fstat_torch import SingleRunSampler  # noqa: E402
from fstat_torch.retraining import StackedTrainer, TorchTrainer  # noqa: E402

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
GOALS = X[:5] + 0.1, Y[:5]
SUBSETS = {"first": np.arange(10), "last": np.arange(50, 60)}


def perceptron():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def dropping():
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2))


def trainer(build=perceptron, **options):
    recipe = {"optimizer": partial(SGD, lr=0.3), "epochs": 3, "batch_size": 8}
    return TorchTrainer(build, X, Y, GOALS, **(recipe | options))


def by_hand(indices, seed, n_steps, build=perceptron, optimizer=None, cosine=False):
    """Train as the recipe says, in as many words."""
    torch.manual_seed(seed)
    model = build()
    descent = (optimizer or partial(SGD, lr=0.3))(model.parameters())
    rates = [0.3 * (1 + np.cos(np.pi * t / n_steps)) / 2 for t in range(n_steps)]
    rng, queue = np.random.default_rng(seed), []
    for rate in rates:
        while len(queue) < 8:
            queue += rng.permutation(indices).tolist()
        batch, queue = queue[:8], queue[8:]
        if cosine:
            descent.param_groups[0]["lr"] = rate
        descent.zero_grad()
        output = model(torch.tensor(X[batch]))
        nn.functional.cross_entropy(output, torch.tensor(Y[batch])).backward()
        descent.step()
    model.eval()
    with torch.no_grad():
        p = model(torch.tensor(GOALS[0])).double().softmax(1)
    own = p[torch.arange(5), torch.tensor(GOALS[1])]
    return (own / (1 - own)).log().numpy()


@pytest.mark.parametrize("build", [perceptron, dropping])
def test_a_run_is_what_a_loop_written_by_hand_gives(build):
    kept = np.arange(10, N)
    for keep, n_steps in (("steps", 22), ("epochs", 19)):
        found = trainer(build)(kept, 7, keep)
        assert_allclose(found, by_hand(kept, 7, n_steps, build), rtol=1e-4, atol=1e-5)


def test_optimiser_and_schedule_are_those_given():
    adamw = partial(AdamW, lr=0.01, weight_decay=0.1)
    found = trainer(optimizer=adamw)(np.arange(N), 3)
    assert_allclose(
        found, by_hand(np.arange(N), 3, 22, optimizer=adamw), rtol=1e-4, atol=1e-5
    )
    found = trainer(schedule=CosineAnnealingLR)(np.arange(N), 3)
    assert_allclose(found, by_hand(np.arange(N), 3, 22, cosine=True), 1e-4, 1e-5)


def test_steps_and_epochs_are_kept():
    fixed = trainer(epochs=None, steps=100)
    assert fixed.batches(np.arange(30), 0).shape == (100, 8)
    assert fixed.batches(np.arange(30), 0, "epochs").shape == (50, 8)
    passes = trainer(epochs=4).batches(np.arange(30), 0, "epochs").ravel()
    assert_array_equal(np.bincount(passes), np.full(30, 4))


def test_a_run_depends_on_its_seed_alone():
    train = trainer(dropping)
    state = torch.get_rng_state()
    first = train(np.arange(N), 1)
    assert_array_equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_array_equal(train(np.arange(N), 1), first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert (train(np.arange(N), 2) != first).all()


def test_measure_and_loss_are_those_given():
    def halved(output, y):
        return nn.functional.cross_entropy(output, y, reduction="none") / 2

    def certainty(output, y):
        return output.softmax(1).gather(1, y[:, None])[:, 0]

    found = trainer(loss=halved, measure=certainty, optimizer=partial(SGD, lr=0.6))
    odds = by_hand(np.arange(N), 4, 22)
    assert_allclose(found(np.arange(N), 4), 1 / (1 + np.exp(-odds)), rtol=1e-4)


@pytest.mark.parametrize("keep", ["steps", "epochs"])
@pytest.mark.parametrize("optimizer", [partial(SGD, lr=0.3, momentum=0.9), AdamW])
def test_a_stack_gives_what_single_runs_give(keep, optimizer):
    train = trainer(optimizer=optimizer, schedule=CosineAnnealingLR)
    indices = [np.arange(N), np.arange(10, N), np.arange(20)]
    found = StackedTrainer(train).many(indices, [1, 2, 3], keep)
    plain = [train(indices[k], k + 1, keep) for k in range(3)]
    assert_allclose(found, plain, rtol=1e-3, atol=1e-4)
    assert_allclose(StackedTrainer(train)(indices[1], 2, keep), plain[1], 1e-3, 1e-4)


def test_a_stack_refuses_dropout():
    with pytest.raises(RuntimeError, match="random"):
        StackedTrainer(trainer(dropping)).many([np.arange(N)], [0])


def test_retrain_stacks_what_is_missing(tmp_path):
    plain = retrain(trainer(), N, SUBSETS, 5, n_runs_without=4, random_state=0)
    several = StackedTrainer(trainer(), at_once=3)
    options = {"random_state": 0, "cache": tmp_path}
    retrain(several, N, SUBSETS, 2, **options)
    calls = []

    class Counting(StackedTrainer):
        def many(self, indices, seeds, keep="steps"):
            calls.append(len(seeds))
            return super().many(indices, seeds, keep)

    counted = Counting(trainer(), at_once=3)
    stacked = retrain(counted, N, SUBSETS, 5, n_runs_without=4, random_state=0)
    assert calls == [3, 3, 3, 3, 1]
    again = retrain(several, N, SUBSETS, 5, n_runs_without=4, **options)
    for found in (stacked, again):
        assert_allclose(found.p, plain.p, rtol=1e-3, atol=1e-4)
        assert_allclose(found.q, plain.q, rtol=1e-3, atol=1e-4)


def test_results_say_what_is_kept():
    observations = retrain(trainer(), N, SUBSETS, 2, random_state=0)
    assert "as many steps" in observations.quantity
    observations = retrain(trainer(), N, SUBSETS, 2, keep="epochs", random_state=0)
    assert "as many epochs" in observations.quantity


def test_workers_and_interruptions_change_nothing(tmp_path, monkeypatch):
    alone = retrain(trainer(dropping), N, SUBSETS, 4, random_state=0)

    finished = TorchTrainer.fit

    def dying(self, *given, **options):
        if len(list(tmp_path.glob("*/*.npz"))) == 5:
            raise KeyboardInterrupt
        return finished(self, *given, **options)

    train = trainer(dropping)
    options = {"random_state": 0, "cache": tmp_path, "n_runs": 4}
    monkeypatch.setattr(TorchTrainer, "fit", dying)
    with pytest.raises(KeyboardInterrupt):
        retrain(train, N, SUBSETS, **options)
    assert len(list(tmp_path.glob("*/*.npz"))) == 5
    monkeypatch.undo()
    resumed = retrain(train, N, SUBSETS, n_jobs=2, backend="loky", **options)
    for name in ("p", "q", "run", "pair"):
        assert_array_equal(getattr(resumed, name), getattr(alone, name))


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_dask_gives_the_same(stacked, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = StackedTrainer(trainer()) if stacked else trainer()
    alone = retrain(train, N, SUBSETS, 4, random_state=0)
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        there = retrain(train, N, SUBSETS, 4, random_state=0, n_jobs=2, backend="dask")
    assert_array_equal(alone.p, there.p)
    assert_array_equal(alone.q, there.q)


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_ray_gives_the_same(stacked, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = StackedTrainer(trainer()) if stacked else trainer()
    alone = retrain(train, N, SUBSETS, 4, random_state=0)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        there = retrain(train, N, SUBSETS, 4, random_state=0, n_jobs=2, backend="ray")
    finally:
        ray.shutdown()
    assert_array_equal(alone.p, there.p)
    assert_array_equal(alone.q, there.q)


def test_fingerprint_is_of_values_and_of_what_is_run():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_retraining import trainer, perceptron\n"
        "from fstat.ground_truth._fingerprint import fingerprint\n"
        "from functools import partial; import copy, torch\n"
        "torch.manual_seed(0)\n"
        "print(fingerprint(trainer(partial(copy.deepcopy, perceptron()))))"
    )
    here = os.path.dirname(__file__)
    run = subprocess.run(
        [sys.executable, "-c", code, here], capture_output=True, text=True, check=True
    )
    torch.manual_seed(0)
    model = perceptron()
    train = trainer(partial(copy.deepcopy, model))
    assert fingerprint(train) == run.stdout.strip()
    assert fingerprint(pickle.loads(pickle.dumps(train))) == fingerprint(train)
    others = [trainer(), trainer(epochs=4), trainer(optimizer=partial(SGD, lr=0.2))]
    model[0].bias.data += 1
    others.append(trainer(partial(copy.deepcopy, model)))
    prints = {fingerprint(one) for one in others} | {run.stdout.strip()}
    assert len(prints) == 5


def test_a_watched_run_is_the_run():
    seen = []
    train = trainer(dropping)
    sampler = train.sample(3, after=lambda n, s: seen.append((n, s.trace.n_steps)))
    assert isinstance(sampler, SingleRunSampler)
    assert seen == [(n, n) for n in range(1, 23)]
    plain = train.fit(np.arange(N), 3)
    for one, other in zip(sampler.model.parameters(), plain.parameters(), strict=True):
        assert_array_equal(one.detach(), other.detach())
    columns = sampler.trace.columns()
    assert_array_equal(columns["index"], train.batches(np.arange(N), 3).ravel())
    assert_allclose(columns["learning_rate"], 0.3)
    assert sampler.trace.targets == [str(k) for k in range(5)]


def test_options_of_the_sampler_come_first():
    sampler = trainer().sample(0, targets="self", every=2)
    assert sampler.trace.targets == ["self"]
    assert sampler.every == 2


def test_checkpoints_are_had_on_the_way():
    kept = {}
    train = trainer()
    model = train.fit(
        np.arange(N), 5, after=lambda n, m: kept.update({n: copy.deepcopy(m)})
    )
    assert list(kept) == list(range(1, 23))
    assert not model.training
    assert_array_equal(kept[22][0].weight.detach(), model[0].weight.detach())
    shorter = trainer(epochs=None, steps=10).fit(np.arange(N), 5)
    assert_array_equal(kept[10][0].weight.detach(), shorter[0].weight.detach())


def test_one_run_agrees_with_the_truth_of_its_recipe():
    # Softmax regression on separable points: leaving out one class is seen by all.
    train = trainer(partial(nn.Linear, 4, 2), epochs=5)
    order = np.argsort(X[:, 0])
    subsets = {str(k): part for k, part in enumerate(np.split(order, 6))}
    truth = MultiRunInfluence(train=train, n_runs=40, random_state=0).fit(subsets, N)
    trace = train.sample(1, optimizer=None).trace
    mu = trace.observations(subsets).composed().mu.reshape(6, 5)
    found = agreement(mu, truth, n_resamples=19, random_state=0)
    assert found["pearson"].value > 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 3}, "`epochs` or `steps`"),
        ({"epochs": None}, "`epochs` or `steps`"),
        ({"epochs": None, "steps": 1.5}, "`steps` must be a positive whole"),
        ({"epochs": -1}, "`epochs` must be a positive number"),
        ({"batch_size": 0}, "`batch_size` must be a positive whole"),
    ],
)
def test_bad_recipes_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        trainer(**options)


def test_bad_data_are_refused():
    descent = partial(SGD, lr=0.1)
    with pytest.raises(ValueError, match="`x` must have as many"):
        TorchTrainer(perceptron, X, Y[:-1], GOALS, optimizer=descent, epochs=1)
    with pytest.raises(ValueError, match="`targets` must be a pair"):
        TorchTrainer(perceptron, X, Y, X, optimizer=descent, epochs=1)
    with pytest.raises(ValueError, match="`at_once`"):
        StackedTrainer(trainer(), at_once=0)
    with pytest.raises(ValueError, match="`keep`"):
        trainer()(np.arange(N), 0, keep="time")
