"""A step of training and of sampling, run for its cost alone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fstat_torch.curvature import exact_code
from fstat_torch.gradients import Captured, GradientCapture, Wanted
from fstat_torch.gradients.blocks import Block
from fstat_torch.llama.models import add_lora, require

from .meter import Meter, Phase

_FUSED = "fstat_fused"
_WITH_TARGETS = "inner products with targets"
_OF_BATCH = "inner products of the batch"


@dataclass(frozen=True)
class Step:
    """What a step is made of.

    Parameters
    ----------
    batch_size : int, default=4
        Examples that pass at once.
    length : int, default=512
        Tokens of an example, padding included.
    rank : int or None, default=8
        Rank of the low-rank adapters; None: all parameters are trained.
    modules : sequence of str, default=("q_proj", "v_proj")
        Linear layers that get one; where all parameters are trained, those in whose
        weights gradients are compared.
    checkpointing : bool, default=False
        Whether activations of a layer are computed again in the backward pass.
    dtype : torch.dtype, default=torch.bfloat16
        Of the parameters; adapters are in single precision.
    attention : {"fused", "eager"}, default="fused"
        Whether attention is one operation that keeps no weights, as on GPUs, or
        several.
    sampled : bool, default=True
        Whether the step is watched.
    targets : int, default=0
        Target points.
    target_length : int, optional
        Tokens of a target point; `length` by default.
    itself : bool, default=False
        Whether each example is its own target, too.
    kept : bool, default=False
        Whether the gradient of each example is kept, for a curvature metric, which
        takes inner products at its snapshots only.
    lasting : bool, default=False
        Whether gradients of targets outlast a step, so that they come before it, and
        layers' gradients are let go as they arrive.
    """

    batch_size: int = 4
    length: int = 512
    rank: int | None = 8
    modules: Sequence[str] = ("q_proj", "v_proj")
    checkpointing: bool = False
    dtype: torch.dtype = torch.bfloat16
    attention: str = "fused"
    sampled: bool = True
    targets: int = 0
    target_length: int | None = None
    itself: bool = False
    kept: bool = False
    lasting: bool = False


@dataclass(frozen=True)
class Measured:
    """What one step was found to need.

    Parameters
    ----------
    phases : dict of str to Phase
        ``"forward"``, ``"backward"``, ``"update"`` and, where it is sampled, further
        ones.
    weights, trained : int
        Parameters, all and trained ones.
    weight_bytes, gradient_bytes, state_bytes : int
        What they take, their gradients, and what the optimiser keeps.
    kept_bytes : int
        What is kept of each example's gradient.
    layer_bytes, rest_bytes : int
        Parameters of one decoder layer, and of what is in none.
    """

    phases: dict[str, Phase]
    weights: int
    trained: int
    weight_bytes: int
    gradient_bytes: int
    state_bytes: int
    kept_bytes: int
    layer_bytes: int
    rest_bytes: int


def build_model(config: Any, step: Step, device: str = "meta") -> Any:
    """Build a model to be measured, with random weights if it has any.

    Parameters
    ----------
    config : LlamaConfig
        Its shape.
    step : Step
        What is trained in it.
    device : str, default="meta"
        Where; on ``"meta"`` it has no numbers and takes no memory.

    Returns
    -------
    PreTrainedModel or PeftModel
        In training mode.
    """
    transformers = require("transformers")
    config = copy.deepcopy(config)
    config._attn_implementation = step.attention
    if step.attention == "fused":
        transformers.AttentionInterface.register(_FUSED, _fused_attention)
        config._attn_implementation = _FUSED
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.LlamaForCausalLM(config).to(step.dtype)
        if step.rank is not None:
            model = add_lora(model, step.rank, target_modules=step.modules)
    if step.checkpointing:
        new = getattr(model, "activation_checkpointing_enable", None)
        (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
    return model.train()


def measure(config: Any, step: Step, device: str = "meta") -> Measured:
    """Take a step of training, watched if it is to be, and count what it needs.

    Parameters
    ----------
    config : LlamaConfig
        Shape of the model.
    step : Step
        What to do.
    device : str, default="meta"
        Where; on ``"meta"`` nothing is computed.

    Returns
    -------
    Measured
        Counts of the second step, when the optimiser has its state.
    """
    model = build_model(config, step, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, states = _warmed_up(trained)
    batch = batch_of(config, step.batch_size, step.length, device)
    meter = Meter([*model.parameters(), *model.buffers(), *states])
    capture = GradientCapture(model, _compared(model, step)) if step.sampled else None
    with meter:
        kept = _watched(model, batch, step, meter, capture)
        with meter.phase("update"):
            optimizer.step()
    sizes = {name: p.nbytes for name, p in model.named_parameters()}
    inside = sum(size for name, size in sizes.items() if ".layers." in name)
    return Measured(
        phases=meter.phases,
        weights=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in trained),
        weight_bytes=sum(sizes.values()),
        gradient_bytes=sum(p.nbytes for p in trained),
        state_bytes=sum(x.nbytes for x in states),
        kept_bytes=kept,
        layer_bytes=inside // config.num_hidden_layers,
        rest_bytes=sum(sizes.values()) - inside,
    )


def _warmed_up(trained: list[nn.Parameter]) -> tuple[torch.optim.AdamW, list[Tensor]]:
    """Return an optimiser that has taken a step, and what it keeps."""
    optimizer = torch.optim.AdamW(trained, foreach=False)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    kept = (x for state in optimizer.state.values() for x in state.values())
    return optimizer, [x for x in kept if isinstance(x, Tensor)]


def _compared(model: nn.Module, step: Step) -> list[nn.Parameter] | None:
    if step.rank is not None:
        return None
    ends = tuple(f"{name}.weight" for name in step.modules)
    return [p for name, p in model.named_parameters() if name.endswith(ends)]


def _watched(
    model: nn.Module,
    batch: dict[str, Any],
    step: Step,
    meter: Meter,
    capture: GradientCapture | None,
) -> int:
    """Pass forward and backward, and take inner products; return bytes kept."""
    if capture is None:
        _pass(model, batch, meter)
        return 0
    aims = wanted = None
    if step.lasting and not step.kept:
        aims = _aims(model, step, meter, capture, batch["labels"].device)
        wanted = _Wanted(
            [aims] if aims else [], gram=step.itself, sums=capture.compares
        )
        wanted.meter.append(meter)
    with (
        meter.phase("forming gradients"),
        capture.training(step.batch_size, wanted) as captured,
    ):
        _pass(model, batch, meter)
    with torch.no_grad():
        if wanted is None:
            aims = _aims(model, step, meter, capture, batch["labels"].device)
        if step.kept:
            with meter.phase("keeping gradients"):
                rows = _kept(captured)
            return sum(row.nbytes for row in rows) // step.batch_size
        if aims is not None:
            with meter.phase(_WITH_TARGETS):
                captured.cross(aims)
        if step.itself:
            del aims
            with meter.phase(_OF_BATCH):
                captured.gram()
    return 0


def _aims(
    model: nn.Module, step: Step, meter: Meter, capture: GradientCapture, device: Any
) -> Captured | None:
    """Take the gradients of targets, and their norms."""
    if not step.targets:
        return None
    length = step.target_length or step.length
    points = batch_of(model.config, step.targets, length, device)
    labels = points.pop("labels")
    with torch.no_grad(), meter.phase("gradients of targets"):
        aims = capture.of(loss_of_each, points, labels)
        aims.norms_squared()
    return aims


@dataclass
class _Wanted(Wanted):
    """What is wanted of layers' gradients, counted apart from the backward pass."""

    meter: list[Meter] = field(default_factory=list)

    def take(self, call: Any) -> Block:
        """Form the share of a layer."""
        with self.meter[0].phase(_WITH_TARGETS if self.targets else _OF_BATCH):
            return super().take(call)


