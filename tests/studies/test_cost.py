"""Estimates of cost, against hand-counted formulas and what real runs compute and hold.

On the meta device and on the CPU the same code is run, of which one counts on shapes.
"""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("transformers")
pytest.importorskip("peft")

import llama_cost as study
import transformers
from cost import main
from cost_model import (
    A100,
    H100,
    Accelerator,
    Meter,
    Operation,
    Run,
    Step,
    build_model,
    estimate,
    measure,
    model_config,
)
from cost_model.steps import _compared, batch_of, loss_of_each

from fstat_torch import Curvature, SingleRunSampler, Target, Targets
from fstat_torch.curvature import FormedCode, GradientStore, LandmarkRidge, exact_code

B, T, R = 3, 24, 4
SMALL = dict(
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=300,
    tie_word_embeddings=False,
)
EAGER = Step(
    batch_size=B,
    length=T,
    rank=R,
    dtype=torch.float32,
    attention="eager",
    targets=2,
    target_length=10,
    itself=True,
)
PLAIN = replace(EAGER, sampled=False)
FULL = replace(PLAIN, rank=None)


@pytest.fixture(scope="module")
def config():
    return transformers.LlamaConfig(**SMALL)


@pytest.fixture(scope="module")
def llama_8b():
    return model_config("llama-3.1-8b")


def products(config, tokens, length):
    """Operations of one pass forward: layers' products, attention, the head's."""
    d, m = config.hidden_size, config.intermediate_size
    heads, size = config.num_attention_heads, config.head_dim
    small = config.num_key_value_heads * size
    layer = 2 * tokens * (d * (2 * heads * size + 2 * small) + 3 * d * m)
    attention = 2 * 2 * tokens * length * heads * size
    return layer, attention, 2 * tokens * d * config.vocab_size


def adapters(config, tokens, rank):
    """Operations of the adapters of q and v in a layer, forward."""
    d, size = config.hidden_size, config.head_dim
    wide, small = config.num_attention_heads * size, config.num_key_value_heads * size
    return 2 * tokens * rank * (2 * d + wide + small)


def test_forward_of_8b_is_what_its_shapes_say(llama_8b):
    length = 2048
    step = Step(batch_size=2, length=length, sampled=False)
    measured = measure(llama_8b, step)
    layer, attention, head = products(llama_8b, 2 * length, length)
    layers = 32 * (layer + attention + adapters(llama_8b, 2 * length, 8))
    assert measured.phases["forward"].flops == layers + head
    assert measured.weights - measured.trained == 8_030_261_248  # as published
    assert measured.trained == 32 * 8 * (2 * 4096 + 4096 + 1024)
    assert measured.weight_bytes == 2 * 8_030_261_248 + 4 * measured.trained


def test_full_training_costs_three_forward_passes(config):
    phases = measure(config, FULL).phases
    assert phases["backward"].flops == 2 * phases["forward"].flops


def test_backward_of_adapters_leaves_out_what_is_frozen(config):
    phases = measure(config, PLAIN).phases
    layer, attention, head = products(config, B * T, T)
    own = adapters(config, B * T, R)
    d = config.hidden_size
    small = config.num_key_value_heads * config.head_dim
    # The first layer's input needs no gradient, nor do its keys, which no adapter made.
    unneeded = 2 * B * T * d * (d + 2 * small + 2 * R) + attention / 2
    backward = 3 * (layer + 2 * attention + 2 * own) + head - unneeded
    assert phases["backward"].flops == backward


