"""Two models on the same items: is one better, by how much, and could it be luck?

Items are paired by subject and id and must have been asked with the same words. For each way of
choosing an answer stand both accuracies with the exact McNemar test, and the mean margin of the
right option with the paired t-test; text is compared by document. Differences are B - A.

Shapes: N items or documents.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.errors import UserError, shown
from indexlm.evals import significance
from indexlm.evals.results import option_scores
from indexlm.evals.table import aligned
from indexlm.records import read_manifest, verify

TEXT = "bits_per_byte"
Line = Mapping[str, Any]
Pairs = Sequence[tuple[Line, Line]]
Key = tuple[str, str]
"""Of an item: subject and id."""


@dataclass(frozen=True)
class Results:
    """What `indexlm eval --out` left: `lines` is file stem (`mmlu.letters`) -> items by key."""

    folder: Path
    fingerprint: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    tasks: Mapping[str, Any]
    lines: Mapping[str, Mapping[Key, Line]]


def read_results(folder: Path) -> Results:
    """Raises UserError for what is no folder of results, DamagedError for changed files."""
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(
            f"{folder} holds no results.json; make it with `indexlm eval MODEL --out {folder}`"
        )
    if read_manifest(folder) is None:
        raise UserError(f"{folder} has no manifest: it is unfinished; evaluate the model again")
    manifest = verify(folder)
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != 1:
        raise UserError(
            f"{path} is of format {shown(content.get('format'))}, this version reads format 1; "
            "evaluate the model again"
        )
    lines = {}
    for file in sorted((folder / "items").glob("*.jsonl")):
        read = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        lines[file.stem] = {(line["subject"], line["id"]): line for line in read}
        assert len(lines[file.stem]) == len(read), f"{file} holds an item twice"
    return Results(
        folder, manifest.fingerprint, content["model"], content["settings"], content["tasks"], lines
    )


def compare(
    a: Results,
    b: Results,
    *,
    common: bool = False,
    tasks: Sequence[str] = (),
    ways: Sequence[str] = (),
) -> dict[str, Any]:
    """Every row that both results have, or of the `tasks` and `ways` alone; plain values:

    - "rows": [{"task", "prompt", "way", "items", "both", "only_a", "only_b", "neither" (counts of
      right answers), "accuracy": {"a", "b", "difference", "interval", "p", "p_holm"}, "margin":
      the same, in nats, or None where the way has no score}];
    - "text": [{"name", "documents", "bytes", "a", "b", "difference", "interval", "p", "p_holm"}],
      bits per byte by tier and language;
    - "models": {"a", "b"}, "left_out": {file: items that are not in both}, "notes": what a reader
      should know.

    `interval` is of 95%; `p_holm` is corrected over the rows of its column. Raises UserError, with
    `common` only where nothing is common, for items that are not the same, naming the first one.
    """
    if a.settings["start"] != b.settings["start"]:
        raise UserError(
            f"{a.folder} was asked with --start {a.settings['start']}, {b.folder} with --start "
            f"{b.settings['start']}: a difference would be of the settings; evaluate both alike"
        )
    shared = [stem for stem in a.lines if stem in b.lines]
    if unknown := [t for t in tasks if t not in {stem.split(".")[0] for stem in shared}]:
        raise UserError(f"no task {unknown[0]!r} in both; there is {_names(shared)}")
    chosen = [stem for stem in shared if not tasks or stem.split(".")[0] in tasks]
    if not chosen:
        raise UserError(
            f"{a.folder} and {b.folder} have no task in common: {_names(a.lines)} and "
            f"{_names(b.lines)}"
        )
    pairs = {stem: _paired(a, b, stem, common) for stem in chosen}
    rows = [row for stem in chosen if stem != TEXT for row in _rows(stem, pairs[stem], ways)]
    if ways and not rows:
        raise UserError(f"no way {','.join(ways)} in both; leave out --ways to see those there are")
    text = _text(pairs[TEXT]) if TEXT in pairs else []
    for measure in ("accuracy", "margin"):
        _correct([row[measure] for row in rows if row[measure] is not None])
    _correct(text)
    left_out = {
        stem: len(a.lines[stem].keys() | b.lines[stem]) - len(pairs[stem]) for stem in pairs
    }
    return {
        "format": 1,
        "models": {"a": dict(a.model), "b": dict(b.model)},
        "rows": rows,
        "text": text,
        "left_out": {stem: count for stem, count in left_out.items() if count},
        "notes": _notes(a, b, shared, chosen),
    }


def _names(stems: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(dict.fromkeys(stem.split(".")[0] for stem in stems)) or "none"


def _paired(a: Results, b: Results, stem: str, common: bool) -> Pairs:
    """The lines of both for each item, in the order of A."""
    ours, theirs = a.lines[stem], b.lines[stem]
    same = [key for key in ours if key in theirs and _identity(ours[key]) == _identity(theirs[key])]
    if not same:
        raise UserError(
            f"{stem}: {a.folder} and {b.folder} have no item in common; evaluate both models with "
            "the same --data and settings"
        )
    if not common and len(same) < len(ours.keys() | theirs):
        paired = set(same)
        key = next(key for key in (*ours, *theirs) if key not in paired)
        raise UserError(
            f"{stem}: {_told(key, ours.get(key), theirs.get(key), a, b)}; evaluate both models "
            f"alike, or compare the {len(same)} items that are the same with --common"
        )
    return [(ours[key], theirs[key]) for key in same]


def _told(key: Key, ours: Line | None, theirs: Line | None, a: Results, b: Results) -> str:
    """How an item differs."""
    place = (ours or theirs or {}).get("place")
    name = f"item {key[1]} of {key[0]}" + (f" ({place})" if place else "")
    if theirs is None:
        return f"{name} is only in {a.folder}"
    if ours is None:
        return f"{name} is only in {b.folder}"
    if _prompt(ours) != _prompt(theirs):
        return (
            f"{name} was asked with another text (SHA-256 {_prompt(ours)[:12]} and "
            f"{_prompt(theirs)[:12]})"
        )
    return f"{name} has the answer {ours['answer']} in A and {theirs['answer']} in B"


def _identity(line: Line) -> tuple[str, int | None]:
    return _prompt(line), line.get("answer")


def _prompt(line: Line) -> str:
    prompt: str = line["text_sha256"] if "text_sha256" in line else line["prompt_sha256"]
    return prompt


def _rows(stem: str, pairs: Pairs, ways: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each way in which both models have chosen."""
    task, _, prompt = stem.partition(".")
    first, second = pairs[0]
    both = [way for way in first["choices"] if way in second["choices"]]
    return [
        {"task": task, "prompt": prompt, "way": way, "items": len(pairs), **_row(pairs, way)}
        for way in both
        if not ways or way in ways
    ]


