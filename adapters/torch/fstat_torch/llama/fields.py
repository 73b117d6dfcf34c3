"""Fields of a line: as they must be, and none that nothing reads."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from ..lines import Line, short


def text_of(line: dict[str, Any], field: str, source: str) -> str:
    """Return a field that must hold a text.

    Parameters
    ----------
    line : dict
        What was read.
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
    value = line.get(field)
    if not isinstance(value, str):
        raise ValueError(
            f"{source} must have a text as `{field}`, got {got(line, field)}."
        )
    return value


def optional_text(line: dict[str, Any], field: str, source: str) -> str | None:
    """Return a field that must hold a text if it is there, and is not null.

    Parameters
    ----------
    line : dict
        What was read.
    field : str
        Which field.
    source : str
        File and line.

    Returns
    -------
    str or None
        The text.

    Raises
    ------
    ValueError
        If the field holds something else.
    """
    return None if line.get(field) is None else text_of(line, field, source)


def is_empty(value: Any) -> bool:
    """Return whether a field holds nothing.

    Parameters
    ----------
    value : object
        Of JSON.

    Returns
    -------
    bool
        True of null, and of texts, lists and objects of nothing.
    """
    return value is None or value in ("", [], {})


def got(line: dict[str, Any], field: str) -> str:
    """Return what a field holds, or which fields there are instead.

    Parameters
    ----------
    line : dict
        What was read.
    field : str
        Which field was wanted.

    Returns
    -------
    str
        For a message.
    """
    if field in line:
        return short(json.dumps(line[field]))
    meant = get_close_matches(field, list(line), 1)
    hint = f", of which {short(meant[0])} may be meant" if meant else ""
    return f"only {names_of(line)}{hint}"


def names_of(line: dict[str, Any]) -> str:
    """Return the names of the fields of a line.

    Parameters
    ----------
    line : dict
        What was read.

    Returns
    -------
    str
        The first of them.
    """
    names = [short(name) for name in sorted(line)]
    return f"[{', '.join(names[:8])}{', ...' * (len(names) > 8)}]"


def refuse_unread(
    lines: Iterable[Line], read: Collection[str], metadata: Collection[str], way: str
) -> None:
    """Refuse fields that nothing reads, so that nothing is dropped without a word.

    Parameters
    ----------
    lines : iterable of (str, dict)
        File and line, and the fields.
    read : collection of str
        Names of fields that are read.
    metadata : collection of str
        Names of fields that need not be read.
    way : str
        What to do about others, with a place for their names.

    Raises
    ------
    ValueError
        If a field has another name and is not empty, or has nearly the name of one
        that is read.
    """
    allowed = {*read, *metadata}
    found, near = dict[str, str](), dict[str, str | None]()
    for source, line in lines:
        for name in (name for name in line if name not in allowed):
            if name not in near:
                near[name] = _near(name, read)
            if near[name] or not is_empty(line[name]):
                found.setdefault(name, source)
    if found:
        names = sorted(found, key=list(near).index)
        hint = f"`{near[names[0]]}` may be meant; else " if near[names[0]] else ""
        raise ValueError(
            f"{found[names[0]]} has the field {short(names[0])}, which is not read: "
            f"{hint}{way.format(' '.join(map(_named, names)))}"
        )


def _near(name: str, read: Collection[str]) -> str | None:
    return next(iter(get_close_matches(name, list(read), 1, cutoff=0.75)), None)


def _named(name: str) -> str:
    return shlex.quote(name) if name.isprintable() else short(name)
