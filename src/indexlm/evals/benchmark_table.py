"""The scores of a model on benchmarks as aligned text, and published ones beside them.

Chance stands on every row, and a score that guessing explains is printed as such: most scores of
small models are.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from indexlm.errors import UserError
from indexlm.evals.table import aligned

PUBLISHED = Path(__file__).parent / "published.toml"
WAY_NAMES = {
    "logprob": "log-likelihood",
    "per_token": "per token",
    "per_character": "per character",
    "unconditional": "less unconditional",
}
HIGHER = "higher of both styles (as the report prints it)"
REPORT_WAYS = {"letters": "logprob", "contents": "per_token"}
"""Style -> what the report's tool compares options by: the mean over the tokens of a text; that of
letters, all of them one token long, is their log-likelihood."""
AT_CHANCE = " = chance"
NOTE = (
    "accuracy in percent ± standard error; micro: over all items, macro: mean of the subjects\n"
    "= chance: guessing gives a score as far from chance in more than one run of twenty"
)


def benchmark_table(tasks: Mapping[str, Any], *, by_subject: bool = False) -> str:
    """`tasks` as results.json has them. With `by_subject`, rows of categories, subsets and subjects
    follow those over all."""
    rows = [["task", "prompt", "way", "items", "micro", "macro", "chance"]]
    for name, task in tasks.items():
        for prompt, part in task["prompts"].items():
            rows += _prompt_rows(name, prompt, part)
        if by_subject:
            for prompt, part in task["prompts"].items():
                rows += _parts_rows(name, prompt, part)
    lines = [aligned(rows, left=3), NOTE]
    for name, task in tasks.items():
        best = higher_of_both(task) if name in read_published()["tasks"] else None
        if best is not None:
            prompt, way = best
            shown = _cell(task["prompts"][prompt]["macro"]["scores"][way]).strip()
            lines.append(f"{name}, {HIGHER}: {shown} ({prompt}, {WAY_NAMES[way]})")
    for name, task in tasks.items():
        lines += _counts(name, task)
    return "\n".join(lines)


def higher_of_both(task: Mapping[str, Any]) -> tuple[str, str] | None:
    """Prompt and way of the best macro accuracy of both styles; None where one style is missing.

    As the report prints scores: the higher one of two chances to be right.
    """
    found = [
        (part["macro"]["scores"][way]["accuracy"], prompt, way)
        for prompt, part in task["prompts"].items()
        for way in [REPORT_WAYS[part["style"]]]
    ]
    styles = {part["style"] for part in task["prompts"].values()}
    # The first of equals: prompts stand in the order of the task's file.
    if styles != REPORT_WAYS.keys():
        return None
    _, prompt, way = max(found, key=lambda each: each[0])
    return prompt, way


def published_table(tasks: Mapping[str, Any], model: str, names: Sequence[str] = ()) -> str:
    """Published scores of the models `names`, or of all, under this model's own.

    Of this model, as there, the higher of both styles; `-` where one style or a task is missing.
    Raises UserError for a model whose scores are not there.
    """
    published = read_published()
    scores: dict[str, list[float]] = published["scores"]
    for name in names:
        if name not in scores:
            raise UserError(f"no published scores of {name!r}; there are {', '.join(scores)}")
    columns = [at for at, task in enumerate(published["tasks"]) if task in tasks]
    if not columns:
        raise UserError("no published scores for these tasks: " + ", ".join(tasks))
    rows = [["macro accuracy, %", *(published["tasks"][at] for at in columns)]]
    rows.append([f"{model} (here)", *(_own(tasks[published["tasks"][at]]) for at in columns)])
    for name in names or scores:
        rows.append([name, *(f"{scores[name][at]:.1f}" for at in columns)])
    return f"{aligned(rows, left=1)}\n{published['title']}"


@cache
def read_published() -> dict[str, Any]:
    """{"title", "tasks": names, "scores": {model: percent by task}}"""
    return tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))


def _prompt_rows(task: str, prompt: str, part: Mapping[str, Any]) -> Iterator[list[str]]:
    micro, macro = part["micro"], part["macro"]
    for way, score in micro["scores"].items():
        # Of one subject the mean of the subjects says nothing more.
        mean = _cell(macro["scores"][way]) if macro["subjects"] > 1 else ""
        yield [
            *_labels(task, prompt, way),
            f"{micro['items']:,}",
            _cell(score),
            mean,
            _chance(micro),
        ]


def _parts_rows(task: str, prompt: str, part: Mapping[str, Any]) -> Iterator[list[str]]:
    for kind in ("categories", "subsets", "subjects"):
        for name, found in part[kind].items():
            for way, score in found["scores"].items():
                labels = _labels(f"{task}/{name}", prompt, way)
                yield [*labels, f"{found['items']:,}", _cell(score), "", _chance(found)]


def _labels(task: str, prompt: str, way: str) -> list[str]:
    return [task, prompt, WAY_NAMES[way]]


def _cell(score: Mapping[str, Any]) -> str:
    mark = AT_CHANCE if score["within_chance"] else " " * len(AT_CHANCE)
    return f"{_percent(score['accuracy'])} ±{_percent(score['standard_error'])}{mark}"


def _chance(part: Mapping[str, Any]) -> str:
    return _percent(part["chance"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _own(task: Mapping[str, Any]) -> str:
    best = higher_of_both(task)
    if best is None:
        return "-"
    prompt, way = best
    score = task["prompts"][prompt]["macro"]["scores"][way]
    return _percent(score["accuracy"]) + (AT_CHANCE if score["within_chance"] else "")


def _counts(name: str, task: Mapping[str, Any]) -> Iterator[str]:
    for prompt, part in task["prompts"].items():
        said = (
            f"{name} {prompt}: {part['computed']:,} tokens computed of {part['naive']:,} naive "
            f"({part['naive'] / part['computed']:.1f}x fewer), {part['seconds']:.1f} s"
        )
        if part["cut"]:
            said += f"; {part['cut']:,} prompts were longer than the window"
        yield said
