"""The description of a trace in its folder: its targets, its metric and its run."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from .._files import refusing, regular, writing, written_whole

SCHEMA = 3


def write_description(folder: Path, targets: list[str], metric: str, run: str) -> None:
    """Make the folder, if need be, and write the description into it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    meta: dict[str, Any] = {"schema": SCHEMA, "targets": targets, "metric": metric}
    meta["run"] = run
    meta["checksum"] = _checksum(meta)
    with written_whole(folder / "trace.json") as file:
        file.write(json.dumps(meta, indent=1).encode())


def read_description(folder: Path) -> tuple[list[str], str, str]:
    """Return the targets, the metric and the run of the trace in a folder."""
    place = folder / "trace.json"
    regular(place)
    with refusing(place, "the description of a trace"):
        meta = json.loads(place.read_text(encoding="utf-8"))
        if int(meta["schema"]) <= SCHEMA and meta.pop("checksum") != _checksum(meta):
            raise ValueError("its checksum differs")
        targets, metric = [str(name) for name in meta["targets"]], str(meta["metric"])
        schema, run = int(meta["schema"]), str(meta["run"])
    if schema > SCHEMA:
        raise ValueError(f"`{folder}` was written by a later version of fstat.")
    return targets, metric, run


def _checksum(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
