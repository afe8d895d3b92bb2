"""One text of the benchmark as a process: corpus, planted truth, and the forms that rows read.

corpus.jsonl [.gz .zst]   {"id", "text"}, in random order
truth.jsonl               of every document whether it is real, made or planted, and as what
parts/{zh,en}-{0,1}.jsonl the same rows by language, for a peer that has a pipeline for each
made.json                 what it holds
"""

import argparse
import gzip
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from benchmarks.text.corpus import (
    Pool,
    chosen_pool,
    language_of,
    made,
    read_pools,
    real_bytes,
    real_documents,
)
from benchmarks.text.planted import ITEMS, SHARES, item, jaccard, lessons, planted, shingles

MOST_REAL = 0.5
"""Share of the text that may be real: only of made documents it is known what should become."""
PARTS = 2
LESSONS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, help="folder of txt and jsonl; without, the starter")
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--mb", type=float, required=True)
    parser.add_argument(
        "--largest-mb",
        type=float,
        help="of several texts, whose share of real documents is then the same",
    )
    parser.add_argument("--packed", action="store_true", help="also as .gz and .zst")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    begin = time.monotonic()
    make(asked)
    print(f"{asked.out}: {asked.mb:g} MB made in {time.monotonic() - begin:.0f} s")


def make(asked: argparse.Namespace) -> None:
    pools = read_pools(asked.text, asked.downloads)
    largest = int((asked.largest_mb or asked.mb) * 1e6)
    share = min(MOST_REAL, real_bytes(pools) / largest)
    rows, items, notes = compose(pools, int(asked.mb * 1e6), share, asked.seed)
    asked.out.mkdir(parents=True)
    _write(asked.out, rows, items, packed=asked.packed)
    _write_lessons(asked.out / "lessons", pools, asked.seed)
    notes |= {"source_bytes": real_bytes(pools), "text_bytes": sum(row[2] for row in rows)}
    notes |= {"checks": checks(rows), "documents": len(rows)}
    (asked.out / "made.json").write_text(json.dumps(notes, indent=1), encoding="utf-8")


Row = tuple[str, str, int, str, dict[str, Any] | None]
"""Id, text, bytes, origin (`real`, `made` or `planted`), truth."""
Item = Mapping[str, Any]


def compose(
    pools: list[Pool], size: int, real_share: float, seed: int, questions: int = ITEMS
) -> tuple[list[Row], list[Item], dict[str, Any]]:
    """All documents in random order, the items of the benchmark file, and what the text holds: a
    pure function of its arguments."""
    generator = np.random.default_rng([seed, size])
    found: list[tuple[str, str, dict[str, Any] | None, int]] = []
    items: list[Item] = []
    used = 0

    def add(origin: str, text: str, truth: dict[str, Any] | None, of: int = -1) -> None:
        nonlocal used
        found.append((origin, text, truth, of))
        used += len(text.encode())

    for kind, share in SHARES.items():
        for each in planted(kind, int(size * share), pools, generator):
            if each.partner:
                add("made", each.partner, None)
            add("planted", each.text, each.truth, of=len(found) - 1 if each.partner else -1)
            if each.item is not None:
                items.append(each.item)
    for number in range(len(items), questions):
        items.append(item(number, chosen_pool(pools, generator), generator))
    for text in real_documents(pools, min(int(size * real_share), size - used), generator):
        add("real", text, None)
    while used < size:
        add("made", made(chosen_pool(pools, generator), generator), None)
    order = generator.permutation(len(found))
    names = [f"d{place:08}" for place in np.argsort(order).tolist()]
    rows: list[Row] = []
    for index in order.tolist():
        origin, text, truth, of = found[index]
        if truth is not None and of >= 0:
            truth = truth | {"of": names[of]}
        rows.append((names[index], text, len(text.encode()), origin, truth))
    shares = Counter[str]()
    for row in rows:
        shares[row[3] if row[4] is None else row[4]["kind"]] += row[2]
    return rows, items, {"bytes": dict(shares), "seed": seed}


def checks(rows: list[Row]) -> dict[str, float]:
    """That copies do not come about by themselves: the highest Jaccard similarity of 5,000 pairs of
    made documents, and the share of a million windows of 200 bytes that stood before."""
    generator = np.random.default_rng(0)
    texts = [row[1] for row in rows if row[3] == "made" and row[2] >= 300]
    order = generator.permutation(len(texts)).tolist()
    sets = [shingles(texts[index]) for index in order[:100]]
    highest = max((jaccard(one, other) for n, one in enumerate(sets) for other in sets[:n]))
    windows: list[int] = []
    for index in order:
        content = texts[index].encode()
        windows += [hash(content[at : at + 200]) for at in range(len(content) - 199)]
        if len(windows) > 1_000_000:
            break
    repeated = 1 - len(set(windows)) / len(windows)
    return {"highest_jaccard": round(highest, 4), "repeated_windows": round(repeated, 6)}


def _write(out: Path, rows: list[Row], items: Sequence[Item], *, packed: bool) -> None:
    lines = [json.dumps({"id": row[0], "text": row[1]}, ensure_ascii=False) + "\n" for row in rows]
    content = "".join(lines).encode()
    (out / "corpus.jsonl").write_bytes(content)
    if packed:
        (out / "corpus.jsonl.gz").write_bytes(gzip.compress(content, 6))
        (out / "corpus.jsonl.zst").write_bytes(zstandard.compress(content, 3))
    with (out / "truth.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            truth = row[4] if row[4] is not None else {"kind": row[3]}
            file.write(json.dumps({"id": row[0], **truth}, ensure_ascii=False) + "\n")
    questions = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in items)
    (out / "benchmark.jsonl").write_text(questions, encoding="utf-8")
    parts = out / "parts"
    parts.mkdir()
    for language in ("zh", "en"):
        chosen = [line for line, row in zip(lines, rows) if language_of(row[1]) == language]
        for part in range(PARTS):
            path = parts / f"{language}-{part}.jsonl"
            path.write_text("".join(chosen[part::PARTS]), encoding="utf-8")


def _write_lessons(out: Path, pools: Sequence[Pool], seed: int) -> None:
    out.mkdir()
    generator = np.random.default_rng([seed, LESSONS])
    found: dict[str, list[str]] = {"good": [], "bad": []}
    for pool in pools:
        good, bad = lessons(pool, LESSONS, generator)
        found["good"] += good
        found["bad"] += bad
    for name, texts in found.items():
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
