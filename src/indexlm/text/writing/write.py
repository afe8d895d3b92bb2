"""The end of each document: kept for training, held out, or dropped with its reason.

Repeated passages are cut and personal data masked here, so that no step before sees text with
holes. What a shard gives to each file of the output lies in one file of the work folder, part after
part; the output is these parts strung together in the order of the shards.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.config import TextConfig
from indexlm.text.copies import passages
from indexlm.text.copies.corpus import CUTS, Corpus, edges_of
from indexlm.text.document import FIELDS, Document, Entry
from indexlm.text.engine import Job
from indexlm.text.filters import privacy
from indexlm.text.jsonl import packed
from indexlm.text.shards import open_shard, read_columns
from indexlm.text.work import once, output
from indexlm.text.writing.compose import held_out_entry, instruction_records
from indexlm.text.writing.held_out import firsts, place, split_key

KEPT, HELD_OUT = "kept", "held_out"
"""What becomes of a document that no step drops."""
REASONS = {
    "exact_duplicate": "an earlier document says the same, but for case and white space",
    "near_duplicate": "an earlier document that stays is as similar as asked, or more",
    "emptied": "too little is left where passages that stood before are cut out",
}
LENGTHS = tuple(2**power for power in range(3, 25))
"""Upper borders, in characters, of the bins in which lengths are counted."""


@dataclass
class Ends:
    """The documents of a shard as they leave, by what becomes of them, and what is counted."""

    files: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """Name of a file of the output -> rows for it."""
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Documents by (source, licence, language, tier, end)."""
    sizes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Bytes of the same, as they were read."""
    written: Counter[str] = field(default_factory=Counter)
    """Bytes by `<end>/<language>_<tier>`, as they leave."""
    lengths: Counter[str] = field(default_factory=Counter)
    """Documents that stay, by `<language>/<bin>`."""
    scripts: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    stay: list[Document] = field(default_factory=list)


def write(job: Job) -> dict[str, Any]:
    """Task: everything that one shard adds to the output, and the counts of it."""
    made = once(Path(job["path"]), job["made_from"], lambda path: _write(job, path))
    return {"sha256": made.sha256, **made.notes}


def _write(job: Job, path: Path) -> dict[str, Any]:
    ends = _ends(TextConfig.model_validate(job["config"]), job)
    parts: dict[str, list[int]] = {}
    with path.open("wb") as file:
        for name, rows in sorted(ends.files.items()):
            start = file.tell()
            file.write(packed(rows))
            parts[name] = [start, file.tell() - start]
    return {
        "parts": parts,
        "counts": [[*key, count, ends.sizes[key]] for key, count in sorted(ends.counts.items())],
        "written": dict(sorted(ends.written.items())),
        "lengths": dict(sorted(ends.lengths.items())),
        "scripts": dict(sorted(ends.scripts.items())),
        "masked": dict(sorted(ends.masked.items())),
        "cut": ends.cut,
        "firsts": firsts(ends.stay),
    }


def _ends(config: TextConfig, job: Job) -> Ends:
    corpus, number = Corpus.of(Path(job["work"])), job["shard"]
    shard = open_shard(corpus.shards[number])
    dropped = _dropped(corpus, number, job)
    cuts = {}
    if job["cuts"]:
        cuts = passages.read_cuts(output(corpus.work, CUTS, corpus.shards[number]))
    suspects = None
    if "privacy" in job["columns"]:
        suspects = _column(corpus, number, "privacy", "suspect")
    tiers = _tiers(config, corpus, number, job["columns"])
    ends = Ends()
    for index, (document, entry) in enumerate(zip(shard.documents(), shard.column("entry"))):
        name = job["names"].get(str(index), document.id)
        tier = document.tier if tiers is None else tiers[index]
        given, document = document.tier, replace(document, id=name, tier=tier)
        reason, told = dropped.get(index, ("", {}))
        text = document.text
        if not reason and index in cuts:
            spans = list(passages.whole_words(text, cuts[index]))
            text = passages.cut(text, spans).strip()
            reason = "emptied" if len(text) < config.rules.min_chars else ""
        if reason:
            _add(ends, document, reason, len(document.text.encode()))
            row = _row(document) | {"reason": reason, **told}
            ends.files.setdefault(f"dropped/{reason}", []).append(row)
            continue
        ends.cut += len(document.text.encode()) - len(text.encode())
        if suspects is not None and suspects[index]:
            text, found = privacy.mask(text, config.privacy)
            ends.masked.update(found)
            entry = _masked(entry, config)
        key = split_key(document.id)
        unseen = place(key) < config.held_out_share or key in job["forced"]
        _stay(ends, document, text, entry, unseen, given)
    return ends


def _dropped(corpus: Corpus, number: int, job: Job) -> dict[int, tuple[str, dict[str, Any]]]:
    """Documents of a shard that a step drops: the first reason, and what that step tells of it."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for name in job["columns"]:
        answers = read_columns(output(corpus.work, name, corpus.shards[number]))
        reasons = answers.column("reason").to_pylist()
        told = {
            column: answers.column(column)
            for column in answers.column_names
            if column not in ("reason", "suspect", "tier")
        }
        for index, reason in enumerate(reasons):
            if reason and index not in found:
                found[index] = (reason, {key: v[index].as_py() for key, v in told.items()})
    renamed = json.loads(Path(job["renamed"]).read_text(encoding="utf-8"))
    for kind in job["copies"]:
        for index, earlier, similarity in edges_of(corpus.work, kind, number):
            name = open_shard(corpus.shards[earlier >> 32]).name(earlier & 0xFFFFFFFF)
            like = {"of": renamed.get(str(earlier), name), "similarity": round(similarity, 4)}
            found.setdefault(index, (f"{kind}_duplicate", like))
    return found


