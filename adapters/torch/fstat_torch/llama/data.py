"""Instruction data: conversations that end with the answer to be learnt."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import cycle
from os import PathLike
from pathlib import Path
from typing import Any

from ..lines import Line, items_of, lines_from, read_json_lines, short
from .fields import got, is_empty, names_of, optional_text, refuse_unread, text_of

_ROLES = {
    "system": "system",
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model"), "assistant"),
}
# Which schema a field is of.
_SCHEMAS = {
    "messages": "chat",
    "conversations": "LIMA or ShareGPT",
    **dict.fromkeys(("instruction", "input", "output", "history"), "Alpaca"),
}
_READ = (*_SCHEMAS, "system")
# Which say what an example is, and nothing that a model reads.
_METADATA = ("id", "source", "group")
_NEEDED = (
    "`messages` (chat), `conversations` (LIMA, ShareGPT) or `instruction` and `output` "
    "(Alpaca)"
)


@dataclass(frozen=True)
class Message:
    """What one side says.

    Parameters
    ----------
    role : {"system", "user", "assistant"}
        Who says it.
    content : str
        What is said.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation whose last message, the assistant's, is learnt.

    Parameters
    ----------
    messages : tuple of Message
        In order; the last one is the assistant's answer.
    group : str, optional
        What it is grouped by: a source, an author, a topic.
    source : str
        Where it comes from, such as ``"lima.jsonl:12"``.
    """

    messages: tuple[Message, ...]
    group: str | None = None
    source: str = "an example"

    @classmethod
    def of(cls, prompt: str, answer: str, **known: Any) -> Example:
        """Make an example of one question and its answer.

        Parameters
        ----------
        prompt, answer : str
            What is asked and answered.
        **known : str
            Its `group` and `source`.

        Returns
        -------
        Example
            Of two messages.
        """
        return cls((Message("user", prompt), Message("assistant", answer)), **known)

    @property
    def prompt(self) -> str:
        """What the user said last before the answer."""
        asked = [m.content for m in self.messages[:-1] if m.role == "user"]
        return asked[-1] if asked else ""

    @property
    def answer(self) -> str:
        """What is learnt."""
        return self.messages[-1].content


def read_examples(
    path: str | PathLike[str],
    *,
    group: str | None = None,
    ignore: Collection[str] = (),
) -> list[Example]:
    r"""Read instruction data, one JSON object a line.

    Parameters
    ----------
    path : path-like
        File in which each line is of one of the schemas of Alpaca (`instruction`,
        `input`, `output`, and `history`, pairs of earlier questions and answers), LIMA
        (`conversations`, texts that alternate between user and assistant), chat
        (`messages` with `role` and `content`) or ShareGPT (`conversations` with `from`
        and `value`). A text in `system` is a message before the others. Empty lines
        are passed over.
    group : str, optional
        Field to group examples by.
    ignore : collection of str, optional
        Further fields, of lines or of their messages, that are not to be read. `id`,
        `source` and `group` are not read in any case, nor are empty fields.

    Returns
    -------
    list of Example
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not JSON, is of no schema or of two, lacks a field or has one that
        is not read, has the `id` of another, or does not end with an answer, or if
        there is no example; the message names file and line.

    Examples
    --------
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from fstat_torch.llama import read_examples
    >>> lines = [
    ...     {"instruction": "Add.", "input": "2 and 3", "output": "5", "by": "ann"},
    ...     {"conversations": ["Who are you?", "A model."], "by": "bob"},
    ... ]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "data.jsonl"
    ...     _ = file.write_text("\n".join(map(json.dumps, lines)))
    ...     first, second = read_examples(file, group="by")
    >>> first.prompt, first.answer, first.group, first.source
    ('Add.\n\n2 and 3', '5', 'ann', 'data.jsonl:1')
    >>> second.answer, second.source
    ('A model.', 'data.jsonl:2')
    """
    lines = read_json_lines(path)
    if not lines:
        raise ValueError(f"{str(path)!r} must hold at least one example, got none.")
    if len(lines) == 1 and not _SCHEMAS.keys() & lines[0][1].keys():
        _refuse_wrapped(Path(path), *lines[0])
    examples = [_example(line, source, group) for source, line in lines]
    said = [
        (f"A message of {source}", message)
        for source, line in lines
        for field in ("messages", "conversations")
        for message in line.get(field) or ()
        if isinstance(message, dict)
    ]
    way = "correct it, or leave it out with --ignore {}"
    metadata = {*_METADATA, *ignore, *([] if group is None else [group])}
    refuse_unread(lines, _READ, metadata, way)
    refuse_unread(said, ("role", "content", "from", "value"), set(ignore), way)
    if "id" not in ignore:
        _refuse_repeated(lines)
    return examples


def write_examples(path: str | PathLike[str], examples: Iterable[Example]) -> None:
    """Write examples in the chat schema, which `read_examples` reads.

    Parameters
    ----------
    path : path-like
        File to write.
    examples : iterable of Example
        What to write; a `group` goes into the field of that name.
    """
    with open(path, "w", encoding="utf-8") as file:
        for example in examples:
            line: dict[str, Any] = {"messages": as_messages(example.messages)}
            if example.group is not None:
                line["group"] = example.group
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def as_messages(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Return messages as chat templates take them.

    Parameters
    ----------
    messages : iterable of Message
        A conversation.

    Returns
    -------
    list of dict
        With `role` and `content`.
    """
    return [{"role": m.role, "content": m.content} for m in messages]


