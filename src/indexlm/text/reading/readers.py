"""Lines and pieces of text to records: whatever a file holds, each record comes out exactly once.

A record is a document, not yet normalised and possibly blank, or it is quarantined; with each goes
the position behind it. Reading that starts at a position gives what an uninterrupted reading gives
behind it: the readers keep nothing between records that does not follow from it.
"""

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from indexlm.errors import shown
from indexlm.text.document import Document
from indexlm.text.reading.files import CHUNK, Unpacked, UnpackError
from indexlm.text.reading.parsing import (
    Reading,
    in_encoding,
    jsonl_document,
    txt_document,
    wide_encoding,
)
from indexlm.text.reading.quarantine import END, BadRecordError, Position, Quarantined

MAX_CHARS = 4000
"""Characters of a text file that stay one document."""
HEAD = 4096
"""Bytes at the beginning of a file by which its encoding is told."""

Item = tuple[Document | Quarantined, Position]
"""A record and the position behind it."""


def read_jsonl(reading: Reading, start: Position | None) -> Iterator[Item]:
    """A document of each line that is not blank: its fields `text`, and where given `id`,
    `language` (or `lang`), `tier`, `source`, `license`.

    Positions: (byte, lines before it[, where the line began that is too long and goes on]).
    """
    path, number, found = reading.file.path, start[1] if start else 0, start is not None
    with closing(_Lines(reading, start)) as lines:
        record: Document | Quarantined | None
        for line in lines:
            number += 1
            if lines.long:
                record = lines.too_long(f"{path}:{number}", number, line)
            else:
                try:
                    record = jsonl_document(reading, line, number)
                except BadRecordError as error:
                    record = reading.bad(error, f"{path}:{number}", number, line)
            if record is not None:
                found = True
                yield record, lines.position(number)
        if lines.failure is not None:
            before = number - lines.long
            yield lines.lost(f"{path}:{before + 1}", before), END
        elif not found:
            yield empty(reading), END


def read_txt(reading: Reading, start: Position | None) -> Iterator[Item]:
    """A text file of up to MAX_CHARS characters is one document. A longer one is cut at blank
    lines, and where a paragraph is longer at line ends, because the held-out share, the filters and
    duplicate removal all work by document. The pieces together are the file.

    Positions: (byte, pieces before it[, where the line began that is too long and goes on]).
    """
    path, number = reading.file.path, start[1] if start else 0
    blank = b""
    with closing(_Lines(reading, start)) as lines:
        record: Document | Quarantined
        for piece in _pieces(lines):
            if piece.text.isspace():
                blank = piece.text
                continue
            number += 1
            place = f"{path}: byte {piece.begin}"
            if piece.long:
                record = lines.too_long(place, number, piece.text)
                yield record, lines.position(number)
                continue
            try:
                record = txt_document(reading, piece.text, number)
            except BadRecordError as error:
                record = reading.bad(error, place, number, piece.text)
            yield record, (piece.end, number)
        if lines.failure is not None:
            yield lines.lost(f"{path}: byte {lines.begin}", number - lines.long), END
        elif number == 0:
            yield (txt_document(reading, blank, 1) if blank else empty(reading)), END


def empty(reading: Reading) -> Quarantined:
    return reading.lost(BadRecordError("empty_file", "no record"), str(reading.file.path), None)


