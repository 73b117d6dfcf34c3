"""What a run costs: seconds and bytes, with sampling and without."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fstat_torch.curvature.ridge import BLOCK

from .accelerator import H100, Accelerator
from .steps import Measured, Step, measure

if TYPE_CHECKING:
    import pandas as pd

# What an allocator wastes, and what a driver takes beside it.
_SPARE, _CONTEXT = 1.1, 1e9


@dataclass(frozen=True)
class Run:
    """What is made of steps, and on what.

    Parameters
    ----------
    accelerator : Accelerator, default=H100
        What it runs on.
    devices : int, default=1
        How many of them share each step's examples.
    sharded : bool, default=False
        Whether parameters, gradients and the optimiser's state are split over the
        devices, by ``fully_shard``, rather than held by each, by
        `DistributedDataParallel`.
    examples, epochs : int
        Examples to train on, and passes over them; those of LIMA [1]_ by default.
    accumulate : int, default=1
        Micro-batches of a step.
    refresh : int, default=1
        Steps after which gradients of targets are taken anew.
    landmarks : int, default=300
        Of the curvature metric, where gradients are kept.

    References
    ----------
    .. [1] C. Zhou et al., "LIMA: less is more for alignment", NeurIPS 2023.
    """

    accelerator: Accelerator = H100
    devices: int = 1
    sharded: bool = False
    examples: int = 1030
    epochs: int = 3
    accumulate: int = 1
    refresh: int = 1
    landmarks: int = 300

    @property
    def fraction(self) -> float:
        """Share of what devices exchange that comes from the others."""
        return (self.devices - 1) / self.devices


@dataclass(frozen=True)
class Cost:
    """What a run is estimated to cost.

    Parameters
    ----------
    step : Step
        Its steps, on each device.
    run : Run
        What is made of them.
    plain, sampled : Measured
        One micro-batch without and with sampling.

    Notes
    -----
    The devices' exchanges are taken to come on top of their computing, as if nothing
    overlapped. Memory includes a tenth for what an allocator wastes and 1 GB for the
    driver.

    Examples
    --------
    See `estimate`.
    """

    step: Step
    run: Run
    plain: Measured
    sampled: Measured

    @property
    def n_steps(self) -> int:
        """Update steps of the run."""
        together = self.step.batch_size * self.run.accumulate * self.run.devices
        return self.run.epochs * math.ceil(self.run.examples / together)

    def _times(self, phase: str) -> float:
        """How often a phase happens in an update step."""
        if phase == "update":
            return 1.0 / self.run.devices if self.run.sharded else 1.0
        if phase == "gradients of targets":
            # A curvature metric asks for them at its snapshots, one an epoch.
            seldom = self.n_steps / self.run.epochs
            return 1.0 / (seldom if self.step.kept else self.run.refresh)
        # Examples of all micro-batches are compared with one another.
        power = 2 if phase == "inner products of the batch" else 1
        return float(self.run.accumulate**power)

    def _exchanged(self, sampled: bool) -> float:
        """Bytes that a device sends, or receives, in an update step."""
        m, run = self.plain, self.run
        if run.sharded:
            sent = 2 * run.accumulate * m.weight_bytes + m.gradient_bytes
        else:
            sent = 2 * m.gradient_bytes
        if sampled and self.step.itself:
            examples = self.step.batch_size * run.accumulate * run.devices
            sent += 4 * examples * m.trained
        return run.fraction * sent

    def seconds_per_step(self, sampled: bool = True) -> float:
        """Return how long an update step takes.

        Parameters
        ----------
        sampled : bool, default=True
            Whether it is watched.

        Returns
        -------
        float
            Seconds.
        """
        phases = (self.sampled if sampled else self.plain).phases
        gpu = self.run.accelerator
        computing = sum(
            self._times(name) * gpu.seconds(phase.operations)
            for name, phase in phases.items()
        )
        link = gpu.bandwidth_share * gpu.link
        return computing + self._exchanged(sampled) / link

    @property
    def overhead(self) -> float:
        """Time of a sampled step over that of a plain one."""
        return self.seconds_per_step() / self.seconds_per_step(sampled=False)

    @property
    def snapshot_flops(self) -> float:
        """Operations of one snapshot of the curvature metric with landmarks."""
        if not self.step.kept:
            return 0.0
        points = self.step.targets
        size, n = self.sampled.kept_bytes / 4, self.run.examples
        m = min(self.run.landmarks, n)
        b = min(BLOCK, n)
        products = 2.0 * size * (m * m + n * (m + b + points))
        metric = n * (3.0 * m * m + 4.0 * m * b + b * b / 3)
        return products + metric + 4.0 * n * (m + b) * points

    def hours(self, sampled: bool = True) -> float:
        """Return how long the run takes, loading and saving aside.

        Parameters
        ----------
        sampled : bool, default=True
            Whether it is watched.

        Returns
        -------
        float
            Hours, with a snapshot after each epoch but the first where gradients are
            kept.
        """
        seconds = self.n_steps * self.seconds_per_step(sampled)
        if sampled:
            gpu = self.run.accelerator
            speed = gpu.utilisation * gpu.flops_wide
            seconds += (self.run.epochs - 1) * self.snapshot_flops / speed
        return seconds / 3600

    def memory(self, sampled: bool = True) -> float:
        """Return the memory that each device needs.

        Parameters
        ----------
        sampled : bool, default=True
            Whether the run is watched.

        Returns
        -------
        float
            Bytes.
        """
        m = self.sampled if sampled else self.plain
        peak = 0.0
        for name, phase in m.phases.items():
            resident = m.weight_bytes + m.state_bytes
            resident += m.gradient_bytes * (name != "forward")
            peak = max(
                peak, phase.peak - self.run.sharded * self.run.fraction * resident
            )
        if self.run.sharded:
            # Two layers are whole at a time, one of them fetched ahead.
            peak += 2 * m.layer_bytes + m.rest_bytes
        kept = self.kept + self.waiting if sampled else 0.0
        return _SPARE * (peak + kept) + _CONTEXT

    @property
    def kept(self) -> float:
        """Bytes of the gradients that are kept of all examples, for curvature."""
        return float(self.sampled.kept_bytes * self.run.examples)

    @property
    def waiting(self) -> float:
        """Bytes of the copies that wait for the last micro-batch of an update.

        Gradients replace those that are kept once their update is whole.
        """
        earlier = (self.run.accumulate - 1) * self.step.batch_size
        return float(self.sampled.kept_bytes * earlier)

    @property
    def fits(self) -> bool:
        """Whether the sampled run fits in the memory of each device."""
        return self.memory() <= self.run.accelerator.memory

    def to_frame(self) -> pd.DataFrame:
        """Return what an update step is made of.

        Returns
        -------
        pandas.DataFrame
            One row a phase: `teraflops` (operations, in 10^12), `gigabytes` moved,
            `seconds`, and `peak_gigabytes` held on one device without spare. What is
            seldom done counts with its share of a step.
        """
        import pandas as pd

        gpu = self.run.accelerator
        rows = {
            name: {
                "teraflops": times * phase.flops / 1e12,
                "gigabytes": times * phase.bytes / 1e9,
                "seconds": times * gpu.seconds(phase.operations),
                "peak_gigabytes": phase.peak / 1e9,
            }
            for name, phase in self.sampled.phases.items()
            for times in [self._times(name)]
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("phase")

    def __repr__(self) -> str:
        gpu, many = self.run.accelerator, self.run.devices
        fits = "fits" if self.fits else "DOES NOT FIT"
        on = gpu.name if many == 1 else f"{many} x {gpu.name}"
        return (
            f"Estimate on {on}: {self.hours():.2f} h for {self.n_steps:,} steps of "
            f"{self.seconds_per_step():.2f} s, {self.overhead:.2f} times unsampled; "
            f"{self.memory() / 1e9:.0f} of {gpu.memory / 1e9:.0f} GB, {fits}\n"
            f"{self.to_frame().round(3).to_string()}"
        )


def estimate(config: Any, step: Step | None = None, run: Run | None = None) -> Cost:
    """Estimate what training and sampling a Llama cost.

    Parameters
    ----------
    config : LlamaConfig
        Shape of the model.
    step : Step, optional
        A step on each device; ``Step()`` by default.
    run : Run, optional
        What is made of them; ``Run()`` by default.

    Returns
    -------
    Cost
        Seconds and bytes.

    Raises
    ------
    ValueError
        If a number is out of range, or gradients are to be kept on several devices.

    Notes
    -----
    The model is built on the meta device, and the code that trains and samples is run
    there. Operations and bytes held are those of that code, on shapes; seconds follow
    from the accelerator's documented peaks and the shares of them that are assumed to
    be reached.

    Examples
    --------
    >>> from transformers import LlamaConfig
    >>> from cost_model import Run, Step, estimate
    >>> config = LlamaConfig(
    ...     hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=99,
    ...     num_attention_heads=4,
    ... )  # fmt: skip
    >>> cost = estimate(config, Step(targets=2, length=32), Run(examples=100))
    >>> cost.n_steps, cost.fits
    (75, True)
    >>> list(cost.to_frame().index)
    ['forming gradients', 'forward', 'backward', 'gradients of targets',
     'inner products with targets', 'update']
    """
    step, run = step or Step(), run or Run()
    for name, value in (
        ("devices", run.devices),
        ("accumulate", run.accumulate),
        ("refresh", run.refresh),
        ("batch_size", step.batch_size),
    ):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value!r}.")
    if step.kept and run.devices > 1:
        raise ValueError(
            "`devices` must be 1 where gradients are kept, got "
            f"{run.devices!r}: a curvature metric is estimated for one."
        )
    plain = measure(config, replace(step, sampled=False))
    # Examples of several micro-batches or devices have yet to meet one another.
    meet = step.itself and (run.accumulate > 1 or run.devices > 1)
    lasting = (run.refresh > 1 or not step.targets) and not meet
    watched = replace(step, sampled=True, lasting=lasting)
    return Cost(step, run, plain, measure(config, watched))
