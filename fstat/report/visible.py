"""Text that others wrote, inside of a page: all of it seen, none of it obeyed."""

from __future__ import annotations

import re
import unicodedata
from html import escape

# Bidirectional overrides, marks and isolates, line separators, the byte order mark.
_UNSEEN = re.compile(
    "[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f]|[\ud800-\udfff]|[\U000e0000-\U000e0fff]"
)
_PILE = 4  # marks on one letter; scripts need no more


def visible(text: str) -> str:
    r"""Return text for a page, with what would be obeyed rather than seen spelled out.

    Control characters, lone surrogates and characters that turn the direction of what
    follows become their code points. Lines end in line feeds.

    Parameters
    ----------
    text : str
        Anything.

    Returns
    -------
    str
        Escaped for elements and for attributes in quotes.

    Examples
    --------
    >>> from fstat.report import visible
    >>> visible("<b>\u202egnp.exe")
    '&lt;b&gt;[U+202E]gnp.exe'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)
    return escape(_unpiled(text))


def excerpt(text: str, length: int = 160) -> str:
    r"""Return the beginning of a text, on one line, cut between words.

    Parameters
    ----------
    text : str
        Anything.
    length : int, default=160
        Most characters.

    Returns
    -------
    str
        Not escaped; ends in an ellipsis where something is left out.

    Examples
    --------
    >>> from fstat.report import excerpt
    >>> excerpt("How do I\n boil an egg?", 12)
    'How do I…'
    """
    words = " ".join(text[: 8 * length].split())
    if len(words) <= length and len(text) <= 8 * length:
        return words
    cut = words[: length + 1].rpartition(" ")[0]
    return (cut or words[:length]) + "…"


def _unpiled(text: str) -> str:
    """Leave out marks that would pile up over the lines above."""
    if text.isascii():
        return text
    kept, pile = [], 0
    for letter in text:
        pile = pile + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        if pile <= _PILE:
            kept.append(letter)
    return "".join(kept)
