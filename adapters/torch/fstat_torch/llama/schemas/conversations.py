"""Conversations of LIMA and of ShareGPT."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any, ClassVar

from .schema import Message, Schema, said


class Conversations(Schema):
    """`conversations`: texts of the user and the assistant in turn, or objects.

    The objects have `from` and `value`.
    """

    name: ClassVar[str] = "LIMA or ShareGPT"
    fields: ClassVar[tuple[str, ...]] = ("conversations",)
    needed: ClassVar[str] = "`conversations` (LIMA, ShareGPT)"
    turn_fields: ClassVar[tuple[str, str]] = ("from", "value")

    def messages(self, line: dict[str, Any], source: str) -> list[Message]:
        """Return the messages."""
        turns = line["conversations"]
        if isinstance(turns, list) and all(isinstance(turn, str) for turn in turns):
            roles = cycle(("user", "assistant"))
            return [Message(*said) for said in zip(roles, turns, strict=False)]
        return said(turns, "conversations", self.turn_fields, source)

    def turns(self, line: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Return those that are objects."""
        return (turn for turn in line["conversations"] if isinstance(turn, dict))
