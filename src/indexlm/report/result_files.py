"""What `eval --out` wrote, read back: the scores of a model and its answer to every item.

Shapes: N items, K the most options of any item.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.errors import DamagedError, UserError, shown
from indexlm.evals.results import marks

RESULTS = "results.json"
FORMAT = 1
TEXT_TESTS = ("safety", "generation")
"""Those of a page."""
REMEDY = "delete it and evaluate again"


@dataclass(frozen=True)
class Evaluated:
    """One result folder; `name` tells it from the others of a page."""

    name: str
    folder: Path
    results: Mapping[str, Any]


@dataclass(frozen=True)
class Answers:
    """The lines of `items/<task>.<prompt>.jsonl` as columns."""

    subjects: Sequence[str]
    ids: Sequence[str]
    places: Sequence[str]
    answer_N: np.ndarray
    """int64, the right option."""
    logprob_NK: np.ndarray
    """float64, nats of each whole option; -inf beyond an item's own options."""
    margin_N: np.ndarray
    """float64, nats: the right option's log-likelihood less that of the best wrong one."""
    chosen: Mapping[str, np.ndarray]
    """Way -> int64 [N], the option it chooses."""

    @property
    def options_N(self) -> np.ndarray:
        """How many options each item has."""
        return np.isfinite(self.logprob_NK).sum(1)


def read_results(folders: Sequence[Path]) -> list[Evaluated]:
    """Read `results.json` of each folder; of two models of one name the folders tell them apart.

    Raises UserError for a folder without one or with nothing that a page shows, or where two
    folders have scored other items of one task; DamagedError for a file that cannot be read.
    """
    found = [_read_results(folder) for folder in folders]
    names = Counter(results["model"]["name"] for results in found)
    evaluated = []
    for folder, results in zip(folders, found):
        name = results["model"]["name"]
        unique = name if names[name] == 1 else f"{name} ({folder})"
        evaluated.append(Evaluated(unique, folder, results))
    for other in evaluated[1:]:
        _check_same_items(evaluated[0], other)
    return evaluated


def on_page(results: Mapping[str, Any]) -> bool:
    """Whether there is anything in results.json that a page shows."""
    return bool(results["tasks"]) or any(test in results["text"] for test in TEXT_TESTS)


def read_answers(folder: Path, task: str, prompt: str, micro: Mapping[str, Any]) -> Answers:
    """The answers to all items of one task, of whose scores `micro` is what the results hold.

    Raises DamagedError, naming file and line, where they are missing, cut short or changed.
    """
    path = folder / "items" / f"{task}.{prompt}.jsonl"
    if not path.is_file():
        raise DamagedError(f"{path} is missing, but {folder / RESULTS} has its scores; {REMEDY}")
    lines = path.read_bytes().splitlines()
    items, ways = micro["items"], set(micro["scores"])
    if len(lines) != items:
        raise DamagedError(
            f"{path} has {len(lines)} items, {folder / RESULTS} has the scores of {items}; {REMEDY}"
        )
    entries = [_read_entry(line, f"{path}:{at}", ways) for at, line in enumerate(lines, start=1)]
    logprob_NK = np.full((items, max(len(entry["logprobs"]) for entry in entries)), -np.inf)
    for row_K, entry in zip(logprob_NK, entries):
        row_K[: len(entry["logprobs"])] = entry["logprobs"]
    return Answers(
        subjects=[entry["subject"] for entry in entries],
        ids=[entry["id"] for entry in entries],
        places=[entry["place"] for entry in entries],
        answer_N=np.array([entry["answer"] for entry in entries]),
        logprob_NK=logprob_NK,
        margin_N=marks(entries, "logprob").margin,
        chosen={way: np.array([entry["choices"][way] for entry in entries]) for way in ways},
    )


def _read_results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    if not path.is_file():
        raise UserError(
            f"{folder} holds no {RESULTS}; give a folder that `indexlm eval --out` wrote"
        )
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} cannot be read: {error}; {REMEDY}") from error
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        raise UserError(f"{path} is no result of this version of indexlm; evaluate again")
    if not on_page(results):
        raise UserError(
            f"{path} has no benchmark, safety or generation; name some with `indexlm eval --tasks`"
        )
    return results


def _read_entry(line: bytes, place: str, ways: set[str]) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
        options = range(len(entry["logprobs"]))
        chosen = [entry["answer"], *(entry["choices"][way] for way in ways)]
        if not all(option in options for option in chosen):
            raise ValueError(f"of {len(options)} options, {shown(chosen)} are right and chosen")
        if not np.isfinite(entry["logprobs"]).all():
            raise ValueError("a log-likelihood is no finite number")
        for name in ("subject", "id", "place"):
            entry[name] = str(entry[name])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{place} cannot be read: {shown(str(error))}; {REMEDY}") from error
    return entry


def _check_same_items(one: Evaluated, other: Evaluated) -> None:
    """Scores on other items stand in no table side by side."""
    for task, found in one.results["tasks"].items():
        if task not in other.results["tasks"]:
            continue
        beside = other.results["tasks"][task]
        told = {
            "version": (found["version"], beside["version"]),
            "files (SHA-256)": (found["data_sha256"][:12], beside["data_sha256"][:12]),
            "items": tuple(_items(each) for each in (found, beside)),
        }
        for what, (here, there) in told.items():
            if here != there:
                raise UserError(
                    f"{one.folder} and {other.folder} scored other items of {task}: {what} "
                    f"{here} and {there}; evaluate both with the same --data and --limit"
                )
    for test in TEXT_TESTS:
        asked, beside = (each.results["text"].get(test, {}) for each in (one, other))
        for what in ("version", "kind"):
            if asked and beside and asked.get(what) != beside.get(what):
                raise UserError(
                    f"{one.folder} and {other.folder} took other forms of {test}: {what} "
                    f"{asked.get(what)} and {beside.get(what)}; evaluate both alike"
                )


def _items(task: Mapping[str, Any]) -> list[int]:
    return sorted({prompt["micro"]["items"] for prompt in task["prompts"].values()})
