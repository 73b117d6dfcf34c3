"""Files of one JSON object a line: read, or refused with file, line and a way out."""

from __future__ import annotations

import json
import shlex
from os import PathLike
from pathlib import Path
from typing import Any

Line = tuple[str, dict[str, Any]]

# How a file begins that has to be unpacked, and by what command.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip < {} > {}"),
    b"BZh": ("bzip2", "bunzip2 < {} > {}"),
    b"\xfd7zXZ": ("xz", "xz -d < {} > {}"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d < {} > {}"),
    b"PK\x03\x04": ("zip", "unzip -p {} > {}"),
    b"PAR1": (
        "parquet",
        'python -c "import pandas, sys; pandas.read_parquet(sys.argv[1])'
        ".to_json(sys.argv[2], orient='records', lines=True)\" {} {}",
    ),
}
_WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_SHOWN = 40  # characters of what is wrong


def read_json_lines(path: str | PathLike[str]) -> list[Line]:
    """Read the objects of a file, one a line, each with where it stands.

    Parameters
    ----------
    path : path-like
        File in UTF-8; empty lines are passed over.

    Returns
    -------
    list of (str, dict)
        File and line, such as ``"lima.jsonl:12"``, and the object.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a folder, packed or not in UTF-8, or a line is not one JSON object
        of whole characters, with each field once.
    """
    file = Path(path)
    text = read_text(file)
    name = file.name.encode("utf-8", "backslashreplace").decode()
    lines = [
        (f"{name}:{number}", line)
        # Not splitlines, which also splits where JSON's strings may not be split.
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    try:
        return [(source, _object(line, source)) for source, line in lines]
    except ValueError:
        _refuse_whole(file, text)
        raise


def read_text(path: str | PathLike[str]) -> str:
    r"""Read a file in UTF-8, with lines that end with ``\n`` whatever ended them.

    Parameters
    ----------
    path : path-like
        The file; a byte order mark at its beginning is left out.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a folder, a device, packed, or not in UTF-8.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(
            f"{str(path)!r} is a folder, and one file is read: name a file in it, or "
            f"join its files: {_joined(file)}"
        )
    if not file.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if not file.is_file():
        raise ValueError(
            f"{str(path)!r} must be a file on disk, got a pipe or a device: write what "
            "comes from it to a file first."
        )
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} must be a file that can be read, got {error.strerror!r}."
        ) from None
    _refuse_packed(content, file)
    return _decoded(content, file).replace("\r\n", "\n").replace("\r", "\n")


def _joined(folder: Path) -> str:
    found = {file.suffix for file in folder.iterdir()} & {".jsonl", ".json", ".txt"}
    end = max(found, default=".jsonl")
    new = folder.parent / f"{folder.name or 'all'}-joined{end}"
    # Unlike cat, awk ends the last line of each file.
    return f"awk 1 {_quoted(folder)}/*{end} > {_quoted(new)}"


def _refuse_packed(content: bytes, file: Path) -> None:
    for magic, (kind, command) in _PACKED.items():
        if content.startswith(magic):
            raise ValueError(
                f"{str(file)!r} must be text, got {kind}: unpack it first: "
                + command.format(_quoted(file), _new(file))
            )


def _decoded(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        encoding = _WIDE.get(content[:2], "LATIN1")
        raise ValueError(
            f"{file.name}:{line} must be in UTF-8, got byte "
            f"{error.object[error.start]:#04x}: convert the file from the encoding "
            f"that it is in, such as by iconv -f {encoding} -t UTF-8 < {_quoted(file)} "
            f"> {_new(file)}"
        ) from None


def _object(text: str, source: str) -> dict[str, Any]:
    must = f"{source} must be a JSON object"
    try:
        line = json.loads(
            text, object_pairs_hook=_once, parse_constant=_refuse_constant
        )
        json.dumps(line, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{must}, got {short(text)} ({error.msg} at column {error.colno})."
        ) from None
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{source} must hold whole characters, got the lone surrogate "
            f"\\u{ord(error.object[error.start]):04x}, half of a character: write the "
            "other half behind it, or leave it out."
        ) from None
    except RecursionError:
        raise ValueError(f"{must}, got one that is nested too deeply.") from None
    except ValueError as error:
        what = str(error).partition(":")[0].partition(";")[0]
        raise ValueError(f"{must}, got one that cannot be: {what}.") from None
    if not isinstance(line, dict):
        raise ValueError(f"{must}, got {short(text)}.")
    return line


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    line = dict(pairs)
    if len(line) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {short(twice)} is there twice")
    return line


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no value of JSON, write null")


def _refuse_whole(file: Path, text: str) -> None:
    """Refuse a file that is one JSON value, with the way to make lines of it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(value, list):
        what, items = f"one array of {len(value):,}", "json.load(sys.stdin)"
    elif isinstance(value, dict) and "\n" in text.strip():
        what, items = "one object over many lines", items_of(value)
    else:
        return
    raise ValueError(
        f"{file.name}:1 must be a JSON object, one a line, and the file is {what}: "
        + lines_from(file, items)
    )


def items_of(value: dict[str, Any]) -> str:
    """Return what of an object its examples are, in Python.

    Parameters
    ----------
    value : dict
        An object that holds a list of them, or is one.

    Returns
    -------
    str
        An expression for their list.
    """
    lists = [
        name
        for name, items in value.items()
        if isinstance(items, list)
        and any(isinstance(item, dict) for item in items)
        and name.isidentifier()
        and name not in ("messages", "conversations")
    ]
    if lists:
        return f"json.load(sys.stdin)['{lists[0]}']"
    return "[json.load(sys.stdin)]"


def lines_from(file: Path, items: str) -> str:
    """Return the command that writes items of a JSON file, one a line.

    Parameters
    ----------
    file : Path
        The file.
    items : str
        Of `items_of`.

    Returns
    -------
    str
        For a shell, with what it does.
    """
    return (
        'write one a line: python -c "import json, sys; [print(json.dumps(item)) for '
        f'item in {items}]" < {_quoted(file)} > {_new(file)}'
    )


def short(text: str) -> str:
    """Return the beginning of a text in quotes, with what cannot be shown escaped.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        In quotes.
    """
    text = text.strip()
    return ascii(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _quoted(file: Path) -> str:
    return shlex.quote(str(file))


def _new(file: Path) -> str:
    """Return a name beside a file, for what is made of it."""
    stem = file.name.partition(".")[0] or "data"
    return _quoted(file.with_name(f"{stem}-lines.jsonl"))
