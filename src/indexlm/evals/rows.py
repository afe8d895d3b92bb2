"""Rows of a benchmark's files: CSV with or without a header, jsonl, parquet; also .gz and .zst.

Files are read whole: the largest of the common benchmarks unpacks to 50 MB.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from indexlm.errors import UserError, shown

PACKED = ("", ".gz", ".zst")


class RowOfFile(NamedTuple):
    """Columns by name, and the line that the row begins in, from 1; of parquet, the row."""

    line: int
    values: Mapping[str, Any]


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[RowOfFile]:
    """All rows of a file, by its name's ending; `columns` names those of a CSV without a header.

    Raises UserError, naming file and line, for what is damaged, not UTF-8 or not of its kind.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    text = _text(path)
    if path.name.removesuffix(_packing(path)).endswith(".csv"):
        return list(_csv(path, text, columns))
    return list(_jsonl(path, text))


def _packing(path: Path) -> str:
    return path.suffix if path.suffix in PACKED else ""


def _text(path: Path) -> str:
    data = _bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Of a file with a byte order mark, the place is counted from behind it.
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line} is not UTF-8 (byte {data[error.start]:#04x}); where it is GB18030 or "
            f"GBK: iconv -f gb18030 -t utf-8 {path} > NEW"
        ) from error


def _bytes(path: Path) -> bytes:
    """The unpacked bytes of a file."""
    packing = _packing(path)
    data = path.read_bytes()
    if packing == "":
        return data
    try:
        return gzip.decompress(data) if packing == ".gz" else _unpacked_frames(data)
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); download it again") from error


def _unpacked_frames(data: bytes) -> bytes:
    parts = []
    while data:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        parts.append(decoder.decompress(data))
        if not decoder.eof:
            raise EOFError("it ends inside a frame")
        data = decoder.unused_data
    return b"".join(parts)


def _csv(path: Path, text: str, columns: Sequence[str]) -> Iterator[RowOfFile]:
    """Rows of a CSV file as RFC 4180 has it; empty lines are none."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names, begins = list(columns), 1
    try:
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not cells:
                continue
            if not names:
                names = cells
                _check_header(path, line, names)
                continue
            if len(cells) != len(names):
                raise UserError(
                    f"{path}:{line} has {len(cells)} cells, not {len(names)} "
                    f"({shown(', '.join(names))}): {shown(','.join(cells))}; "
                    "a text with a comma stands in quotes"
                )
            yield RowOfFile(line, dict(zip(names, cells)))
    except csv.Error as error:
        raise UserError(
            f"{path}:{begins} is no CSV ({error}); a text with a comma, a quote or a line break "
            'stands in quotes, quotes in it twice: "so ""called"""'
        ) from error


def _check_header(path: Path, line: int, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}:{line} names the column {shown(name)} twice")


def _jsonl(path: Path, text: str) -> Iterator[RowOfFile]:
    # Not splitlines: U+2028 and others may stand inside a JSON text.
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{line} is no JSON ({error}): {shown(content)}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}:{line} is {shown(values)}, not a JSON object")
        yield RowOfFile(line, values)


def _parquet(path: Path) -> list[RowOfFile]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no parquet file that can be read ({error})") from error
    return [RowOfFile(number, row) for number, row in enumerate(rows, 1)]
