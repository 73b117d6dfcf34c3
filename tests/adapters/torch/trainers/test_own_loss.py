"""Which loss a model of transformers is trained by, as its callback takes it."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fstat_torch import Target  # noqa: E402
from fstat_torch.targets import language_loss, token_loss  # noqa: E402
from fstat_torch.trainers.own_loss import own_loss  # noqa: E402

SMALL = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 20}
LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2}


def bert(kind, **options):
    config = transformers.BertConfig(**SMALL, **LAYERS, **options)
    return getattr(transformers, f"BertFor{kind}")(config)


def llama():
    config = transformers.LlamaConfig(**SMALL, **LAYERS)
    return transformers.LlamaForCausalLM(config)


def t5():
    sizes = {"vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 20}
    config = transformers.T5Config(
        **sizes, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


TOKENS = torch.arange(1, 13).view(2, 6)
CLASSES = torch.tensor([0, 2])
MODELS = {
    "causal": (llama, TOKENS, language_loss),
    "masked": (lambda: bert("MaskedLM"), TOKENS, token_loss),
    "tokens": (
        lambda: bert("TokenClassification", num_labels=4),
        TOKENS % 4,
        token_loss,
    ),
    "sequence": (
        lambda: bert("SequenceClassification", num_labels=3),
        CLASSES,
        language_loss,
    ),
    "sequence to sequence": (t5, TOKENS, token_loss),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_models_own_loss_is_found(name):
    build, y, expected = MODELS[name]
    torch.manual_seed(0)
    model = build()
    training, state = model.training, torch.get_rng_state()
    assert own_loss(model, ({"input_ids": TOKENS}, y)) is expected
    assert own_loss(model, {"a": Target({"input_ids": TOKENS}, y)}) is expected
    model.eval()
    own = model(input_ids=TOKENS[:1], labels=y[:1])
    found = expected(own, y[:1])
    torch.testing.assert_close(found[0], own.loss)
    assert training and torch.equal(state, torch.get_rng_state())


def test_another_loss_is_asked_for():
    model = bert("SequenceClassification", num_labels=1)
    with pytest.raises(ValueError, match="say `loss=`"):
        own_loss(model, ({"input_ids": TOKENS}, torch.rand(2)))
    with pytest.raises(ValueError, match="say `loss=`"):
        own_loss(torch.nn.Linear(3, 2), (torch.randn(2, 3), CLASSES))


def test_targets_that_need_no_loss_ask_for_none():
    measured = Target(TOKENS, TOKENS, measure=lambda output, y: output.sum(1))
    assert own_loss(llama(), {"a": measured, "self": "self"}) is language_loss
    assert own_loss(llama(), "self") is language_loss
