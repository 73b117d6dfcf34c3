"""Fine-tuning on instruction data, and what it records about targets.

Run by torchrun, this file fine-tunes on two processes.
"""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "peft", "accelerate"):
    pytest.importorskip(package)
import peft  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from fstat import (  # noqa: E402
    FInfluence,
    Snapshots,
    Trace,
)
from fstat_torch import Curvature, Targets  # noqa: E402
from fstat_torch.llama import (  # noqa: E402
    Example,
    Pair,
    add_lora,
    collate,
    complete,
    encode,
    encode_pairs,
    finetune,
    load_model,
    measure_targets,
    read_pairs,
    read_prompts,
    tiny_llama,
)
from fstat_torch.llama.sharding import processes, save_model, shard  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ROOT = Path(__file__).parents[4]
EXAMPLES = [Example.of(f"{n} and 1?", f"That is {n + 1}.") for n in range(40)]
PAIRS = [
    Pair("50 and 1?", "That is 51."),
    Pair("60 and 1?", "That is 61.", "No.", name="odds"),
    Pair("70 and 1?", "That is 71.", "Never.", name="odds"),
]


def built(lora=False):
    model, tokenizer = tiny_llama(hidden=16, layers=1)
    return (add_lora(model, r=2) if lora else model), tokenizer


def tuned(model, tokenizer, folder=None, refresh=1, **options):
    rows = encode(EXAMPLES, tokenizer, max_length=64)
    options = {"learning_rate": 0.01, "progress": False} | options
    targets = encode_pairs(PAIRS, tokenizer, max_length=64)
    if refresh > 1:
        targets = Targets(targets, refresh=refresh)
    return finetune(
        model, rows, tokenizer=tokenizer, targets=targets, output_dir=folder, **options
    )


def own_share(parameter):
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def assert_equal(one, other):
    mine, theirs = one.trace.columns(), other.trace.columns()
    assert mine.keys() == theirs.keys()
    for name, column in mine.items():
        np.testing.assert_array_equal(column, theirs[name], err_msg=name)
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(own_share(a), own_share(b)) for a, b in pairs)
    np.testing.assert_array_equal(one.losses, other.losses)


def log_probability(model, tokenizer, prompt, answer):
    row = encode([Example.of(prompt, answer)], tokenizer, max_length=64)[0]
    ids = torch.tensor(row["input_ids"])
    each = model(input_ids=ids[None]).logits[0].log_softmax(dim=-1)
    learnt = [k for k, label in enumerate(row["labels"]) if label >= 0]
    return sum(each[k - 1, ids[k]] for k in learnt), len(learnt)


def gradient(value, model):
    wanted = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, wanted)])


