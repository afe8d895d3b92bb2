"""Input files to shards: each document normalised, labelled, and at its place for good.

A file is read by one task, shard by shard. Each finished shard knows where the next one begins, so
a stopped task goes on there and what was unpacked before is passed over, not parsed again.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from indexlm.config import TextConfig
from indexlm.records import fingerprint, sha256_file
from indexlm.text.block import blocks
from indexlm.text.document import Document
from indexlm.text.engine import Job
from indexlm.text.languages import NAMES, label, line_languages
from indexlm.text.normalise import normalise
from indexlm.text.reading.boilerplate import strip_boilerplate
from indexlm.text.reading.files import CHUNK, QUARANTINE, InputFile
from indexlm.text.reading.quarantine import (
    END,
    Position,
    Quarantined,
    QuarantineWriter,
    read_quarantine,
)
from indexlm.text.reading.readers import HEAD
from indexlm.text.reading.sources import read_records
from indexlm.text.reading.starter import read_starter
from indexlm.text.shards import write_shard
from indexlm.text.work import Made, finished, make

SETTINGS = {"language", "tier", "shard_bytes", "reading"}
"""What of the settings decides how a file is read."""
MOST_DOCUMENTS = 100_000
"""Of a shard, however short they are: each takes about 1 KB of memory beside its text."""
SHOWN = 3
"""Quarantined records of a shard that a message can quote."""
_RECORD = re.compile(rb"\n[^\n]*\{[^\n]*\n")
"""A line that is a record whatever else is wrong with it: a part that ends after a blank would
read on into the next part."""

Record = tuple[Document | Quarantined, str, Position]
"""A record, its parts as JSON (of the starter corpus), and the position behind it."""


@dataclass
class Gathered:
    """The records of one shard as they were read; those without text are only counted."""

    documents: list[Document] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    bytes: int = 0
    blank: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    end: Position = END


def survey(job: Job) -> dict[str, Any]:
    """Task: the hash of a file, and where it may be divided: plain jsonl before lines about
    `range_bytes` apart, as [byte, lines before it]; anything else not at all."""
    file = InputFile.from_row(job["file"])
    divisible = file.kind == "jsonl" and file.path.suffix.lower() == ".jsonl"
    digest, starts = hashlib.sha256(), [[0, 0]]
    if file.kind == "quarantine":
        # A part of a file that was lost is read again from there.
        for bad in read_quarantine(file.path):
            state = bad.file.path.stat() if bad.span and bad.file.path.is_file() else None
            digest.update(repr(state and (state.st_size, state.st_mtime_ns)).encode())
    byte = lines = 0
    with file.path.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            # Wide characters are not divided: they are told by their beginning.
            divisible = divisible and (byte > 0 or b"\0" not in chunk[:HEAD])
            if divisible and byte + len(chunk) >= starts[-1][0] + job["range_bytes"]:
                line = _RECORD.search(chunk)
                if line and line.end() - line.start() <= job["record_bytes"]:
                    before = lines + chunk.count(b"\n", 0, line.end())
                    starts.append([byte + line.end(), before])
            lines += chunk.count(b"\n") if divisible else 0
            byte += len(chunk)
    return {"content": digest.hexdigest(), "starts": [s for s in starts if s[0] < byte or not s[0]]}


def read(job: Job) -> dict[str, Any]:
    """Task: the shards of an input file, or of its part from `start` to byte `stop`, in order, with
    what is counted of each."""
    config = TextConfig.model_validate(job["config"])
    reader = _Reader(job, config)
    shards: list[dict[str, Any]] = []
    while not shards or shards[-1]["end"] != list(END):
        start = shards[-1]["end"] if shards else job["start"]
        made = reader.shard(len(shards), tuple(start) if start else None)
        shards.append({"path": str(made.path), "sha256": made.sha256, **made.notes})
    return {"shards": shards}


class _Reader:
    """The records of a file; they flow on from one shard to the next while none is there yet."""

    def __init__(self, job: Job, config: TextConfig) -> None:
        self.config = config
        self.folder, self.key = Path(job["folder"]), job["key"]
        self.file = None if job["file"] is None else InputFile.from_row(job["file"])
        asked = config.model_dump(mode="json", include=SETTINGS)
        identity = job["file"] and {k: v for k, v in job["file"].items() if k != "path"}
        self.stop = job["stop"]
        self.made_from = fingerprint(job["code"], asked, job["content"], identity, self.stop)
        self.records: Iterator[Record] | None = None

    def shard(self, number: int, start: Position | None) -> Made:
        path = self.folder / f"{self.key}-{number:05}.arrow"
        made_from = fingerprint(self.made_from, number, start)
        made = finished(path, made_from)
        bad = path.with_name(f"{path.stem}{QUARANTINE}")
        if made is not None and made.notes["quarantine"] == _hash_of(bad):
            self.records = None
            return made
        if self.records is None:
            self.records = _records(self.file, self.config, start)
        return make(path, made_from, lambda partial: self._write(partial, path))

    def _write(self, partial: Path, path: Path) -> dict[str, Any]:
        bad = path.with_name(f"{path.stem}{QUARANTINE}")
        half = bad.with_name(f".{os.getpid()}.{bad.name}")
        gathered = self._gather(half)
        bad.unlink(missing_ok=True)
        if gathered.bad:
            half.rename(bad)
        count = len(gathered.documents) + gathered.blank
        documents, entries, tallies = _prepared(gathered)
        write_shard(partial, documents, entries)
        return {
            "end": list(gathered.end),
            "read": [count, gathered.bytes],
            "blank": gathered.blank,
            "quarantine": _hash_of(bad),
            "quarantined": dict(sorted(gathered.bad.items())),
            "messages": gathered.messages,
            "documents": len(documents),
            "bytes": sum(len(document.text.encode()) for document in documents),
            **tallies,
        }

    def _gather(self, quarantine: Path) -> Gathered:
        """Records to the size of a shard; those that are bad go to their file at once."""
        assert self.records is not None
        gathered = Gathered()
        with ExitStack() as stack:
            writer: QuarantineWriter | None = None
            for record, entry, position in self.records:
                if isinstance(record, Quarantined):
                    writer = writer or stack.enter_context(QuarantineWriter(quarantine))
                    writer.write(record)
                    gathered.bad[record.reason] += 1
                    if len(gathered.messages) < SHOWN:
                        gathered.messages.append(record.message())
                elif record.text.strip():
                    gathered.documents.append(record)
                    gathered.entries.append(entry)
                    gathered.bytes += len(record.text.encode())
                else:
                    gathered.blank += 1
                if self.stop is not None and position[0] >= self.stop:
                    break
                full = len(gathered.documents) >= MOST_DOCUMENTS
                if full or gathered.bytes >= self.config.shard_bytes:
                    gathered.end = position
                    break
        return gathered


def _hash_of(file: Path) -> str:
    """Of a file that may not be there."""
    return sha256_file(file) if file.is_file() else ""


def _records(
    file: InputFile | None, config: TextConfig, start: Position | None
) -> Iterator[Record]:
    if file is not None:
        for record, position in read_records(file, config, config.reading, start):
            yield record, "", position
        return
    documents = read_starter(Path(config.downloads))
    for number, (document, entry) in enumerate(documents, start=1):
        if start is None or number > start[0]:
            parts = "" if entry is None else json.dumps(asdict(entry), ensure_ascii=False)
            yield document, parts, (number,)


def _prepared(gathered: Gathered) -> tuple[list[Document], list[str], dict[str, Any]]:
    """Documents as every step sees them, the JSON of their parts, and what was counted."""
    documents, entries = [], []
    for document, entry in zip(gathered.documents, gathered.entries):
        text = normalise(document.text)
        if text:
            documents.append(document.with_text(text))
            entries.append(entry)
    blank = len(gathered.documents) - len(documents)
    labelled: list[Document] = []
    lines: Counter[str] = Counter()
    for block in blocks(documents):
        languages, scripts = label(block)
        counts = np.bincount(line_languages(block), minlength=len(NAMES)).tolist()
        lines.update(dict(zip(NAMES, counts)))
        labelled += [
            replace(document, language=document.language or language, script=script)
            for document, language, script in zip(block.documents, languages, scripts)
        ]
    kept, kept_entries, removed = [], [], 0
    for document, entry in zip(labelled, entries):
        text = document.text
        if document.language != "code":
            text, count = strip_boilerplate(text)
            removed += count
        if text:
            kept.append(document.with_text(text))
            kept_entries.append(entry)
    gathered.blank += len(documents) - len(kept) + blank
    return kept, kept_entries, {"lines": dict(sorted(lines.items())), "boilerplate_lines": removed}