class _Lines:
    """The lines of a file, of which none is held longer than the limit.

    `begin` and `offset` are where the line begins and ends that was given last, in unpacked bytes.
    It is `long` where it goes on in `rest`, which is passed over with the next line.
    """

    def __init__(self, reading: Reading, start: Position | None) -> None:
        self._reading = reading
        self.offset, _, *inside = start or (0, 0)
        self._raw = Unpacked(reading.file.path, reading.limits, self.offset)
        self._file = io.BufferedReader(self._raw, CHUNK)
        self._wide = "" if start else wide_encoding(self._file.peek(HEAD)[:HEAD])
        self.begin = inside[0] if inside else self.offset
        self.long = bool(inside)
        self.partial = b""

    def close(self) -> None:
        self._file.close()

    @property
    def failure(self) -> UnpackError | None:
        """Why there are no more lines, None at the true end."""
        if self._wide:
            return UnpackError("encoding", f"not UTF-8; {in_encoding(self._wide)}")
        return self._raw.failure

    def __iter__(self) -> Iterator[bytes]:
        longest = self._reading.limits.record_bytes
        readline = self._file.readline
        while not self._wide:
            if self.long:
                for _ in self.rest():
                    pass
                if self.long:
                    return
            self.begin = self.offset
            line = readline(longest + 1)
            if line[-1:] != b"\n":
                self.long = len(line) > longest
                if not self.long and self._raw.failure is not None:
                    self.partial = line
                    return
                if not line:
                    return
            self.offset += len(line)
            yield line

    def rest(self) -> Iterator[bytes]:
        """What follows of a line that is too long; nothing where it has been taken."""
        while self.long and (chunk := self._file.readline(CHUNK)):
            self.offset += len(chunk)
            self.long = chunk[-1] != 10
            yield chunk
        if self._raw.failure is None:
            self.long = False

    def position(self, number: int) -> Position:
        """Behind the line that was given last."""
        return (self.offset, number, self.begin) if self.long else (self.offset, number)

    def too_long(self, place: str, number: int, head: bytes) -> Quarantined:
        detail = f"over {self._reading.limits.record_bytes:,} bytes: {shown(head[:60])}"
        file = self._reading.file
        return Quarantined(file, place, "too_long", detail, number, head, self.rest())

    def lost(self, place: str, number: int) -> Quarantined:
        """What could not be had, behind the records that were read."""
        assert self.failure is not None
        start = (self.begin, number) if self.begin else None
        return self._reading.lost(self.failure, place, start, raw=self.partial)


class _Piece(NamedTuple):
    """Lines of a text file and where they begin and end; one that is too long is alone."""

    text: bytes
    begin: int
    end: int
    long: bool = False


@dataclass(slots=True)
class _Gathered:
    """Lines one behind the other. `chars` are without blank lines; `blank` are the bytes of those
    at the end, of which many are left out of `lines`."""

    begin: int = 0
    lines: list[bytes] = field(default_factory=list)
    chars: int = 0
    blank: int = 0

    def add(self, line: bytes, begin: int, chars: int) -> None:
        if not self.lines:
            self.begin = begin
        self.lines.append(line)
        self.chars += chars

    def add_blank(self, line: bytes, begin: int) -> None:
        if self.blank < MAX_CHARS:
            self.add(line, begin, 0)
        self.blank += len(line)

    def join(self, other: "_Gathered") -> None:
        if not self.lines:
            self.begin = other.begin
        self.lines += other.lines
        self.chars += other.chars

    def piece(self, end: int) -> _Piece:
        return _Piece(b"".join(self.lines), self.begin, end)


def _pieces(lines: _Lines) -> Iterator[_Piece]:
    """Paragraphs gathered to pieces of at most MAX_CHARS, or lines where a paragraph is longer.

    A piece ends before a line that is not blank. So what is gathered is nothing but the lines since
    the end of the piece before, and reading can start there.
    """
    whole, paragraph = _Gathered(), _Gathered()
    for line in lines:
        if line.isspace() and not lines.long:
            paragraph.add_blank(line, lines.begin)
            continue
        if paragraph.blank or lines.long:
            whole.join(paragraph)
            paragraph = _Gathered()
        if lines.long:
            if whole.lines:
                yield whole.piece(lines.begin)
                whole = _Gathered()
            yield _Piece(line, lines.begin, lines.offset, long=True)
            continue
        chars = len(line) if line.isascii() else len(line.decode(errors="replace"))
        if whole.chars and whole.chars + paragraph.chars + chars > MAX_CHARS:
            yield whole.piece(paragraph.begin if paragraph.lines else lines.begin)
            whole = _Gathered()
        if paragraph.chars and paragraph.chars + chars > MAX_CHARS:
            yield paragraph.piece(lines.begin)
            paragraph = _Gathered()
        paragraph.add(line, lines.begin, chars)
    whole.join(paragraph)
    if whole.lines:
        yield whole.piece(lines.begin)
