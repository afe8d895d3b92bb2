"""Points of a capability curve: what can be scored is found, what is new is scored, and drawn."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException

from indexlm.errors import DamagedError, UserError
from indexlm.evals.choice import Overflow
from indexlm.evals.curves import Curve, Point, Questions, read_questions
from indexlm.evals.sources import holds
from indexlm.evals.task import Task, read_task
from indexlm.records import (
    fingerprint,
    only_writer,
    read_metrics,
    verify,
    write_json,
)
from indexlm.report.benchmarks import HEADLINE
from indexlm.report.emergence import Curves, curve_page
from indexlm.stages.inputs import apart, held_out_entries, held_out_texts, refuse_unused
from indexlm.stages.snapshots import TEXT_TASKS, Snapshot, Source
from indexlm.text.refined import verify_refined

log = logging.getLogger("indexlm")

POLL = 2.0
"""Seconds between two looks for new checkpoints."""
DIGITS = 6
"""Significant, of what is kept of an item."""


@dataclass(frozen=True)
class Asked:
    """Options of the command; empty and None are the source's own."""

    tasks: Sequence[str]
    data: Sequence[Path]
    limit: int | None
    overflow: Overflow | None


def make_points(source: Source, asked: Asked, out: Path, *, watch: bool) -> int:
    """Score every snapshot that has no point in `out` yet; returns how many points there are.

    With `watch` until no more will come. Raises UserError where nothing can be scored or `out`
    holds points of something else. A Ctrl-C leaves whole points, and the page of them.
    """
    if not watch and not source.snapshots():
        raise UserError(
            f"{source.folder} has no checkpoint yet; --watch waits for them, and "
            "pretrain.keep_every keeps more than the newest two"
        )
    curve, settings = _curve(source, asked)
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        points = _Points(out, settings)
        points.check_same_run(source.snapshots())
        drawn = points.drawn()
        try:
            while True:
                # Looked at first: what comes in between is found by the look that follows.
                last = not watch or source.finished()
                for snapshot in source.snapshots():
                    if not points.has(snapshot):
                        _add(source, curve, snapshot, points)
                if drawn != len(points.lines):
                    drawn = _draw(source, points)
                if last:
                    return len(points.lines)
                time.sleep(POLL)
        except KeyboardInterrupt:
            if drawn != len(points.lines):
                _draw(source, points)
            raise


def _curve(source: Source, asked: Asked) -> tuple[Curve, dict[str, Any]]:
    """What a point is made of, and the same in plain values, to know it again."""
    names = list(dict.fromkeys(asked.tasks or source.default_tasks))
    if not names:
        raise UserError("--tasks is missing: say what the models are to be scored on")
    tasks = [read_task(name) for name in names if name not in TEXT_TASKS]
    text, placed = _places(source, asked.data, [n for n in names if n in TEXT_TASKS], tasks)
    questions = read_questions(
        placed,
        source.tokenizer,
        source.context,
        asked.limit or source.evals.curve_limit,
        asked.overflow or source.evals.overflow,
    )
    items = source.evals.curve_items
    held_out = held_out_texts(text) if text is not None and "bits_per_byte" in names else {}
    entries = held_out_entries(text) if text is not None and "starter" in names else []
    curve = Curve(source.tokenizer, held_out, entries, items, source.seed, questions)
    settings = {
        "text tasks": {
            name: [verify(text).fingerprint, source.seed, items]
            for name in names
            if text is not None and name in TEXT_TASKS
        },
        "benchmarks": {each.name: _identity(each) for each in questions},
        "window": source.context,
        "tokenizer": source.tokenizer.fingerprint,
        "device": source.device,
    }
    return curve, settings


def _identity(asked: Questions) -> str:
    """Of the very ids that are scored."""
    return fingerprint([[list(row) for row in each.all_rows] for each in asked.encoded])


def _places(
    source: Source, folders: Sequence[Path], on_text: Sequence[str], tasks: Sequence[Task]
) -> tuple[Path | None, list[tuple[Task, Path]]]:
    """The refined text, where a task needs it, and each benchmark with the folder of its files.

    Raises UserError for what is missing, and for a folder that no task reads.
    """
    refined, others = apart(folders)
    if not others and source.evals.benchmarks is not None:
        others = [Path(source.evals.benchmarks)]
    text = (refined or source.text) if on_text else None
    if on_text and text is None:
        raise UserError(f"--data is missing: refined text for {', '.join(on_text)}")
    if text is not None:
        verify_refined(text)
    if tasks and not others:
        raise UserError(f"--data is missing: the folder of the files of {tasks[0].name}")
    # Where none has it, reading from the first one tells what was looked for.
    placed = [
        (task, next((each for each in others if holds(task, each)), others[0])) for task in tasks
    ]
    refuse_unused(folders, [text, *(place for _, place in placed)])
    return text, placed


