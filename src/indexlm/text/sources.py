"""A user's own files as documents: txt, jsonl and parquet, each also as .gz or .zst.

A text file of up to 4,000 characters is one document. A longer one is cut at blank lines (at line
ends where it has none) into pieces of about that size, because the held-out share, the filters
and duplicate removal all work by document. A row of jsonl or parquet is one document: `text`, and
where given `id`, `language` (or `lang`), `tier`, `source`, `license`.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import zstandard

from indexlm.config import TextConfig
from indexlm.errors import UserError
from indexlm.records import log
from indexlm.text.document import LANGUAGES, TIERS, Document
from indexlm.text.heuristics import HAN

MAX_CHARS = 4000
"""Characters of a text file that stays one document."""
HAN_SHARE = 0.3
"""Share of Han characters among the letters from which a text of unknown language is Chinese."""

SUFFIXES = (".txt", ".jsonl", ".parquet")
COMPRESSED = (".gz", ".zst")
ZERO_SHARE = 0.25
"""Share of zero bytes from which a file is UTF-16 without its mark: plain text holds none."""
_KNOWN = "txt, jsonl or parquet, each also .gz or .zst"
_MARKS_OF_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LETTER = re.compile(r"[^\W\d_]")


def read_inputs(path: Path, config: TextConfig) -> Iterator[Document]:
    """The documents of one file, or of every file of a folder in the order of their names.

    Raises UserError for a missing or empty path, an unknown kind of file, a wrong encoding, and a
    row that is not a document, each with the file, the place in it and the remedy.
    """
    if not path.exists():
        raise UserError(f"text.inputs: {path} does not exist; name a file or folder, or starter")
    if path.is_file():
        if _kind(path) is None:
            raise UserError(f"text.inputs: {path} is of an unknown kind; known are {_KNOWN}")
        yield from _read_file(path, path.name.split(".")[0], path.name.split(".")[0], config)
        return
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    files = [file for file in files if not file.name.startswith(".")]
    readable = [file for file in files if _kind(file)]
    if not readable:
        seen = f"{len(files)} files, none of them {_KNOWN}" if files else "no file"
        raise UserError(f"text.inputs: folder {path} holds {seen}; put text files into it")
    if len(readable) < len(files):
        other = next(file for file in files if file not in readable)
        count = len(files) - len(readable)
        log.info(f"{path}: {count} files are not {_KNOWN} and are passed over ({other.name}, ...)")
    for file in readable:
        inside = file.relative_to(path).as_posix()
        stem = inside[: -len("".join(_suffixes(file)))]
        yield from _read_file(file, path.resolve().name, stem, config)


def detect_language(text: str) -> str:
    """`zh` or `en` by script; text without letters counts as English."""
    letters = len(_LETTER.findall(text))
    return "zh" if len(HAN.findall(text)) > HAN_SHARE * max(letters, 1) else "en"


def _suffixes(path: Path) -> list[str]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2:] if suffixes and suffixes[-1] in COMPRESSED else suffixes[-1:]


def _kind(path: Path) -> str | None:
    """`.txt`, `.jsonl` or `.parquet`; None for anything else."""
    suffixes = _suffixes(path)
    return suffixes[0] if suffixes and suffixes[0] in SUFFIXES else None


def _read_file(path: Path, source: str, stem: str, config: TextConfig) -> Iterator[Document]:
    if path.stat().st_size == 0:
        raise UserError(f"text.inputs: {path} is empty; delete it or put text into it")
    readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    kind = _kind(path)
    assert kind is not None
    count = 0
    try:
        with open_packed(path) as file:
            for count, (place, row) in enumerate(readers[kind](path, file, stem), start=1):
                yield _document(place, row, source, f"{stem}-{count}", config)
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"{path} cannot be unpacked ({error}): it is damaged or cut short; copy it again"
        ) from error
    if count == 0:
        raise UserError(f"text.inputs: {path} holds no text; delete it or put text into it")


def open_packed(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if suffix == ".zst":
        return io.BufferedReader(_ZstdFrames(path))
    return path.open("rb")


class _ZstdFrames(io.RawIOBase):
    """The frames of a zstd file one after the other. Raises EOFError where the last one is cut
    short, which the library's own reader takes for the end of the text."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._packed or self._file.read(2**17)
            if not packed and self._frame is not None:
                raise EOFError("the file ends inside a frame")
            if not packed:
                return 0
            frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(frame.decompress(packed))
            self._frame = None if frame.eof else frame
            self._packed = frame.unused_data
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_txt(path: Path, file: IO[bytes], stem: str) -> Iterator[tuple[str, dict[str, Any]]]:
    content = file.read()
    text = decode(content, str(path), 0)
    pieces = list(_pieces(text.replace("\r\n", "\n")))
    for number, piece in enumerate(pieces, start=1):
        name = stem if len(pieces) == 1 else f"{stem}-{number}"
        yield str(path), {"id": name, "text": piece}


