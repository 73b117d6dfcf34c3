"""What Lightning's callback records is what the plain loop records."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from fstat import Trace  # noqa: E402
from fstat_torch import (  # noqa: E402
    Curvature,
    LightningCallback,
    SingleRunSampler,
    Watch,
)

# Advice about workers, loggers and folders.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")
N, B = 40, 8


def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, 6, generator=g, dtype=torch.float64)
    return x, torch.randint(3, (N,), generator=g)


def targets():
    x, y = data()
    return {"self": "self", "one": (x[:1], y[:1]), "group": (x[1:5], y[1:5])}


class Module(lightning.LightningModule):
    optimisers = 1

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.layers.double()

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        _, x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        _, x, y = batch
        self.log("loss", nn.functional.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def fit(folder, callback=None, size=B, module=None, ckpt_path=None, **options):
    torch.manual_seed(4)
    module = module or Module()
    x, y = data()
    loader = DataLoader(
        TensorDataset(torch.arange(N), x, y), batch_size=size, shuffle=True
    )
    arguments = {
        "max_epochs": 2, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "accelerator": "cpu", "devices": 1,
        "enable_checkpointing": False, "default_root_dir": folder,
    } | options  # fmt: skip
    arguments["callbacks"] = [
        *arguments.get("callbacks", []), *([callback] if callback else [])
    ]  # fmt: skip
    trainer = lightning.Trainer(**arguments)
    trainer.fit(module, loader, loader, ckpt_path=ckpt_path)
    return module


def plain_loop(batches):
    model, (x, y) = Module(), data()
    optimizer = model.configure_optimizers()
    sampler = SingleRunSampler(model, targets=targets(), optimizer=optimizer)
    for index in batches:
        optimizer.zero_grad()
        with sampler.step(index):
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
    return sampler.trace


def assert_same(one, other, rtol=1e-9):
    mine, theirs = one.columns(), other.columns()
    assert one.n_steps == other.n_steps and mine.keys() == theirs.keys()
    for name, column in mine.items():
        np.testing.assert_allclose(column, theirs[name], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("index", [0, lambda batch: batch[0]], ids=["place", "call"])
def test_the_callback_records_what_the_plain_loop_records(
    accumulation, index, tmp_path
):
    options = {"size": B // accumulation, "accumulate_grad_batches": accumulation}
    plain = fit(tmp_path, **options)
    callback = LightningCallback(
        index=index, targets=targets(), storage=tmp_path / "trace"
    )
    module = fit(tmp_path, callback, **options)
    pairs = zip(plain.parameters(), module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    trace = Trace.load(tmp_path / "trace")
    assert (trace.n_steps, trace.n_recorded) == (10, 10)
    batches = torch.from_numpy(trace.columns()["index"].reshape(10, B)).long()
    assert_same(trace, plain_loop(batches))
    assert not any(m._forward_hooks for m in module.modules())


def test_clipping_and_recording_every_other_step(tmp_path):
    options = {"gradient_clip_val": 0.01}
    plain = fit(tmp_path, **options)
    callback = LightningCallback(index=0, targets=targets(), every=2)
    module = fit(tmp_path, callback, **options)
    pairs = zip(plain.parameters(), module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    columns = callback.trace.columns()
    assert columns["step"].tolist() == [0, 2, 4, 6, 8]
    rate = module.configure_optimizers().param_groups[0]["lr"]
    assert (columns["learning_rate"] < rate / 2).all()
    unclipped = LightningCallback(index=0, targets=targets())
    fit(tmp_path, unclipped)
    assert (unclipped.trace.columns()["learning_rate"] == rate).all()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_snapshots_are_those_of_the_plain_loop(accumulation, tmp_path):
    metric = Curvature(N, trace=True)
    options = {
        "size": B // accumulation, "accumulate_grad_batches": accumulation,
        "max_epochs": 3,
    }  # fmt: skip
    callback = LightningCallback(index=0, targets=targets(), metric=metric)
    fit(tmp_path, callback, **options)
    snapshots = callback.sampler.snapshots
    assert snapshots.steps == [10, 15]
    batches = torch.from_numpy(callback.trace.columns()["index"].reshape(15, B)).long()
    model, (x, y) = Module(), data()
    optimizer = model.configure_optimizers()
    sampler = SingleRunSampler(model, targets=targets(), metric=metric)
    for index in batches:
        optimizer.zero_grad()
        with sampler.step(index):
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
    sampler.snapshot()
    np.testing.assert_allclose(snapshots.scores[1], sampler.snapshots.scores[0])


@pytest.mark.parametrize("stop", [{"max_epochs": 1}, {"max_epochs": 9, "max_steps": 7}])
def test_every_run_ends_with_a_snapshot(stop, tmp_path):
    callback = LightningCallback(index=0, targets=targets(), metric=Curvature(N))
    fit(tmp_path, callback, **stop)
    assert callback.sampler.snapshots.steps == [5 if stop["max_epochs"] == 1 else 7]


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("every", [3, 5])
def test_a_checkpoint_takes_the_kept_gradients_along(every, on_disk, tmp_path):
    def run(name, **options):
        where = {"path": tmp_path / name} if on_disk else {}
        callback = LightningCallback(
            index=lambda batch: batch[0],
            targets=targets(),
            metric=Curvature(N, **where),
        )
        saving = lightning.callbacks.ModelCheckpoint(
            dirpath=tmp_path / "saved" / name, save_top_k=-1, filename="{step}",
            every_n_train_steps=every,
        )  # fmt: skip
        fit(
            tmp_path, callback, enable_checkpointing=True, max_epochs=4,
            callbacks=[saving], **options,
        )  # fmt: skip
        return callback.sampler.snapshots

    first = run("run", max_steps=16)
    assert first.steps == [10, 15]
    resumed = run("run", ckpt_path=tmp_path / "saved/run/step=15.ckpt")
    assert resumed.steps == [10, 15, 20]
    for before, after in zip(first.scores[:2], resumed.scores[:2], strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.isfinite(resumed.scores[2]).all()


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_checkpoint_takes_the_trace_along(on_disk, tmp_path):
    def callbacks(name):
        storage = tmp_path / name if on_disk else None
        return LightningCallback(index=0, targets=targets(), storage=storage)

    def saving(name):
        return lightning.callbacks.ModelCheckpoint(
            dirpath=tmp_path / "saved" / name, save_top_k=-1, filename="{epoch}"
        )

    def run(name, callback, **options):
        fit(
            tmp_path, callback, max_epochs=3, enable_checkpointing=True,
            callbacks=[saving(name)], **options,
        )  # fmt: skip
        return callback.trace

    first = run("run", callbacks("run"))
    steps = first.columns()
    assert steps["step"].tolist() == list(range(15))
    again = run(
        "run", callbacks("run"), ckpt_path=tmp_path / "saved" / "run" / "epoch=1.ckpt"
    )
    # The steps before the checkpoint are kept, those after it are made again.
    for name, column in again.columns().items():
        before = column[:10] if len(column) == 15 else column[: 10 * B]
        np.testing.assert_array_equal(before, steps[name][: len(before)])
    assert again.columns()["step"].tolist() == list(range(15))
    if on_disk:
        assert_same(Trace.load(tmp_path / "run"), again)


def test_an_exception_flushes_and_leaves_no_hook(tmp_path):
    class Failing(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if self.global_step == 3:
                raise KeyError("mine")
            return loss

    callback = LightningCallback(index=0, targets=targets(), storage=tmp_path / "trace")
    module = Failing()
    with pytest.raises(KeyError, match="mine"):
        fit(tmp_path, callback, module=module)
    assert not any(m._forward_hooks for m in module.modules())
    assert Trace.load(tmp_path / "trace").n_recorded == 3


def test_what_cannot_be_followed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 'number' for a batch of list"):
        fit(tmp_path, LightningCallback(index="number"))

    class Two(Module):
        automatic_optimization = False

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    with pytest.raises(ValueError, match="One optimiser is followed"):
        fit(tmp_path, LightningCallback(index=0), module=Two())


def test_training_stops_when_what_is_watched_is_decided(tmp_path):
    for stop in (True, False):
        watch = Watch({"all": range(10)}, targets="one", every=1, negligible=50.0)
        watch.stop = stop
        callback = LightningCallback(index=0, targets=targets(), watch=watch)
        fit(tmp_path, callback, max_epochs=20)
        assert watch.decided
        # At ten steps there is a scale; after twenty more, an interval.
        assert (callback.trace.n_steps < 60) is stop


def test_a_reference_needs_no_numbers_in_the_batches(tmp_path):
    plain = fit(tmp_path)
    x, y = data()
    callback = LightningCallback(
        index="none", targets=targets(), reference=[(range(N), x, y)]
    )
    module = fit(tmp_path, callback)
    pairs = zip(plain.parameters(), module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert callback.sampler.snapshots.steps == [5, 10]
    sampler = SingleRunSampler(module, targets=targets(), reference=[(range(N), x, y)])
    sampler.snapshot(step=10)
    found = callback.sampler.snapshots.scores[1]
    np.testing.assert_allclose(found, sampler.snapshots.scores[0])
