"""Instruction data: conversations that end with the answer to be learnt."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..lines import Line, items_of, lines_from, read_json_lines, short
from .fields import got, is_empty, names_of, optional_text, refuse_unread
from .schemas import SCHEMAS, Message, Schema, as_messages

# Which say what an example is, and nothing that a model reads.
_METADATA = ("id", "source", "group")


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
    schemas: Sequence[Schema] = SCHEMAS,
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
    schemas : sequence of Schema, optional
        What a line may be of; by default those above.

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
    if len(lines) == 1 and not any(f in lines[0][1] for s in schemas for f in s.fields):
        _refuse_wrapped(Path(path), *lines[0])
    of = [_schema(line, source, schemas) for source, line in lines]
    examples = [
        _example(schema, line, source, group)
        for schema, (source, line) in zip(of, lines, strict=True)
    ]
    way = "correct it, or leave it out with --ignore {}"
    metadata = {*_METADATA, *ignore, *([] if group is None else [group])}
    for schema in dict.fromkeys(of):
        mine = [line for line, its in zip(lines, of, strict=True) if its is schema]
        turns = [
            (f"A message of {source}", turn)
            for source, line in mine
            for turn in schema.turns(line)
        ]
        refuse_unread(mine, (*schema.fields, "system"), metadata, way)
        refuse_unread(turns, schema.turn_fields, set(ignore), way)
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


def _example(
    schema: Schema, line: dict[str, Any], source: str, group: str | None
) -> Example:
    messages = tuple(_with_system(schema, line, source))
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


def _with_system(schema: Schema, line: dict[str, Any], source: str) -> list[Message]:
    """Return the messages of a line, that of the system first."""
    messages = schema.messages(line, source)
    system = optional_text(line, "system", source)
    if not system:
        return messages
    if any(message.role == "system" for message in messages):
        raise ValueError(
            f"{source} must say once what the system says, got it as `system` and "
            "among the messages: leave one out."
        )
    return [Message("system", system), *messages]


def _schema(line: dict[str, Any], source: str, schemas: Sequence[Schema]) -> Schema:
    """Return the one schema that the fields of a line are of."""
    there = [(name, s) for s in schemas for name in s.fields if name in line]
    there = [(name, s) for name, s in there if not is_empty(line[name])] or there
    found = list(dict.fromkeys(schema for _, schema in there))
    if not found:
        *most, last = [schema.needed for schema in schemas]
        needed = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(
            f"{source} must have the fields {needed}, got {names_of(line)}."
        )
    if len(found) > 1:
        raise ValueError(
            f"{source} must be of one schema, got fields of "
            f"{' and '.join(schema.name for schema in found)}, "
            f"{', '.join(f'`{name}`' for name, _ in there)}: leave those of one in the "
            "line."
        )
    return found[0]


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
