"""Digits learnt with lightning.Trainer, watched by one line. Needs lightning.

python examples/trainer_lightning.py
"""

import lightning.pytorch as lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fstat import FInfluence, select
from fstat.methods import Moments
from fstat_torch import LightningCallback

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
train, test = slice(0, 1500), slice(1500, None)


class Digits(lightning.LightningModule):
    """A small network; batches are (number, image, class)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, inputs):
        return self.layers(inputs)

    def training_step(self, batch, batch_idx):
        _, inputs, classes = batch
        return nn.functional.cross_entropy(self(inputs), classes)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003)


data = TensorDataset(torch.arange(1500), x[train], y[train])
callback = LightningCallback(index=0, targets={"all test digits": (x[test], y[test])})
trainer = lightning.Trainer(
    max_epochs=6,
    accelerator="cpu",
    callbacks=[callback],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Digits(), DataLoader(data, batch_size=50, shuffle=True))

influence = FInfluence(method=Moments(shrinkage="moderated")).fit(
    callback.trace.observations()
)
table = influence.to_frame().sort_values("mu")
print("Most harmful to the test digits as a whole:")
print(table.head(5).drop(columns="quantity").round(3).to_string(index=False))
print(select(influence, fdr=0.1, alternative="less", stronger_than=0.5))