def _row(pairs: Pairs, way: str) -> dict[str, Any]:
    right_N2 = np.array(
        [[line["choices"][way] == line["answer"] for line in pair] for pair in pairs]
    )
    a_N, b_N = right_N2.T
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    margins = [[_margin(line, way) for line in pair] for pair in pairs]
    return {
        "both": int((a_N & b_N).sum()),
        "only_a": only_a,
        "only_b": only_b,
        "neither": int((~a_N & ~b_N).sum()),
        "accuracy": {
            "a": float(a_N.mean()),
            "b": float(b_N.mean()),
            "difference": (only_b - only_a) / len(pairs),
            "interval": list(significance.share_interval(only_a, only_b, len(pairs))),
            "p": significance.mcnemar(only_a, only_b),
        },
        "margin": None if margins[0][0] is None else _margin_row(np.array(margins)),
    }


def _margin_row(margin_N2: np.ndarray) -> dict[str, Any]:
    a_N, b_N = margin_N2.T
    found = significance.paired_difference(a_N, b_N)
    return {"a": float(a_N.mean()), "b": float(b_N.mean()), **_plain(found)}


def _plain(found: significance.Difference) -> dict[str, Any]:
    interval = None if found.interval is None else list(found.interval)
    return {"difference": found.value, "interval": interval, "p": found.p}


def _margin(line: Line, way: str) -> float | None:
    """Score of the right option less the best wrong one; None where a way only says which."""
    if "logprobs" in line:
        scores = option_scores(line, way).tolist()
    elif way in line["scores"]:
        scores = list(line["scores"][way])
    else:
        return None
    right = scores.pop(line["answer"])
    return float(right - max(scores))


def _text(pairs: Pairs) -> list[dict[str, Any]]:
    """Bits per byte of each `<language>_<tier>` and of each language."""
    groups: dict[str, list[tuple[Line, Line]]] = {}
    for pair in pairs:
        name = pair[0]["subject"]
        for each in (name, name.split("_")[0]):
            groups.setdefault(each, []).append(pair)
    return [_text_row(name, group) for name, group in sorted(groups.items())]


