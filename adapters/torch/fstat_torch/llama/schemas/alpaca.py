"""An instruction and its output, as in Alpaca."""

from __future__ import annotations

from typing import Any, ClassVar

from ..fields import got, optional_text, text_of
from .schema import Message, Schema


class Alpaca(Schema):
    """`instruction` and `output`, an `input`, and a `history` of pairs."""

    name: ClassVar[str] = "Alpaca"
    fields: ClassVar[tuple[str, ...]] = ("instruction", "input", "output", "history")
    needed: ClassVar[str] = "`instruction` and `output` (Alpaca)"

    def messages(self, line: dict[str, Any], source: str) -> list[Message]:
        """Return the history, the instruction with its input, and the output."""
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
