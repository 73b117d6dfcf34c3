"""A small language model trained by transformers.Trainer, watched by one line.

Influence of training texts on held-out texts of one kind. Needs transformers.

python examples/trainer_transformers.py
"""

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from fstat import FInfluence, select
from fstat.methods import Moments
from fstat_torch import TransformersCallback

torch.manual_seed(0)
N, LENGTH = 400, 12


def texts(n, step):
    """Numbers modulo 23 that ascend by `step`, from anywhere."""
    return (torch.randint(23, (n, 1)) + step * torch.arange(LENGTH)) % 23


class Texts(Dataset):
    """Half of the texts ascend by ones, half by sevens; each knows its number."""

    tokens = torch.cat([texts(N // 2, 1), texts(N // 2, 7)])

    def __len__(self):
        return N

    def __getitem__(self, k):
        return {"input_ids": self.tokens[k], "labels": self.tokens[k], "index": k}


config = LlamaConfig(
    vocab_size=23,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
)
held_out = texts(20, 1)
trainer = Trainer(
    model=LlamaForCausalLM(config),
    args=TrainingArguments(
        output_dir="results/trainer_transformers",
        per_device_train_batch_size=20,
        num_train_epochs=6,
        learning_rate=3e-3,
        remove_unused_columns=False,  # keeps the column `index`
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=Texts(),
)
callback = TransformersCallback(targets={"ascending by ones": (held_out, held_out)})
trainer.add_callback(callback)
trainer.train()

observations = callback.trace.observations(
    {"ones": range(N // 2), "sevens": range(N // 2, N)}
)
influence = FInfluence().fit(observations)
print(influence.to_frame().drop(columns="quantity").round(3).to_string(index=False))
each = FInfluence(method=Moments(shrinkage="moderated")).fit(
    callback.trace.observations()
)
print(select(each, fdr=0.1, alternative="greater"))
