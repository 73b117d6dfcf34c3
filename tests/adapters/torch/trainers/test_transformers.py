"""What the Trainer's callback records is what the plain loop records."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers import (  # noqa: E402
    DataCollatorWithFlattening,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from fstat import Trace  # noqa: E402
from fstat_torch import (  # noqa: E402
    Curvature,
    SingleRunSampler,
    TransformersCallback,
    Watch,
)
from fstat_torch.targets import language_loss  # noqa: E402

# Of peft and transformers about one another, and of their use of torch.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
N, LENGTH = 48, 10
CONFIG = LlamaConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


class Texts(torch.utils.data.Dataset):
    """Texts of different lengths, padded on the right."""

    def __init__(self, numbered=True):
        g = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(1, 40, (N, LENGTH), generator=g)
        self.lengths = torch.randint(4, LENGTH + 1, (N,), generator=g)
        self.numbered = numbered

    def __len__(self):
        return N

    def __getitem__(self, k):
        real = torch.arange(LENGTH) < self.lengths[k]
        item = {
            "input_ids": torch.where(real, self.tokens[k], 0),
            "attention_mask": real.long(),
            "labels": torch.where(real, self.tokens[k], -100),
        }
        return item | ({"index": int(k)} if self.numbered else {})


def batch_of(data, index):
    items = [data[k] for k in index]
    names = items[0].keys() - {"index"}
    return {name: torch.stack([item[name] for item in items]) for name in names}


def targets():
    batch = batch_of(Texts(), range(5))
    ids, labels = batch["input_ids"], batch["labels"]
    return {
        "self": "self",
        "one": (ids[:1], labels[:1]),
        "group": (ids[1:], labels[1:]),
    }


def build(lora=False):
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    if lora:
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
        model = peft.get_peft_model(model, config)
        for name, p in model.named_parameters():  # B begins at zero, and A's gradient
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
    return model


def trainer_of(model, folder, callback=None, data=None, **options):
    arguments = {
        "per_device_train_batch_size": 8, "max_steps": 7, "learning_rate": 0.05,
        "optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
        "use_cpu": True, "report_to": "none", "save_strategy": "no",
        "remove_unused_columns": False, "disable_tqdm": True, "seed": 3,
    } | options  # fmt: skip
    collate = arguments.pop("data_collator", None)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder / "out"), **arguments),
        train_dataset=Texts(numbered=callback is not None) if data is None else data,
        data_collator=collate,
        eval_dataset=Texts(numbered=callback is not None),
    )
    if callback is not None:
        trainer.add_callback(callback)
    return trainer


def parameters(model):
    return [p.detach().clone() for p in model.parameters()]


def plain_loop(model, batches, **options):
    """The same training by hand, with the loss a mean over the update's tokens."""
    data, learning_rate = Texts(), options.pop("learning_rate", 0.05)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=learning_rate)
    sampler = SingleRunSampler(
        model, targets=targets(), loss=language_loss, optimizer=optimizer, **options
    )
    model.train()
    for index in batches:
        optimizer.zero_grad()
        with sampler.step(index):
            model(**batch_of(data, index)).loss.backward()
        optimizer.step()
    if sampler.compares_at_snapshots:
        sampler.snapshot()
        return sampler
    return sampler.trace


