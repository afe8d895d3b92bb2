"""Rows come out as they were written, in every packing, or their file and line are named."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from indexlm.errors import UserError
from indexlm.evals.rows import read_rows

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def packed(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        half = len(data) // 2
        compress = zstandard.ZstdCompressor().compress
        data = compress(data[:half]) + compress(data[half:])
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.zst"])
@settings(deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1))
def test_a_csv_is_read_as_it_was_written(
    folder: Path, ending: str, rows: list[tuple[str, ...]]
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path = packed(folder / f"x.{ending}", text.getvalue().encode())
    read = read_rows(path, ["a", "b", "c"])
    assert [tuple(row.values.values()) for row in read] == rows
    lines = text.getvalue().encode().replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert [row.line for row in read] == sorted({row.line for row in read})
    assert all(1 <= row.line <= len(lines) for row in read)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
@settings(deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()))))
def test_jsonl_is_read_as_it_was_written(
    folder: Path, ending: str, rows: list[dict[str, object]]
) -> None:
    text = "".join(json.dumps(row) + "\n\n" for row in rows)
    path = packed(folder / f"x.{ending}", text.encode())
    read = read_rows(path)
    assert [row.values for row in read] == rows
    assert [row.line for row in read] == [1 + 2 * number for number in range(len(rows))]


def test_the_line_is_where_a_row_begins(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('id,text\n0,"two\nlines"\n\n1,one\n', encoding="utf-8")
    assert [(row.line, row.values["id"]) for row in read_rows(path)] == [(2, "0"), (5, "1")]


def test_a_byte_order_mark_and_crlf_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfid,text\r\n0,one\r\n")
    assert read_rows(path)[0].values == {"id": "0", "text": "one"}


def test_line_separators_inside_json_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"q": "a\u2028b"}\n{"q": "c"}\n', encoding="utf-8")
    assert [row.values["q"] for row in read_rows(path)] == ["a\u2028b", "c"]


def test_parquet_has_the_rows_of_jsonl(tmp_path: Path) -> None:
    rows = [{"q": "one", "options": ["a", "b"]}, {"q": "two", "options": ["c"]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    read = read_rows(tmp_path / "x.parquet")
    assert [dict(row.values) for row in read] == rows
    assert [row.line for row in read] == [1, 2]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.csv", "a,b\n1,2\n3,\u6cb3\n".encode("gb18030"), r"x\.csv:3 is not UTF-8.*gb18030 -t"),
        ("x.csv", b"a,b\n1,2,3\n", r"x\.csv:2 has 3 cells, not 2 \('a, b'\): '1,2,3'"),
        ("x.csv", b"a,b\n1\n", r"x\.csv:2 has 1 cells"),
        ("x.csv", b"a,a\n1,2\n", r"x\.csv:1 names the column 'a' twice"),
        ("x.csv", b'a,b\n1,2\n3,"open\n', r"x\.csv:3 is no CSV"),
        ("x.csv", b'a,b\n1,"2"3\n', r"x\.csv:2 is no CSV"),
        ("x.csv", b"a,b\n1," + b"2" * 200_000 + b"\n", r"x\.csv:2 is no CSV .*field larger"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', r"x\.jsonl:2 is no JSON"),
        ("x.jsonl", b'{"a": 1}\n[1, 2]\n', r"x\.jsonl:2 is a list of 2, not a JSON object"),
        ("x.jsonl", b"[" * 100_000, r"x\.jsonl:1 is no JSON"),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n')[:-4], r"x\.jsonl\.gz is damaged or cut short"),
        ("x.jsonl.gz", b'{"a": 1}\n', r"x\.jsonl\.gz is damaged"),
        ("x.csv.zst", zstandard.compress(b"a,b\n" * 99)[:-3], r"x\.csv\.zst is damaged or cut"),
        ("x.csv.zst", b"a,b\n", r"x\.csv\.zst is damaged"),
        ("x.parquet", b"PAR1", r"x\.parquet is no parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_rows(path)


def test_a_flipped_bit_in_a_packed_file_is_seen(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.jsonl.gz", b'{"a": "a word"}\n' * 50)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        read_rows(path)
