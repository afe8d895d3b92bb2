"""The bytes of one record to a document, or to the reason for which there is none."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexlm.config import ReadingConfig, TextConfig
from indexlm.errors import UserError, shown
from indexlm.text.document import LABELS, TIERS, Document
from indexlm.text.reading.files import InputFile, UnpackError
from indexlm.text.reading.quarantine import BadRecordError, Position, Quarantined

ZERO_SHARE = 0.25
"""Share of zero bytes from which text is UTF-16 without its mark: plain text holds none."""
SHOWN = 8
"""Fields that a message names at most."""
_MARKS_OF_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MARKS_OF_UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_LABELS = (*LABELS, "auto")


@dataclass(frozen=True, slots=True)
class Reading:
    """A file and the settings it is read with."""

    file: InputFile
    config: TextConfig
    limits: ReadingConfig

    def bad(self, error: BadRecordError, place: str, number: int, raw: bytes) -> Quarantined:
        return Quarantined(self.file, place, error.reason, error.detail, number, raw)

    def lost(
        self,
        error: BadRecordError | UnpackError,
        place: str,
        start: Position | None,
        end: Position | None = None,
        raw: bytes = b"",
    ) -> Quarantined:
        """A part of the file of which no record can be had."""
        span = (start, end)
        return Quarantined(self.file, place, error.reason, str(error), raw=raw, span=span)


def jsonl_document(reading: Reading, line: bytes, number: int) -> Document | None:
    """A line's document, None for a blank line. Raises BadRecordError."""
    try:
        row = _parse(line.decode())
    except (ValueError, RecursionError):
        text = _decoded(line).lstrip("\ufeff")
        if not text.strip():
            return None
        row = _parse_again(text)
    if not isinstance(row, dict):
        raise BadRecordError("not_object", f"{type(row).__name__} {shown(row)}")
    document = document_of(reading, row, number)
    if b"\\" in line and _HALF_CHARACTER.search(line):
        _check_whole(document)
    return document


def txt_document(reading: Reading, piece: bytes, number: int) -> Document:
    """A piece's document; the first has the name of the file. Raises BadRecordError."""
    text = _decoded(piece)
    if "\0" in text:
        raise BadRecordError("nul_bytes", f"{text.count(chr(0))} of them")
    stem = reading.file.stem
    row = {"text": text.removeprefix("\ufeff"), "id": stem if number == 1 else f"{stem}-{number}"}
    return document_of(reading, row, number)


def document_of(reading: Reading, row: Mapping[str, Any], number: int) -> Document:
    """A row's document. Raises BadRecordError naming the field and its value."""
    text, stated = row.get("text"), row.get
    if type(text) is not str:
        if text is None:
            fields = ", ".join(shown(name) for name in list(row)[:SHOWN])
            raise BadRecordError("missing_text", f"fields {fields or 'none'}")
        raise BadRecordError("wrong_type", f"`text` is {type(text).__name__}: {shown(text)}")
    file, config = reading.file, reading.config
    language = _label("language", stated("language"), _LABELS)
    language = language or _label("lang", stated("lang"), _LABELS) or config.language
    source = _string("source", stated("source")) or file.source
    name = stated("id")
    if name is None or name == "":
        name = f"{file.stem}-{number}"
    elif not isinstance(name, str | int | float):
        raise BadRecordError("wrong_type", f"`id` is {type(name).__name__}: {shown(name)}")
    return Document(
        f"{source}/{name}",
        text,
        source,
        "" if language == "auto" else language,
        _label("tier", stated("tier"), TIERS) or config.tier,
        _string("license", stated("license")) or file.license,
    )


def decode(content: bytes, place: str, offset: int) -> str:
    """UTF-8 text. Raises UserError with the byte offset and the encoding that would fit."""
    if wide := wide_encoding(content):
        raise UserError(f"{place} is not UTF-8; {in_encoding(wide)}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        at = offset + error.start
        raise UserError(
            f"{place} is not UTF-8 at byte {at}; {in_encoding(_guess(content))}"
        ) from error


def _label(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value is None or value == "":
        return ""
    if value not in known:
        words = ", ".join(known)
        raise BadRecordError("unknown_label", f"{name} {shown(value)}, known are {words}")
    return value


def _string(name: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise BadRecordError("wrong_type", f"`{name}` is {type(value).__name__}: {shown(value)}")
    return value or ""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; Python would take the last of two fields of one name."""
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRecordError("duplicate_field", f"field {shown(twice)}")
    return row


_parse = json.JSONDecoder(object_pairs_hook=_once).decode


def _parse_again(text: str) -> Any:
    try:
        return _parse(text)
    except RecursionError as error:
        raise BadRecordError("too_deep", shown(text[:60])) from error
    except ValueError as error:  # also for numbers of 5,000 digits
        if "\0" in text:
            raise BadRecordError("nul_bytes", f"{text.count(chr(0))} of them") from error
        raise BadRecordError("not_json", f"{error}: {shown(text[:60])}") from error


def _check_whole(document: Document) -> None:
    for value in (document.text, document.id, document.license):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            code = ord(value[error.start])
            raise BadRecordError("lone_surrogate", f"\\u{code:04x}") from error


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        detail = f"not UTF-8 at byte {error.start}; {in_encoding(_guess(content))}"
        raise BadRecordError("encoding", detail) from error


def wide_encoding(head: bytes) -> str:
    """The encoding of text whose characters take two bytes and more at least, else nothing."""
    if head[:4] in _MARKS_OF_UTF32:
        return "utf-32"
    if head[:2] in _MARKS_OF_UTF16:
        return "utf-16"
    if head.count(0) > ZERO_SHARE * len(head):
        return "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
    return ""


def _guess(content: bytes) -> str:
    """An encoding in which bytes make sense that are not UTF-8, else nothing."""
    if wide := wide_encoding(content):
        return wide
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return "gb18030"


def in_encoding(encoding: str) -> str:
    if not encoding:
        return "convert it to UTF-8"
    return f"it reads as {encoding}: iconv -f {encoding} -t utf-8"
