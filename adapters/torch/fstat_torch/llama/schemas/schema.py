"""What a schema of instruction data says, and the messages that it reads."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from ...lines import short
from ..fields import text_of

ROLES = {
    "system": "system",
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model"), "assistant"),
}


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


class Schema(ABC):
    """How the fields of a line make a conversation.

    Attributes
    ----------
    name : str
        What it is called.
    fields : tuple of str
        Names of the fields it reads. A line with any of them is of this schema.
    needed : str
        The fields that a line must have, as an error says it.
    turn_fields : tuple of str
        Names of the fields of the objects that `turns` returns.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    needed: ClassVar[str]
    turn_fields: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def messages(self, line: dict[str, Any], source: str) -> list[Message]:
        """Return the conversation of a line, without what `system` says.

        Parameters
        ----------
        line : dict
            What was read.
        source : str
            File and line.

        Returns
        -------
        list of Message
            In order.

        Raises
        ------
        ValueError
            If a field is missing, or holds something else than it should.
        """

    def turns(self, line: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Return the objects within a line whose fields must be known, too.

        Parameters
        ----------
        line : dict
            What was read.

        Returns
        -------
        iterable of dict
            None, by default.
        """
        return ()


def said(turns: Any, field: str, names: tuple[str, str], source: str) -> list[Message]:
    """Return the messages of a list of objects, each of a role and what it says.

    Parameters
    ----------
    turns : object
        What the field holds.
    field : str
        Its name.
    names : (str, str)
        Names of the two fields of an object.
    source : str
        File and line.

    Returns
    -------
    list of Message
        In order.

    Raises
    ------
    ValueError
        If it is no such list, or a role is unknown.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(
            f"`{field}` of {source} must be a list of objects with `{names[0]}` and "
            f"`{names[1]}`, got {short(json.dumps(turns))}."
        )
    found = [
        (text_of(turn, names[0], source), text_of(turn, names[1], source))
        for turn in turns
    ]
    unknown = [role for role, _ in found if role not in ROLES]
    if unknown:
        raise ValueError(
            f"`{names[0]}` of a message of {source} must be one of "
            f"{', '.join(ROLES)}, got {short(unknown[0])}."
        )
    return [Message(ROLES[role], content) for role, content in found]


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
