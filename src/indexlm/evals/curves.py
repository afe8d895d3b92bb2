"""One point of a capability curve: a small, fixed part of every evaluation, made again and again.

What does not change from point to point is made once: texts and items are chosen, benchmarks read,
checked and encoded. A mistake in their files therefore shows before the first step of a training
run and not in the middle of it. Processes that work together share out the items and each gets the
whole point.

Shapes: P points, N items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from indexlm.errors import UserError
from indexlm.evals.benchmark import REPORT
from indexlm.evals.choice import Encoded, Overflow, encode
from indexlm.evals.items import Subject, read_subjects
from indexlm.evals.prompts import Asked, ask
from indexlm.evals.results import Marks, item_line, marks, score
from indexlm.evals.runner import HeldOut, evaluate_items, sample_text
from indexlm.evals.scoring import score_rows
from indexlm.evals.starter import STYLES, HeldOutEntry, build_items, item_marks
from indexlm.evals.starter import Item as StarterItem
from indexlm.evals.task import Prompt, Task
from indexlm.model.transformer import Transformer
from indexlm.runtime import rank, ranks, summed
from indexlm.tokens.tokenizer import Tokenizer

CURVE_BYTES = 8_000
"""Held-out text per tier in a point of the curve: about 13,000 tokens where there are six."""

MEASURES = ("accuracy", "standard_error", "margin", "margin_standard_error", "probability")
"""Of a score of `results.score`, what a point has of it."""


@dataclass(frozen=True)
class Questions:
    """Items of a benchmark, asked with one of its prompts, as ids."""

    task: str
    prompt: str
    style: str
    subjects: list[str]
    """Of each item."""
    encoded: list[Encoded]

    @property
    def name(self) -> str:
        return f"{self.task}/{self.prompt}"


class Point(NamedTuple):
    """`scores` are flat and plain, for a line of metrics; `items` are what they are means of.

    Keys of `scores` are `bits_per_byte/<language>`, `starter/<kind>/<style>/<measure>` (accuracy
    and margin) and `<task>/<prompt>/<way>/<measure>` (MEASURES), beside `<task>/<prompt>/items`,
    `.../chance` and `.../cut`. Keys of `items` are those without the measure.
    """

    scores: dict[str, float]
    items: dict[str, Marks]


class Curve:
    """What every point of a curve is made of."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        held_out: HeldOut,
        entries: Sequence[HeldOutEntry],
        items: int,
        seed: int,
        questions: Sequence[Questions] = (),
    ) -> None:
        """`items` is per kind of the starter test."""
        self.tokenizer, self.questions = tokenizer, questions
        self.held_out = {
            name: sample_text(texts, CURVE_BYTES, f"{seed}/{name}")
            for name, texts in held_out.items()
        }
        self.test: Sequence[StarterItem] = build_items(entries, items, seed)
        self._own = _share([each for asked in questions for each in asked.encoded])

    def point(self, model: Transformer) -> Point:
        """Score a model, which has to be whole on every process (`model.shard.gathered`).

        Its mode, its gradients and the global random state stay as they were.
        """
        evaluation = evaluate_items(model, self.tokenizer, self.held_out, self.test)
        bits = evaluation.results["bits_per_byte"]
        scores = {
            f"bits_per_byte/{name}": float(part["value"])
            for name, part in bits.items()
            if "_" not in name
        }
        items: dict[str, Marks] = {}
        for kind, found in evaluation.results["starter"].items():
            lines = [line for line in evaluation.lines["starter"] if line["subject"] == kind]
            for style in STYLES:
                name = f"starter/{kind}/{style}"
                score_NO = np.array([line["scores"][style] for line in lines])
                items[name] = item_marks(score_NO, np.array([line["answer"] for line in lines]))
                for measure in ("accuracy", "margin"):
                    scores[f"{name}/{measure}"] = found[style][measure]
        if self.questions:
            self._add_benchmarks(model, scores, items)
        return Point(scores, items)

    def _add_benchmarks(
        self, model: Transformer, scores: dict[str, float], items: dict[str, Marks]
    ) -> None:
        logprobs = iter(self._logprobs(model))
        for asked in self.questions:
            lines = []
            for subject, each in zip(asked.subjects, asked.encoded):
                answered = each.answered([next(logprobs) for _ in each.all_rows])
                lines.append(item_line(subject, answered, asked.style))
            for way in lines[0]["choices"]:
                name = f"{asked.name}/{way}"
                items[name] = marks(lines, way)
                found = score(items[name])
                scores |= {f"{name}/{measure}": found[measure] for measure in MEASURES}
            scores[f"{asked.name}/items"] = len(lines)
            scores[f"{asked.name}/chance"] = float(items[name].chance.mean())
            scores[f"{asked.name}/cut"] = sum(each.cut for each in asked.encoded)

    def _logprobs(self, model: Transformer) -> list[float]:
        """Of all rows of all questions, those of other processes among them."""
        encoded = [each for asked in self.questions for each in asked.encoded]
        sizes = [len(each.all_rows) for each in encoded]
        rows = [row for number in self._own for row in encoded[number].all_rows]
        found = [float(each.logprobs.sum()) for each in score_rows(model, rows).scores]
        before = sum(sizes[: self._own.start])
        whole = torch.zeros(sum(sizes), dtype=torch.float64)
        whole[before : before + len(found)] = torch.tensor(found, dtype=torch.float64)
        # To a number nothing is added but zeros: every process has it to the last bit.
        numbers: list[float] = summed(whole).tolist()
        return numbers