@pytest.mark.parametrize("step", [PLAIN, FULL], ids=["adapters", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_of_a_real_step(config, step, checkpointing):
    step = replace(step, checkpointing=checkpointing)
    model = build_model(config, step, device="cpu")
    batch = batch_of(config, B, T, "cpu")
    labels = batch.pop("labels")
    with FlopCounterMode(display=False) as counter:
        loss_of_each(model(**batch), labels).mean().backward()
    phases = measure(config, step).phases
    counted = phases["forward"].flops + phases["backward"].flops
    assert counted == counter.get_total_flops()


@pytest.mark.parametrize(
    "step",
    [
        EAGER,
        replace(EAGER, lasting=True),
        replace(EAGER, lasting=True, targets=0),
        replace(EAGER, itself=False, kept=True, targets=0),
        replace(EAGER, rank=None, modules=("q_proj", "down_proj")),
        replace(EAGER, checkpointing=True, lasting=True),
    ],
    ids=["all", "let go", "itself", "kept", "full", "checkpoints"],
)
def test_a_sampled_step_computes_and_holds_what_the_sampler_does(config, step):
    model = build_model(config, step, device="cpu")
    batch, points = batch_of(config, B, T, "cpu"), batch_of(config, 2, 10, "cpu")
    labels, aims = batch.pop("labels"), points.pop("labels")
    del points["use_cache"]
    asked = {
        str(k): Target({n: x[k : k + 1] for n, x in points.items()}, aims[k : k + 1])
        for k in range(step.targets)
    }
    asked |= {"self": "self"} if step.itself or not step.targets else {}
    sampler = SingleRunSampler(
        model,
        # Those that outlast a step are taken anew at every other one.
        targets=Targets(asked, refresh=2 if step.lasting else 1),
        loss=loss_of_each,
        metric=Curvature(3 * B, kind="fisher") if step.kept else "plain",
        parameters=_compared(model, step),
    )
    given = [batch["input_ids"], batch["attention_mask"], labels]
    meter = Meter([*model.parameters(), *model.buffers(), *given])
    for number in range(3):  # the first step is checked as well
        model.zero_grad()
        with ExitStack() as counted:
            if number == 2:
                counted.enter_context(meter)
                counted.enter_context(meter.phase("step"))
            with sampler.step(range(number * B, (number + 1) * B)) as told:
                told.learning_rate = 0.1
                loss_of_each(model(**batch), labels).mean().backward()
    found, measured = meter.phases["step"], measure(config, step)
    phases = [p for name, p in measured.phases.items() if name != "update"]
    assert found.flops == sum(phase.flops for phase in phases)
    # What the sampler asks of numbers, such as whether they are finite, is left out.
    assert found.bytes == pytest.approx(sum(p.bytes for p in phases), rel=5e-3)
    held = max(p.peak for p in phases) - measured.state_bytes
    assert found.peak == pytest.approx(held, rel=1e-2)


@pytest.mark.parametrize("step", [PLAIN, FULL], ids=["adapters", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_held_after_a_forward_pass_is_what_autograd_saves(config, step, checkpointing):
    step = replace(step, checkpointing=checkpointing)
    held = {}
    for device in ("meta", "cpu"):
        model = build_model(config, step, device)
        batch = batch_of(config, B, T, device)
        labels = batch.pop("labels")
        known = [*model.parameters(), *model.buffers(), *batch.values(), labels]
        known = [x for x in known if isinstance(x, torch.Tensor)]
        meter, saved = Meter(known), {}
        before = meter.held
        ours = {x.untyped_storage()._cdata for x in known}

        def keep(x, ours=ours, saved=saved):
            storage = x.untyped_storage()
            if storage._cdata not in ours:
                saved[storage._cdata] = storage.nbytes()
            return x

        with saved_tensors_hooks(keep, lambda x: x), meter:
            loss = loss_of_each(model(**batch), labels).mean()
        held[device] = meter.held - before
        if not checkpointing:  # whose own hooks would be in the way
            rest = held[device] - sum(saved.values())
            assert loss.nbytes <= rest <= 0.02 * held[device]
    assert held["meta"] == held["cpu"]


@pytest.mark.parametrize("step", [PLAIN, FULL, EAGER], ids=["adapters", "full", "all"])
def test_peak_is_what_a_real_step_allocates(config, step):
    from torch.profiler import ProfilerActivity, profile

    model = build_model(config, step, device="cpu")
    batch = batch_of(config, B, T, "cpu")
    labels = batch.pop("labels")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss_of_each(model(**batch), labels).mean().backward()
    events = profiler.profiler.kineto_results.events()
    sizes = [e.nbytes() for e in events if e.name() == "[memory]"]
    held = allocated = 0
    for size in sizes:
        held += size
        allocated = max(allocated, held)
    plain = measure(config, replace(step, sampled=False))
    resident = plain.weight_bytes + plain.state_bytes
    peak = max(plain.phases[name].peak for name in ("forward", "backward"))
    # An allocator rounds sizes up, and kernels take some for themselves.
    assert peak - resident == pytest.approx(allocated, rel=0.05)


def test_gradients_kept_of_an_example_are_those_of_the_adapters(config):
    step = replace(EAGER, dtype=torch.bfloat16, kept=True)
    cost = estimate(config, step, Run(examples=100_000))
    assert cost.kept == 100_000 * 4 * cost.plain.trained
    assert cost.memory() > cost.memory(sampled=False) + cost.kept
    steps_of_epoch = cost.n_steps / cost.run.epochs
    assert cost._times("gradients of targets") == 1 / steps_of_epoch


def test_gradients_that_wait_for_their_update_are_counted(config):
    model = build_model(config, EAGER, device="cpu")
    batch = batch_of(config, B, T, "cpu")
    labels = batch.pop("labels")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    sampler = SingleRunSampler(
        model,
        loss=loss_of_each,
        metric=Curvature(n_examples=3 * B, kind="fisher"),
        optimizer=optimizer,
    )
    for k in range(3):
        index = range(k * B, (k + 1) * B)
        with sampler.step(index, accumulate=k < 2):
            loss_of_each(model(**batch), labels).mean().backward()
            waiting = [rows for _, rows, *_ in sampler._recorders[0]._pending]
    bytes_ = sum(x.nbytes for rows in waiting for parts in rows.values() for x in parts)
    step = replace(EAGER, kept=True)
    cost = estimate(config, step, Run(examples=3 * B, accumulate=3))
    assert cost.waiting == bytes_ > 0
    alone = estimate(config, step, Run(examples=3 * B))
    assert alone.waiting == 0
    assert cost.memory() - alone.memory() == pytest.approx(1.1 * bytes_)


@pytest.mark.parametrize("n_targets", [1, 5])
def test_operations_of_a_snapshot_are_those_of_the_metric(config, n_targets):
    n, m = 30, 7
    step = replace(EAGER, itself=False, kept=True, targets=n_targets)
    cost = estimate(config, step, Run(examples=n, landmarks=m))
    size = cost.plain.trained
    gradients = torch.randn(n, size, generator=torch.manual_seed(0))
    store = GradientStore(n, exact_code)
    store._codes, store._kept = {"all": FormedCode()}, {"all": (gradients,)}
    aims = {"all": (gradients[:n_targets],)}
    with FlopCounterMode(display=False) as counter:
        index = torch.arange(n)
        ridge = LandmarkRidge(store, index, torch.ones(n), 1.0, index[:m])
        ridge.targets(aims)
    # Triangular systems and products in place are not counted by torch.
    solving = n * (m * m + n * n / 3 + 2 * n * m + 4 * n * n_targets)
    in_place = 2 * n * m * m + 2 * n * n * m
    assert cost.snapshot_flops - solving - in_place == counter.get_total_flops()


def test_an_operation_takes_as_long_as_its_slower_part_and_its_launch():
    gpu = Accelerator("one", 100.0, 10.0, 50.0, 1e3, 1.0, 0.5, 0.5, launch=0.25)
    for operation, seconds in (
        (Operation(100, 10, wide=False), 2.0),
        (Operation(100, 10, wide=True), 20.0),
        (Operation(100, 100, wide=False), 4.0),
        (Operation(0, 1, wide=False), 0.25),
    ):
        assert gpu.seconds({operation: 3}) == 3 * seconds


def test_what_a_phase_moves_and_holds_is_counted_by_hand():
    x, table = torch.empty(4, 5, device="meta"), torch.empty(100, 5, device="meta")
    index = torch.zeros(6, dtype=torch.long, device="meta")
    with Meter([x, table]) as meter:
        with meter.phase("view"):
            y = x.T
        with meter.phase("product"):
            z = x @ y
        with meter.phase("lookup"):
            rows = nn.functional.embedding(index, table)
        del z
        with meter.phase("after"):
            rows = rows.add_(1)
    phases = meter.phases
    assert not phases["view"].operations
    assert (phases["product"].flops, phases["product"].bytes) == (160, 80 + 80 + 64)
    assert phases["lookup"].bytes == 48 + 2 * 120  # not all of the table
    assert phases["lookup"].peak == 80 + 2000 + 64 + 120
    assert meter.held == phases["after"].peak == 80 + 2000 + 120
    assert phases["after"].bytes == 240


@pytest.fixture(scope="module")
def cost_8b(llama_8b):
    step = Step(batch_size=4, length=1024, targets=8, target_length=128)
    return estimate(llama_8b, step, Run(refresh=4))


@pytest.mark.slow
def test_8b_with_adapters_fits_one_gpu_and_less_is_kept_with_checkpoints(
    llama_8b, cost_8b
):
    fewer = estimate(llama_8b, replace(cost_8b.step, checkpointing=True), cost_8b.run)
    assert fewer.fits
    assert 16e9 < fewer.memory(sampled=False) < 0.7 * cost_8b.memory(sampled=False)
    assert fewer.seconds_per_step() > cost_8b.seconds_per_step()
    backward = [c.plain.phases["backward"].flops for c in (cost_8b, fewer)]
    forward = cost_8b.plain.phases["forward"].flops
    *_, head = products(llama_8b, 4 * 1024, 1024)
    # The last product of each layer is not needed again.
    last = 32 * 2 * 4 * 1024 * 4096 * 14336
    # Input of the first layer, which carries a gradient where layers are checkpointed.
    first = 2 * 4 * 1024 * 4096 * (4096 + 2 * 1024 + 2 * 8)
    again = forward - head - last + first
    assert backward[1] - backward[0] == pytest.approx(again, rel=1e-6)


def test_seconds_of_a_step_are_those_of_its_phases(cost_8b):
    table = cost_8b.to_frame()
    assert table["seconds"].sum() == pytest.approx(cost_8b.seconds_per_step())
    each = replace(cost_8b, run=replace(cost_8b.run, refresh=1)).to_frame()
    seldom = "gradients of targets"
    assert each["seconds"][seldom] == pytest.approx(4 * table["seconds"][seldom])
    assert cost_8b.overhead > 1
    assert cost_8b.hours() * 3600 == pytest.approx(
        cost_8b.n_steps * cost_8b.seconds_per_step()
    )


def test_other_accelerators_and_several_of_them(cost_8b):
    slower = replace(cost_8b, run=replace(cost_8b.run, accelerator=A100))
    ratio = slower.seconds_per_step() / cost_8b.seconds_per_step()
    assert H100.bandwidth / A100.bandwidth < ratio < H100.flops_wide / A100.flops_wide
    eight = replace(cost_8b, run=replace(cost_8b.run, devices=8))
    assert eight.n_steps == 3 * 33
    assert eight.memory() == cost_8b.memory()
    assert cost_8b.seconds_per_step() < eight.seconds_per_step()
    shards = replace(cost_8b, run=replace(cost_8b.run, devices=8, sharded=True))
    assert shards.seconds_per_step() > eight.seconds_per_step()
    saved = eight.memory() - shards.memory()
    assert 0.7 * 16e9 < saved < 1.1 * 16.1e9


def test_an_estimate_prints_what_matters(cost_8b):
    text = repr(cost_8b)
    assert "774 steps" in text
    assert "of 80 GB" in text
    assert "inner products with targets" in text
    assert "DOES NOT FIT" not in text
    small = replace(H100, memory=16e9)
    assert "DOES NOT FIT" in repr(
        replace(cost_8b, run=replace(cost_8b.run, accelerator=small))
    )


def test_the_command_reads_a_configuration_and_prints(config, tmp_path, capsys):
    config.save_pretrained(tmp_path)
    main(["--model-config", str(tmp_path), "--landmarks", "5", "--itself"])
    said = capsys.readouterr().out
    assert "Estimate on H100 SXM 80 GB" in said
    assert "keeping gradients" in said
    assert "not measurements" in said


def test_wrong_input_gets_one_sentence(config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`model_config` must be .*'nowhere'"):
        model_config("nowhere")
    transformers.GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must be that of a Llama, got one of 'gpt2'"):
        model_config(tmp_path)
    with pytest.raises(ValueError, match=r"`devices` must be 1 where gradients"):
        estimate(config, Step(kept=True), Run(devices=2))
    with pytest.raises(ValueError, match=r"`refresh` must be at least 1, got 0"):
        estimate(config, run=Run(refresh=0))


@pytest.mark.slow
def test_a_step_of_twice_the_tokens_takes_as_much_longer_as_is_predicted():
    cpu = study.this_processor()
    said, took = [], []
    for name in ("384 wide, 6 layers, adapters", "the same, 128 tokens"):
        config, step = study.SIZES[name]
        phases = measure(config, step).phases
        phases.pop("update")
        said.append(sum(cpu.seconds(phase.operations) for phase in phases.values()))
        took.append(study.clocked(config, step))
    # Ratios of processor times on a shared machine repeat to about 15 %.
    assert said[1] / said[0] == pytest.approx(took[1] / took[0], rel=0.15)