class _Points:
    """The file of points, and beside it what they were made of."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        """Raises UserError where there are points of other settings."""
        self.file, known = out / "points.jsonl", out / "settings.json"
        self.lines = read_metrics(self.file)
        if known.is_file() and self.lines:
            before = json.loads(known.read_text(encoding="utf-8"))
            for name in settings:
                if before.get(name, settings[name]) != settings[name]:
                    raise UserError(
                        f"{self.file} has points of other {name}; name another --out, or remove it"
                    )
        write_json(known, settings)
        whole = "".join(map(_as_text, self.lines)).encode()
        # A kill may have cut the last line.
        if not self.file.is_file() or self.file.read_bytes() != whole:
            partial = self.file.with_name(f".{self.file.name}.partial")
            partial.write_bytes(whole)
            partial.rename(self.file)

    @property
    def page(self) -> Path:
        return self.file.with_name("index.html")

    def drawn(self) -> int:
        """How many points the page shows; fewer than there are where some came after it."""
        there = self.page.is_file()
        late = there and self.page.stat().st_mtime_ns >= self.file.stat().st_mtime_ns
        return len(self.lines) if late else -1

    def check_same_run(self, snapshots: Sequence[Snapshot]) -> None:
        """Raises UserError where the points are of stages that were since made anew."""
        now = {each.stage: each.made_from for each in snapshots if each.stage != "models"}
        now |= {f"{e.stage} {e.step}": e.made_from for e in snapshots if e.stage == "models"}
        for line in self.lines:
            for key in (line["stage"], f"{line['stage']} {line['step']}"):
                if now.get(key, line["made_from"]) != line["made_from"]:
                    raise UserError(
                        f"{self.file} has a point of {line['stage']}, step {line['step']}, that is "
                        "of other weights; name another --out, or remove it"
                    )

    def has(self, snapshot: Snapshot) -> bool:
        place = (snapshot.stage, snapshot.step)
        return any((line["stage"], line["step"]) == place for line in self.lines)

    def add(self, line: Mapping[str, Any]) -> None:
        """One write: the file holds whole lines whenever it is looked at."""
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, _as_text(line).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.lines.append(dict(line))


def _add(source: Source, curve: Curve, snapshot: Snapshot, points: _Points) -> None:
    began = time.monotonic()
    try:
        model = source.open(snapshot)
    except (DamagedError, CheckpointException, OSError):
        if snapshot.folder.exists():
            raise
        # Training keeps the newest ones only.
        log.info(f"{snapshot.folder} is gone; no point is made of it")
        return
    point = curve.point(model)
    points.add(
        {
            "stage": snapshot.stage,
            "step": snapshot.step,
            "tokens": snapshot.tokens,
            "phase": snapshot.phase,
            "made_from": snapshot.made_from,
            "seconds": round(time.monotonic() - began, 1),
            "scores": point.scores,
            "items": _kept_items(point),
        }
    )
    log.info(f"{snapshot.stage} step {snapshot.step}: {_summary(point)}")


def _kept_items(point: Point) -> dict[str, dict[str, Any]]:
    def rounded(values: Any) -> list[float]:
        return [float(f"{value:.{DIGITS}g}") for value in values]

    return {
        name: {
            "right": "".join("1" if right else "0" for right in each.right),
            "margin": rounded(each.margin),
            "probability": rounded(each.probability),
        }
        for name, each in point.items.items()
    }


def _summary(point: Point) -> str:
    """Bits per byte, and of each prompt the accuracy that its task is known by."""
    ways = tuple(f"{style}/{way}" for style, way in HEADLINE.items())
    told = [f"{n} {v:.3f}" for n, v in point.scores.items() if n.startswith("bits_per_byte/")]
    for name, marks in point.items.items():
        if name.endswith(ways):
            told.append(f"{name.rpartition('/')[0]} {100 * marks.right.mean():.1f}%")
    return ", ".join(told)


def _draw(source: Source, points: _Points) -> int:
    """Write the page; returns how many points it shows."""
    if points.lines:
        page = curve_page(source.folder.resolve().name, Curves(points.lines, source.decay_from()))
        partial = points.page.with_name(f".{points.page.name}.partial")
        partial.write_text(page, encoding="utf-8")
        partial.rename(points.page)
    return len(points.lines)


def _as_text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