def _kept(captured: Captured) -> list[Tensor]:
    """Copy what a curvature metric keeps of the examples, once it is found finite."""
    parts = [
        part
        for name, block in captured.blocks.items()
        for part in exact_code(name, block).encode(block)
    ]
    copies = [part.clone() for part in parts]
    for part in parts:
        part.isfinite()
    return copies


def _pass(model: nn.Module, batch: dict[str, Any], meter: Meter) -> None:
    inputs = {name: x for name, x in batch.items() if name != "labels"}
    with meter.phase("forward"):
        loss = loss_of_each(model(**inputs), batch["labels"]).mean()
    with meter.phase("backward"):
        torch.autograd.backward(loss)


def loss_of_each(output: Any, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of each example over all of its tokens."""
    logits = output.logits[:, :-1].float().transpose(1, 2)
    losses = nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
    return losses.mean(dim=1)


def batch_of(config: Any, size: int, length: int, device: Any) -> dict[str, Any]:
    tokens = torch.zeros(size, length, dtype=torch.long, device=device)
    # As a matrix, since a mask of padding is looked into, which shapes alone are not.
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return {
        "input_ids": tokens,
        "labels": tokens % config.vocab_size,
        "attention_mask": causal.expand(size, 1, length, length),
        "use_cache": False,
    }


def _fused_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as GPUs do: weights are computed again in the backward pass."""
    groups = module.num_key_value_groups
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    attended = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, None, True, 0.0, True, scale=scaling
    )[0]
    return attended.transpose(1, 2).contiguous(), None
