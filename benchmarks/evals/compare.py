"""Two accounts of the same items, item by item: strings, log-likelihoods, choices."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Item = Mapping[str, Any]
"""subject, number, context, continuations, answer, logprobs, choices (metric -> option)."""

TOLERANCE = 1e-4
"""Largest difference of two log-likelihoods, nats: float32 holds a sum of -1000 to 6e-5."""
SHOWN = 20
"""Items of each kind of mismatch that are kept with what both sides say."""
KINDS = ("items", "contexts", "continuations", "answers", "logprobs", "choices")


def compare(ours: Sequence[Item], theirs: Sequence[Item]) -> dict[str, Any]:
    """Counts of what differs, the largest difference, accuracies, and the first cases of each kind.

    `mismatches` counts items by KINDS: items that only one side has, items whose context, whose
    continuations or whose right answer differs, that have a log-likelihood more than TOLERANCE
    apart, and that are answered by another option by a metric of lm-eval.
    """
    left, right = _by_name(ours), _by_name(theirs)
    mismatches: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    largest, total, count = 0.0, 0.0, 0
    for name in left.keys() ^ right.keys():
        mismatches["items"].append({"item": name, "ours": name in left})
    common = [name for name in left if name in right]
    for name in common:
        one, other = left[name], right[name]
        for kind, what in _differences(one, other).items():
            mismatches[kind].append({"item": name, **what})
        for a, b in zip(one["logprobs"], other["logprobs"]):
            largest, total, count = max(largest, abs(a - b)), total + abs(a - b), count + 1
    return {
        "items": len(common),
        "log_likelihoods": count,
        "mismatches": {kind: len(found) for kind, found in mismatches.items()},
        "largest_difference": largest,
        "mean_difference": total / max(count, 1),
        "lowest_log_likelihood": min(
            (min(right[name]["logprobs"]) for name in common), default=0.0
        ),
        "prompts_sha256": {
            "ours": prompts_sha256(left[name] for name in common),
            "lm_eval": prompts_sha256(right[name] for name in common),
        },
        "accuracy": {
            metric: {
                "ours": _accuracy(left[name] for name in common)(metric),
                "lm_eval": _accuracy(right[name] for name in common)(metric),
            }
            for metric in metrics_of(theirs)
        },
        "cases": {kind: found[:SHOWN] for kind, found in mismatches.items() if found},
    }


def apart(ours: Sequence[Item], theirs: Sequence[Item]) -> dict[str, list[int]]:
    """Subject -> numbers, ascending, of items with log-likelihoods more than TOLERANCE apart."""
    left, right = _by_name(ours), _by_name(theirs)
    found: dict[str, list[int]] = {}
    for name in left.keys() & right.keys():
        if "logprobs" in _differences(left[name], right[name]):
            found.setdefault(left[name]["subject"], []).append(left[name]["number"])
    return {subject: sorted(numbers) for subject, numbers in found.items()}


def agrees(comparison: Mapping[str, Any]) -> bool:
    return comparison["items"] > 0 and not any(comparison["mismatches"].values())


def prompts_sha256(items: Iterable[Item]) -> str:
    """Of all contexts and continuations, in their order."""
    digest = hashlib.sha256()
    for item in items:
        texts = [item["context"], *item["continuations"]]
        digest.update(json.dumps(texts, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def metrics_of(theirs: Sequence[Item]) -> list[str]:
    """Those that lm-eval has for the task."""
    return list(theirs[0]["choices"]) if theirs else []


def _by_name(items: Sequence[Item]) -> dict[str, Item]:
    found = {f"{item['subject']}/{item['number']}": item for item in items}
    assert len(found) == len(items), "two items have one name"
    return found


def _differences(ours: Item, theirs: Item) -> dict[str, dict[str, Any]]:
    """Kind of mismatch -> what each side says."""
    found: dict[str, dict[str, Any]] = {}
    if ours["context"] != theirs["context"]:
        found["contexts"] = _around_first_difference(ours["context"], theirs["context"])
    for kind, field in (("continuations", "continuations"), ("answers", "answer")):
        if ours[field] != theirs[field]:
            found[kind] = {"ours": ours[field], "lm_eval": theirs[field]}
    said = {"ours": ours["logprobs"], "lm_eval": theirs["logprobs"]}
    if len(said["ours"]) != len(said["lm_eval"]) or any(
        # So that a difference that is no number counts.
        not abs(a - b) <= TOLERANCE
        for a, b in zip(said["ours"], said["lm_eval"])
    ):
        found["logprobs"] = said
    for metric, choice in theirs["choices"].items():
        if ours["choices"][metric] != choice:
            chosen = {"metric": metric, "chosen": [ours["choices"][metric], choice]}
            found["choices"] = chosen | {"continuations": theirs["continuations"]} | said
    return found


def _around_first_difference(ours: str, theirs: str) -> dict[str, str]:
    at = next(
        (n for n, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs))
    )
    begin = max(0, at - 20)
    return {"ours": ours[begin : at + 20], "lm_eval": theirs[begin : at + 20]}


def _accuracy(items: Iterable[Item]) -> Any:
    kept = list(items)

    def accuracy(metric: str) -> float:
        right = sum(item["choices"][metric] == item["answer"] for item in kept)
        return right / max(len(kept), 1)

    return accuracy