def _text_row(name: str, pairs: Pairs) -> dict[str, Any]:
    size_N = np.array([ours["bytes"] for ours, _ in pairs], dtype=float)
    a_N, b_N = np.array([[line["bits"] for line in pair] for pair in pairs]).T
    return {
        "name": name,
        "documents": len(pairs),
        "bytes": int(size_N.sum()),
        "a": float(a_N.sum() / size_N.sum()),
        "b": float(b_N.sum() / size_N.sum()),
        **_plain(significance.ratio_difference(a_N, b_N, size_N)),
    }


def _correct(measures: Sequence[dict[str, Any]]) -> None:
    """Put `p_holm` beside each `p`."""
    for measure, p in zip(measures, significance.holm([each["p"] for each in measures])):
        measure["p_holm"] = p


def _notes(a: Results, b: Results, shared: Sequence[str], chosen: Sequence[str]) -> list[str]:
    notes = []
    for name, one, other in (("A", a, b), ("B", b, a)):
        if alone := [stem for stem in one.lines if stem not in other.lines]:
            notes.append(f"only in {name}: {', '.join(alone)}")
        for stem in chosen:
            task, _, prompt = stem.partition(".")
            cut = one.tasks.get(task, {}).get("prompts", {}).get(prompt, {}).get("cut", 0)
            if cut:
                notes.append(f"{stem}: {cut} prompts did not fit in the window of {name}")
    if a.settings["overflow"] != b.settings["overflow"]:
        notes.append(
            f"prompts longer than the window: --overflow {a.settings['overflow']} for A and "
            f"{b.settings['overflow']} for B"
        )
    if TEXT not in shared and (TEXT in a.lines or TEXT in b.lines):
        notes.append("no bits per byte: the results do not both hold held-out text by document")
    if a.model["vocab_size"] != b.model["vocab_size"]:
        notes.append(
            "the vocabularies differ: margins per token are nats per token of either, and are not "
            "of one unit"
        )
    return notes


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Aligned text: accuracies, margins, bits per byte; `*` marks a p-value that stays below 0.05
    after Holm's correction over the rows of its table."""
    models = [
        f"{side.upper()}: {model['name']} ({model['fingerprint'][:8]})"
        for side, model in comparison["models"].items()
    ]
    head = ["A", "B", "B - A", "95% interval", "p", "p (Holm)"]
    blocks = []
    rows = comparison["rows"]
    if rows:
        counts = ["both", "only A", "only B", "neither"]
        body = [
            [
                *_name_cells(row),
                *_cells(row["accuracy"], 100, 1),
                *(str(row[count]) for count in ("both", "only_a", "only_b", "neither")),
            ]
            for row in rows
        ]
        blocks.append(aligned([["accuracy, %", "items", *head, *counts], *body]))
    if measured := [row for row in rows if row["margin"] is not None]:
        body = [[*_name_cells(row), *_cells(row["margin"], 1, 3)] for row in measured]
        blocks.append(aligned([["margin of the right option, nats", "items", *head], *body]))
    if comparison["text"]:
        body = [
            [f"  {row['name']}", str(row["documents"]), *_cells(row, 1, 4)]
            for row in comparison["text"]
        ]
        blocks.append(aligned([["bits per byte, lower is better", "documents", *head], *body]))
    left_out = [f"{stem}: {n} items not in both" for stem, n in comparison["left_out"].items()]
    tests = (
        "p: accuracy by McNemar's exact test, others by the paired t-test; * below 0.05 after "
        "Holm's correction over the rows"
    )
    return "\n".join([*models, *blocks, *left_out, *comparison["notes"], tests])


def _name_cells(row: Mapping[str, Any]) -> list[str]:
    name = " ".join(part for part in (row["task"], row["prompt"], row["way"]) if part)
    return [f"  {name}", str(row["items"])]


def _cells(measure: Mapping[str, Any], factor: int, digits: int) -> list[str]:
    interval, p_holm = measure["interval"], measure["p_holm"]
    ends = "-"
    if interval is not None:
        ends = ", ".join(f"{factor * end:+.{digits}f}" for end in interval)
    return [
        f"{factor * measure['a']:.{digits}f}",
        f"{factor * measure['b']:.{digits}f}",
        f"{factor * measure['difference']:+.{digits}f}",
        ends,
        _p_cell(measure["p"]),
        _p_cell(p_holm) + ("*" if p_holm is not None and p_holm < 0.05 else " "),
    ]


def _p_cell(p: float | None) -> str:
    if p is None:
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"