@pytest.mark.parametrize("lora", [False, True])
def test_what_is_recorded_is_what_gradients_by_hand_say(lora):
    model, tokenizer = built(lora)
    if lora:
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
    model.double()
    by_hand = {n: p.clone() for n, p in model.state_dict().items()}
    columns = tuned(model, tokenizer, epochs=1).trace.columns()
    model.load_state_dict(by_hand)
    index = columns["index"][:8]
    examples = [EXAMPLES[k] for k in index]
    said = [log_probability(model, tokenizer, e.prompt, e.answer) for e in examples]
    n_tokens = sum(n for _, n in said)
    losses = [-value / n for value, n in said]
    np.testing.assert_allclose(
        columns["extra:loss"][:8], [x.item() for x in losses], rtol=1e-5
    )
    first = log_probability(model, tokenizer, PAIRS[0].prompt, PAIRS[0].completion)[0]
    odds = [
        log_probability(model, tokenizer, pair.prompt, answer)[0]
        for pair in PAIRS[1:]
        for answer in (pair.completion, pair.instead)
    ]
    goods = (first, (odds[0] - odds[1] + odds[2] - odds[3]) / 2)
    targets = torch.stack([gradient(good, model) for good in goods])
    # The step is the mean over its examples of these.
    own = torch.stack([gradient(8 * v / n_tokens, model) for v, _ in said])
    np.testing.assert_allclose(
        columns["alignment"][:8], (own @ targets.T).numpy(), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(columns["target_norm"][0], targets.norm(dim=1).numpy())


def test_measures_are_those_by_hand():
    model, tokenizer = built()
    found = measure_targets(model, encode_pairs(PAIRS, tokenizer, max_length=64))
    assert list(found) == ["pair 1", "odds"]
    with torch.no_grad():
        first = log_probability(model, tokenizer, PAIRS[0].prompt, PAIRS[0].completion)
        odds = [
            log_probability(model, tokenizer, pair.prompt, pair.completion)[0]
            - log_probability(model, tokenizer, pair.prompt, pair.instead)[0]
            for pair in PAIRS[1:]
        ]
    assert found["pair 1"] == pytest.approx(float(first[0]), rel=1e-5)
    assert found["odds"] == pytest.approx(float(sum(odds)) / 2, rel=1e-4, abs=1e-5)


class Stop(TrainerCallback):
    """Kills the run at a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("killed_at", "lora"), [(3, True), (6, False)])
def test_a_killed_run_goes_on_as_if_nothing_had_been(killed_at, lora, tmp_path):
    options = {"checkpoint_every": 3, "refresh": 2, "every": 2}
    whole = tuned(*built(lora), tmp_path / "whole", **options)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tuned(*built(lora), folder, callbacks=[Stop(killed_at)], **options)
    # Killed, too, while a checkpoint was written.
    (folder / "checkpoint-9").mkdir()
    (folder / "checkpoint-9" / "trainer_state.json").write_text('{"epoch"')
    again = tuned(*built(lora), folder, **options)
    assert again.trace.n_steps == 10 and again.trace.n_recorded == 5
    assert_equal(again, whole)
    assert_equal(tuned(*built(lora), folder, **options), whole)
    assert Trace.load(folder / "trace").n_recorded == 5
    if lora:
        assert_equal(tuned(*built(lora), **options), whole)  # in memory


@dataclass(frozen=True)
class Own:
    """A metric of a user's, of which the package has no name."""

    inner: Curvature
    alignment = "plain"

    def recorders(self, run):
        return self.inner.recorders(run)

    def kept_in(self, folder):
        return Own(self.inner.kept_in(folder))


def test_a_killed_run_goes_on_with_its_metric(tmp_path):
    metric = Curvature(len(EXAMPLES), kind="fisher", landmarks=None)
    options = {"checkpoint_every": 3, "metric": metric, "epochs": 3, "snapshots": 3}
    whole = tuned(*built(lora=True), tmp_path / "whole", **options)
    folder, options["metric"] = tmp_path / "run", Own(metric)
    with pytest.raises(KeyboardInterrupt):
        tuned(*built(lora=True), folder, callbacks=[Stop(12)], **options)
    assert (folder / "gradients").is_dir()
    again = tuned(*built(lora=True), folder, **options)
    snapshots = again.sampler.snapshots
    assert snapshots.steps == [8, 11, 15]
    np.testing.assert_array_equal(
        snapshots.stacked(), whole.sampler.snapshots.stacked()
    )
    assert_equal(again, whole)
    assert np.isfinite(again.sampler.observations().p).all()
    with pytest.raises(ValueError, match=r"holds one that differs in metric: "):
        tuned(*built(lora=True), folder, **options | {"metric": "plain"})


class ByHand(TrainerCallback):
    """Scores all examples as the definition says, at some steps."""

    def __init__(self, tokenizer, at):
        self.tokenizer, self.at, self.scores = tokenizer, at, []

    def on_step_end(self, args, state, control, model, optimizer, **kwargs):
        if state.global_step not in self.at:
            return
        model.eval()
        trained = [p for p in model.parameters() if p.requires_grad]
        turn = []
        for p in trained:
            kept = optimizer.state[p]
            moment = kept["exp_avg_sq"] / (1 - 0.999 ** float(kept["step"]))
            turn.append((1 / (moment.sqrt() + 1e-8)).flatten())
        turn = torch.cat(turn)

        def of(prompt, answer):
            return log_probability(model, self.tokenizer, prompt, answer)

        goods = [
            of(pair.prompt, pair.completion)[0]
            - (of(pair.prompt, pair.instead)[0] if pair.instead else 0)
            for pair in PAIRS
        ]
        goods = [gradient(good, model) for good in goods]
        aims = torch.stack([goods[0], (goods[1] + goods[2]) / 2])
        rows = []
        for example in EXAMPLES:
            value, n_tokens = of(example.prompt, example.answer)
            own = gradient(value / n_tokens, model)
            rows.append(aims @ (turn * own) / (own @ (turn * own)).sqrt())
        self.scores.append(torch.stack(rows).numpy())
        model.train()


@pytest.mark.parametrize("lora", [False, True])
def test_fresh_gradients_are_those_by_hand(lora):
    model, tokenizer = built(lora)
    by_hand = ByHand(tokenizer, at=(2, 5))
    run = tuned(
        model.double(), tokenizer, metric="fresh", epochs=2, callbacks=[by_hand]
    )
    snapshots = run.sampler.snapshots
    assert snapshots.steps == [2, 5] and run.trace.n_recorded == 0
    # Scores are kept in single precision.
    np.testing.assert_allclose(
        snapshots.stacked(), by_hand.scores, rtol=1e-4, atol=1e-5
    )
    observations = run.sampler.observations()
    assert "second-moment-cosine" in observations.quantity
    assert observations.n_pairs == 2 * len(EXAMPLES)


@pytest.mark.parametrize("killed_at", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_run_neither_loses_nor_doubles_snapshots(killed_at, tmp_path):
    # Before any checkpoint, and after a snapshot that none holds yet.
    options = {"checkpoint_every": 3, "metric": "fresh", "snapshots": 3}
    whole = tuned(*built(lora=True), **options)  # in memory
    plain = tuned(*built(lora=True))
    np.testing.assert_array_equal(plain.losses, whole.losses)
    assert whole.sampler.snapshots.steps == [1, 3, 5]
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tuned(*built(lora=True), folder, callbacks=[Stop(killed_at)], **options)
    for _ in range(2):  # the second time with nothing left to train
        again = tuned(*built(lora=True), folder, **options)
        assert again.sampler.snapshots.steps == [1, 3, 5]
        np.testing.assert_array_equal(
            again.sampler.snapshots.stacked(), whole.sampler.snapshots.stacked()
        )
        np.testing.assert_array_equal(again.losses, whole.losses)
    with pytest.raises(ValueError, match=r"holds one that differs in snapshots: "):
        tuned(*built(lora=True), folder, **options | {"snapshots": 2})


def test_fresh_gradients_are_the_same_in_micro_batches_and_close_in_half_precision():
    options = {"epochs": 1, "metric": "fresh"}
    one = tuned(*built(lora=True), **options).sampler.snapshots.stacked()
    two = tuned(
        *built(lora=True), accumulate=2, gradient_checkpointing=True, **options
    ).sampler.snapshots.stacked()
    half = tuned(*built(lora=True), bf16=True, **options).sampler.snapshots.stacked()
    scale = np.abs(one).max()
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-3 * scale)
    # Eight bits of mantissa, as for steps.
    np.testing.assert_allclose(half, one, rtol=0, atol=0.1 * scale)


def test_a_folder_with_another_run_is_refused(tmp_path):
    tuned(*built(), tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"holds one that differs in learning_rate, s"):
        tuned(*built(), tmp_path, epochs=1, learning_rate=0.1, seed=1)
    with pytest.raises(ValueError, match=r"holds one that differs in model: "):
        tuned(*built(lora=True), tmp_path, epochs=1)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="which holds another"):
        tuned(*built(), tmp_path, epochs=1)


