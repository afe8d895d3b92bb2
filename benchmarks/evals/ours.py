"""Our side: what `indexlm eval` says of every item, and items asked in other ways on purpose."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evals.points import Point

from indexlm.evals.choice import Answered, Start, answer, prompt_sha256
from indexlm.evals.items import Subject, read_subjects
from indexlm.evals.prompts import Asked, ask
from indexlm.evals.results import Line, item_line
from indexlm.evals.task import read_task
from indexlm.model.transformer import Transformer
from indexlm.tokens.tokenizer import Tokenizer

Item = dict[str, Any]
"""One item as both sides write it: see `harness._rows`."""


def run_command(
    point: Point, model: Path, data: Path, out: Path, limit: int | None, threads: int
) -> None:
    """`indexlm eval`, as a user types it."""
    command = [sys.executable, "-m", "indexlm.cli", "eval", str(model), "--data", str(data)]
    command += ["--tasks", point.benchmark, "--prompts", point.prompt, "--out", str(out)]
    command += ["--limit", str(limit)] if limit is not None else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*command, "--device", "cpu"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n`indexlm eval` failed (status {done.returncode})")


def results(point: Point, out: Path) -> dict[str, Any]:
    """What results.json says of the prompt."""
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return content["tasks"][point.benchmark]["prompts"][point.prompt]


def items(point: Point, data: Path, out: Path, limit: int | None) -> list[Item]:
    """Every item of a results folder, with the strings whose hash it kept."""
    path = out / "items" / f"{point.benchmark}.{point.prompt}.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    task = read_task(point.benchmark)
    asked = [
        (subject.name, number, each)
        for subject in read_subjects(task, data, limit=limit)
        for number, each in enumerate(ask(task, task.prompts[point.prompt], subject))
    ]
    assert len(asked) == len(lines), f"{path}: {len(lines)} lines, {len(asked)} items"
    found = []
    for (subject, number, each), line in zip(asked, lines):
        assert (subject, each.item.place) == (line["subject"], line["place"]), line["place"]
        assert prompt_sha256(each) == line["prompt_sha256"], line["place"]
        found.append(_item(subject, number, each, line))
    return found


def asked_anew(
    point: Point,
    model: Transformer,
    tokenizer: Tokenizer,
    subject: Subject,
    asked: Sequence[Asked],
    start: Start = "none",
) -> list[Item]:
    """The same of prompts that need not be those of the task."""
    style = read_task(point.benchmark).prompts[point.prompt].style
    answers: Sequence[Answered] = answer(model, tokenizer, asked, start=start).answered
    return [
        _item(subject.name, number, each, item_line(subject.name, said, style))
        for number, (each, said) in enumerate(zip(asked, answers))
    ]


def _item(subject: str, number: int, asked: Asked, line: Line) -> Item:
    chosen = line["choices"]
    return {
        "subject": subject,
        "number": number,
        "context": asked.context,
        "continuations": list(asked.continuations),
        "answer": line["answer"],
        "logprobs": line["logprobs"],
        # All letters have one character.
        "choices": {
            "acc": chosen["logprob"],
            "acc_norm": chosen.get("per_character", chosen["logprob"]),
        },
    }