def assert_same(one, other, rtol):
    mine, theirs = one.columns(), other.columns()
    assert one.n_steps == other.n_steps and mine.keys() == theirs.keys()
    for name, column in mine.items():
        scale = np.abs(column).max()
        np.testing.assert_allclose(
            column, theirs[name], rtol=rtol, atol=rtol * scale, err_msg=name
        )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_callback_records_what_the_plain_loop_records(lora, accumulation, tmp_path):
    plain = trainer_of(
        build(lora), tmp_path, gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=8 // accumulation,
    )  # fmt: skip
    plain.train()
    callback = TransformersCallback(targets=targets(), storage=tmp_path / "trace")
    trainer = trainer_of(
        build(lora), tmp_path, callback, gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=8 // accumulation,
    )  # fmt: skip
    trainer.train()
    pairs = zip(parameters(plain.model), parameters(trainer.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    trace = Trace.load(tmp_path / "trace")
    assert (trace.n_steps, trace.n_recorded) == (7, 7)
    batches = trace.columns()["index"].reshape(7, 8)
    by_hand = build(lora)
    assert_same(trace, plain_loop(by_hand, batches), rtol=2e-4)
    for a, b in zip(parameters(trainer.model), parameters(by_hand), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert not trainer.model._forward_pre_hooks


def test_clipping_schedules_evaluation_and_checkpointing(tmp_path):
    callback = TransformersCallback(targets=targets(), every=2)
    options = {
        "max_grad_norm": 0.01, "logging_steps": 1, "lr_scheduler_type": "linear",
        "eval_strategy": "steps", "eval_steps": 3,
        "activation_checkpointing": True, "optim": "adamw_torch",
    }  # fmt: skip
    trainer = trainer_of(build(), tmp_path, callback, **options)
    trainer.train()
    columns = callback.trace.columns()
    assert columns["step"].tolist() == [0, 2, 4, 6]
    logged = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    norm = np.array([entry["grad_norm"] for entry in logged])[columns["step"]]
    assert (norm > 0.01).all()
    rate = 0.05 * (1 - columns["step"] / 7) * 0.01 / norm
    np.testing.assert_allclose(columns["learning_rate"], rate, rtol=1e-3)
    plain = trainer_of(build(), tmp_path, **options)
    plain.train()
    pairs = zip(parameters(plain.model), parameters(trainer.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_trainer_that_resumes_takes_the_trace_along(on_disk, tmp_path):
    def run(name, **options):
        storage = tmp_path / name if on_disk else None
        callback = TransformersCallback(targets=targets(), storage=storage)
        trainer = trainer_of(
            build(), tmp_path / name, callback, save_strategy="steps", save_steps=3,
            **options,
        )  # fmt: skip
        return trainer, callback

    whole, whole_callback = run("whole")
    whole.train()
    first, _ = run("run")
    first.train()
    again, callback = run("run")
    checkpoint = str(tmp_path / "run" / "out" / "checkpoint-3")
    if on_disk:
        again.train(resume_from_checkpoint=checkpoint)
        assert_same(Trace.load(tmp_path / "run"), whole_callback.trace, rtol=1e-12)
    else:
        with pytest.warns(UserWarning, match="Of the 3 steps before step 3") as caught:
            again.train(resume_from_checkpoint=checkpoint)
        ours = [each.filename for each in caught if "Of the 3" in str(each.message)]
        assert ours == [__file__]
        assert callback.trace.columns()["step"].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_snapshots_are_those_of_the_plain_loop(lora, accumulation, tmp_path):
    metric = Curvature(N, kind="fisher", landmarks=None, damping=0.1, trace=True)
    options = {
        "gradient_accumulation_steps": accumulation, "max_steps": 18,
        "per_device_train_batch_size": 8 // accumulation,
    }  # fmt: skip
    plain = trainer_of(build(lora), tmp_path, **options)
    plain.train()
    callback = TransformersCallback(targets=targets(), metric=metric)
    trainer = trainer_of(build(lora), tmp_path, callback, **options)
    trainer.train()
    pairs = zip(parameters(plain.model), parameters(trainer.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    snapshots = callback.sampler.snapshots
    assert snapshots.steps == [12, 18] and not trainer.model._forward_hooks
    batches = callback.trace.columns()["index"].reshape(18, 8)
    by_hand = plain_loop(build(lora), batches, metric=metric).snapshots.scores[0]
    scale = np.abs(by_hand).max(axis=0)
    np.testing.assert_allclose(snapshots.scores[1] / scale, by_hand / scale, atol=1e-3)


@pytest.mark.parametrize("epochs", [{"max_steps": 4}, {"max_steps": 14}])
def test_every_run_ends_with_a_snapshot(epochs, tmp_path):
    callback = TransformersCallback(
        targets=targets(), metric=Curvature(N, kind="fisher"), every=2
    )
    trainer_of(build(True), tmp_path, callback, **epochs).train()
    snapshots = callback.sampler.snapshots
    # Passes are those of the steps that are recorded, over the examples in them.
    assert snapshots.steps == ([4] if epochs["max_steps"] == 4 else [13])
    assert callback.sampler.observations([[0, 1]], "one").n_pairs == 1


@pytest.mark.parametrize("at", [12, 15])
def test_a_trainer_that_resumes_takes_the_same_snapshots(at, tmp_path):
    def run(name):
        metric = Curvature(N, kind="fisher", landmarks=9, path=tmp_path / name / "kept")
        callback = TransformersCallback(targets=targets(), metric=metric)
        trainer = trainer_of(
            build(True), tmp_path / name, callback, max_steps=18,
            save_strategy="steps", save_steps=at,
        )  # fmt: skip
        return trainer, callback

    whole, expected = run("whole")
    whole.train()
    first, _ = run("run")
    first.train()
    again, callback = run("run")
    again.train(resume_from_checkpoint=str(tmp_path / f"run/out/checkpoint-{at}"))
    one, two = expected.sampler.snapshots, callback.sampler.snapshots
    assert one.steps == two.steps == [12, 18]
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-4, atol=1e-7)


def test_language_models_ask_for_the_fisher_metric(tmp_path):
    found = []
    for metric in (Curvature(), Curvature(N, kind="fisher")):
        callback = TransformersCallback(targets=targets(), metric=metric)
        trainer_of(build(True), tmp_path, callback, max_steps=12).train()
        found.append(callback.sampler.snapshots)
    assert found[0].steps == found[1].steps == [12]
    np.testing.assert_array_equal(found[0].scores, found[1].scores)
    residual = Curvature(N, kind="residual")
    callback = TransformersCallback(targets=targets(), metric=residual)
    with pytest.raises(RuntimeError, match="kind='fisher'"):
        trainer_of(build(True), tmp_path, callback).train()


def test_training_stops_when_what_is_watched_is_decided(tmp_path):
    watch = Watch(
        {"half": range(0, N, 2)}, targets="one", every=1, negligible=1e4, stop=True
    )
    trainer = trainer_of(
        build(), tmp_path, TransformersCallback(targets=targets(), watch=watch),
        max_steps=80,
    )  # fmt: skip
    trainer.train()
    # At ten steps there is a scale, and after twenty more an interval.
    assert watch.decided and 30 <= trainer.state.global_step < 40


def test_a_batch_without_numbers_is_refused(tmp_path):
    for options in (
        {"remove_unused_columns": True},
        {"data": Texts(numbered=False)},
    ):
        callback = TransformersCallback(targets=targets())
        trainer = trainer_of(build(), tmp_path, callback, **options)
        with pytest.raises(RuntimeError, match="has no column 'index'"):
            trainer.train()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_gpu": 2}, "one process a device, by torchrun"),
        ({"deepspeed": "a.json"}, "uses DeepSpeed"),
        ({"torch_compile": True}, "torch_compile=False"),
    ],
)
def test_trainers_that_hide_the_layers_are_refused(setting, message):
    defaults = {"n_gpu": 0, "deepspeed": None, "torch_compile": False}
    arguments = SimpleNamespace(**defaults | setting)
    with pytest.raises(ValueError, match=message):
        TransformersCallback().on_train_begin(arguments, None, None)


def test_packed_sequences_are_refused(tmp_path):
    def ragged(k):
        item = Texts()[k]
        real = item["attention_mask"].bool()
        return {"input_ids": item["input_ids"][real].tolist(), "index": k}

    collate = DataCollatorWithFlattening()
    data = [ragged(k) for k in range(N)]
    callback = TransformersCallback(targets=targets())
    trainer = trainer_of(build(), tmp_path, callback, data, data_collator=collate)
    with pytest.raises(ValueError, match="packed in one row"):
        trainer.train()


def test_a_model_called_twice_in_a_step_is_refused(tmp_path):
    class Twice(Trainer):
        def compute_loss(self, model, inputs, **kwargs):
            return model(**inputs).loss + model(**inputs).loss

    callback = TransformersCallback(targets=targets())
    trainer = trainer_of(build(), tmp_path, callback)
    trainer.__class__ = Twice
    with pytest.raises(RuntimeError, match="called twice in one training step"):
        trainer.train()
    assert not any(m._forward_hooks for m in trainer.model.modules())


@pytest.mark.parametrize("name", ["model", "optimizer", "scaler", "distributed"])
def test_what_the_trainer_knows_is_not_to_be_told(name):
    with pytest.raises(TypeError, match=f"`{name}` is not an argument"):
        TransformersCallback(**{name: None})


def test_there_is_no_trace_before_training():
    with pytest.raises(RuntimeError, match="Training has not begun"):
        _ = TransformersCallback().trace


def test_the_loss_of_targets_is_the_models_own():
    model = build().eval()
    batch = batch_of(Texts(), range(5))
    with torch.no_grad():
        each = language_loss(model(batch["input_ids"]), batch["labels"])
        for k in range(5):
            row = {name: column[k : k + 1] for name, column in batch.items()}
            torch.testing.assert_close(each[k], model(**row).loss)


def test_importing_the_adapter_imports_no_trainer_and_no_model():
    code = """
import sys, fstat_torch, fstat_torch.llama
others = {"transformers", "lightning", "accelerate", "peft", "tokenizers"}
print(sorted(others & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[]"]


def reference():
    for index in torch.arange(N).split(10):
        batch = batch_of(Texts(), index.tolist())
        yield index, batch, batch.pop("labels")


class Reference:
    def __iter__(self):
        return reference()


@pytest.mark.parametrize(
    "metric", ["second-moment-cosine", Curvature(N, kind="fisher")]
)
def test_a_reference_needs_no_numbers_in_the_batches(metric, tmp_path):
    targets_only = {"one": targets()["one"]}
    options = {"max_steps": 13, "optim": "adamw_torch"}
    plain = trainer_of(build(True), tmp_path, **options)
    plain.train()
    callback = TransformersCallback(
        targets=targets_only, metric=metric, reference=Reference()
    )
    trainer = trainer_of(
        build(True), tmp_path, callback, data=Texts(numbered=False), **options
    )
    trainer.train()
    pairs = zip(parameters(plain.model), parameters(trainer.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert callback.sampler.snapshots.steps == [6, 12, 13]
    assert np.isfinite(callback.sampler.snapshots.stacked()).all()


def test_snapshots_of_a_reference_go_on_with_the_trainer(tmp_path):
    def run(name, **resume):
        callback = TransformersCallback(
            targets=targets(), reference=Reference(), storage=tmp_path / name
        )
        trainer = trainer_of(
            build(True), tmp_path / name, callback, max_steps=18, save_strategy="steps",
            save_steps=9,
        )  # fmt: skip
        trainer.train(**resume)
        return callback.sampler.snapshots

    once = run("run")
    again = run("run", resume_from_checkpoint=str(tmp_path / "run/out/checkpoint-9"))
    assert once.steps == again.steps == [6, 12, 18]
    np.testing.assert_allclose(again.stacked(), once.stacked(), rtol=1e-4, atol=1e-5)
