"""The funnel: what came in, what each step left, what became of every record."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from indexlm.config import TextConfig
from indexlm.text.filters import contamination, heuristics, instructions, privacy
from indexlm.text.filters import quality as qualities
from indexlm.text.writing.write import HELD_OUT, KEPT, REASONS

ORDER = (
    *heuristics.REASONS,
    *instructions.REASONS,
    *qualities.REASONS,
    *contamination.REASONS,
    *privacy.REASONS,
    *REASONS,
)
"""Reasons in the order in which they are looked for."""
ALL_REASONS: dict[str, str] = {
    **heuristics.REASONS,
    **instructions.REASONS,
    **qualities.REASONS,
    **contamination.REASONS,
    **privacy.REASONS,
    **REASONS,
}
"""Reason -> one sentence that says what it is."""

Size = dict[str, int]


def funnel_of(
    config: TextConfig,
    benchmarks: Mapping[str, Any],
    shards: Sequence[Mapping[str, Any]],
    written: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """All counts of a run, as plain values.

    `steps` has documents and bytes after each step; a reason that dropped something is a step.
    `groups` has them by source, licence, language, tier and end. `benchmarks` are the items that
    were looked for.
    """
    groups: Counter[tuple[str, ...]] = Counter()
    sizes: Counter[tuple[str, ...]] = Counter()
    for one in written:
        for *key, count, size in one["counts"]:
            groups[tuple(key)] += count
            sizes[tuple(key)] += size
    dropped = _by([4], groups, sizes)
    ends = {end: _by([2, 3], groups, sizes, end, written) for end in (KEPT, HELD_OUT)}
    dropped = {reason: dropped[reason] for reason in ORDER if reason in dropped}
    cut = sum(one["cut"] for one in written)
    stay = sum(_total(ends[end])["bytes"] for end in ends)
    return {
        "sources": [
            {"source": name, "license": license_name, **size}
            for (name, license_name), size in _pairs(groups, sizes)
        ],
        "steps": _steps(shards, dropped, cut, stay, _total(ends[HELD_OUT])),
        "dropped": dropped,
        "kept": ends[KEPT],
        "held_out": ends[HELD_OUT],
        "blank": sum(shard["blank"] for shard in shards),
        "quarantined": dict(sorted(_summed(shard["quarantined"] for shard in shards).items())),
        "messages": [message for shard in shards for message in shard["messages"]][:10],
        "groups": [[*key, count, sizes[key]] for key, count in sorted(groups.items())],
        "boilerplate_lines": sum(shard["boilerplate_lines"] for shard in shards),
        "line_languages": dict(_summed(shard["lines"] for shard in shards)),
        "lengths": dict(sorted(_summed(one["lengths"] for one in written).items())),
        "scripts": dict(sorted(_summed(one["scripts"] for one in written).items())),
        "masked": dict(sorted(_summed(one["masked"] for one in written).items())),
        "cut_bytes": cut,
        "benchmarks": dict(benchmarks),
        "settings": config.model_dump(mode="json"),
    }


def funnel_table(funnel: Mapping[str, Any]) -> str:
    """The funnel as aligned text: what each step left, what was dropped, what each tier holds."""
    rows = [("step", "documents", "MB")]
    rows += [_row(step["step"], step) for step in funnel["steps"]]
    for title in ("dropped", "kept", "held_out"):
        rows.append((f"{title.replace('_', ' ')}:", "", ""))
        rows += [_row(f"  {name}", size) for name, size in funnel[title].items()]
    if funnel["quarantined"]:
        rows.append(("quarantined:", "", ""))
        rows += [(f"  {name}", f"{count:,}", "") for name, count in funnel["quarantined"].items()]
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{name:<{width}} {count:>10} {size:>8}".rstrip() for name, count, size in rows
    )


def _steps(
    shards: Sequence[Mapping[str, Any]],
    dropped: Mapping[str, Size],
    cut: int,
    stay: int,
    held_out: Size,
) -> list[dict[str, Any]]:
    """Read, normalise, each reason, what is done to the text that stays, hold out."""
    left = {
        "documents": sum(s["documents"] for s in shards),
        "bytes": sum(s["bytes"] for s in shards),
    }
    read = [sum(shard["read"][at] for shard in shards) for at in (0, 1)]
    steps: list[dict[str, Any]] = [
        {"step": "read", "documents": read[0], "bytes": read[1]},
        {"step": "normalise", **left},
    ]
    for reason, gone in dropped.items():
        left = {key: left[key] - gone[key] for key in left}
        steps.append({"step": reason, **left})
    if cut:
        steps.append({"step": "cut_passages", **left, "bytes": left["bytes"] - cut})
    if left["bytes"] - cut != stay:
        steps.append({"step": "mask", **left, "bytes": stay})
    kept = {
        "documents": left["documents"] - held_out["documents"],
        "bytes": stay - held_out["bytes"],
    }
    return [*steps, {"step": "hold_out", **kept}]


def _by(
    places: Sequence[int],
    groups: Mapping[tuple[str, ...], int],
    sizes: Mapping[tuple[str, ...], int],
    end: str = "",
    written: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Size]:
    """Documents and bytes by some places of the key; of an `end`, bytes as they leave."""
    found: dict[str, Size] = {}
    for key, count in sorted(groups.items()):
        if (key[4] == end) if end else key[4] not in (KEPT, HELD_OUT):
            size = found.setdefault(
                "_".join(key[at] for at in places), {"documents": 0, "bytes": 0}
            )
            size["documents"] += count
            size["bytes"] += sizes[key]
    bytes_written = _summed(one["written"] for one in written)
    for name, size in found.items():
        size["bytes"] = bytes_written.get(f"{end}/{name}", size["bytes"])
    return dict(sorted(found.items()))


def _pairs(
    groups: Mapping[tuple[str, ...], int], sizes: Mapping[tuple[str, ...], int]
) -> list[tuple[tuple[str, str], Size]]:
    """Documents and bytes of each source with its licence."""
    found: dict[tuple[str, str], Size] = {}
    for key, count in sorted(groups.items()):
        size = found.setdefault((key[0], key[1]), {"documents": 0, "bytes": 0})
        size["documents"] += count
        size["bytes"] += sizes[key]
    return list(found.items())


def _summed(several: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in several:
        total.update(one)
    return total


def _total(sizes: Mapping[str, Size]) -> Size:
    return {key: sum(size[key] for size in sizes.values()) for key in ("documents", "bytes")}


def _row(name: str, size: Mapping[str, Any]) -> tuple[str, str, str]:
    return name, f"{size['documents']:,}", f"{size['bytes'] / 1e6:.3f}"
