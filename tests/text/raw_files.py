"""Input files for tests, good and bad, and what is read from them."""

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard

from indexlm.config import ReadingConfig, TextConfig
from indexlm.text.document import Document
from indexlm.text.reading.quarantine import Position, Quarantined
from indexlm.text.reading.sources import input_files, read_records

PACKED = ("", ".gz", ".zst")
SMALL = ReadingConfig(record_bytes=1000)
ROWS = [
    {"text": "春眠不觉晓，处处闻啼鸟。", "id": "a", "tier": "curated", "source": "poems"},
    {"text": "The rain had stopped.", "lang": "en", "license": "CC0-1.0"},
]
EXPECTED = [
    Document("poems/a", ROWS[0]["text"], "poems", "", "curated"),
    Document("rows/rows-2", ROWS[1]["text"], "rows", "en", "ordinary", "CC0-1.0"),
]


def read(
    path: Path, limits: ReadingConfig = SMALL, start: Position | None = None, **stated: str
) -> list[Document | Quarantined]:
    [file] = input_files([str(path)], Path())
    config = TextConfig.model_validate(stated)
    return [record for record, _ in read_records(file, config, limits, start)]


def documents(records: Iterable[Document | Quarantined]) -> list[Document]:
    """All of them, none of which may be bad."""
    found = list(records)
    assert [bad.message()[:200] for bad in quarantined(found)] == []
    return [record for record in found if isinstance(record, Document)]


def quarantined(records: Iterable[Document | Quarantined]) -> list[Quarantined]:
    return [record for record in records if isinstance(record, Quarantined)]


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return zstandard.compress(content) if suffix == ".zst" else content


def parquet(rows: list[dict[str, object]] | pyarrow.Table, group: int = 10**6) -> bytes:
    content = io.BytesIO()
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, content, row_group_size=group)
    return content.getvalue()


def lines(rows: Iterable[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


GOOD = [{"text": f"好 good {number}", "id": str(number)} for number in range(40)]
DEEP = b'{"text": "x", "deep": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
BAD_LINES: list[tuple[str, bytes, str]] = [
    ("encoding", '{"text": "旧的编码"}'.encode("gb18030"), "iconv -f gb18030 -t utf-8"),
    ("encoding", b'{"text": "caf\xe9 au lait"}', "byte 13"),
    ("nul_bytes", b'{"text": "a\0b"}', "1 of them"),
    ("lone_surrogate", b'{"text": "a \\ud83d b"}', "ud83d"),
    ("lone_surrogate", b'{"text": "a", "id": "\\uDE00\\uD83D"}', "ude00"),
    ("not_json", b'{"text": oops}', "oops"),
    ("not_json", b'{"text": "cut', "Invalid control"),
    ("not_json", b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "digits"),
    ("not_object", b'["no"]', "list"),
    ("not_object", b"null", "None"),
    ("too_deep", DEEP, "text"),
    ("duplicate_field", b'{"text": "a", "te\\u0078t": "b"}', "text"),
    ("missing_text", b'{"body": "x", "n": 1}', "'body', 'n'"),
    ("missing_text", b'{"text": null}', "text"),
    ("wrong_type", b'{"text": 5}', "int: 5"),
    ("wrong_type", b'{"text": NaN}', "float"),
    ("wrong_type", b'{"text": "x", "id": {"a": 1}}', "`id` is dict"),
    ("wrong_type", b'{"text": "x", "source": 1}', "`source` is int"),
    ("unknown_label", b'{"text": "x", "tier": "best"}', "curated, ordinary, noisy"),
    ("unknown_label", b'{"text": "x", "lang": "fr"}', "'fr', known are zh, en, code"),
    ("unknown_label", b'{"text": "x", "language": ["zh"]}', "list"),
]
LIMITS = ReadingConfig(record_bytes=30_000)
LONG = b'{"text": "' + b"y" * 100_000 + b'"}'