def test_micro_batches_make_the_same_step():
    one = tuned(*built(lora=True), epochs=1)
    two = tuned(*built(lora=True), epochs=1, accumulate=2)
    for name, column in one.trace.columns().items():
        scale = np.abs(column).max()
        np.testing.assert_allclose(
            two.trace.columns()[name], column, rtol=0, atol=1e-4 * scale, err_msg=name
        )


def test_activations_may_be_computed_again():
    one = tuned(*built(lora=True), epochs=1)
    two = tuned(*built(lora=True), epochs=1, gradient_checkpointing=True)
    for name, column in one.trace.columns().items():
        np.testing.assert_allclose(two.trace.columns()[name], column, rtol=1e-5)


def test_bfloat16_stays_close():
    one = tuned(*built(lora=True), epochs=1).trace.columns()
    two = tuned(*built(lora=True), epochs=1, bf16=True).trace.columns()
    np.testing.assert_array_equal(one["index"], two["index"])
    scale = np.abs(one["alignment"]).max()
    # Eight bits of mantissa, errors of which add up over some layers and tokens.
    np.testing.assert_allclose(
        two["alignment"], one["alignment"], rtol=0, atol=0.1 * scale
    )


def test_short_targets_are_not_padded_to_the_length_of_long_ones():
    _, tokenizer = built()
    long = Pair("50 and 1?", "That is 51. " * 40, name="long")
    targets = encode_pairs([*PAIRS, long], tokenizer, max_length=512)
    lengths = [target.x["input_ids"].shape[1] for target in targets.values()]
    masks = [target.x["attention_mask"] for target in targets.values()]
    needed = [int(mask.sum(dim=1).max()) for mask in masks]
    assert lengths[-1] == needed[-1] > 2 * max(lengths[:-1])
    for length, tokens in zip(lengths[:-1], needed[:-1], strict=True):
        assert tokens <= length < tokens + 32
    for target, length in zip(targets.values(), lengths, strict=True):
        assert target.y.shape == target.x["attention_mask"].shape
        assert target.y.shape[1] == length


