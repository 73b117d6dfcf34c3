"""Settings of the whole test run."""

from importlib.util import find_spec

import matplotlib
import pytest

matplotlib.use("Agg")

# Of language models.
LLAMA = ["docs/studies/cost_model/*", "docs/studies/poisoning/*"]
LLAMA += ["adapters/torch/fstat_torch/llama/*"]
# Without torch the adapter's doctests are left out; its tests skip themselves.
collect_ignore_glob = [] if find_spec("torch") else ["adapters/torch/*", *LLAMA]
# Nor is a trainer's callback read without the trainer.
collect_ignore_glob += [
    f"adapters/torch/fstat_torch/trainers/{package}.py"
    for package in ("lightning", "transformers")
    if not find_spec(package)
]
if not find_spec("transformers"):
    collect_ignore_glob += LLAMA


@pytest.fixture(autouse=True)
def _close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
