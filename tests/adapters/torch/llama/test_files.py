"""Files of instruction data, targets and prompts: read whole, or refused in words."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from fstat_torch.llama import (
    Example,
    Message,
    encode,
    read_examples,
    read_pairs,
    read_prompts,
    tiny_llama,
)

ALPACA = {"instruction": "Add.", "input": "2 and 3", "output": "5"}
TURNS = ("system", "Be brief."), ("user", "Who?"), ("assistant", "Me.")
CHAT = {"messages": [{"role": r, "content": c} for r, c in TURNS]}
NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
SHAREGPT = {"conversations": [{"from": NAMES[r], "value": c} for r, c in TURNS]}
LIMA = {"conversations": ["Hello?", "Hi.", "Who?", "Me."]}
TARGET = {"prompt": "Who?", "completion": "Me.", "instead": "You.", "name": "who"}


def written(folder, *lines, name="data.jsonl"):
    file = folder / name
    texts = [x if isinstance(x, str) else json.dumps(x) for x in lines]
    file.write_text("\n".join(texts), encoding="utf-8")
    return file


def talk(example):
    return [(message.role, message.content) for message in example.messages]


def test_a_history_and_what_the_system_says_are_part_of_the_conversation(tmp_path):
    earlier = [["One?", "Uno."], ["Two?", "Dos."]]
    file = written(
        tmp_path,
        ALPACA | {"history": earlier, "system": "Be brief."},
        {"conversations": SHAREGPT["conversations"][1:], "system": "Be brief."},
        LIMA | {"system": "Be brief."},
        {"messages": CHAT["messages"][1:], "system": "Be brief.", "history": []},
        ALPACA | {"history": None, "input": None, "system": ""},
    )
    first, second, third, fourth, fifth = map(talk, read_examples(file))
    assert first == [
        ("system", "Be brief."), ("user", "One?"), ("assistant", "Uno."),
        ("user", "Two?"), ("assistant", "Dos."), ("user", "Add.\n\n2 and 3"),
        ("assistant", "5"),
    ]  # fmt: skip
    assert second == fourth == list(TURNS)
    assert third == [TURNS[0], *talk(read_examples(written(tmp_path, LIMA))[0])]
    assert fifth == [("user", "Add."), ("assistant", "5")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (CHAT | LIMA, "2 must be of one schema, got fields of chat and LIMA or Sh"),
        (CHAT | ALPACA, "`messages`, `instruction`, `input`, `output`: leave those of"),
        (CHAT | {"system": "Hi."}, "2 must say once what the system says, got it as"),
        (SHAREGPT | {"system": 5}, "2 must have a text as `system`, got '5'"),
        (ALPACA | {"history": ["a"]}, r"a list of \[question, answer\] as `history`"),
        (ALPACA | {"history": [["a", None]]}, r"as `history`, got '\[\[\"a\", null\]"),
        (ALPACA | {"history": "a"}, r"as `history`, got '\"a\"'"),
        (ALPACA | {"tools": "a"}, "2 has the field 'tools', which is not read: cor"),
        (ALPACA | {"sytem": "a"}, "'sytem', .*: `system` may be meant; else corr"),
        (ALPACA | {"histroy": None}, "`history` may be meant"),
        ({"instrution": "a", "output": "b"}, "only .* of which 'instrution' may be"),
        ({"conversation": ["a", "b"]}, r"must have the fields .* \['conversation'\]"),
        (ALPACA | {"output": "\ud800"}, r"2 must hold whole characters, .* \\ud800"),
        ('{"instruction": "\\udc00", "output": "a"}', r"lone surrogate \\udc00, half"),
        ('{"\\ud800": 1}', "2 must hold whole characters"),
        ('{"output": "a", "output": "b"}', "the field 'output' is there twice"),
        ('{"input": NaN}', "2 must be a JSON object, got .* NaN is no value of JSON"),
        ('{"input": ' + "9" * 5000 + "}", "2 must be a JSON object, got one that can"),
        ('{"input": ' + "[" * 10**5, "got one that is nested too deeply"),
        ("\ufeff" + json.dumps(ALPACA), "2 must be a JSON object, .* column 1"),
        (ALPACA | {"instruction": " ", "input": None}, "2 must ask before it answers"),
        ({"messages": [*CHAT["messages"], CHAT["messages"][-1] | {"weight": 1}]},
         "A message of data.jsonl:2 has the field 'weight', .* --ignore weight"),
    ],
)  # fmt: skip
def test_what_would_be_dropped_or_misread_is_refused(line, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read_examples(written(tmp_path, LIMA, line))
    said = str(caught.value)
    assert "data.jsonl:2" in said and said.isprintable()


def test_ids_are_of_one_example_each(tmp_path):
    file = written(tmp_path, ALPACA | {"id": 7}, LIMA | {"id": "7"}, CHAT | {"id": 7})
    with pytest.raises(ValueError, match=r"^data.jsonl:3 has the `id` of data.jsonl:1"):
        read_examples(file)
    assert len(read_examples(file, ignore=["id"])) == 3


def test_fields_to_ignore_are_those_that_the_refusal_names(tmp_path):
    odd = {"instruction": "a", "output": "b", "my field": 1, "tools": ["x"], "k'": 2}
    file = written(tmp_path, ALPACA, odd, ALPACA | {"outputs": 3})
    with pytest.raises(ValueError, match=r"^data.jsonl:2 has .* 'my field'") as e:
        read_examples(file)
    # As a shell takes the words of the advice.
    words = subprocess.run(
        ["bash", "-c", "printf '%s\\n' " + str(e.value).partition("--ignore ")[2]],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert words == ["my field", "tools", "k'", "outputs"]
    assert len(read_examples(file, ignore=words)) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a", "completion": "b", "insted": "c"},
         r"^t.jsonl:1 has the field 'insted', .*: `instead` may be meant; else"),
        ({"prompt": "a", "completion": "b", "weight": 2}, "remove weight from the"),
        ({"prompt": "a", "complete": "b"}, "'complete' may be meant"),
        ({"prompt": "a", "completion": ["b"]}, "must have a text as `completion`"),
        ({"prompt": "a", "completion": "b", "name": 5}, "must have a text as `name`"),
        ({"prompt": "a", "completion": "\ud83d"}, r"lone surrogate \\ud83d"),
    ],
)  # fmt: skip
def test_targets_have_no_other_fields(line, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_pairs(written(tmp_path, line, name="t.jsonl"))


def test_a_target_is_there_once(tmp_path):
    other = TARGET | {"completion": "Us."}
    file = written(tmp_path, TARGET, other, TARGET, name="t.jsonl")
    with pytest.raises(ValueError, match=r"^t.jsonl:3 repeats the target of t.jsonl:1"):
        read_pairs(file)
    assert len(read_pairs(written(tmp_path, TARGET, other))) == 2


def test_prompts_hold_nothing_else(tmp_path):
    file = written(tmp_path, TARGET, name="p.jsonl")
    with pytest.raises(ValueError, match=r"'completion', .* or use --targets for ans"):
        read_prompts(file)
    for lines in ((TARGET,), ([TARGET],), ("[", json.dumps(TARGET), "]")):
        with pytest.raises(ValueError, match=r"^p.txt:1 must be a prompt, got JSON"):
            read_prompts(written(tmp_path, *lines, name="p.txt"))
    file = written(tmp_path, "[1, 2] sum?", "a\u2028b", name="p.txt")
    assert read_prompts(file) == ["[1, 2] sum?", "a\u2028b"]


def test_line_ends_and_byte_order_marks_change_nothing(tmp_path):
    plain = written(tmp_path, ALPACA, "", LIMA).read_bytes()
    for content in (
        plain,
        plain.replace(b"\n", b"\r\n"),
        plain.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + plain + b"\n\n",
    ):
        (tmp_path / "data.jsonl").write_bytes(content)
        assert [e.source for e in read_examples(tmp_path / "data.jsonl")] == [
            "data.jsonl:1",
            "data.jsonl:3",
        ]


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.jsonl", content)
    return file.getvalue()


def parquet(content):
    import pandas as pd

    table = pd.DataFrame(map(json.loads, content.decode().splitlines()))
    return table.to_parquet()


def as_array(content):
    return b"[" + content.replace(b"\n", b",") + b"]"


PACKED = {
    "gunzip": gzip.compress,
    "bunzip2": bz2.compress,
    "xz": lzma.compress,
    "unzip": zipped,
    "python": parquet,
    "iconv": lambda content: content.decode().encode("utf-16"),
    "python array": as_array,
    "python lines": lambda content: as_array(content).replace(b"}", b"}\n"),
    "python inside": lambda content: b'{"a": 1,\n"data":' + as_array(content) + b"}",
    "python wrapped": lambda content: b'{"data":' + as_array(content) + b"}",
    "awk": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKED)
def test_the_way_out_of_another_form_leads_out(kind, tmp_path):
    program = kind.partition(" ")[0]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    folder = tmp_path / "my data"
    folder.mkdir()
    lines = ALPACA, ALPACA | {"instruction": "Ünï 𝄞 'x'"}
    file = written(folder, *lines)
    content, expected = file.read_bytes(), read_examples(file)
    if PACKED[kind] is None:
        written(folder, LIMA, name="more.jsonl")
        expected += read_examples(folder / "more.jsonl")
        file = folder
    else:
        file.write_bytes(PACKED[kind](content))
    with pytest.raises(ValueError, match=program) as caught:
        read_examples(file)
    command = f"{program} " + str(caught.value).rpartition(f" {program} ")[2]
    # As in the user's shell, where the environment of the tests is active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path}
    subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path, env=environment)
    made = command.replace("'", "").rpartition(" /")[2]
    again = read_examples("/" + made)
    assert [e.messages for e in again] == [e.messages for e in expected]


def test_what_the_template_refuses_is_said_in_its_words():
    _, tokenizer = tiny_llama(hidden=16, layers=1)
    plain, refuse = tokenizer.chat_template, "{{ raise_exception('Roles must\nmix.') }}"
    two = Example(
        (Message("user", "a"), Message("user", "b"), Message("assistant", "c"))
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' or loop.index0 % 2 != "
        "(m.role == 'assistant') | int %}" + refuse + "{% endif %}{% endfor %}" + plain
    )
    assert encode([Example.of("a", "b")], tokenizer, max_length=99)
    system = Example(
        (Message("system", "Be brief."), *two.messages[1:]), source="d.jsonl:4"
    )
    for example, roles in ((two, "user, user"), (system, "system, user")):
        with pytest.raises(ValueError, match="of which it says: Roles must mix") as e:
            encode([Example.of("a", "b"), example], tokenizer, max_length=99)
        assert str(e.value).startswith(example.source)
        assert f"got {roles}, " in str(e.value) and str(e.value).isprintable()
    tokenizer.chat_template = "{% set messages = messages[1:] %}" + plain
    with pytest.raises(
        ValueError, match=r"^d.jsonl:4 .* leaves out a message of the s"
    ):
        encode([system], tokenizer, max_length=99)
    tokenizer.chat_template = "{{ messages[9].content }}" + plain
    with pytest.raises(ValueError, match=r"^d.jsonl:4 .* of which it says: "):
        encode([system], tokenizer, max_length=99)


VALUES = (
    None, True, 0, -1, 1.5, 10**30, "", " ", "text", "é𝄞", [], {}, ["a"], [["a", "b"]],
    [["a", 1]], {"role": "user"}, [{"role": "user", "content": "a"}], [{}], [None],
    [{"from": "gpt", "value": "v"}], "\ud800",
)  # fmt: skip
FIELDS = (
    "instruction", "input", "output", "history", "system", "messages", "role",
    "conversations", "from", "value", "content", "id", "prompt", "completion", "x", "",
    "instead", "name", "insted",
)  # fmt: skip


def mangled(value, rng):
    """Return a JSON value of which something was changed."""
    if rng.random() < 0.2 or not value or not isinstance(value, dict | list):
        return rng.choice(VALUES)
    value = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(value if isinstance(value, dict) else range(len(value))))
    kind = rng.randrange(4)
    if kind == 0:
        value[key] = mangled(value[key], rng)
    elif kind == 1:
        del value[key]
    elif isinstance(value, dict):
        value[rng.choice(FIELDS)] = value[key] if kind == 2 else rng.choice(VALUES)
    else:
        value.insert(key, mangled(value[key], rng))
    return value


def damaged(lines, rng):
    """Return the bytes of a file of which something was damaged."""
    lines = [json.dumps(x, ensure_ascii=rng.random() < 0.5) for x in lines]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        at, n = rng.randrange(len(content) + 1), rng.choice((1, 1, 2, 30))
        kind = rng.randrange(5)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content = content[:at] + rng.randbytes(n) + content[at:]
        elif kind == 2:
            content = content[:at] + content[at + n :]
        elif kind == 3:
            content = (
                content[:at] + rng.choice(b'{}[]",:\\\n\r\0').to_bytes() + content[at:]
            )
        else:
            content = content[:at] + content[at : at + n] * 2 + content[at + n :]
    whole = rng.randrange(20)
    forms = {
        0: as_array,
        1: gzip.compress,
        2: lambda content: b"\xef\xbb\xbf" + content,
        3: lambda content: content.replace(b"\n", b"\r\n"),
        4: lambda content: b'{"data":' + as_array(content) + b"}",
    }
    return forms.get(whole, bytes)(content)


def texts(value):
    """Return all texts in a JSON value but names of fields and roles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            if name not in ("id", "source", "group", "role", "from"):
                yield from texts(item)