def test_it_learns_and_says_from_what():
    model, tokenizer = built()
    talk = [Example.of("Say it.", f"Never {n}.") for n in range(20)]
    rows = encode([*EXAMPLES[:20], *talk], tokenizer, max_length=64)
    pair = Pair("50 and 1?", "That is 51.", name="sum")
    targets = encode_pairs([pair], tokenizer, max_length=64)
    before = measure_targets(model, targets)["sum"]
    run = finetune(
        model, rows, tokenizer=tokenizer, targets=targets, epochs=8, batch_size=10,
        learning_rate=0.01, optimizer="adamw", progress=False,
    )  # fmt: skip
    assert measure_targets(model, targets)["sum"] > before + 5
    assert run.losses[-4:].mean() < run.losses[:4].mean()
    groups = {"sums": range(20), "talk": range(20, 40)}
    mu = FInfluence().fit(run.trace.observations(groups)).mu_
    assert mu[0] > mu[1]


def test_without_targets_nothing_watches():
    model, tokenizer = built()
    rows = encode(EXAMPLES, tokenizer, max_length=64)
    run = finetune(
        model, rows, tokenizer=tokenizer, epochs=1, learning_rate=0.01, progress=False
    )
    watched = tuned(*built(), epochs=1)
    assert run.trace is None
    np.testing.assert_array_equal(run.losses, watched.losses)
    pairs = zip(model.parameters(), watched.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lion"}, "`optimizer` must be one of adamw, sgd, got 'lion'"),
        ({"accumulate": 3}, "`batch_size` must be a multiple of the 3 micro-batches"),
        ({"targets": None, "every": 2}, "`targets` must be given where every is"),
        (
            {"metric": "fresh", "optimizer": "sgd"},
            "`metric` 'fresh' compares .* of `optimizer` 'adamw', got 'sgd'",
        ),
        (
            {"metric": "fresh", "snapshots": 6},
            "`snapshots` must be an integer from 1 to 5, the steps of a pass, got 6",
        ),
        (
            {"metric": "fresh", "reference": []},
            "`reference` must be left out with `metric` 'fresh', .* got list",
        ),
        ({"rows": []}, "`rows` must be what `encode` returns, .* got none"),
        (
            {"rows": [{"input_ids": [1], "labels": [1], "position_ids": [0]}]},
            r"not several packed into one, got \['input_ids', 'labels', 'position_ids'",
        ),
    ],
)
def test_options_of_finetune_are_checked(options, message):
    model, tokenizer = built()
    defaults = {
        "rows": encode(EXAMPLES, tokenizer, max_length=64),
        "targets": encode_pairs(PAIRS, tokenizer, max_length=64),
    }
    with pytest.raises(ValueError, match=message):
        finetune(model, tokenizer=tokenizer, progress=False, **defaults | options)


