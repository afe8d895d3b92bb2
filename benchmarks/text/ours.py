"""The rows of `indexlm data refine`: what is asked of it, and what it left."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.text import scoring
from benchmarks.text.meter import folder_bytes

from indexlm.config import TEXT_STEPS
from indexlm.text.jsonl import read_jsonl


@dataclass(frozen=True)
class Row:
    steps: tuple[str, ...]
    form: str = ".jsonl"
    """Ending of the file that is read."""


ROWS: Mapping[str, Row] = {
    "indexlm": Row(TEXT_STEPS),
    "indexlm_without_passages": Row(tuple(step for step in TEXT_STEPS if step != "passages")),
    # What is done where neither a classifier nor benchmarks are given.
    "indexlm_defaults_without_passages": Row(
        ("rules", "instructions", "privacy", "copies", "near_copies")
    ),
    # One by one; `rules` is the least that is run, and what the others are compared with.
    **{f"step_{step}": Row(tuple(dict.fromkeys(("rules", step)))) for step in TEXT_STEPS},
    "rules_from_gz": Row(("rules",), ".jsonl.gz"),
    "rules_from_zst": Row(("rules",), ".jsonl.zst"),
}


def classifier(text: Path, out: Path) -> list[str]:
    """The command that trains the classifier of the step quality."""
    lessons = text / "lessons"
    asked = [sys.executable, "-m", "indexlm.cli", "data", "classifier", "--lose", "0.001"]
    asked += ["--good", str(lessons / "good.jsonl"), "--bad", str(lessons / "bad.jsonl")]
    return [*asked, "--out", str(out)]


def command(row: Row, text: Path, out: Path, work: Path, workers: int, quality: Path) -> list[str]:
    """The command of a row. Steps that need a classifier or a benchmark's items are given them."""
    asked = [sys.executable, "-m", "indexlm.cli", "data", "refine"]
    asked += [str(text / f"corpus{row.form}")]
    asked += ["--out", str(out), "--work", str(work), "--workers", str(workers)]
    asked += ["--steps", ",".join(row.steps)]
    if "quality" in row.steps:
        asked += ["--quality", str(quality)]
    if "contamination" in row.steps:
        asked += ["--benchmarks", str(text / "benchmark.jsonl")]
    return asked


def sizes(out: Path, work: Path) -> dict[str, float]:
    return {"output_mb": folder_bytes(out) / 1e6, "work_mb": folder_bytes(work) / 1e6}


def score(text: Path, out: Path) -> dict[str, Any]:
    kept: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for folder in ("train", "held_out"):
        for path in (out / folder).glob("*.jsonl.zst"):
            kept |= {_name(row): row["text"] for row in read_jsonl(path)}
    for path in (out / "dropped").glob("*.jsonl.zst"):
        dropped |= {_name(row): path.name.split(".")[0] for row in read_jsonl(path)}
    return scoring.everything(scoring.read_truth(text / "truth.jsonl"), kept, dropped)


def _name(row: Mapping[str, Any]) -> str:
    """The id in the text: the source is put before it."""
    return str(row["id"]).rpartition("/")[2]
