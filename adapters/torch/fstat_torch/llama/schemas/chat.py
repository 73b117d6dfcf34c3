"""Lists of messages, as chat templates take them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from .schema import Message, Schema, said


class Chat(Schema):
    """`messages`: a list of objects with `role` and `content`."""

    name: ClassVar[str] = "chat"
    fields: ClassVar[tuple[str, ...]] = ("messages",)
    needed: ClassVar[str] = "`messages` (chat)"
    turn_fields: ClassVar[tuple[str, str]] = ("role", "content")

    def messages(self, line: dict[str, Any], source: str) -> list[Message]:
        """Return the messages."""
        return said(line["messages"], "messages", self.turn_fields, source)

    def turns(self, line: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Return the messages as they were read."""
        return line["messages"]
