"""Records that cannot be read are put aside with their bytes, and the run goes on.

A file of them holds one JSON object a line, as .jsonl.zst: `file` (path, kind, source, stem,
license), `place`, `reason`, `detail`, `number`, `span`, `raw` in base64. Bytes of a long record
follow on lines of their own that hold nothing but `raw`, so that neither who writes nor who reads
needs all of it in memory. Given to the run as an input, the file is read again: each record from
its bytes, or, where a part of a file was lost, from there on in that file.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

import zstandard

from indexlm.text.reading.files import InputFile, open_packed

REASONS = {
    "empty_file": "the file holds no record; put text into it or delete it",
    "encoding": "the bytes are not UTF-8; convert the file, the detail says from what",
    "nul_bytes": "the text holds NUL bytes, as after a crash of the machine that wrote it; copy "
    "the file again or delete them",
    "lone_surrogate": "a \\u escape spells half of a character; write the row again as UTF-8",
    "not_json": "the line is not JSON; a jsonl file has one JSON object per line",
    "not_object": 'the line is JSON but no object; write it as {"text": ...}',
    "too_deep": "the JSON is nested too deeply to be read; write the row again with its text only",
    "duplicate_field": "a field is there twice; delete one",
    "missing_text": "there is no field `text`; rename the one that holds the text",
    "wrong_type": "a field is of the wrong type; `text` is a string",
    "unknown_label": "a language or tier is none of those that there are; the detail names them",
    "too_long": "the record is longer than text.reading.record_bytes; raise it or cut the record",
    "cut_short": "the packed file ends in the middle; copy it again",
    "damaged": "the file cannot be read from some place on; copy it again",
    "unpacks_too_far": "the file unpacks to far more than text does; where it should, raise "
    "text.reading.unpacked_ratio or text.reading.unpacked_bytes",
}
"""Why a record is quarantined -> what that means and what to do."""

PART = 3 * 2**18
"""Bytes on one line of the file: 1 MiB of base64, which takes 3 bytes at a time."""

Position = tuple[int, ...]
"""Where reading can start again; of plain numbers, for JSON."""
END: Position = (-1,)
"""Nothing of the file is left."""


class BadRecordError(Exception):
    """A record cannot be read; `reason` is one of REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        assert reason in REASONS
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that could not be read, or a part of a file from which none could be.

    `place` is for people; `number` is that of the line, piece or row, 0 for a whole file. A record
    has its bytes in `raw`: a line, a piece of text, or a row as a parquet file of one row. Of a
    record longer than the limit `rest` gives what follows, once, until the next record is asked
    for. A part of a file has `span` instead: its positions, from where (None: the beginning) to
    where (None: the end); `raw` then holds what was read of its first record.
    """

    file: InputFile
    place: str
    reason: str
    detail: str
    number: int = 0
    raw: bytes = b""
    rest: Iterator[bytes] = field(default_factory=lambda: iter(()), compare=False)
    span: tuple[Position | None, Position | None] | None = None

    def message(self) -> str:
        """One line that says where, what and what to do."""
        return f"{self.place}: {self.detail}; {REASONS[self.reason]}"


class QuarantineWriter:
    """Writes quarantined records as they come, a long one straight from where it is read."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._packed = zstandard.ZstdCompressor().stream_writer(self._file)

    def write(self, bad: Quarantined) -> None:
        """Takes all of `bad.rest`."""
        row: dict[str, Any] = {
            "file": bad.file.as_row(),
            "place": bad.place,
            "reason": bad.reason,
            "detail": bad.detail,
            "number": bad.number,
            "span": bad.span,
        }
        parts = _parts(bad.raw, bad.rest)
        for part in parts:
            self._write_line({**row, "raw": base64.b64encode(part).decode()})
            row = {}

    def close(self) -> None:
        self._packed.close()
        self._file.close()

    def __enter__(self) -> "QuarantineWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_line(self, row: dict[str, Any]) -> None:
        self._packed.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def write_quarantine(path: Path, records: Iterable[Quarantined]) -> int:
    """Write a file of quarantined records and return how many. Equal records give equal bytes."""
    count = 0
    with QuarantineWriter(path) as writer:
        for record in records:
            writer.write(record)
            count += 1
    return count


def read_quarantine(path: Path) -> Iterator[Quarantined]:
    """The records of a file, each with at most PART of its bytes in `raw` and the others in `rest`.

    Raises UnpackError where the file is damaged and BadRecordError where it is of something else.
    """
    with open_packed(path) as file:
        for _, lines in groupby(_numbered(file), key=itemgetter(0)):
            yield _record(row for _, row in lines)


def _parts(raw: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """All bytes in pieces of PART; at least one piece, which may be empty."""
    held, count = b"", 0
    for more in chain([raw], rest):
        held += more
        full = len(held) - len(held) % PART
        for start in range(0, full, PART):
            yield held[start : start + PART]
        count += full
        held = held[full:]
    if held or count == 0:
        yield held


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the record, line of it)"""
    number = 0
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadRecordError("damaged", f"no file of quarantined records: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("raw"), str):
            raise BadRecordError("damaged", "no file of quarantined records")
        number += "place" in row
        yield number, row


def _record(lines: Iterator[dict[str, Any]]) -> Quarantined:
    row = next(lines)
    rest = (base64.b64decode(more["raw"]) for more in lines)
    try:
        span = row["span"]
        return Quarantined(
            InputFile.from_row(row["file"]),
            row["place"],
            row["reason"],
            row["detail"],
            row["number"],
            base64.b64decode(row["raw"]),
            rest,
            None if span is None else (_position(span[0]), _position(span[1])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecordError("damaged", f"no file of quarantined records: {error!r}") from error


def _position(numbers: list[int] | None) -> Position | None:
    return None if numbers is None else tuple(numbers)
