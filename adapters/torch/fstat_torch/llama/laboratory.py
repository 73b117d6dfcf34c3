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

from fstat import Trace
from fstat.steps import SELF

from ..measures import completion_log_likelihood, predicted
from ..sampler import SingleRunSampler
from ..targets import Target
from .encoding import collate, encode
from .models import add_lora, load_model, tiny_llama
from .poison import Poisoned, Recipe, make_poisoned
from .targets import encode_pairs, measure_targets

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ARRAYS = ("loss", "embedded", "query")
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
        Of the adapters.
    refresh : int
        Steps from one gradient of what is asked on to the next.
    fdr : float
        False discovery rate of the selection.
    seed : int
        Of adapters and batches.
    """

    model: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    epochs: int = 2
    batch_size: int = 8
    learning_rate: float = 2e-3
    rank: int = 8
    refresh: int = 15
    fdr: float = 0.1
    seed: int = 0


@dataclass
class Training:
    """What is kept of a training.

    Parameters
    ----------
    before, after : dict of str to float
        Opinion on each question: log-odds of the bad answers against the kind ones,
        of the model before and after.
    losses : list of float
        Loss of each step.
    seconds : float
        CPU time.
    columns : dict of str to ndarray
        Trace; empty if none was recorded.
    targets : list of str
        What influence was asked on.
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
        unfinished = path.with_suffix(".unfinished.npz")
        arrays["meta"] = np.array(meta)
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Training:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            columns = {
                name.removeprefix("column:"): file[name]
                for name in file.files
                if name.startswith("column:")
            }
            arrays = {k: file[k] for k in _ARRAYS}
            return cls(**json.loads(str(file["meta"])), columns=columns, **arrays)

    @property
    def trace(self) -> Trace:
        """What the sampler recorded."""
        made = Trace(self.targets)
        made.extend(self.columns)
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
        if not path.exists():
            left_out = np.zeros(0, dtype=np.int64) if without is None else without
            self._train(name, left_out, watched=without is None).save(path)
        return Training.load(path)

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
        return self._file(without).exists()

    def _file(self, without: IntArray | None) -> Path:
        if without is None:
            return self.folder / "watched.npz"
        left_out = np.sort(without).astype(np.int64).tobytes()
        return self.folder / f"without-{hashlib.sha256(left_out).hexdigest()[:12]}.npz"

    def _train(self, name: str, left_out: IntArray, watched: bool) -> Training:
        config, data = self.config, self.data
        model, tokenizer, start = self.model()
        model.load_state_dict(start, strict=False)
        rows = encode(data.examples, tokenizer, max_length=256)
        asked = encode_pairs(data.asked, tokenizer, max_length=256)
        unasked = encode_pairs(data.unasked, tokenizer, max_length=256)
        before = measure_targets(model, unasked)
        kept = np.setdiff1d(np.arange(len(rows)), left_out)
        batches = _batches(kept, config)
        began = time.process_time()
        optimizer, schedule = _optimizer(model, config, len(batches))
        watch = None
        if watched:
            watch = _Watch(model, optimizer, asked, len(rows), config)
        losses = []
        model.train()
        for batch in tqdm(batches, desc=name, disable=not self.progress):
            inputs = collate([rows[k] for k in batch], tokenizer.pad_token_id)
            losses.append(_step(model, optimizer, inputs, watch))
            schedule.step()
        model.eval()
        seconds = time.process_time() - began
        after = measure_targets(model, unasked)
        known: dict[str, Any] = {}
        if watch is not None:
            known = watch.known(model, asked)
        return Training(before, after, losses, seconds, **known)

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
                texts = [e.prompt + " " + e.answer for e in self.data.examples]
                model, tokenizer = tiny_llama(texts, hidden=64, vocab_size=1024)
            else:
                model, tokenizer = load_model(config.model)
                if "<|im_start|>" in (tokenizer.chat_template or ""):
                    # Without its system message, longer than most of the examples.
                    tokenizer.chat_template = _SHORT
                model = add_lora(model, config.rank, seed=config.seed)
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
        n_examples: int,
        config: Config,
    ) -> None:
        self.sampler = SingleRunSampler(
            model,
            targets={**asked, SELF: SELF},
            optimizer=optimizer,
            refresh=config.refresh,
        )
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
    def known(self, model: Any, asked: dict[str, Target]) -> dict[str, Any]:
        """Return what a `Training` keeps of it."""
        query = []
        for target in asked.values():
            hidden = model(**target.x, output_hidden_states=True).hidden_states[-1]
            query.append(_pooled(hidden, target.x["attention_mask"]))
        return {
            "columns": self.sampler.trace.columns(),
            "targets": list(asked),
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
    known = {"config": asdict(config), "data": [asdict(e) for e in data.examples]}
    questions = (*data.asked, *data.unasked)
    known["asked"] = [asdict(pair) for pair in questions]
    settings = json.dumps(known, sort_keys=True, indent=1)
    own = folder / "trainings" / hashlib.sha256(settings.encode()).hexdigest()[:12]
    own.mkdir(parents=True, exist_ok=True)
    (own / "settings.json").write_text(settings)
    return own
