"""Two processes of a trainer leave the trace of a plain loop on the same batches.

Run by torchrun, this file trains with a library and its callback.
"""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat import Trace  # noqa: E402
from fstat_torch import SingleRunSampler  # noqa: E402

ROOT = Path(__file__).parents[4]
N, B, LENGTH = 48, 8, 6


class Data(torch.utils.data.Dataset):
    """Texts of different lengths."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 20, (N, LENGTH), generator=g)
        lengths = torch.randint(3, LENGTH + 1, (N, 1), generator=g)
        self.labels = torch.where(torch.arange(LENGTH) < lengths, self.ids, -100)

    def __len__(self):
        return N

    def __getitem__(self, k):
        return {"input_ids": self.ids[k], "labels": self.labels[k], "index": k}


def targets():
    data = Data()
    return {
        "self": "self",
        "one": (data.ids[:1], data.labels[:1]),
        "group": (data.ids[1:5], data.labels[1:5]),
    }


def language_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def with_transformers(folder):
    from transformers import Trainer, TrainingArguments

    from fstat_torch import TransformersCallback

    model = language_model()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "out"), per_device_train_batch_size=2,
            gradient_accumulation_steps=2, max_steps=5, learning_rate=0.05,
            optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.5,
            use_cpu=True, report_to="none", save_strategy="no",
            remove_unused_columns=False, disable_tqdm=True,
        ),
        train_dataset=Data(),
    )  # fmt: skip
    path = folder / "trace"
    trainer.add_callback(TransformersCallback(targets=targets(), storage=path))
    trainer.train()


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(20, 8), nn.Flatten(), nn.Linear(8 * LENGTH, 20)
    ).double()


def small_loss(output, labels):
    return nn.functional.cross_entropy(output, labels[:, 0], reduction="none")


def with_lightning(folder):
    import lightning.pytorch as lightning

    from fstat_torch import LightningCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = small_model()

        def forward(self, x):
            return self.model(x)

        def training_step(self, batch, batch_idx):
            return small_loss(self(batch["input_ids"]), batch["labels"]).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    callback = LightningCallback(
        index="index", targets=targets(), loss=small_loss, storage=folder / "trace"
    )
    loader = torch.utils.data.DataLoader(Data(), batch_size=4, shuffle=True)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=5, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, callbacks=[callback],
        gradient_clip_val=0.5, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Module(), loader)


def with_accelerate(folder):
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loader = torch.utils.data.DataLoader(Data(), batch_size=4, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    with SingleRunSampler(
        model, targets=targets(), loss=small_loss, optimizer=optimizer,
        storage=folder / "trace",
    ) as sampler:  # fmt: skip
        for batch in loader:
            optimizer.zero_grad()
            with sampler.step(batch["index"]):
                output = model(batch["input_ids"])
                accelerator.backward(small_loss(output, batch["labels"]).mean())
            accelerator.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()


def with_fully_shard(folder):
    """A language model of which nothing is whole on any process."""
    from torch.distributed.fsdp import fully_shard

    from fstat_torch.targets import language_loss

    torch.distributed.init_process_group("gloo")
    rank, data, final = torch.distributed.get_rank(), Data(), []
    for sampled in (False, True):
        model = language_model()
        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        if sampled:
            sampler = SingleRunSampler(
                model, targets=targets(), loss=language_loss, optimizer=optimizer,
                storage=folder / "trace",
            )  # fmt: skip
        for batch in torch.arange(5 * B).split(B):
            index = batch.split(B // 2)[rank]
            # The two shares' means over tokens, made the mean over all of them.
            tokens = [
                (data.labels[i][:, 1:] != -100).sum() for i in batch.split(B // 2)
            ]
            optimizer.zero_grad()
            with sampler.step(index) if sampled else torch.enable_grad():
                ids, labels = data.ids[index], data.labels[index]
                loss = model(input_ids=ids, labels=labels).loss
                (loss * 2 * tokens[rank] / sum(tokens)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        final.append([p.full_tensor() for p in model.parameters()])
    sampler.close()
    assert all([torch.equal(a, b) for a, b in zip(*final, strict=True)])


def plain_loop(kind, batches):
    data = Data()
    if kind in ("transformers", "fully_shard"):
        from fstat_torch.targets import language_loss as each

        model = language_model()
    else:
        model, each = small_model(), small_loss
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    sampler = SingleRunSampler(model, targets=targets(), loss=each, optimizer=optimizer)
    for index in batches:
        optimizer.zero_grad()
        with sampler.step(index):
            ids, labels = data.ids[index], data.labels[index]
            if kind in ("transformers", "fully_shard"):
                model(input_ids=ids, labels=labels).loss.backward()
            else:
                small_loss(model(ids), labels).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return sampler.trace


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "kind", ["transformers", "lightning", "accelerate", "fully_shard"]
)
def test_two_processes_of_a_trainer_leave_the_trace_of_one(kind, tmp_path):
    package = "transformers" if kind == "fully_shard" else kind
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", "2", __file__, kind, str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trace = Trace.load(tmp_path / "trace")
    two = trace.columns()
    assert (two["batch_size"] == B).all() and trace.n_steps >= 5
    one = plain_loop(kind, torch.from_numpy(two["index"].reshape(-1, B)).long())
    # Single precision in the language model, double in the others.
    tolerance = 1e-6 if kind in ("lightning", "accelerate") else 1e-4
    expected = one.columns()
    if kind == "transformers":
        # This trainer clips before it calls back, which one process alone can see.
        assert (expected["learning_rate"] < 0.05).all()
        expected["learning_rate"] = np.full(5, 0.05)
    for name, column in expected.items():
        scale = np.abs(column).max()
        np.testing.assert_allclose(
            column, two[name], rtol=0, atol=tolerance * scale, err_msg=name
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    globals()[f"with_{sys.argv[1]}"](Path(sys.argv[2]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
