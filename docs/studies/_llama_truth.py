"""A tiny Llama that learns facts by heart, and retraining without some of them.

40 facts, each of a key of two tokens and a value of one, are told 10 times, after three
tokens of noise; one time in ten with a wrong value. The targets ask for 24 of them. See
`_mnist_truth`, whose `Problem` this one is like.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from _mnist_truth import Design, Subsets, retrained
from numpy.typing import NDArray
from torch import Tensor, nn

from fstat.ground_truth import MultiRunInfluence
from fstat_torch.retraining import StackedTrainer, TorchTrainer

FACTS, TOLD, ASKED, NOISE = 40, 10, 24, 3
DESIGN = Design(4, 8, 0, 4, 2, 2, 64, 20, (20001, 20002, 20003))


def build_llama() -> nn.Module:
    """Return a Llama of 2 layers and 25,000 parameters, not yet trained."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=16,
        attn_implementation="eager",
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def answer_loss(output: Any, tokens: Tensor) -> Tensor:
    """Return the cross-entropy of the last token, the value."""
    logits = output.logits[:, -2]
    return nn.functional.cross_entropy(logits, tokens[:, -1], reduction="none")


def answer_odds(output: Any, tokens: Tensor) -> Tensor:
    """Return the log odds of the right value."""
    logits, value = output.logits[:, -2], tokens[:, -1:]
    others = logits.scatter(1, value, -torch.inf).logsumexp(1)
    return logits.gather(1, value)[:, 0] - others


class Facts:
    """400 sentences that tell 40 facts, of which some are wrong.

    Attributes
    ----------
    sentences, asked : ndarray of int of shape (n, 7)
        Tokens of training examples and targets.
    fact : ndarray of int of shape (n,)
        Which fact each example tells.
    wrong : ndarray of bool of shape (n,)
        Which examples tell a wrong value.
    subsets, trainer, everyone, run_seeds
        As those of `_mnist_truth.Problem`.
    """

    def __init__(self) -> None:
        self.design = DESIGN
        rng = np.random.default_rng(self.design.data_seed)
        keys = rng.permutation(16 * 16)[:FACTS]
        values = rng.integers(0, 16, FACTS)

        def sentence(fact: int, value: int) -> list[int]:
            key = 1 + keys[fact] // 16, 17 + keys[fact] % 16
            return [0, *rng.integers(48, 64, NOISE), *key, 33 + value]

        self.fact = np.repeat(np.arange(FACTS), TOLD)
        self.wrong = rng.random(len(self.fact)) < 0.1
        told = np.where(self.wrong, rng.integers(0, 16, len(self.fact)), 0)
        told = np.where(self.wrong, told, values[self.fact])
        both = zip(self.fact, told, strict=True)
        self.sentences = np.array([sentence(*one) for one in both])
        self.asked = np.array([sentence(f, values[f]) for f in range(ASKED)])
        self.everyone = np.arange(len(self.fact))
        self.subsets = self._subsets(rng)
        self.run_seeds = self.design.run_seeds
        self.trainer = TorchTrainer(
            build_llama,
            self.sentences,
            self.sentences,
            (self.asked, self.asked),
            measure=answer_odds,
            loss=answer_loss,
            optimizer=partial(torch.optim.AdamW, lr=0.01),
            steps=150,
            batch_size=16,
        )

    def _subsets(self, rng: np.random.Generator) -> Subsets:
        """Return whole facts, halves of facts, wrong and random sentences."""
        design, found = self.design, dict[str, NDArray[np.int64]]()
        order = rng.permutation(ASKED)
        for k, fact in enumerate(order[: design.same + design.slices]):
            own = np.flatnonzero(self.fact == fact)
            if k < design.same:
                found[f"fact {fact}"] = own
            else:
                found[f"half of fact {fact}"] = own[: TOLD // 2]
        wrong = rng.permutation(np.flatnonzero(self.wrong & (self.fact < ASKED)))
        for k, part in enumerate(np.array_split(wrong, design.flipped)):
            found[f"wrong {k}"] = part
        for k in range(design.random):
            found[f"random {k}"] = rng.choice(self.everyone, TOLD, replace=False)
        return found

    def truth(self, n_jobs: int = 1) -> MultiRunInfluence:
        """Return mu of retraining; what was trained before is not trained again."""
        train = StackedTrainer(self.trainer, at_once=16)
        return retrained(train, self.design, self.subsets, len(self.fact), n_jobs)
