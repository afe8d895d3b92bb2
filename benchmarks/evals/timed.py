"""One row of ours, alone in its process: items of one point, scored as `indexlm eval` scores them.

What is timed is `evals.choice.answer`, from strings to log-likelihoods, a subject at a time. The
clock of lm-eval stands at the same door.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.evals.points import POINTS

from indexlm.evals.choice import answer
from indexlm.evals.items import read_subjects
from indexlm.evals.prompts import ask
from indexlm.evals.task import read_task
from indexlm.export import forms

ROWS: Mapping[str, str] = {
    "indexlm": "the log-likelihoods that lm-eval gives",
    "indexlm_unconditional": "those after a context that says nothing of the question, too",
    "indexlm_unshared": "nothing is computed once that stands in several prompts",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", required=True, choices=ROWS)
    parser.add_argument("--point", required=True, choices=POINTS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--subjects", required=True, help="with commas, or nothing")
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    subjects = tuple(name for name in asked.subjects.split(",") if name)
    found = measure(asked.row, asked.point, asked.model, asked.data, subjects, asked.limit)
    asked.out.write_text(json.dumps(found), encoding="utf-8")


def measure(
    row: str, point: str, folder: Path, data: Path, subjects: tuple[str, ...], limit: int
) -> dict[str, Any]:
    model, tokenizer = forms.open_folder(folder)
    task = read_task(POINTS[point].benchmark)
    prompt = task.prompts[POINTS[point].prompt]
    seconds, items, computed, naive = 0.0, 0, 0, 0
    for subject in read_subjects(task, data, subjects, limit):
        asked = ask(task, prompt, subject)
        if row != "indexlm_unconditional":
            asked = [replace(each, neutral=None) for each in asked]
        begin = time.monotonic()
        answers = answer(model, tokenizer, asked, share=row != "indexlm_unshared")
        seconds += time.monotonic() - begin
        items += len(answers.answered)
        computed, naive = computed + answers.computed, naive + answers.naive
    return {"items": items, "scoring_seconds": seconds, "positions": computed, "naive": naive}


if __name__ == "__main__":
    main()