def read_questions(
    tasks: Sequence[tuple[Task, Path]],
    tokenizer: Tokenizer,
    context: int,
    limit: int,
    overflow: Overflow,
) -> list[Questions]:
    """About `limit` items of each task, whose files lie in the folder beside it, for a window of
    `context` tokens: the first of every subject, as many of each as of the others.

    Raises UserError, naming file and line, for what cannot be asked.
    """
    found = []
    for task, data in tasks:
        subjects = _first_items(read_subjects(task, data), limit)
        for name in task.prompts:
            if not name.endswith(REPORT):
                found.append(_questions(task, name, subjects, tokenizer, context, overflow))
    return found


def _questions(
    task: Task,
    name: str,
    subjects: Sequence[Subject],
    tokenizer: Tokenizer,
    context: int,
    overflow: Overflow,
) -> Questions:
    prompt = task.prompts[name]
    asked = _all_asked(task, prompt, subjects, prompt.shots)
    fewer = (_all_asked(task, prompt, subjects, n) for n in range(prompt.shots - 1, -1, -1))
    try:
        encoded = encode(tokenizer, asked, context, overflow=overflow, fewer=fewer)
    except UserError as error:
        raise UserError(f"{task.name}, asked with {name}: {error}") from error
    named = [subject.name for subject in subjects for _ in subject.items]
    return Questions(task.name, name, prompt.style, named, encoded)


def _all_asked(task: Task, prompt: Prompt, subjects: Sequence[Subject], shots: int) -> list[Asked]:
    return [each for subject in subjects for each in ask(task, prompt, subject, shots)]


def _first_items(subjects: Sequence[Subject], limit: int) -> list[Subject]:
    """Their first items in turn, until there are `limit`."""
    counts = [0] * len(subjects)
    left = limit
    for turn in range(max(len(subject.items) for subject in subjects)):
        for number, subject in enumerate(subjects):
            if left and turn < len(subject.items):
                counts[number] += 1
                left -= 1
    return [
        replace(subject, items=subject.items[:count])
        for subject, count in zip(subjects, counts)
        if count
    ]


def _share(encoded: Sequence[Encoded]) -> range:
    """Numbers of the items that this process scores: neighbours, whose examples are the same text,
    and as much work as the others have."""
    work_N = np.cumsum([0, *_work(encoded)])
    borders = [work_N[-1] * number / ranks() for number in (rank(), rank() + 1)]
    first, last = np.searchsorted(work_N[:-1], borders)
    return range(int(first), len(encoded) if rank() == ranks() - 1 else int(last))


def _work(encoded: Sequence[Encoded]) -> Iterator[int]:
    """Positions of each item that the one before it does not have computed already."""
    before: Sequence[int] = ()
    for each in encoded:
        ids = each.rows[0].ids[: each.rows[0].first]
        pairs = enumerate(zip(before, ids))
        known = next((at for at, (one, other) in pairs if one != other), len(ids))
        yield len(ids) - known + sum(len(row.ids) - row.first for row in each.all_rows)
        before = ids
