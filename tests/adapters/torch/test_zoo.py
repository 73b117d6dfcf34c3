"""A zoo of models: exact, or refused with a sentence, and never harmed."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import zoo_of_models as study  # noqa: E402
from torch import nn  # noqa: E402
from zoo import adapters, language, own, senses  # noqa: E402
from zoo.outcome import harm, outcome, outcomes  # noqa: E402

from fstat_torch.gradients import Captured  # noqa: E402

SOME = {
    "Llama": lambda: language.causal("Llama"),
    "OPT": lambda: language.causal("OPT"),
    "BERT": lambda: language.masked("BERT"),
    "T5": lambda: language.paired("T5"),
    "Swin": lambda: senses.vision("Swin"),
    "LoHa": lambda: adapters.adapted("LoHa"),
    "FT-Transformer": lambda: own.row("FT-Transformer"),
    "DeepFM": lambda: own.row("DeepFM"),
    "spectral norm": lambda: own.row("spectral norm"),
}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", SOME)
def test_some_of_the_zoo_are_exact(name):
    torch.manual_seed(0)
    found = outcomes(*SOME[name]())
    assert {f.kind for f in found.values()} == {"exact"}, found


def test_errors_of_switch_transformers_are_those_of_its_router_in_single_precision():
    torch.manual_seed(0)
    model, batch = language.paired("Switch Transformers")
    routers = [m for m in model.modules() if type(m).__name__.endswith("Router")]
    assert routers
    for router in routers:
        router.dtype = torch.float64
    for found in outcomes(model, batch).values():
        assert found.kind == "exact" and float(found.detail) < 1e-13, found


def test_batch_norm_is_refused_in_training_and_exact_with_a_reference():
    found = outcomes(*own.image("ResNet, batch norm"))
    assert found["in training"].kind == "refused"
    assert "`parameters=`" in found["in training"].detail
    assert found["with a reference"].kind == "exact"


def test_a_wrong_number_is_told_from_an_exact_one(monkeypatch):
    squares = Captured.norms_squared
    monkeypatch.setattr(
        Captured, "norms_squared", lambda self: squares(self) * (1 + 1e-5)
    )
    model, batch = nn.Linear(own.D, 2), lambda n: torch.randn(n, own.T, own.D)
    assert outcomes(model, batch)["in training"].kind == "WRONG"


def test_an_error_of_others_is_told_from_a_sentence(capsys):
    def fails():
        torch.ones(2) @ torch.ones(3)

    found = outcome(fails)
    assert found.kind == "error" and found.detail.startswith("RuntimeError at")


@pytest.mark.parametrize("name", ["T5", "spectral norm", "LoHa"])
def test_some_of_the_zoo_are_not_harmed(name):
    torch.manual_seed(0)
    assert harm(*SOME[name]()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), study.cases())
def test_all_of_the_zoo(group, name):
    found = study.fared(group, name)
    assert {f["kind"] for f in found.values()} <= {"exact", "refused"}, found
    if group != study.LOOPS:
        torch.manual_seed(0)
        assert harm(*study.GROUPS[group][2](name)) == []
