"""Instruction data: conversations that end with the answer to be learnt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

_ROLES = {
    **{name: "system" for name in ("system",)},
    **{name: "user" for name in ("user", "human")},
    **{name: "assistant" for name in ("assistant", "gpt", "chatgpt", "model")},
}
_SCHEMAS = (
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
    path: str | PathLike[str], *, group: str | None = None
) -> list[Example]:
    r"""Read instruction data, one JSON object a line.

    Parameters
    ----------
    path : path-like
        File in which each line is of one of the schemas of Alpaca (`instruction`,
        `input`, `output`), LIMA (`conversations`, texts that alternate between user
        and assistant), chat (`messages` with `role` and `content`) or ShareGPT
        (`conversations` with `from` and `value`). Empty lines are passed over.
    group : str, optional
        Field to group examples by.

    Returns
    -------
    list of Example
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not JSON, lacks a field, or does not end with an answer, or if
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
    examples = [_example(line, source, group) for source, line in read_json_lines(path)]
    if not examples:
        raise ValueError(f"{str(path)!r} must hold at least one example, got none.")
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


def read_json_lines(
    path: str | PathLike[str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a file, one a line, each with where it stands.

    Parameters
    ----------
    path : path-like
        File in UTF-8; empty lines are passed over.

    Yields
    ------
    source : str
        File and line, such as ``"lima.jsonl:12"``.
    line : dict
        The object.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not a JSON object.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    for number, text in enumerate(_lines(file), start=1):
        if text.strip():
            source = f"{file.name}:{number}"
            yield source, _object(text, source)


def _lines(file: Path) -> list[str]:
    try:
        # Not splitlines, which also splits where JSON's strings may not be split.
        return file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(file)!r} must be in UTF-8, got byte {error.object[error.start]:#04x}"
            f" at offset {error.start}."
        ) from None


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except json.JSONDecodeError as error:
        array = text.lstrip().startswith("[") and source.endswith(":1")
        hint = ": one object a line is read, not an array" if array else ""
        raise ValueError(
            f"{source} must be a JSON object, got {_short(text)} ({error.msg} at "
            f"column {error.colno}){hint}."
        ) from None
    if not isinstance(line, dict):
        raise ValueError(f"{source} must be a JSON object, got {_short(text)}.")
    return line


def _example(line: dict[str, Any], source: str, group: str | None) -> Example:
    messages = tuple(_messages(line, source))
    if not messages or messages[-1].role != "assistant":
        last = f"a message of the {messages[-1].role}" if messages else "none"
        raise ValueError(
            f"{source} must end with the assistant's answer, got {last} at the end."
        )
    if not messages[-1].content.strip():
        raise ValueError(f"{source} must end with an answer, got an empty one.")
    if len(messages) == 1:
        raise ValueError(f"{source} must ask before it answers, got an answer only.")
    return Example(messages, _group(line, group, source), source)


def _messages(line: dict[str, Any], source: str) -> Iterator[Message]:
    if "messages" in line:
        yield from _said(line["messages"], "messages", ("role", "content"), source)
    elif "conversations" in line:
        turns = line["conversations"]
        if isinstance(turns, list) and all(isinstance(turn, str) for turn in turns):
            for number, content in enumerate(turns):
                yield Message(("user", "assistant")[number % 2], content)
        else:
            yield from _said(turns, "conversations", ("from", "value"), source)
    elif "instruction" in line or "output" in line:
        fields = ("instruction", "input", "output")
        asked, given, answer = (text_of(line, name, source) for name in fields)
        asked = "\n\n".join(part for part in (asked, given) if part.strip())
        yield from (Message("user", asked), Message("assistant", answer))
    else:
        raise ValueError(
            f"{source} must have the fields {_SCHEMAS}, got {sorted(line)}."
        )


def _said(turns: Any, field: str, names: tuple[str, str], source: str) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(
            f"`{field}` of {source} must be a list of objects with `{names[0]}` and "
            f"`{names[1]}`, got {_short(json.dumps(turns))}."
        )
    said = [(text_of(t, names[0], source), text_of(t, names[1], source)) for t in turns]
    unknown = [role for role, _ in said if role not in _ROLES]
    if unknown:
        raise ValueError(
            f"`{names[0]}` of a message of {source} must be one of "
            f"{', '.join(_ROLES)}, got {unknown[0]!r}."
        )
    return [Message(_ROLES[role], content) for role, content in said]


def text_of(line: dict[str, Any], field: str, source: str) -> str:
    """Return a field that must hold a text.

    Parameters
    ----------
    line : dict
        What was read; ``"input"`` may be missing from it.
    field : str
        Which field.
    source : str
        File and line.

    Returns
    -------
    str
        The text.

    Raises
    ------
    ValueError
        If the field is missing, or holds something else.
    """
    value = line.get(field, "" if field == "input" else None)
    if not isinstance(value, str):
        what = _short(json.dumps(value)) if field in line else f"only {sorted(line)}"
        raise ValueError(f"{source} must have a text as `{field}`, got {what}.")
    return value


def _group(line: dict[str, Any], group: str | None, source: str) -> str | None:
    if group is None:
        return None
    value = line.get(group)
    if not isinstance(value, str | int) or value == "":
        what = _short(json.dumps(value)) if group in line else f"only {sorted(line)}"
        raise ValueError(
            f"{source} must have a text or whole number as `{group}`, which examples "
            f"are grouped by, got {what}."
        )
    return str(value)


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else text[:37] + "...")
