"""Settings of the whole test run."""

from importlib import import_module
from importlib.util import find_spec

import matplotlib
import pytest
from matplotlib.figure import Figure

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


@pytest.fixture
def undrawn(monkeypatch):
    """Pages whose pictures are blank: drawing them is most of the time of a page."""
    module = import_module("fstat.report.content")
    inline = module.inline_svg

    def blank(figure, alt):
        return inline(Figure(figsize=(1, 1)), alt)

    monkeypatch.setattr(module, "inline_svg", blank)