def check_read(lines, found):
    """Check that nothing in a file was dropped, without the reader's own code."""
    assert len(lines) == len(found)
    for line, read in zip(lines, found, strict=True):
        for text in filter(str.strip, texts(json.loads(line))):
            assert any(text in part for part in read), (line, read)


@pytest.mark.parametrize("what", ["data", "targets", "prompts"])
def test_damaged_files_are_read_whole_or_refused_with_their_line(what, tmp_path):
    rng = random.Random(what)
    file, refused = tmp_path / "d.jsonl", 0
    valid = (ALPACA | {"history": [["é?", "ü."]], "system": "s"}, CHAT, SHAREGPT, LIMA)
    read = {"data": read_examples, "targets": read_pairs, "prompts": read_prompts}[what]
    if what == "targets":
        valid = (
            TARGET,
            TARGET | {"prompt": "b", "instead": None},
            TARGET | {"name": "x"},
        )
    if what == "prompts":
        valid = tuple({"prompt": text} for text in ("Who?", "Why, é?", "How?\n"))
    for _ in range(5000 if what == "data" else 1000):
        lines = rng.sample(valid, rng.randint(1, 3))
        if rng.random() < 0.6:
            k = rng.randrange(len(lines))
            lines[k] = mangled(lines[k], rng)
        file.write_bytes(content := damaged(lines, rng))
        try:
            found = read(file)
        except ValueError as error:
            refused += 1
            said = str(error)
            assert type(error) is ValueError and said.isprintable() and len(said) < 700
            named = (
                r"d\.jsonl:\d+ |d\.jsonl' must (be text, got gzip|hold at least one)"
            )
            assert re.search(named, said), said
            continue
        raw = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        kept = [line for line in raw.split("\n") if line.strip()]
        if what == "data":
            check_read(kept, [[m.content for m in e.messages] for e in found])
            assert all(e.messages[-1].role == "assistant" for e in found)
        elif what == "targets":
            check_read(
                kept,
                [
                    [p.prompt, p.completion, p.instead or "", p.name or ""]
                    for p in found
                ],
            )
        else:
            kept = [line for line in kept if json.loads(line)["prompt"].strip()]
            check_read(kept, [[prompt] for prompt in found])
    # Both happen often, so that both are tried.
    assert 500 < refused < (4500 if what == "data" else 950)