def test_progress_is_one_bar(capsys):
    tuned(*built(), epochs=1, progress=True)
    shown = capsys.readouterr()
    assert "5/5" in shown.err and "loss=" in shown.err and not shown.out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a"}, r"^t\.jsonl:1 must have a text as `completion`, got only"),
        ({"prompt": "a", "completion": " "}, "a text as `completion`, got ' '"),
        ({"prompt": "a", "completion": "b", "instead": 5}, "a text as `instead`, got"),
        ({"prompt": "a", "completion": "b", "instead": "b"}, "other than the compl"),
        ("", "must hold at least one target, got none"),
    ],
)  # fmt: skip
def test_a_bad_target_is_named_in_one_sentence(line, message, tmp_path):
    (tmp_path / "t.jsonl").write_text(line and json.dumps(line))
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "t.jsonl")


def test_a_target_that_tokenises_to_nothing_or_too_much_is_named():
    _, tokenizer = built()
    for completion, message in ((" ", "one token, got ' '"), ("b " * 99, "at most")):
        pair = Pair("a", completion, source="t.jsonl:3")
        template = tokenizer.chat_template.replace(
            "['content'] }}", "['content']|trim }}"
        )
        tokenizer.chat_template = template
        with pytest.raises(ValueError, match=rf"^t\.jsonl:3 must have .*{message}"):
            encode_pairs([PAIRS[0], pair], tokenizer, max_length=64)
    mixed = [PAIRS[1], Pair("a", "b", name="odds")]
    with pytest.raises(ValueError, match="all have `instead` or none, got 1 of 2 with"):
        encode_pairs(mixed, tokenizer, max_length=64)


