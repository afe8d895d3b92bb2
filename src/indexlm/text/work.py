"""The work folder: what a step made of a shard, and whether it can still be trusted.

Every output has a marker beside it, written last, with the hash of what it was made from (input,
settings, code) and of its own bytes. An output whose marker says the same is not made again; one
that is missing, cut short, changed or made from something else is.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexlm.records import fingerprint, sha256_file, write_json

MARKER = ".done"
ARRAYS = ("names", "stretches", "cuts")
"""Outputs that are one array, not columns."""


@dataclass(frozen=True)
class Made:
    """A finished output: its hash and what its maker notes of it."""

    path: Path
    made_from: str
    bytes: int
    sha256: str
    notes: Mapping[str, Any]


def finished(path: Path, made_from: str) -> Made | None:
    """The output at `path` if it is whole and was made from just this, else None."""
    marker = path.with_name(path.name + MARKER)
    if not marker.is_file() or not path.is_file():
        return None
    try:
        content = json.loads(marker.read_bytes())
    except ValueError:
        return None
    seal = content.pop("seal", None) if isinstance(content, dict) else None
    if seal != fingerprint(content) or content["made_from"] != made_from:
        return None
    made = Made(path, **content)
    whole = path.stat().st_size == made.bytes and sha256_file(path) == made.sha256
    return made if whole else None


def make(path: Path, made_from: str, write: Callable[[Path], Mapping[str, Any] | None]) -> Made:
    """Let `write` fill a file, then give it its name and its marker.

    A reader sees the whole output or none. Processes that make the same one at a time do not
    disturb each other: each has a file of its own, and the bytes are equal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        notes = write(partial) or {}
        content: dict[str, Any] = {
            "made_from": made_from,
            "bytes": partial.stat().st_size,
            "sha256": sha256_file(partial),
            "notes": notes,
        }
        path.with_name(path.name + MARKER).unlink(missing_ok=True)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    write_json(path.with_name(path.name + MARKER), content | {"seal": fingerprint(content)})
    return Made(path, **content)


def once(path: Path, made_from: str, write: Callable[[Path], Mapping[str, Any] | None]) -> Made:
    """The output as it is where it is finished, else made now."""
    return finished(path, made_from) or make(path, made_from, write)


def output(work: Path, name: str, shard: Path) -> Path:
    """Where a step's output for a shard lies."""
    return work / name / f"{shard.stem}{'.npy' if name in ARRAYS else '.arrow'}"
