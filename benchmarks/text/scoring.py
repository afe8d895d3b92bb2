"""What a pipeline made of the planted truth. Shares are of planted documents unless said otherwise.

A pair of copies is found when not both of it are kept: which of the two stays is a tool's choice.
"""

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.text.planted import PASSAGE

Truth = Mapping[str, dict[str, Any]]

BOUND = 0.8
BORDERS = (0.0, 0.6, 0.75, 0.8, 0.83, 0.87, 0.93, 1.01)
"""Of the similarities in which near copies are counted."""


def read_truth(path: Path) -> Truth:
    with path.open(encoding="utf-8") as file:
        return {row.pop("id"): row for row in map(json.loads, file)}


def copies(truth: Truth, gone: Set[str]) -> dict[str, Any]:
    """Of what looks for copies only: pairs found, and documents of no pair that were dropped."""
    pairs: dict[str, list[bool]] = defaultdict(list)
    lost = []
    partners = set()
    for name, row in truth.items():
        if "of" not in row:
            continue
        partners.add(row["of"])
        both = [name in gone, row["of"] in gone]
        lost.append(all(both))
        pairs[_pair(row)].append(any(both))
        if row["kind"] == "near_copy":
            side = "near_copy" if row["jaccard"] >= BOUND else "not so near, dropped"
            pairs[side].append(any(both))
    single = [name for name, row in truth.items() if row["kind"] == "made" and name not in partners]
    return {
        "pairs": {kind: _share(found) for kind, found in sorted(pairs.items())},
        "both_dropped": _share(lost),
        "false_drops": _share(name in gone for name in single),
    }


def everything(truth: Truth, kept: Mapping[str, str], dropped: Mapping[str, str]) -> dict[str, Any]:
    """Of a whole pipeline: `kept` has the texts of all documents that stay, `dropped` reasons."""
    missing = [name for name in truth if name not in kept and name not in dropped]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for name, row in truth.items():
        if row["kind"] in ("junk", "instruction", "benchmark"):
            by_kind[row["kind"]].append(name in dropped)
            if "of_kind" in row:
                by_kind[f"{row['kind']}: {row['of_kind']}"].append(name in dropped)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for name, row in truth.items():
        if row["kind"] in ("made", "real"):
            reasons[row["kind"]][dropped.get(name, "kept")] += 1
    return {
        "unaccounted": len(missing),
        "copies": copies(truth, dropped.keys()),
        "dropped": {kind: _share(found) for kind, found in sorted(by_kind.items())},
        "passage": _passages(truth, kept),
        "personal": _personal(truth, kept),
        "ends": {kind: dict(counts.most_common()) for kind, counts in reasons.items()},
    }


def _passages(truth: Truth, kept: Mapping[str, str]) -> dict[str, Any]:
    """How often the shared passage is left, and whether the text on both sides is whole."""
    hosts = {n: row for n, row in truth.items() if row["kind"] == "passage" and n in kept}
    left = sum(_key(PASSAGE) in _key(kept[name]) for name in hosts)
    whole = [
        _key(row["before"]) in _key(kept[name]) and _key(row["after"]) in _key(kept[name])
        for name, row in hosts.items()
    ]
    return {"hosts": len(hosts), "left": left, "text_around_whole": _share(whole)}


def _personal(truth: Truth, kept: Mapping[str, str]) -> dict[str, Any]:
    hidden: dict[str, list[bool]] = defaultdict(list)
    whole = []
    for name, row in truth.items():
        if row["kind"] != "personal" or name not in kept:
            continue
        hidden[row["of_kind"]].append(row["secret"] not in kept[name])
        whole.append(_key(row["before"]) in _key(kept[name]))
    return {
        "hidden": {kind: _share(found) for kind, found in sorted(hidden.items())},
        "text_before_whole": _share(whole),
    }


def _pair(row: Mapping[str, Any]) -> str:
    if row["kind"] == "exact_copy":
        return "exact_copy"
    low, high = next((low, high) for low, high in pairwise(BORDERS) if low <= row["jaccard"] < high)
    return f"near_copy {low:.2f}-{min(high, 1):.2f}, {row['style']}"


def _share(found: Iterable[bool]) -> dict[str, Any]:
    counts = Counter(found)
    total = counts.total()
    return {"share": round(counts[True] / total, 4) if total else None, "of": total}


def _key(text: str) -> str:
    """What normalising does not change."""
    return "".join(unicodedata.normalize("NFKC", text).split())