def _pieces(text: str) -> Iterator[str]:
    """The text whole, or paragraphs gathered to pieces of at most MAX_CHARS where one fits."""
    if len(text) <= MAX_CHARS:
        if text.strip():
            yield text
        return
    border = "\n\n" if re.search(r"\n[ \t]*\n", text) else "\n"
    parts = re.split(r"\n[ \t]*\n", text) if border == "\n\n" else text.split("\n")
    gathered: list[str] = []
    size = 0
    for part in (part for part in parts if part.strip()):
        if gathered and size + len(part) > MAX_CHARS:
            yield border.join(gathered)
            gathered, size = [], 0
        gathered.append(part)
        size += len(part)
    if gathered:
        yield border.join(gathered)


def _read_jsonl(path: Path, file: IO[bytes], stem: str) -> Iterator[tuple[str, dict[str, Any]]]:
    offset = 0
    for number, line in enumerate(file, start=1):
        place = f"{path}:{number}"
        text = decode(line, place, offset).lstrip("\ufeff")
        offset += len(line)
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{place} is not JSON ({error.msg} at column {error.colno}): "
                f"{text.strip()[:60]!r}; a jsonl file has one JSON object per line"
            ) from error
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object: {text.strip()[:60]!r}")
        yield place, row


def _read_parquet(path: Path, file: IO[bytes], stem: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow

    try:
        yield from _parquet_rows(path, file)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a whole parquet file ({error}): it is damaged or cut short; copy it "
            "again"
        ) from error


def _parquet_rows(path: Path, file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet

    # Parquet is read from its end, which a compressed stream cannot do.
    seekable = file if path.suffix.lower() == ".parquet" else io.BytesIO(file.read())
    table = pyarrow.parquet.ParquetFile(seekable)
    wanted = ["text", "id", "language", "lang", "tier", "source", "license"]
    columns = [name for name in table.schema_arrow.names if name in wanted]
    if "text" not in columns:
        raise UserError(
            f"{path} has no column `text` (columns: {', '.join(table.schema_arrow.names)}); "
            "rename the column that holds the text"
        )
    number = 0
    for batch in table.iter_batches(batch_size=1000, columns=columns):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}: row {number}", {k: v for k, v in row.items() if v is not None}


def _document(
    place: str, row: Mapping[str, Any], source: str, name: str, config: TextConfig
) -> Document:
    """One row as a document. Raises UserError naming the field, its value and the place."""
    if "text" not in row:
        fields = ", ".join(row) or "none"
        raise UserError(f"{place} has no field `text` (fields: {fields}); rename the one that is")
    text = row["text"]
    if not isinstance(text, str):
        raise UserError(
            f"{place}: `text` is {type(text).__name__}, not a string: {str(text)[:60]!r}"
        )
    language = row.get("language", row.get("lang", config.language))
    if language == "auto":
        language = detect_language(text)
    tier = row.get("tier", config.tier)
    for field, value, known in (("language", language, LANGUAGES), ("tier", tier, TIERS)):
        if value not in known:
            raise UserError(f"{place}: {field} {value!r} is unknown; use one of {', '.join(known)}")
    source = str(row.get("source", source))
    document_id = f"{source}/{row.get('id', name)}"
    return Document(document_id, text, source, language, tier, str(row.get("license", "")))


def decode(content: bytes, place: str, offset: int) -> str:
    """UTF-8 text. Raises UserError with the byte offset and the encoding that would fit."""
    zeros = content.count(0)
    if zeros > ZERO_SHARE * len(content) and content[:2] not in _MARKS_OF_UTF16:
        wide = "utf-16-le" if content[1:2] == b"\x00" else "utf-16-be"
        raise UserError(
            f"{place} is not UTF-8: {zeros} of its {len(content)} bytes are zero; it reads as "
            f"{wide}: iconv -f {wide} -t utf-8"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        at = offset + error.start
        guess = _other_encoding(content)
        hint = f"it reads as {guess}: iconv -f {guess} -t utf-8" if guess else "convert it to UTF-8"
        raise UserError(f"{place} is not UTF-8 at byte {at}; {hint}") from error


def _other_encoding(content: bytes) -> str | None:
    if content[:2] in _MARKS_OF_UTF16:
        return "utf-16"
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return None
    return "gb18030"
