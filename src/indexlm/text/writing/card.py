"""The data card of a refined corpus: a page that stands beside it and says what it is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexlm.config import TextConfig
from indexlm.text.writing.funnel import ALL_REASONS
from indexlm.text.writing.write import LENGTHS

CARD = "README.md"
BAR = 40
"""Characters of the longest bar of a histogram."""


def write_card(out: Path, config: TextConfig, funnel: Mapping[str, Any]) -> None:
    """`README.md` in the folder, from the funnel alone: the same counts give the same bytes."""
    kept = {name: size["documents"] for name, size in funnel["kept"].items()}
    total = sum(size["bytes"] for size in funnel["kept"].values())
    read = funnel["steps"][0]
    parts = [
        "# Data card",
        f"{sum(kept.values()):,} documents ({total / 1e6:,.1f} MB) for training, of "
        f"{read['documents']:,} ({read['bytes'] / 1e6:,.1f} MB) that were read. Steps: "
        f"{', '.join(config.steps)}. All counts are in `funnel.json`, dropped text beside its "
        "reason in `dropped/`, what could not be read in `all.quarantine.jsonl.zst`.",
        "## Sources and licences",
        *_table(
            ("source", "licence", "documents", "MB"),
            [
                (s["source"], s["license"] or "not stated", f"{s['documents']:,}", _mb(s["bytes"]))
                for s in funnel["sources"]
            ],
        ),
        "## What is there",
        *_table(
            ("language and tier", "training documents", "MB", "held out", "MB"),
            [
                (name, *_size(funnel["kept"].get(name)), *_size(funnel["held_out"].get(name)))
                for name in sorted(funnel["kept"].keys() | funnel["held_out"].keys())
            ],
        ),
        "## What each step left",
        *_table(
            ("step, or reason of dropping", "documents left", "MB left", "what it is"),
            [
                (step["step"], *_size(step), ALL_REASONS.get(step["step"], ""))
                for step in funnel["steps"]
            ],
        ),
        *_changes(funnel),
        *_shares(funnel, "source", lambda group: group[0]),
        *_shares(funnel, "language and tier", lambda group: f"{group[2]}_{group[3]}"),
        "## Lengths of documents, in characters",
        *_lengths(funnel["lengths"]),
        "## Languages of lines, before any step",
        *_bars(funnel["line_languages"]),
    ]
    (out / CARD).write_text("\n\n".join(_joined(parts)) + "\n", encoding="utf-8")


def _changes(funnel: Mapping[str, Any]) -> list[str]:
    told = [
        f"- boilerplate lines taken out: {funnel['boilerplate_lines']:,}",
        f"- passages that stood before, cut out: {funnel['cut_bytes'] / 1e6:.3f} MB",
    ]
    told += [f"- masked {kind}: {count:,}" for kind, count in funnel["masked"].items()]
    told += [f"- Chinese in {name} characters: {n:,}" for name, n in funnel["scripts"].items()]
    for benchmark, count in funnel["benchmarks"].get("items", {}).items():
        short = funnel["benchmarks"]["unchecked"].get(benchmark, 0)
        told.append(f"- {benchmark}: {count:,} items looked for, {short:,} too short to be told")
    told += [f"- blank records: {funnel['blank']:,}"]
    told += [f"- quarantined, {name}: {n:,}" for name, n in funnel["quarantined"].items()]
    return ["## What else was done", "\n".join(told)]


def _shares(
    funnel: Mapping[str, Any], what: str, name: Callable[[Sequence[Any]], str]
) -> list[str]:
    """Which reasons took what share of the documents of each group."""
    rows: dict[str, dict[str, int]] = {}
    for group in funnel["groups"]:
        ends = rows.setdefault(name(group), {})
        ends[group[4]] = ends.get(group[4], 0) + group[5]
    table = []
    for group_name, ends in sorted(rows.items()):
        total = sum(ends.values())
        stay = ends.pop("kept", 0) + ends.pop("held_out", 0)
        most = sorted(ends.items(), key=lambda end: (-end[1], end[0]))
        told = ", ".join(f"{reason} {count / total:.2%}" for reason, count in most)
        table.append((group_name, f"{total:,}", f"{stay / total:.2%}", told))
    head = (what, "documents", "stay", "dropped")
    return [f"## What was dropped, by {what}", *_table(head, table)]


def _lengths(counts: Mapping[str, int]) -> list[str]:
    borders = [*(f"to {border:,}" for border in LENGTHS), "longer"]
    parts = []
    for language in sorted({name.partition("/")[0] for name in counts}):
        bins = {
            int(name.partition("/")[2]): count
            for name, count in counts.items()
            if name.startswith(f"{language}/")
        }
        bars = {borders[at]: bins.get(at, 0) for at in range(min(bins), max(bins) + 1)}
        parts += [f"{language}:", *_bars(bars)]
    return parts


def _bars(counts: Mapping[str, int]) -> list[str]:
    most = max(counts.values(), default=1) or 1
    width = max((len(name) for name in counts), default=0)
    lines = [
        f"{name:>{width}} {count:>12,} {'#' * round(BAR * count / most)}".rstrip()
        for name, count in counts.items()
    ]
    return ["```\n" + "\n".join(lines) + "\n```"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)]


def _size(size: Mapping[str, int] | None) -> tuple[str, str]:
    return ("0", "0.000") if size is None else (f"{size['documents']:,}", _mb(size["bytes"]))


def _mb(count: int) -> str:
    return f"{count / 1e6:,.3f}"


def _joined(parts: Iterable[str]) -> list[str]:
    return [part for part in parts if part]
