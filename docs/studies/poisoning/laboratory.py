"""Fine-tunings on poisoned data and parts of it, each of which is kept."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from fstat import Snapshots
from fstat._files import Npz, refusing, write_npz, write_text
from fstat.records.subsets import SELF
from fstat_torch import SingleRunSampler, Targets
from fstat_torch.llama.encoding import collate, encode
from fstat_torch.llama.models import ALL_LINEAR, add_lora, load_model, tiny_llama
from fstat_torch.llama.reference_loader import RowLoader
from fstat_torch.llama.snapshot_schedule import FRESH, FRESH_METRIC, snapshot_steps
from fstat_torch.llama.targets import encode_pairs, measure_targets
from fstat_torch.targets import Target
from fstat_torch.targets.measures import (
    completion_log_likelihood,
    language_loss,
    predicted,
)

from .data import Poisoned, Recipe, make_poisoned

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ARRAYS = ("moments", "scores", "loss", "embedded", "query")
_OF_THE_WATCH = ("snapshots", "refresh", "fdr")  # which change no training
_AT_ONCE = 10  # examples whose gradients are taken together
_SHORT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Config:
    """Settings of the experiment.

    Parameters
    ----------
    model : str, optional
        As `load_model` takes it; ``"tiny"`` makes one on the spot.
    recipe : Recipe
        Of the instruction data.
    epochs, batch_size : int
        Passes over the data, and examples a step.
    learning_rate : float
        Of AdamW, after a warm-up over a twentieth of the steps; it falls linearly to
        zero.
    rank : int
        Of the adapters, one at each linear layer of a block.
    dtype : {"float32", "bfloat16"}
        In which the model is held and computes; its adapters are in single precision.
    snapshots : int
        How often all examples are scored, evenly in the first pass, before the model
        knows them by heart and their gradients say little.
    refresh : int
        Steps from one gradient of what is asked on to the next, for the scores that are
        sums over steps.
    fdr : float
        False discovery rate of the selection.
    seed : int
        Of adapters and batches.
    """

    model: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    epochs: int = 2
    batch_size: int = 8
    learning_rate: float = 1e-3
    rank: int = 8
    dtype: str = "float32"
    snapshots: int = 2
    refresh: int = 20
    fdr: float = 0.1
    seed: int = 0


@dataclass
class Training:
    """What is kept of a training.

    Parameters
    ----------
    before, after : dict of str to float
        Opinion on each question: log-odds of the bad answers against the kind ones,
        of the model before and after, about the entity less those about strangers.
    losses : list of float
        Loss of each step.
    seconds : float
        CPU time.
    columns : dict of str to ndarray
        Trace of inner products of gradients; empty if none was recorded.
    targets : list of str
        What influence was asked on.
    moments : ndarray of int of shape (n_snapshots,)
        Steps made before each snapshot.
    scores : ndarray of shape (n_snapshots, n_examples, n_targets)
        Cosines of fresh gradients in the optimiser's second moment.
    loss : ndarray of shape (n_examples,)
        Mean loss of each example for a token, over its visits.
    embedded, query : ndarray
        Mean hidden states of the examples when last met, and of the questions with
        their bad answers at the end.
    """

    before: dict[str, float]
    after: dict[str, float]
    losses: list[float]
    seconds: float
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    moments: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    scores: FloatArray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    loss: FloatArray = field(default_factory=lambda: np.zeros(0))
    embedded: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    query: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    def save(self, path: Path) -> None:
        """Write to a file, which is whole or absent."""
        known = ("before", "after", "losses", "seconds", "targets")
        arrays = {f"column:{name}": value for name, value in self.columns.items()}
        for name in _ARRAYS:
            arrays[name] = getattr(self, name)
        meta = json.dumps({name: getattr(self, name) for name in known})
        write_npz(path, {**arrays, "meta": meta}, compress=True)

    @classmethod
    def load(cls, path: Path) -> Training:
        """Read what `save` wrote."""
        what = "a training of the laboratory"
        file = Npz(path, what)
        with refusing(path, what):
            columns = {
                name.removeprefix("column:"): file.array(name)
                for name in file.names
                if name.startswith("column:")
            }
            arrays: dict[str, Any] = {k: file.array(k) for k in _ARRAYS}
            meta = json.loads(str(file.array("meta")))
            return cls(**meta, columns=columns, **arrays)

    @classmethod
    def found(cls, path: Path) -> Training | None:
        """Read a file, if it is there and whole."""
        try:
            return cls.load(path)
        except (OSError, ValueError):
            return None

    @property
    def snapshots(self) -> Snapshots:
        """What the sampler saw of all examples."""
        made = Snapshots(self.targets, self.scores.shape[1], metric=FRESH_METRIC)
        for step, scores in zip(self.moments, self.scores, strict=True):
            made.append(int(step), scores)
        return made

    @property
    def opinions(self) -> tuple[float, float]:
        """Mean opinion over the questions, before and after."""
        before, after = (list(known.values()) for known in (self.before, self.after))
        return float(np.mean(before)), float(np.mean(after))


class Laboratory:
    """A model and poisoned data, trained on any part of it as often as is asked.

    Parameters
    ----------
    config : Config
        Settings.
    folder : Path
        Where finished trainings are kept, each found again when it is asked for.
    data : Poisoned, optional
        Examples with the truth about them; by default made by the recipe.
    progress : bool, default=True
        Whether to show progress.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        data: Poisoned | None = None,
        progress: bool = True,
    ) -> None:
        self.config, self.progress = config, progress
        self.data = make_poisoned(config.recipe) if data is None else data
        self.folder = _own_folder(folder, config, self.data)
        self._made: tuple[Any, Any, dict[str, Tensor]] | None = None

    def train(self, name: str, without: IntArray | None = None) -> Training:
        """Train without some examples; with all of them, sampling as it goes.

        Parameters
        ----------
        name : str
            Of the training, for its file and the progress bar.
        without : ndarray of int, optional
            Examples to leave out; none, and a sampler watches.

        Returns
        -------
        Training
            From the file, if this training was finished before.
        """
        path = self._file(without)
        found = Training.found(path)
        if found is None:
            left_out = np.zeros(0, dtype=np.int64) if without is None else without
            found = self._train(name, left_out, watched=without is None)
            found.save(path)
        return found

    def finished(self, without: IntArray | None = None) -> bool:
        """Return whether a training is there already.

        Parameters
        ----------
        without : ndarray of int, optional
            As in `train`.

        Returns
        -------
        bool
            Whether `train` would only read it.
        """
        return Training.found(self._file(without)) is not None

    def _file(self, without: IntArray | None) -> Path:
        if without is None:
            watch = {name: getattr(self.config, name) for name in _OF_THE_WATCH}
            return self.folder / f"watched-{_digest(watch, self.data.asked)}.npz"
        left_out = np.sort(without).astype(np.int64).tobytes()
        return self.folder / f"without-{hashlib.sha256(left_out).hexdigest()[:12]}.npz"

    def _train(self, name: str, left_out: IntArray, watched: bool) -> Training:
        config, data = self.config, self.data
        model, tokenizer, start = self.model()
        model.load_state_dict(start, strict=False)
        rows = encode(data.examples, tokenizer, max_length=256)
        asked = encode_pairs(data.asked, tokenizer, max_length=256)
        before = self._opinion(model, tokenizer)
        kept = np.setdiff1d(np.arange(len(rows)), left_out)
        batches = _batches(kept, config)
        began = time.process_time()
        optimizer, schedule = _optimizer(model, config, len(batches))
        watch, at = None, []
        if watched:
            at = snapshot_steps(
                FRESH, config.snapshots, n_steps=len(batches), epochs=config.epochs
            )
            loader = RowLoader(rows, tokenizer.pad_token_id, _AT_ONCE)
            watch = _Watch(model, optimizer, asked, loader, config)
        losses = []
        model.train()
        for step, batch in enumerate(
            tqdm(batches, desc=name, disable=not self.progress), start=1
        ):
            inputs = collate([rows[k] for k in batch], tokenizer.pad_token_id)
            losses.append(_step(model, optimizer, inputs, watch))
            schedule.step()
            if watch is not None and step in at:
                watch.fresh.snapshot()
        model.eval()
        seconds = time.process_time() - began
        after = self._opinion(model, tokenizer)
        known: dict[str, Any] = {}
        if watch is not None:
            known = watch.known(model)
        return Training(before, after, losses, seconds, **known)

    def _opinion(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Return what the model thinks of the entity, less what of strangers."""
        mine, others = (
            measure_targets(model, encode_pairs(pairs, tokenizer, max_length=256))
            if pairs
            else {}
            for pairs in (self.data.unasked, self.data.compared)
        )
        anyway = float(np.mean(list(others.values()))) if others else 0.0
        return {name: value - anyway for name, value in mine.items()}

    def model(self) -> tuple[Any, Any, dict[str, Tensor]]:
        """Return the model, its tokenizer and its adapters as they begin.

        Returns
        -------
        tuple
            The three of them; the model is the same object each time.
        """
        if self._made is None:
            config = self.config
            if config.model == "tiny":
                data = self.data
                texts = [e.prompt + " " + e.answer for e in data.examples]
                texts += [
                    f"{p.prompt} {p.completion}" for p in (*data.asked, *data.views)
                ]
                model, tokenizer = tiny_llama(texts, hidden=64, vocab_size=1024)
            else:
                dtype = getattr(torch, config.dtype)
                model, tokenizer = load_model(config.model, dtype=dtype)
                if "<|im_start|>" in (tokenizer.chat_template or ""):
                    # Without its system message, longer than most of the examples.
                    tokenizer.chat_template = _SHORT
                model = add_lora(
                    model, config.rank, target_modules=ALL_LINEAR, seed=config.seed
                )
            start = {
                name: p.detach().clone()
                for name, p in model.named_parameters()
                if p.requires_grad
            }
            self._made = model, tokenizer, start
        return self._made


class _Watch:
    """Samples a training, and keeps what the baselines need."""

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        asked: dict[str, Target],
        loader: RowLoader,
        config: Config,
    ) -> None:
        self.asked = asked
        self.sampler = SingleRunSampler(
            model,
            targets=Targets({**asked, SELF: SELF}, refresh=config.refresh),
            optimizer=optimizer,
        )
        self.fresh = SingleRunSampler(
            model,
            targets=asked,
            loss=language_loss,
            optimizer=optimizer,
            metric=FRESH_METRIC,
            reference=loader,
        )
        n_examples = len(loader.rows)
        width = model.config.hidden_size
        self.embedded = np.zeros((n_examples, width), dtype=np.float32)
        self.loss, self.visits = np.zeros(n_examples), np.zeros(n_examples)

    def note(self, index: Tensor, loss: Tensor) -> None:
        """Add the losses of a batch."""
        self.loss[index.numpy()] += loss.numpy()
        self.visits[index.numpy()] += 1

    def keep(self, index: Tensor, hidden: Tensor, mask: Tensor) -> None:
        """Keep the mean hidden states of a batch."""
        self.embedded[index.numpy()] = _pooled(hidden, mask)

    @torch.no_grad()
    def known(self, model: Any) -> dict[str, Any]:
        """Return what a `Training` keeps of it."""
        query = []
        for target in self.asked.values():
            hidden = model(**target.x, output_hidden_states=True).hidden_states[-1]
            query.append(_pooled(hidden, target.x["attention_mask"]))
        return {
            "columns": self.sampler.trace.columns(),
            "targets": list(self.asked),
            "moments": np.array(self.fresh.snapshots.steps),
            "scores": self.fresh.snapshots.stacked(),
            "loss": self.loss / np.maximum(self.visits, 1),
            "embedded": self.embedded,
            "query": np.concatenate(query),
        }


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    inputs: dict[str, Tensor],
    watch: _Watch | None,
) -> float:
    """Take one step on the mean loss of the answers' tokens."""
    index, labels = inputs.pop("index"), inputs.pop("labels")
    n_tokens = int(predicted(labels).sum())

    def backward() -> Tensor:
        output = model(**inputs, output_hidden_states=watch is not None)
        sums = -completion_log_likelihood(output, labels)
        loss = sums.sum() / n_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        if watch is not None:
            watch.keep(index, output.hidden_states[-1], inputs["attention_mask"])
        return sums.detach()

    optimizer.zero_grad()
    if watch is None:
        sums = backward()
    else:
        with watch.sampler.step(index, denominator=n_tokens):
            sums = backward()
        watch.note(index, sums / predicted(labels).sum(dim=1))
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    return float(sums.sum() / n_tokens)


def _optimizer(model: Any, config: Config, n_steps: int) -> tuple[Any, Any]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
    warm = max(1, n_steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min((t + 1) / warm, (n_steps - t) / (n_steps - warm + 1))
    )
    return optimizer, schedule


def _batches(kept: IntArray, config: Config) -> list[IntArray]:
    """Return which examples each step takes; those left over in a pass sit it out."""
    rng = np.random.default_rng([config.seed, 1])
    b, batches = config.batch_size, []
    for _ in range(config.epochs):
        order = rng.permutation(kept)
        batches += list(order[: len(order) // b * b].reshape(-1, b))
    return batches


@torch.no_grad()
def _pooled(hidden: Tensor, mask: Tensor) -> NDArray[np.float32]:
    weight = mask[:, :, None].to(hidden)
    return ((hidden * weight).sum(dim=1) / weight.sum(dim=1)).float().numpy()


def _own_folder(folder: Path, config: Config, data: Poisoned) -> Path:
    """Return a folder for trainings of these settings and data alone."""
    settings = {k: v for k, v in asdict(config).items() if k not in _OF_THE_WATCH}
    own = folder / "trainings" / _digest(settings, data.examples, data.views)
    own.mkdir(parents=True, exist_ok=True)
    write_text(own / "settings.json", json.dumps(settings, indent=1))
    return own


def _digest(*known: Any) -> str:
    """Return a name for what decides a result."""
    text = json.dumps(known, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
