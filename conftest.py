"""Settings of the whole test run."""

from importlib.util import find_spec

import matplotlib
import pytest

matplotlib.use("Agg")

# Without torch the adapter's doctests are left out; its tests skip themselves.
collect_ignore_glob = (
    [] if find_spec("torch") else ["adapters/torch/*", "docs/studies/poisoning/*"]
)
# Nor is a trainer's callback read without the trainer.
collect_ignore_glob += [
    f"adapters/torch/fstat_torch/trainers/{package}.py"
    for package in ("lightning", "transformers")
    if not find_spec(package)
]
if not find_spec("transformers"):
    collect_ignore_glob += [
        "adapters/torch/fstat_torch/llama/*",
        "docs/studies/poisoning/*",
    ]


@pytest.fixture(autouse=True)
def _close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
