"""Settings of the whole test run."""

from importlib.util import find_spec

import matplotlib
import pytest

matplotlib.use("Agg")

# Without torch the adapter's doctests are left out; its tests skip themselves.
collect_ignore_glob = [] if find_spec("torch") else ["adapters/torch/*"]


@pytest.fixture(autouse=True)
def _close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
