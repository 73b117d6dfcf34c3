"""What is trained on a GPU, or in small on a CPU: models with data and targets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from cost_model import model_config
from torch import Tensor, nn

from fstat_torch import SingleRunSampler, Target, Targets
from fstat_torch.curvature import Curvature
from fstat_torch.llama import add_lora
from fstat_torch.mnist.training import build_model
from fstat_torch.targets.measures import (
    completion_log_likelihood,
    cross_entropy,
    language_loss,
    predicted,
)

METRICS = ("plain", "curvature", "fresh")


@dataclass
class Subject:
    """A model in training on examples that are numbered from 0.

    Parameters
    ----------
    model : nn.Module
        On its device.
    x : Tensor or dict of str to Tensor
        All examples.
    y : Tensor
        Their labels, or tokens that are learnt.
    targets : dict of str to Target
        What influence is asked on.
    each : callable
        Loss of each example.
    adam : bool
        Whether it is trained by AdamW, and not by SGD with momentum.
    batch : int
        Examples of a step.
    refresh : int
        Steps from one gradient of the targets to the next.
    """

    model: nn.Module
    x: Any
    y: Tensor
    targets: dict[str, Target]
    each: Callable[[Any, Tensor], Tensor]
    adam: bool = False
    batch: int = 8
    refresh: int = 1
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = (
            torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
            if self.adam
            else torch.optim.SGD(trained, lr=0.05, momentum=0.9)
        )
        self.model.train()

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.y.device

    @property
    def speaks(self) -> bool:
        """Whether it is a language model."""
        return isinstance(self.x, dict)

    def batches(self, n: int) -> list[Tensor]:
        """Return n batches, the same each time."""
        g = torch.Generator().manual_seed(1)
        return [
            torch.randperm(len(self.y), generator=g)[: self.batch] for _ in range(n)
        ]

    def inputs(self, index: Tensor) -> tuple[Any, Tensor]:
        """Return the examples of a batch."""
        at = index.to(self.device)
        if self.speaks:
            return {name: column[at] for name, column in self.x.items()}, self.y[at]
        return self.x[at], self.y[at]

    def output(self, x: Any) -> Any:
        """Call the model."""
        return self.model(**x) if isinstance(x, dict) else self.model(x)

    def denominator(self, y: Tensor) -> int:
        """Return what the losses of a batch are divided by."""
        return int(predicted(y).sum()) if self.speaks else len(y)

    def loss(self, index: Tensor) -> Tensor:
        """Return the loss of a step."""
        x, y = self.inputs(index)
        return self.each(self.output(x), y).sum() / self.denominator(y)

    def sampler(self, metric: str = "plain", **options: Any) -> SingleRunSampler:
        """Return a sampler in a metric of `METRICS`."""
        options["targets"] = Targets(self.targets, refresh=self.refresh)
        options |= {"optimizer": self.optimizer, "on_error": "raise"}
        if metric == "curvature":
            options["metric"] = Curvature(len(self.y), kind="fisher", trace=True)
        if metric == "fresh":
            options["metric"] = "second-moment-cosine" if self.adam else "cosine"
            options["reference"] = self.examples()
            options["loss"] = language_loss if self.speaks else cross_entropy
        return SingleRunSampler(self.model, **options)

    def examples(self) -> list[tuple[Tensor, Any, Tensor]]:
        """Return all examples, in batches."""
        parts = torch.arange(len(self.y)).split(self.batch)
        return [(index, *self.inputs(index)) for index in parts]

    def step(
        self,
        index: Tensor,
        sampler: SingleRunSampler | None = None,
        *,
        cast: torch.dtype | None = None,
        scaler: Any = None,
        factor: float = 1.0,
    ) -> Tensor:
        """Train on a batch, watched where there is a sampler of steps."""
        kind, watched = self.device.type, nullcontext()
        if sampler is not None and sampler.watches_steps:
            divided = self.denominator(self.inputs(index)[1])
            watched = sampler.step(index, denominator=divided)
        self.optimizer.zero_grad()
        with watched:
            half = torch.autocast(kind, dtype=cast) if cast else nullcontext()
            with half:
                loss = self.loss(index) * factor
            (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        return loss.detach()


def of_image(output: Tensor, y: Tensor) -> Tensor:
    """Return the loss of each image."""
    return nn.functional.cross_entropy(output, y, reduction="none")


def of_text(output: Any, y: Tensor) -> Tensor:
    """Return the loss of each text, over all of its tokens."""
    return -completion_log_likelihood(output, y)


def vision(
    name: str, device: str, *, n: int = 256, batch: int = 64, dtype: Any = torch.float32
) -> Subject:
    """Return the MLP or the CNN of the MNIST path, on noise."""
    torch.manual_seed(0)
    model = build_model(name).to(device, dtype)
    x = torch.randn(n, 1, 28, 28).to(device, dtype)
    y = torch.randint(10, (n,)).to(device)
    targets = {f"digit {k}": Target(x[k : k + 1], y[k : k + 1]) for k in range(2)}
    return Subject(model, x, y, targets, of_image, batch=batch)


def language(
    shape: str | dict[str, int],
    device: str,
    *,
    n: int,
    batch: int,
    length: int,
    dtype: Any = torch.float32,
    points: int = 2,
    point_length: int | None = None,
    refresh: int = 1,
    checkpointing: bool = False,
    attention: str = "sdpa",
) -> Subject:
    """Return a Llama of random weights with adapters, on random tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = model_config(shape) if isinstance(shape, str) else LlamaConfig(**shape)
    config.use_cache = False
    config._attn_implementation = attention
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = add_lora(model, 8)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.01)  # else half of the gradients are zero
    if dtype == torch.float64:
        model = model.double()
    x = _tokens(config.vocab_size, n, length, device)
    z = _tokens(config.vocab_size, points, point_length or length, device)
    target = Target(
        z, z["input_ids"], measure=completion_log_likelihood, higher_is_better=True
    )
    return Subject(
        model, x, x["input_ids"], {"asked": target}, of_text, True, batch, refresh
    )


def _tokens(vocabulary: int, n: int, length: int, device: str) -> dict[str, Tensor]:
    ids = torch.randint(vocabulary, (n, length)).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