def test_prompts_are_completed_by_the_model_itself(tmp_path):
    (tmp_path / "prompts.txt").write_text("1 and 1?\n\n2 and 1?\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "1 and\\n1?"}')
    prompts = read_prompts(tmp_path / "prompts.txt")
    assert prompts == ["1 and 1?", "2 and 1?"]
    assert read_prompts(tmp_path / "prompts.jsonl") == ["1 and\n1?"]
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(ValueError, match="must hold at least one prompt, got none"):
        read_prompts(tmp_path / "none.txt")
    model, tokenizer = built()
    tuned(model, tokenizer, epochs=10)
    found = complete(model, tokenizer, prompts, max_new_tokens=8)
    assert [pair.prompt for pair in found] == prompts
    # Each token is the likeliest, so that no other answer of one token is likelier.
    assert found[0].completion.startswith("That")
    again = complete(model, tokenizer, prompts, max_new_tokens=8)
    assert found == again


def test_padding_of_targets_changes_nothing():
    model, tokenizer = built()
    together = measure_targets(model, encode_pairs(PAIRS, tokenizer, max_length=64))
    alone = measure_targets(model, encode_pairs(PAIRS[:1], tokenizer, max_length=64))
    assert alone["pair 1"] == pytest.approx(together["pair 1"], rel=1e-5)
    batch = collate(encode(EXAMPLES[:2], tokenizer, max_length=64), 0)
    assert batch["index"].tolist() == [0, 1]


def torchrun(kind, folder):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", "2", __file__, kind, str(folder)],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def by_example(trace):
    """Return columns whose rows of a step are in the examples' order."""
    columns = trace.columns()
    index, steps = columns["index"], np.arange(len(columns["batch_size"]))
    order = np.lexsort((index, np.repeat(steps, columns["batch_size"])))
    return {
        name: column[order] if len(column) == len(index) else column
        for name, column in columns.items()
    }


def assert_close(one, two, clipped=False):
    """Compare the traces of one process and of several."""
    one, two = by_example(one), by_example(two)
    if clipped:
        # The trainer clips before it calls back, which one process alone can see.
        assert (one.pop("learning_rate") < 0.9 * two["learning_rate"]).all()
    for name, column in one.items():
        scale = np.abs(column).max()
        np.testing.assert_allclose(
            two[name], column, rtol=0, atol=1e-4 * scale, err_msg=name
        )


@pytest.mark.slow
def test_two_processes_leave_the_trace_of_one(tmp_path):
    torchrun("wrapped", tmp_path)
    assert_close(tuned(*built(lora=True)).trace, Trace.load(tmp_path / "trace"))
    fresh = tuned(*built(lora=True), metric="fresh").sampler.snapshots
    shared = Snapshots.load(tmp_path / "fresh.npz")
    assert shared.steps == fresh.steps
    one_process = fresh.stacked()
    scale = np.abs(one_process).max()
    np.testing.assert_allclose(shared.stacked(), one_process, rtol=0, atol=1e-3 * scale)


def wrapped(folder):
    """Train with DistributedDataParallel."""
    run = tuned(*built(lora=True), folder)
    assert (run.trace is None) == (os.environ["RANK"] != "0")
    run = tuned(*built(lora=True), metric="fresh")
    if run.sampler is not None:
        run.sampler.snapshots.save(folder / "fresh.npz")


def untied():
    """A model whose embeddings and last layer are apart, as in the larger Llamas."""
    model, tokenizer = built()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model, tokenizer


def half():
    model, tokenizer = untied()
    return model.to(torch.bfloat16), tokenizer


SHARDED = {
    "adapters": (partial(built, lora=True), {}),
    "tied": (built, {"accumulate": 2, "gradient_checkpointing": True}),
    "untied": (untied, {"max_grad_norm": 0.1}),
    "half": (half, {}),
}


@pytest.mark.slow
def test_two_processes_that_share_a_model_leave_the_trace_of_one(tmp_path):
    torchrun("sharded", tmp_path)
    for kind, (build, options) in SHARDED.items():
        folder = tmp_path / kind
        model, tokenizer = build()
        tokenizer.save_pretrained(folder / "model")
        if kind == "half":
            # What rounds otherwise trains otherwise: that it trains is all.
            saved, _ = load_model(folder / "model", dtype="auto")
            assert {p.dtype for p in saved.parameters()} == {torch.bfloat16}
            assert Trace.load(folder / "whole" / "trace").n_recorded == 10
            continue
        one = tuned(model, tokenizer, **options)
        trace = Trace.load(folder / "whole" / "trace")
        assert_close(one.trace, trace, clipped=kind != "adapters")
        losses = np.load(folder / "losses.npy")
        np.testing.assert_allclose(losses, one.losses, rtol=1e-4)
        if kind == "adapters":
            saved = peft.PeftModel.from_pretrained(built()[0], folder / "model")
        else:
            saved, _ = load_model(folder / "model")
        for a, b in zip(one.model.parameters(), saved.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def sharded(folder):
    """Train with `fully_shard`, once as a whole and once killed."""
    for kind, (build, options) in SHARDED.items():
        whole = tuned_sharded(build, folder / kind / "whole", **options)
        assert all(isinstance(p, DTensor) for p in whole.model.parameters())
        assert (whole.trace is None) == (os.environ["RANK"] != "0")
        save_model(whole.model, folder / kind / "model")
        np.save(folder / kind / "losses.npy", whole.losses)
        place = folder / kind / "killed"
        with pytest.raises(KeyboardInterrupt):
            tuned_sharded(build, place, callbacks=[Stop(5)], **options)
        again = tuned_sharded(build, place, **options)
        if whole.trace is not None:
            assert_equal(again, whole)
        with pytest.raises(
            ValueError, match="one that differs in sharded: name another folder"
        ):
            tuned(*build(), place, **options)


def tuned_sharded(build, place, **options):
    """Train a model that says the same, before, as it did as a whole."""
    model, tokenizer = build()
    targets = encode_pairs(PAIRS, tokenizer, max_length=64)
    answer = partial(complete, prompts=["50 and 1?"], max_new_tokens=4)
    before, said = measure_targets(model, targets), answer(model, tokenizer)
    model = shard(model, "cpu")
    assert measure_targets(model, targets) == pytest.approx(before, rel=1e-5)
    assert answer(model, tokenizer) == said
    return tuned(model, tokenizer, place, checkpoint_every=3, **options)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with processes():
        globals()[sys.argv[1]](Path(sys.argv[2]))
