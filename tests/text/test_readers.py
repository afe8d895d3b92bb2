"""Every record of a file comes out once, good or bad, from wherever the reading starts."""

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import (
    BAD_LINES,
    GOOD,
    LIMITS,
    LONG,
    PACKED,
    SMALL,
    documents,
    lines,
    packed,
    parquet,
    quarantined,
    read,
)

from indexlm.config import ReadingConfig, TextConfig
from indexlm.text.document import Document
from indexlm.text.reading.quarantine import END, REASONS, Quarantined
from indexlm.text.reading.readers import MAX_CHARS
from indexlm.text.reading.sources import input_files, read_records

PARAGRAPHS = st.lists(st.text("ab。", min_size=1, max_size=1500), max_size=20)


@given(PARAGRAPHS, st.sampled_from(["\n", "\n\n", "\r\n \r\n\r\n"]))
def test_a_long_text_file_is_cut_between_paragraphs_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, paragraphs: list[str], border: str
) -> None:
    text = border.join(["x" * MAX_CHARS, *paragraphs])
    path = tmp_path_factory.mktemp("long") / "long.txt"
    path.write_bytes(text.encode())
    pieces = documents(read(path, ReadingConfig()))
    assert "".join(piece.text for piece in pieces) == text
    assert len({piece.id for piece in pieces}) == len(pieces)
    for piece, following in pairwise(pieces):
        # No piece is too long, and none could have taken the next paragraph too.
        size = sum(map(len, piece.text.split()))
        first = following.text.split(border)[0]
        assert (
            size <= MAX_CHARS < sum(len(line) + 2 for line in piece.text.splitlines()) + len(first)
        )
        assert following.text[0] not in "\r\n "


def test_a_paragraph_without_end_is_cut_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    text = "title\n\n" + "".join(f"line {number}\n" for number in range(5000))
    path.write_text(text, encoding="utf-8")
    pieces = documents(read(path))
    assert "".join(piece.text for piece in pieces) == text
    assert max(len(piece.text) for piece in pieces) <= MAX_CHARS
    assert all(piece.text.endswith("\n") for piece in pieces)


# What is quarantined


@pytest.mark.parametrize(("reason", "line", "words"), BAD_LINES)
def test_a_bad_line_is_put_aside_with_its_bytes_and_its_place(
    tmp_path: Path, reason: str, line: bytes, words: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(GOOD[:2]) + line + b"\n" + lines(GOOD[2:4]))
    records = read(path, LIMITS)
    [bad] = quarantined(records)
    assert isinstance(records[2], Quarantined) and len(records) == 5
    assert (bad.reason, bad.raw, bad.place, bad.number) == (reason, line + b"\n", f"{path}:3", 3)
    assert words in bad.detail
    assert REASONS[reason] in bad.message() and "\n" not in bad.message()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(PACKED))
def test_whatever_is_wrong_and_wherever_every_record_comes_out_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, suffix: str
) -> None:
    """20 bad records of all kinds at random places among 40 good ones."""
    draw = random.Random(seed)
    bad = [(reason, line) for reason, line, _ in BAD_LINES]
    bad = [*bad, ("too_long", LONG), ("too_long", LONG)]
    planted = [("", lines([row])[:-1]) for row in GOOD] + draw.sample(bad, 20)
    draw.shuffle(planted)
    blank = [b"\n", b"  \n", b""]
    content = b"".join(line + b"\n" + draw.choice(blank) for _, line in planted)
    path = tmp_path_factory.mktemp("mixed") / f"mixed.jsonl{suffix}"
    path.write_bytes(packed(content.rstrip() if draw.random() < 0.5 else content, suffix))
    records = read(path, LIMITS)
    found = [r.reason if isinstance(r, Quarantined) else "" for r in records]
    assert found == [reason for reason, _ in planted]
    kept = [r.id for r in records if isinstance(r, Document)]
    assert kept == [f"mixed/{json.loads(line)['id']}" for reason, line in planted if not reason]


