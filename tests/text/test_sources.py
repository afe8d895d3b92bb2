"""A user's files become documents; a wrong one is named with its place and its remedy."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from indexlm.config import TextConfig
from indexlm.errors import UserError
from indexlm.text.document import Document
from indexlm.text.sources import MAX_CHARS, detect_language, read_inputs

ROWS = [
    {"text": "春眠不觉晓，处处闻啼鸟。", "id": "a", "tier": "curated", "source": "poems"},
    {"text": "The rain had stopped.", "lang": "en", "license": "CC0-1.0"},
]
EXPECTED = [
    ("poems/a", ROWS[0]["text"], "poems", "zh", "curated", ""),
    ("rows/rows-2", ROWS[1]["text"], "rows", "en", "ordinary", "CC0-1.0"),
]


def read(path: Path, **settings: str) -> list[Document]:
    return list(read_inputs(path, TextConfig.model_validate(settings)))


def as_tuple(document: Document) -> tuple[str, ...]:
    return (
        document.id,
        document.text,
        document.source,
        document.language,
        document.tier,
        document.license,
    )


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return zstandard.compress(content) if suffix == ".zst" else content


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(packed(f"\ufeff{lines}\n".encode(), suffix))
    assert [as_tuple(document) for document in read(path)] == EXPECTED


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_parquet_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    plain = tmp_path / "plain"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_all_columns()), plain)
    path = tmp_path / f"rows.parquet{suffix}"
    path.write_bytes(packed(plain.read_bytes(), suffix))
    assert [as_tuple(document) for document in read(path)] == EXPECTED


def _all_columns() -> list[dict[str, str | None]]:
    names = ["text", "id", "tier", "source", "lang", "license"]
    return [{name: row.get(name) for name in names} for row in ROWS]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_short_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"note.txt{suffix}"
    path.write_bytes(packed("第一段。\n\n第二段。".encode(), suffix))
    [document] = read(path, tier="noisy")
    assert as_tuple(document) == ("note/note", "第一段。\n\n第二段。", "note", "zh", "noisy", "")


@given(
    st.lists(st.text("ab", min_size=1, max_size=1500), max_size=20),
    st.sampled_from(["\n", "\n\n"]),
)
def test_a_long_text_file_is_cut_between_paragraphs_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, paragraphs: list[str], border: str
) -> None:
    text = border.join(["x" * MAX_CHARS, *paragraphs])
    path = tmp_path_factory.mktemp("long") / "long.txt"
    path.write_text(text, encoding="utf-8")
    documents = read(path)
    assert "".join("".join(d.text.split()) for d in documents) == "".join(text.split())
    assert len({document.id for document in documents}) == len(documents)
    pieces = [part for part in text.split(border) if part.strip()]
    assert all(set(d.text.split(border)) <= {*pieces, ""} for d in documents[1:])


def test_a_folder_is_read_in_order_and_ids_tell_files_apart(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("second", encoding="utf-8")
    (folder / "a.txt").write_text("first", encoding="utf-8")
    (folder / "deep" / "a.txt").write_text("third", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.txt").write_text("no", encoding="utf-8")
    assert [(d.id, d.text) for d in read(folder)] == [
        ("mine/a", "first"),
        ("mine/b", "second"),
        ("mine/deep/a", "third"),
    ]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("他用 Python 写了一个小程序。", "zh"),
        ("The word 道 is hard to translate.", "en"),
        ("12345 !!!", "en"),
    ],
)
def test_language_is_told_by_script(text: str, language: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", ["empty.txt", "is empty"]),
        ("blank.txt", b" \n\n", ["blank.txt", "no text"]),
        ("book.docx", b"PK", ["book.docx", "unknown kind", "jsonl"]),
        ("old.txt", "旧的编码".encode("gb18030"), ["old.txt", "byte 0", "iconv -f gb18030"]),
        ("wide.txt", "wide".encode("utf-16"), ["wide.txt", "utf-16"]),
        ("cut.txt", b"fine until \xff\xfe\x00 here", ["cut.txt", "byte 11"]),
        ("a.jsonl", b'{"text": "ok"}\n{"text": oops}\n', ["a.jsonl:2", "not JSON", "column"]),
        ("b.jsonl", b'{"text": "ok"}\n["no"]\n', ["b.jsonl:2", "not a JSON object"]),
        ("c.jsonl", b'{"body": "x", "n": 1}\n', ["c.jsonl:1", "no field `text`", "body, n"]),
        ("d.jsonl", b'{"text": 5}\n', ["d.jsonl:1", "`text` is int"]),
        ("e.jsonl", b'{"text": "x", "tier": "best"}\n', ["e.jsonl:1", "tier 'best'", "curated"]),
        ("f.jsonl", b'{"text": "x", "lang": "fr"}\n', ["f.jsonl:1", "language 'fr'", "zh, en"]),
        ("g.jsonl", b'{"text": "ok"}\n{"text": "\xd6\xd0"}\n', ["g.jsonl:2", "byte 25"]),
        ("h.parquet", b"not parquet at all", ["h.parquet", "not a parquet file"]),
        ("i.txt.gz", b"not gzip", ["i.txt.gz", "cannot be unpacked"]),
        ("j.txt.gz", gzip.compress(b"some text" * 99)[:-12], ["j.txt.gz", "cut short"]),
        ("k.txt.zst", b"not zstd", ["k.txt.zst", "cannot be unpacked"]),
    ],
)
def test_a_wrong_file_is_named_with_its_place(
    tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert [word for word in words if word not in str(error.value)] == []


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no file"):
        read(tmp_path)
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(UserError, match="holds 1 files, none of them"):
        read(tmp_path)


def test_a_parquet_file_without_text_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), path)
    with pytest.raises(UserError, match=r"no column `text`.*body"):
        read(path)
