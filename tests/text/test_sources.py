"""A user's files become documents, and whoever names a wrong one is told."""

import json
from pathlib import Path

import pytest
from raw_files import EXPECTED, PACKED, ROWS, SMALL, documents, lines, packed, parquet, read

from indexlm.config import TextConfig
from indexlm.errors import UserError
from indexlm.text.document import Document
from indexlm.text.languages import detect_language
from indexlm.text.reading.files import InputFile
from indexlm.text.reading.parsing import decode
from indexlm.text.reading.quarantine import Quarantined
from indexlm.text.reading.sources import input_files, read_records

# What a good file gives


@pytest.mark.parametrize("suffix", PACKED)
def test_jsonl_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(packed(b"\xef\xbb\xbf" + lines(ROWS) + b"\n \n", suffix))
    assert read(path) == EXPECTED


@pytest.mark.parametrize("suffix", PACKED)
def test_parquet_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    names = ["text", "id", "tier", "source", "lang", "license"]
    path = tmp_path / f"rows.parquet{suffix}"
    rows = [{name: row.get(name) for name in names} | {"other": [1]} for row in ROWS]
    path.write_bytes(packed(parquet(rows), suffix))
    assert read(path) == EXPECTED


@pytest.mark.parametrize("suffix", PACKED)
def test_a_short_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"note.txt{suffix}"
    path.write_bytes(packed("\ufeff第一段。\n\n第二段。".encode(), suffix))
    expected = Document("note/note", "第一段。\n\n第二段。", "note", "zh", "noisy")
    assert read(path, tier="noisy", language="zh") == [expected]


def test_ids_name_the_line_and_are_unique_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "x"}\n\nbad\n{"text": "y", "id": ""}\n{"text": "z", "id": 7}\n')
    ids = [record.id for record in read(path) if isinstance(record, Document)]
    assert ids == ["a/a-1", "a/a-4", "a/7"]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({}, ""),
        ({"language": "auto"}, ""),
        ({"language": None, "lang": "zh"}, "zh"),
        ({"language": "code", "lang": "zh"}, "code"),
    ],
)
def test_a_language_is_given_only_where_it_is_stated(
    tmp_path: Path, row: dict[str, str], label: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"text": "x", **row}]))
    assert [record.language for record in documents(read(path))] == [label]
    if not row:
        assert [record.language for record in documents(read(path, language="en"))] == ["en"]


def test_blank_text_is_a_document_that_whoever_normalises_drops(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"text": ""}, {"text": " \n"}, {"text": "x"}]))
    assert [record.text for record in documents(read(path))] == ["", " \n", "x"]
    blank = tmp_path / "blank.txt"
    blank.write_bytes(b" \n" * 100_000)
    [record] = documents(read(blank))
    assert record.text.isspace()


def test_what_is_json_but_odd_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"text": "a", "score": NaN, "more": {"x": [Infinity]}}\n'
        b'{"text": "a \\ud83d\\ude00 b", "id": "\\u4e2d"}\r\n'
        b'\xef\xbb\xbf {"text": "tail \\u0000"}'
    )
    found = documents(read(path))
    assert [record.text for record in found] == ["a", "a 😀 b", "tail \0"]
    assert found[1].id == "a/中"


# Which files there are


def test_a_folder_is_read_in_order_and_ids_tell_files_apart(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name, text in [("b.txt", "second"), ("a.TXT", "first"), ("deep/a.txt.gz", "third")]:
        (folder / name).write_bytes(packed(text.encode(), Path(name).suffix))
    for name in ("picture.png", ".hidden.txt", ".cache/x.txt"):
        (folder / name).write_bytes(b"no")
    files = input_files([str(folder)], tmp_path)
    assert [(file.source, file.stem, file.kind) for file in files] == [
        ("mine", "a", "txt"),
        ("mine", "b", "txt"),
        ("mine", "deep/a", "txt"),
    ]
    assert [record.id for file in files for record in documents(read_file(file))] == [
        "mine/a",
        "mine/b",
        "mine/deep/a",
    ]
    assert [InputFile.from_row(json.loads(json.dumps(file.as_row()))) for file in files] == files


def read_file(file: InputFile) -> list[Document | Quarantined]:
    return [record for record, _ in read_records(file, TextConfig(), SMALL)]


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        input_files([str(tmp_path / "nowhere")], tmp_path)
    with pytest.raises(UserError, match="holds no file"):
        input_files([str(tmp_path)], tmp_path)
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(UserError, match="holds 1 files, none of them"):
        input_files([str(tmp_path)], tmp_path)
    with pytest.raises(UserError, match=r"a\.docx is of an unknown kind; known are txt"):
        input_files([str(tmp_path / "a.docx")], tmp_path)


# What others use


def test_language_is_told_by_script() -> None:
    assert detect_language("他用 Python 写了一个小程序。") == "zh"
    assert detect_language("The word 道 is hard to translate.") == "en"
    assert detect_language("12345 !!!") == "en"


def test_bytes_that_are_not_utf8_are_named_with_their_encoding() -> None:
    assert decode("字".encode(), "here", 0) == "字"
    with pytest.raises(UserError, match="here is not UTF-8 at byte 7; it reads as gb18030: iconv"):
        decode("旧的编码".encode("gb18030"), "here", 7)
    with pytest.raises(UserError, match="utf-16"):
        decode("wide".encode("utf-16"), "here", 0)
