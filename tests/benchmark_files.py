"""Small benchmarks in the layouts in which the large ones are published."""

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from command import EN, ZH

SUBJECTS = ("anatomy", "astronomy", "marketing", "philosophy")
"""Of MMLU: two of one category, the others of one each."""


def mmlu(folder: Path, items: int = 12, subjects: Sequence[str] = SUBJECTS) -> Path:
    """`folder`/mmlu with test and dev files of some subjects, as in the published archive."""
    for number, subject in enumerate(subjects):
        draw = random.Random(number)
        _write_csv(folder / f"mmlu/test/{subject}_test.csv", _questions(draw, items + number))
        _write_csv(folder / f"mmlu/dev/{subject}_dev.csv", _questions(draw, 5))
    return folder


def arc_easy(folder: Path, items: int = 20) -> Path:
    """`folder`/arc with ARC-Easy's test file, one question of three options among them."""
    draw = random.Random(5)
    rows = []
    for number, (question, *options, answer) in enumerate(_questions(draw, items)):
        count = 3 if number == 0 else 4
        labels = "ABCD"[:count]
        choices = [{"text": text, "label": label} for text, label in zip(options, labels)]
        key = answer if answer in labels else "A"
        asked = {"stem": question, "choices": choices}
        rows.append({"id": f"T_{number}", "question": asked, "answerKey": key})
    _write_jsonl(folder / "arc" / "ARC-Easy-Test.jsonl", rows)
    return folder


def hellaswag(folder: Path, items: int = 20) -> Path:
    """`folder`/hellaswag with the validation file."""
    draw, words = random.Random(6), EN.split()
    rows = []
    for number in range(items):
        a, b, *endings = (" ".join(draw.choices(words, k=5)) + "." for _ in range(6))
        rows.append(
            {
                **{"ind": number, "activity_label": "Fishing", "ctx_a": a, "ctx_b": b},
                **{"ctx": f"{a} {b}", "endings": endings, "label": draw.randrange(4)},
            }
        )
    _write_jsonl(folder / "hellaswag" / "hellaswag_val.jsonl", rows)
    return folder


def _questions(draw: random.Random, count: int) -> list[list[str]]:
    """Rows of question, four options and the letter of the right one; some are Chinese."""
    words, rows = EN.split(), []
    for number in range(count):
        chinese = number % 3 == 2
        question, *options = (
            "".join(draw.choices(ZH, k=size)) if chinese else " ".join(draw.choices(words, k=size))
            for size in (6, 2, 2, 3, 1)
        )
        rows.append([f"{question}?", *options, draw.choice("ABCD")])
    return rows


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
