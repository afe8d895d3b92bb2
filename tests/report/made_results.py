"""Folders as `indexlm eval --out` writes them, of made answers."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexlm.evals.results import option_scores, prompt_scores
from indexlm.evals.task import Task

STYLES = {"letters": ("logprob",), "contents": ("logprob", "per_token", "per_character")}


Lines = list[dict[str, Any]]


def task(name: str, title: str, subjects: Mapping[str, Sequence[str]]) -> Task:
    """A benchmark of `category -> subjects`; asked in both styles."""
    return Task.model_validate(
        {
            "name": name,
            "title": title,
            "language": "en",
            "source": "made here",
            "forms": {
                "csv": {
                    "test": "{subject}.csv",
                    "question": "{q}",
                    "options": ["A", "B"],
                    "answer": "x",
                }
            },
            "subjects": {c: {s: s for s in names} for c, names in subjects.items()},
            "prompts": {
                "letters": {"style": "letters", "shots": 5, "question": "{question}\n{options}"},
                "contents": {"style": "contents", "question": "{question}"},
            },
        }
    )


def answered(
    subjects: Mapping[str, int], skill: float, liking: float, options: Sequence[int], seed: int
) -> Lines:
    """Made answers: `skill` nats for the right option on average, `liking` nats for A."""
    dice = random.Random(seed)
    lines = []
    for subject, items in subjects.items():
        bonus = dice.gauss(skill, 0.5 * abs(skill))
        for number in range(items):
            count = dice.choice(options)
            answer = dice.randrange(count)
            scores = [dice.gauss(-3 if letter else -3 + liking, 0.8) for letter in range(count)]
            scores[answer] += bonus
            lines.append(
                {
                    "subject": subject,
                    "id": str(number),
                    "place": f"test/{subject}_test.csv:{number + 1}",
                    "prompt_sha256": f"{number:064x}",
                    "answer": answer,
                    "logprobs": scores,
                    "tokens": [dice.randint(1, 9) for _ in scores],
                    "characters": [dice.randint(1, 40) for _ in scores],
                    "unconditional": None,
                }
            )
    return lines


def write_results(
    folder: Path,
    answers: Mapping[str, tuple[Task, Mapping[str, Lines]]],
    name: str = "base",
    **more: Any,
) -> dict[str, Any]:
    """A folder as `eval --out` writes it, of task -> (task, prompt -> lines)."""
    tasks: dict[str, Any] = {}
    (folder / "items").mkdir(parents=True)
    for key, (made, prompts) in answers.items():
        parts = {}
        for prompt, lines in prompts.items():
            style = made.prompts[prompt].style
            for line in lines:
                line["choices"] = {w: int(option_scores(line, w).argmax()) for w in STYLES[style]}
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (folder / "items" / f"{key}.{prompt}.jsonl").write_text(text, encoding="utf-8")
            parts[prompt] = {
                "style": style,
                "harness": "lm-eval 0.4.13 mmlu",
                "shots": made.prompts[prompt].shots,
                "cut": 0,
                "seconds": 12.5,
                "computed": 12_345,
                "naive": 234_567,
                **prompt_scores(made, lines),
            }
        tasks[key] = {
            "version": 1,
            "title": made.title,
            "language": "en",
            "data_sha256": "ab" * 32,
            "prompts": parts,
        }
    results = {
        "format": 1,
        "model": {
            "name": name,
            "fingerprint": "0123456789abcdef" * 4,
            "parameters": 71_234_560,
            "vocab_size": 65_029,
            "window": 2048,
        },
        "settings": {"limit": None, "start": "none", "overflow": "refuse"},
        "tasks": tasks,
        "text": {},
        **more,
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return results
