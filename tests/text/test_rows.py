"""Rows of parquet files: a bad row, a damaged row group and a whole damaged file."""

import io
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import GOOD, parquet, quarantined, read

from indexlm.config import ReadingConfig
from indexlm.text.document import Document
from indexlm.text.reading.quarantine import Quarantined


def test_rows_that_are_wrong_do_not_cost_the_others(tmp_path: Path) -> None:
    texts = pyarrow.array([b"fine", b"\xff\xfe", None, b"also fine"], pyarrow.binary())
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(pyarrow.table({"text": texts.view(pyarrow.string())})))
    records = read(path)
    assert [getattr(record, "reason", "") for record in records] == [
        "",
        "encoding",
        "missing_text",
        "",
    ]
    assert [record.id for record in records if isinstance(record, Document)] == ["a/a-1", "a/a-4"]
    assert quarantined(records)[0].place == f"{path}: row 2"


def test_row_groups_are_kept_apart(tmp_path: Path) -> None:
    rows = [
        {"text": f"{number} " + "".join(random.Random(number).choices("abcdef ", k=300))}
        for number in range(50)
    ]
    content = bytearray(parquet(rows, group=10))
    table = pyarrow.parquet.ParquetFile(io.BytesIO(content))
    about = table.metadata.row_group(2).column(0)
    begin = about.dictionary_page_offset or about.data_page_offset
    content[begin : begin + about.total_compressed_size] = b"\xff" * about.total_compressed_size
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    records = read(path)
    [bad] = quarantined(records)
    kept = [record.text for record in records if isinstance(record, Document)]
    assert kept == [row["text"] for row in rows[:20] + rows[30:]]
    assert (bad.reason, bad.span) == ("damaged", ((2, 0), (3, 0)))
    assert bad.place == f"{path}: rows 21 to 30"


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_damage_to_a_parquet_file_ends_a_run(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(parquet(GOOD, group=10))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.parquet"
    path.write_bytes(content)
    read(path)


def test_a_column_may_be_a_dictionary(tmp_path: Path) -> None:
    texts = pyarrow.array(["one", None, "two", "one"]).dictionary_encode()
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(pyarrow.table({"text": texts})))
    records = read(path)
    assert [record.text for record in records if isinstance(record, Document)] == [
        "one",
        "two",
        "one",
    ]
    assert [record.reason for record in quarantined(records)] == ["missing_text"]


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([1, 2, 1]).dictionary_encode(),
        pyarrow.array([["a"], ["b"], None], pyarrow.list_(pyarrow.string())),
        pyarrow.array([{"a": 1}, {"a": 2}, {"a": 3}]),
        pyarrow.array([2**62, 1, 2], pyarrow.timestamp("us")),
        pyarrow.array([b"bytes", b"", b"x"], pyarrow.binary()),
    ],
)
def test_a_column_of_anything_else_is_no_text(tmp_path: Path, column: pyarrow.Array) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(pyarrow.table({"text": column})))
    assert {record.reason for record in quarantined(read(path))} <= {"wrong_type", "missing_text"}
    assert len(quarantined(read(path))) == 3
    named = tmp_path / "b.parquet"
    named.write_bytes(parquet(pyarrow.table({"text": ["a", "b", "c"], "id": column})))
    assert len(read(named)) == 3


def test_a_value_that_stands_in_very_many_rows_is_a_bomb(tmp_path: Path) -> None:
    texts = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 20_000, pyarrow.int32()), pyarrow.array(["y" * 900])
    )
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(pyarrow.table({"text": texts})))
    *kept, bad = read(path, ReadingConfig(unpacked_bytes=2_000_000))
    assert isinstance(bad, Quarantined) and bad.reason == "unpacks_too_far"
    assert 0 < len(kept) < 20_000 and bad.span == ((0, len(kept)), (1, 0))
    assert len(read(path)) == 20_000