def _tiers(
    config: TextConfig, corpus: Corpus, number: int, columns: Iterable[str]
) -> list[str] | None:
    if "quality" not in columns or config.quality.tiers == "given":
        return None
    return _column(corpus, number, "quality", "tier")


def _column(corpus: Corpus, number: int, step: str, name: str) -> list[Any]:
    return read_columns(output(corpus.work, step, corpus.shards[number])).column(name).to_pylist()


def _add(ends: Ends, document: Document, end: str, size: int) -> None:
    key = (document.source, document.license, document.language, document.tier, end)
    ends.counts[key] += 1
    ends.sizes[key] += size


def _masked(entry: str, config: TextConfig) -> str:
    """The JSON of a document's parts, masked as its text is."""
    if not entry:
        return entry
    parts = json.loads(entry)
    for key, value in parts.items():
        if isinstance(value, list):
            parts[key] = [privacy.mask(part, config.privacy)[0] for part in value]
        elif key != "kind":
            parts[key] = privacy.mask(value, config.privacy)[0]
    return json.dumps(parts, ensure_ascii=False)


def _stay(ends: Ends, document: Document, text: str, entry: str, unseen: bool, given: str) -> None:
    """`given` is the tier of the input: that of a chat says how people rated it."""
    end, group = HELD_OUT if unseen else KEPT, f"{document.language}_{document.tier}"
    _add(ends, document, end, len(document.text.encode()))
    document = document.with_text(text)
    ends.stay.append(document)
    ends.written[f"{end}/{group}"] += len(text.encode())
    ends.lengths[f"{document.language}/{int(np.searchsorted(LENGTHS, len(text)))}"] += 1
    if document.language == "zh":
        ends.scripts[document.script or "unknown"] += 1
    folder = "held_out" if unseen else "train"
    ends.files.setdefault(f"{folder}/{group}", []).append(_row(document))
    if entry:
        parts = Entry(**json.loads(entry))
        if unseen:
            asked = held_out_entry(document, parts)
            ends.files.setdefault("entries", []).extend([asked] if asked else [])
        else:
            rated = replace(document, tier=given)
            ends.files.setdefault("instruction", []).extend(instruction_records(rated, parts))


def _row(document: Document) -> dict[str, Any]:
    return {name: getattr(document, name) for name in FIELDS}