def _refuse_wrapped(file: Path, source: str, line: dict[str, Any]) -> None:
    """Refuse a file of one object that holds the examples."""
    items = items_of(line)
    if "'" in items:
        raise ValueError(
            f"{source} must be one example a line, got an object that holds a list of "
            f"them: {lines_from(file, items)}"
        )


def _refuse_repeated(lines: list[Line]) -> None:
    first: dict[Any, str] = {}
    for source, line in lines:
        name = line.get("id")
        if isinstance(name, str | int) and first.setdefault(name, source) != source:
            raise ValueError(
                f"{source} has the `id` of {first[name]}, {short(str(name))}: leave "
                "one out, or leave ids unread with --ignore id"
            )


def _example(line: dict[str, Any], source: str, group: str | None) -> Example:
    messages = tuple(_with_system(line, source))
    if not messages or messages[-1].role != "assistant":
        last = f"a message of the {messages[-1].role}" if messages else "none"
        raise ValueError(
            f"{source} must end with the assistant's answer, got {last} at the end."
        )
    if not messages[-1].content.strip():
        raise ValueError(f"{source} must end with an answer, got an empty one.")
    if not any(m.content.strip() for m in messages[:-1] if m.role == "user"):
        raise ValueError(f"{source} must ask before it answers, got an answer only.")
    return Example(messages, _group(line, group, source), source)


def _with_system(line: dict[str, Any], source: str) -> list[Message]:
    """Return the messages of a line, that of the system first."""
    messages = _messages(line, source)
    system = optional_text(line, "system", source)
    if not system:
        return messages
    if any(message.role == "system" for message in messages):
        raise ValueError(
            f"{source} must say once what the system says, got it as `system` and "
            "among the messages: leave one out."
        )
    return [Message("system", system), *messages]


def _messages(line: dict[str, Any], source: str) -> list[Message]:
    there = [name for name in _SCHEMAS if name in line]
    there = [name for name in there if not is_empty(line[name])] or there
    schemas = list(dict.fromkeys(_SCHEMAS[name] for name in there))
    if not schemas:
        raise ValueError(
            f"{source} must have the fields {_NEEDED}, got {names_of(line)}."
        )
    if len(schemas) > 1:
        raise ValueError(
            f"{source} must be of one schema, got fields of {' and '.join(schemas)}, "
            f"{', '.join(f'`{name}`' for name in there)}: leave those of one in the "
            "line."
        )
    if schemas == ["Alpaca"]:
        return _alpaca(line, source)
    if schemas == ["chat"]:
        return _said(line["messages"], "messages", ("role", "content"), source)
    turns = line["conversations"]
    if isinstance(turns, list) and all(isinstance(turn, str) for turn in turns):
        roles = cycle(("user", "assistant"))
        return [Message(role, turn) for role, turn in zip(roles, turns, strict=False)]
    return _said(turns, "conversations", ("from", "value"), source)


def _alpaca(line: dict[str, Any], source: str) -> list[Message]:
    history = line.get("history") or []
    if not isinstance(history, list) or not all(map(_is_pair, history)):
        raise ValueError(
            f"{source} must have a list of [question, answer] as `history`, got "
            f"{got(line, 'history')}."
        )
    asked = text_of(line, "instruction", source)
    given = optional_text(line, "input", source) or ""
    asked = "\n\n".join(part for part in (asked, given) if part.strip())
    turns = [*history, (asked, text_of(line, "output", source))]
    return [
        Message(role, content)
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]


def _is_pair(turn: Any) -> bool:
    return (
        isinstance(turn, list)
        and len(turn) == 2
        and all(isinstance(text, str) for text in turn)
    )


def _said(turns: Any, field: str, names: tuple[str, str], source: str) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(
            f"`{field}` of {source} must be a list of objects with `{names[0]}` and "
            f"`{names[1]}`, got {short(json.dumps(turns))}."
        )
    said = [(text_of(t, names[0], source), text_of(t, names[1], source)) for t in turns]
    unknown = [role for role, _ in said if role not in _ROLES]
    if unknown:
        raise ValueError(
            f"`{names[0]}` of a message of {source} must be one of "
            f"{', '.join(_ROLES)}, got {short(unknown[0])}."
        )
    return [Message(_ROLES[role], content) for role, content in said]


def _group(line: dict[str, Any], group: str | None, source: str) -> str | None:
    if group is None:
        return None
    value = line.get(group)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise ValueError(
            f"{source} must have a text or whole number as `{group}`, which examples "
            f"are grouped by, got {got(line, group)}."
        )
    return str(value)