@pytest.mark.parametrize(
    ("name", "content", "reason", "words"),
    [
        ("a.jsonl", b"", "empty_file", "no record"),
        ("a.jsonl.gz", b"", "empty_file", "no record"),
        ("a.txt.zst", packed(b"", ".zst"), "empty_file", "no record"),
        ("a.jsonl", b"\n \n", "empty_file", "no record"),
        (
            "a.parquet",
            parquet(pyarrow.table({"text": pyarrow.array([], "string")})),
            "empty_file",
            "",
        ),
        ("a.txt", "wide".encode("utf-16"), "encoding", "iconv -f utf-16 -t utf-8"),
        ("a.jsonl", "wide".encode("utf-16-be"), "encoding", "iconv -f utf-16-be -t utf-8"),
        ("a.txt", "wide".encode("utf-32"), "encoding", "iconv -f utf-32 -t utf-8"),
        ("a.txt.gz", b"not gzip", "damaged", "header"),
        ("a.txt.zst", b"not zstd", "damaged", "frame"),
        ("a.parquet", b"not parquet at all", "damaged", ""),
        ("a.parquet.gz", b"not gzip", "damaged", "header"),
        ("a.parquet", parquet([{"body": "x"}]), "missing_text", "columns 'body'"),
        ("a.txt", "旧的编码".encode("gb18030"), "encoding", "byte 0; it reads as gb18030"),
        ("a.txt", b"fine until \xff\xfe here", "encoding", "byte 11"),
        ("a.txt", b"a text with \0 in it", "nul_bytes", "1 of them"),
        ("a.txt", b"x" * 1001, "too_long", "over 1,000 bytes"),
        ("a.parquet", parquet([{"text": 5}]), "wrong_type", "int"),
        ("a.parquet", parquet([{"text": "x" * 1001}]), "too_long", "over 1,000 bytes"),
        ("a.quarantine.jsonl.zst", packed(b'{"text": "x"}', ".zst"), "damaged", "quarantined"),
        ("a.quarantine.jsonl.zst", b"not zstd", "damaged", "frame"),
    ],
)
def test_a_file_without_a_record_gives_one_that_is_quarantined(
    tmp_path: Path, name: str, content: bytes, reason: str, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    [bad] = quarantined(read(path))
    assert len(read(path)) == 1
    assert (bad.reason, bad.place.startswith(str(path))) == (reason, True)
    assert words in bad.detail


def test_bad_bytes_cost_the_piece_they_stand_in(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    paragraphs = [f"{number} " + "word " * 700 + "\n\n" for number in range(5)]
    content = [paragraph.encode() for paragraph in paragraphs]
    content[2] = content[2].replace(b"2 w", b"2 \xff w")
    path.write_bytes(b"".join(content))
    records = read(path, LIMITS)
    assert [isinstance(record, Quarantined) for record in records] == [0, 0, 1, 0, 0]
    [bad] = quarantined(records)
    assert bad.raw == content[2]
    assert bad.place == f"{path}: byte {len(content[0] + content[1])}"


# Going on at a position


def _mixed(draw: random.Random) -> bytes:
    bad = [line for _, line, _ in BAD_LINES if len(line) < 100]
    good = [lines([row])[:-1] for row in GOOD[:12]]
    content = [*good, *draw.sample(bad, 5), LONG[:2500], LONG[:5000], b"", b" "]
    draw.shuffle(content)
    return b"\n".join(content)


def _prose(draw: random.Random) -> bytes:
    parts = []
    for _ in range(30):
        parts.append("字word "[draw.randrange(4) :] * draw.choice([3, 30, 150]))
        parts.append(draw.choice(["\n", "\n\n", "\r\n \r\n", "\n" * 5000]))
    parts.insert(draw.randrange(len(parts)), "z" * 3000)
    content = "".join(parts).encode()
    at = draw.randrange(len(content))
    return content[:at] + draw.choice([b"\xff", b"\0", b""]) + content[at:]


def _table(draw: random.Random) -> bytes:
    rows = [{"text": draw.choice(["ok", "x" * 1100, None])} for _ in range(23)]
    rows[0]["text"] = "first"
    return parquet(rows, group=draw.choice([4, 23]))


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize(
    ("kind", "make"), [("jsonl", _mixed), ("txt", _prose), ("parquet", _table)]
)
@pytest.mark.parametrize("cut", [0, 9])
def test_every_position_gives_what_an_uninterrupted_reading_gives(
    tmp_path: Path, suffix: str, kind: str, make: Callable[[random.Random], bytes], cut: int
) -> None:
    path = tmp_path / f"a.{kind}{suffix}"
    for seed in range(4):
        content = packed(make(random.Random(seed)), suffix)
        path.write_bytes(content[: len(content) - cut])
        [file] = input_files([str(path)], tmp_path)
        items = list(read_records(file, TextConfig(), SMALL))
        assert len(items) > 4 or cut
        for number, (_, position) in enumerate(items, start=1):
            start = json.loads(json.dumps(position))
            assert list(read_records(file, TextConfig(), SMALL, start)) == items[number:]
        assert list(read_records(file, TextConfig(), SMALL, END)) == []


@settings(deadline=None)
@given(st.text("a\n\r \0。\ud7ff", max_size=200), st.integers(1, 30))
def test_positions_of_any_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, times: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text(text * times, encoding="utf-8", newline="")
    [file] = input_files([str(path)], path)
    items = list(read_records(file, TextConfig(), SMALL))
    for number, (_, position) in enumerate(items, start=1):
        assert list(read_records(file, TextConfig(), SMALL, position)) == items[number:]


def test_the_rest_of_a_long_line_may_be_taken_or_left(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LONG + b"\n" + lines(GOOD[:1]) + LONG)
    [file] = input_files([str(path)], tmp_path)
    for taken in (0, 1, 10**6):
        found = []
        for record, _ in read_records(file, TextConfig(), SMALL):
            if isinstance(record, Quarantined):
                assert len(record.raw) == SMALL.record_bytes + 1
                rest = b"".join(part for part, _ in zip(record.rest, range(taken)))
                assert (LONG + b"\n").startswith(record.raw + rest)
                found.append(record.raw + rest in (LONG, LONG + b"\n"))
            else:
                found.append(True)
        assert found == [taken > 0, True, taken > 0]
