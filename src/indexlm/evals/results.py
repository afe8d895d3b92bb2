"""From the answers to a benchmark to its scores: by subject, by category, and over all.

An item is answered by the option with the highest score, the first one of a tie, and there are
several ways to score an option (`WAYS`); which of them suits a model is not known beforehand, so
all are kept. Accuracy is a step: beside it stand the margin and the probability of the right
option, which move long before it does.

Shapes: N items, O options (the most of any item; fewer are filled up with -inf), S subjects.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from indexlm.evals.choice import Answered
from indexlm.evals.task import Task

WAYS: Mapping[str, tuple[str, ...]] = {
    "letters": ("logprob",),
    "contents": ("logprob", "per_token", "per_character", "unconditional"),
}
"""Style -> ways. `logprob` is the log-likelihood of the option (`acc` of lm-eval), `per_token` and
`per_character` divide it by the option's length (the latter is `acc_norm` of lm-eval),
`unconditional` subtracts that of the option without its question (Holtzman et al. 2021,
arXiv:2104.08315)."""

SIGNIFICANCE = 0.05
NORMAL = 1.959964
"""Standard deviations that hold 1 - SIGNIFICANCE of a normal distribution."""

Line = Mapping[str, Any]
"""One item of `items/<task>.<prompt>.jsonl`, as `item_line` makes it."""


@dataclass(frozen=True)
class Marks:
    """[N] each, float64: of one way, what each item counts; and what guessing it would give."""

    right: np.ndarray
    margin: np.ndarray
    """Score of the right option less that of the best wrong one, nats."""
    probability: np.ndarray
    """Of the right option, where the scores are taken for log-probabilities."""
    chance: np.ndarray

    def of(self, chosen: np.ndarray) -> "Marks":
        return Marks(*(values[chosen] for values in vars(self).values()))


def item_line(subject: str, answered: Answered, style: str) -> dict[str, Any]:
    """What is kept of an item: plain values."""
    line = {
        "subject": subject,
        "id": answered.item.id,
        "place": answered.item.place,
        "prompt_sha256": answered.prompt_sha256,
        "answer": answered.item.answer,
        "logprobs": list(answered.logprobs),
        "tokens": list(answered.tokens),
        "characters": list(answered.characters),
        "unconditional": answered.unconditional and list(answered.unconditional),
    }
    ways = [way for way in WAYS[style] if way != "unconditional" or answered.unconditional]
    # The first of a tie, as lm-eval's argmax has it.
    return line | {"choices": {way: int(option_scores(line, way).argmax()) for way in ways}}


def option_scores(line: Line, way: str) -> np.ndarray:
    """float64 [options of the item]; the highest one is the answer."""
    logprobs = np.array(line["logprobs"])
    if way == "per_token":
        return logprobs / np.array(line["tokens"])
    if way == "per_character":
        # An option may be empty: its tokens are those of the delimiter.
        return logprobs / np.maximum(line["characters"], 1)
    if way == "unconditional":
        return logprobs - np.array(line["unconditional"])
    assert way == "logprob", way
    return logprobs


def prompt_scores(task: Task, lines: Sequence[Line]) -> dict[str, Any]:
    """The scores of one prompt, from all its lines, in the order of their subjects.

    {"subjects": {name: {"category", "items", "chance", "scores": {way: score}}}, "categories" and
    "subsets": the same over the items of several subjects, "micro": over all items, "macro": the
    mean of the subjects}, each score as `score` and `macro_score` have it.
    """
    assert lines
    ways = {way: marks(lines, way) for way in lines[0]["choices"]}
    subject_N = np.array([line["subject"] for line in lines])
    names = list(dict.fromkeys(subject_N.tolist()))
    categories = {name: task.categories.get(name, "") for name in names}

    def over(subjects: Sequence[str]) -> dict[str, Any]:
        chosen_N = np.isin(subject_N, subjects)
        parts = {way: each.of(chosen_N) for way, each in ways.items()}
        return {
            "items": int(chosen_N.sum()),
            "chance": float(next(iter(parts.values())).chance.mean()),
            "scores": {way: score(part) for way, part in parts.items()},
        }

    groups: dict[str, list[str]] = {}
    for name in names:
        if categories[name]:
            groups.setdefault(categories[name], []).append(name)
    subsets = {name: [s for s in names if s in wanted] for name, wanted in task.subsets.items()}
    by_subject = {way: [each.of(subject_N == s) for s in names] for way, each in ways.items()}
    chances = [float(part.chance.mean()) for part in next(iter(by_subject.values()))]
    return {
        "subjects": {name: {"category": categories[name], **over([name])} for name in names},
        "categories": {name: over(subjects) for name, subjects in groups.items()},
        "subsets": {name: over(subjects) for name, subjects in subsets.items() if subjects},
        "micro": over(names),
        "macro": {
            "subjects": len(names),
            "chance": float(np.mean(chances)),
            "scores": {way: macro_score(parts) for way, parts in by_subject.items()},
        },
    }


def marks(lines: Sequence[Line], way: str) -> Marks:
    """What each item counts when its options are scored in one way."""
    rows = [option_scores(line, way) for line in lines]
    score_NO = np.full((len(rows), max(map(len, rows))), -np.inf)
    for row_O, scores in zip(score_NO, rows):
        row_O[: len(scores)] = scores
    answer_N = np.array([line["answer"] for line in lines])
    return marks_of(score_NO, answer_N, 1 / np.array([len(scores) for scores in rows]))


def marks_of(score_NO: np.ndarray, answer_N: np.ndarray, chance_N: np.ndarray) -> Marks:
    """`marks` of scores, where -inf stands for an option that an item does not have."""
    at_N = np.arange(len(answer_N))
    right_N = score_NO[at_N, answer_N]
    wrong_NO = score_NO.copy()
    wrong_NO[at_N, answer_N] = -np.inf
    weight_NO = np.exp(score_NO - score_NO.max(1, keepdims=True))
    return Marks(
        right=(score_NO.argmax(1) == answer_N).astype(float),
        margin=right_N - wrong_NO.max(1),
        probability=weight_NO[at_N, answer_N] / weight_NO.sum(1),
        chance=chance_N,
    )


def score(part: Marks) -> dict[str, Any]:
    """Plain values: the accuracy over some items with its uncertainty, and the continuous scores.

    `standard_error` is that of lm-eval, of a sample (0 for one item); `interval` holds 95% (Wilson
    1927), also where no item is right; `within_chance` as `guessed`.
    """
    count, right = len(part.right), int(part.right.sum())
    accuracy = right / count
    return {
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / max(count - 1, 1)),
        "interval": list(wilson_interval(right, count)),
        "within_chance": guessed(right, part.chance),
        "margin": float(part.margin.mean()),
        "margin_standard_error": float(part.margin.std() / math.sqrt(max(count - 1, 1))),
        "probability": float(part.probability.mean()),
    }


def macro_score(parts: Sequence[Marks]) -> dict[str, Any]:
    """The mean of the subjects, each counting the same; its errors come from theirs.

    The interval is normal. The share that gives a subject's variance there has two right and two
    wrong answers more (Agresti and Coull 1998): few items are often all right or all wrong, which
    would be no variance at all.
    """
    if len(parts) == 1:
        return score(parts[0])
    if all(len(part.right) == 1 for part in parts):
        # One item says nothing of its subject's variance; the items are then one sample.
        return score(Marks(*map(np.concatenate, zip(*(vars(part).values() for part in parts)))))
    scores = [score(part) for part in parts]
    mean = {
        name: sum(each[name] for each in scores) / len(scores)
        for name in ("accuracy", "margin", "probability")
    }
    error, margin_error = (
        math.sqrt(sum(each[name] ** 2 for each in scores)) / len(scores)
        for name in ("standard_error", "margin_standard_error")
    )
    # A guesser's mean of subjects has a variance of its own, whatever this model's is.
    chance = sum(float(part.chance.mean()) for part in parts) / len(parts)
    variance_S = [float((p.chance * (1 - p.chance)).sum()) / len(p.chance) ** 2 for p in parts]
    spread = math.sqrt(sum(variance_S)) / len(parts)
    counts = [len(part.right) for part in parts]
    shares = [(float(part.right.sum()) + 2) / (n + 4) for part, n in zip(parts, counts)]
    variance = sum(share * (1 - share) / n for share, n in zip(shares, counts))
    smoothed = math.sqrt(variance) / len(parts)
    reach = NORMAL * smoothed
    low, high = mean["accuracy"] - reach, mean["accuracy"] + reach
    return {
        "accuracy": mean["accuracy"],
        # A subject of one item shows no variance.
        "standard_error": smoothed if 1 in counts else error,
        "interval": [max(0.0, low), min(1.0, high)],
        "within_chance": abs(mean["accuracy"] - chance) <= NORMAL * spread,
        "margin": mean["margin"],
        "margin_standard_error": margin_error,
        "probability": mean["probability"],
    }


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95% interval of a share of `right` in `count`."""
    share, z2 = right / count, NORMAL**2
    middle = share + z2 / (2 * count)
    reach = NORMAL * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low, high = ((middle + side * reach) / (1 + z2 / count) for side in (-1, 1))
    # Where none or all are right, rounding can leave an end on the wrong side of the share.
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def guessed(right: int, chance_N: np.ndarray) -> bool:
    """Whether a guesser would have as many, or as few, right in more than one run of twenty.

    Exact and two-sided: how many are right is a sum of binomials, one for each number of options.
    """
    law = np.ones(1)
    for chance, count in zip(*np.unique(chance_N, return_counts=True)):
        law = np.convolve(law, _binomial(int(count), float(chance)))
    at_most, at_least = law[: right + 1].sum(), law[right:].sum()
    return bool(min(at_most, at_least) > SIGNIFICANCE / 2)


def _binomial(count: int, chance: float) -> np.ndarray:
    """[count + 1] probabilities of each number of successes."""
    k = np.arange(count + 1)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, count + 1)))))
    log_choices = log_factorial[-1] - log_factorial - log_factorial[::-1]
    log_law = log_choices + k * math.log(chance) + (count - k) * math.log1p(-chance)
    return np.asarray(np.exp(log_law))
