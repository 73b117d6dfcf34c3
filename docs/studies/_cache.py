"""Results and tables of studies, each under a key of the sources that made it.

A result is made by a study's own modules and by parts of the library::

    memory = Memory(kept("single_runs", __file__, "fstat", "fstat_torch"), verbose=0)

The key is a digest of their code, without comments and docstrings, and of the versions
of what they stand on. After a change of the code, results go to another folder and are
computed again. An edit of parts that are not named changes nothing. Every table of
docs/ carries the key in a comment, and `make stale` lists those whose code has changed.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from fstat.ground_truth._fingerprint import bare

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PLACES = {"fstat": ROOT, "fstat_torch": ROOT / "adapters" / "torch"}
VERSIONS = ("numpy", "scipy", "scikit-learn")
UNKNOWN = "unknown"  # of tables that were made before keys were kept
STAMP = re.compile(r"<!-- made by (\S+\.py), of ([^:]+): (\w+) -->")


def key_of(script: str | Path | None, *parts: str) -> str:
    """Return a short digest of a study's modules and the parts of the library it uses.

    Parameters
    ----------
    script : path-like or None
        The study; modules of its folder that it imports, directly or not, count too,
        but for this one, and packages there as a whole.
    *parts : str
        Packages, folders or modules, such as ``"fstat"``, ``"fstat_torch/retraining"``
        or ``"fstat_torch/targets/measures.py"``.
    """
    digest = hashlib.sha256()
    own = [] if script is None else _study(Path(script).resolve())
    for file in [*own, *_library(parts)]:
        source = bare(file.read_text(encoding="utf-8"))
        digest.update(f"{file.relative_to(ROOT)}\n{source}\n".encode())
    torch = ("torch",) if any(part.startswith("fstat_torch") for part in parts) else ()
    for package in (*VERSIONS, *torch):
        digest.update(f"{package} {_version(package)}\n".encode())
    return digest.hexdigest()[:12]


def kept(name: str, script: str | Path, *parts: str) -> Path:
    """Return the folder, under results/, of what some sources made."""
    return ROOT / "results" / name / key_of(script, *parts)


def stamp(script: str | Path, *parts: str) -> str:
    """Return the comment that tells of a table which sources made it."""
    path = Path(script).resolve().relative_to(ROOT)
    return f"<!-- made by {path}, of {', '.join(parts)}: {key_of(script, *parts)} -->"


def fill(page: str, name: str, text: str, script: str | Path, *parts: str) -> None:
    """Put text, and its stamp, between the marks of a page of the documentation."""
    file = DOCS / page
    head, mark, rest = file.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    end = f"<!-- end of {name} -->"
    if not mark or end not in rest:
        raise ValueError(f"`{page}` must have marks for {name!r}, got none.")
    body = f"\n{text}\n\n{stamp(script, *parts)}\n{end}"
    file.write_text(f"{head}{mark}{body}{rest.partition(end)[2]}", encoding="utf-8")


def write(page: str, text: str, script: str | Path, *parts: str) -> None:
    """Write a whole page of the documentation, and its stamp."""
    stamped = f"{text.rstrip()}\n\n{stamp(script, *parts)}\n"
    (DOCS / page).write_text(stamped, encoding="utf-8")


class Stamp(NamedTuple):
    """What a page tells of the sources of a table."""

    page: Path
    script: str
    parts: tuple[str, ...]
    key: str

    @property
    def is_current(self) -> bool:
        """Whether the same sources would make the table today."""
        script = ROOT / self.script
        return script.exists() and self.key == key_of(script, *self.parts)


def stamps() -> Iterator[Stamp]:
    """Yield the stamps of all pages."""
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        for script, parts, key in STAMP.findall(page.read_text(encoding="utf-8")):
            yield Stamp(page, script, tuple(parts.split(", ")), key)


def _study(script: Path) -> list[Path]:
    """Return a module and those of its folder that it imports, packages whole."""
    found, waiting = set(), [script]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported(ast.parse(file.read_text(encoding="utf-8"))):
            beside = script.parent / name.split(".")[0]
            waiting += beside.rglob("*.py")
            if beside.with_suffix(".py").exists():
                waiting.append(beside.with_suffix(".py"))
    return sorted(found - {Path(__file__).resolve()})


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _library(parts: tuple[str, ...]) -> list[Path]:
    files: set[Path] = set()
    for part in parts:
        place = PLACES.get(part.split("/")[0], ROOT) / part
        own = {place} if place.suffix == ".py" else set(place.rglob("*.py"))
        if not own or not all(file.exists() for file in own):
            raise ValueError(f"`parts` must name sources of the library, got {part!r}.")
        files |= own
    return sorted(files)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    found = [one for one in stamps() if not one.is_current]
    for one in found:
        print(f"{one.page.relative_to(ROOT)}: {one.script} (made by {one.key})")
    print(f"{len(found)} tables were made by other sources than today's.")
