"""What could not be read is kept with its bytes, and can be read again."""

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import (
    BAD_LINES,
    GOOD,
    LIMITS,
    LONG,
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
from indexlm.text.reading.files import InputFile
from indexlm.text.reading.quarantine import (
    PART,
    REASONS,
    BadRecordError,
    Quarantined,
    QuarantineWriter,
    read_quarantine,
    write_quarantine,
)
from indexlm.text.reading.sources import input_files, read_records

FILE = InputFile(Path("mine/a.jsonl"), "jsonl", "mine", "a", "CC0-1.0")
NAME = "a.quarantine.jsonl.zst"
HUGE = ReadingConfig(record_bytes=10**9)


def put_aside(path: Path, limits: ReadingConfig = SMALL) -> list[Document | Quarantined]:
    """Reads a file or folder and leaves what is bad in `out/NAME` beside it."""
    kept: list[Document | Quarantined] = []
    with QuarantineWriter(path.parent / "out" / NAME) as writer:
        for file in input_files([str(path)], path):
            for record, _ in read_records(file, TextConfig(), limits):
                if isinstance(record, Quarantined):
                    writer.write(record)
                else:
                    kept.append(record)
    return kept


# The file


POSITIONS = st.none() | st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))
RECORDS = st.builds(
    Quarantined,
    st.just(FILE),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(sorted(REASONS)),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 2**40),
    st.binary(),
    span=st.none() | st.tuples(POSITIONS, POSITIONS),
)


@given(st.lists(RECORDS))
def test_records_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, records: list[Quarantined]
) -> None:
    path = tmp_path_factory.mktemp("quarantine") / NAME
    assert write_quarantine(path, records) == len(records)
    assert list(read_quarantine(path)) == records
    again = path.with_name(f"b{NAME}")
    write_quarantine(again, records)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 7])
@pytest.mark.parametrize("head", [0, 5, PART, 2 * PART])
def test_long_bytes_are_written_and_read_in_parts(tmp_path: Path, size: int, head: int) -> None:
    content = random.Random(size).randbytes(size)

    def rest() -> Iterator[bytes]:
        for begin in range(head, size, 300_000):
            yield content[begin : begin + 300_000]

    record = Quarantined(FILE, "here", "too_long", "", 7, content[:head], rest())
    path = tmp_path / NAME
    write_quarantine(path, [record, Quarantined(FILE, "there", "not_json", "", 8, b"x")])
    found = [(bad.place, bad.raw + b"".join(bad.rest)) for bad in read_quarantine(path)]
    assert found == [("here", content), ("there", b"x")]
    # Whoever takes no rest finds the next record all the same.
    assert [bad.number for bad in read_quarantine(path)] == [7, 8]
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert [row.get("place") for row in rows if "place" in row] == ["here", "there"]
    assert max(len(row["raw"]) for row in rows) <= PART * 4 // 3


@pytest.mark.parametrize(
    "content",
    [b"no json\n", b"[]\n", b'{"raw": 1}\n', b'{"raw": ""}\n', b'{"raw": "", "place": 1}\n'],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / NAME
    path.write_bytes(packed(content, ".zst"))
    with pytest.raises(BadRecordError, match="no file of quarantined records"):
        list(read_quarantine(path))


def test_each_reason_names_its_remedy() -> None:
    for reason, sentence in REASONS.items():
        assert re.fullmatch("[a-z0-9_]+", reason)
        assert ";" in sentence and sentence[0].islower() and sentence[-1] != "."
    with pytest.raises(AssertionError):
        BadRecordError("a reason that is not in the table", "")


# Reading it again


def test_what_is_still_bad_stays_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = [line + b"\n" for _, line, _ in BAD_LINES]
    path.write_bytes(lines(GOOD[:1]) + b"".join(bad) + LONG)
    before = quarantined(read(path, LIMITS))
    assert len(put_aside(path, LIMITS)) == 1
    records = read(tmp_path / "out", LIMITS)
    assert records == [*before[:-1], records[-1]]
    [*_, last] = quarantined(records)
    assert (last.place, last.reason, last.raw) == (f"{path}:{len(bad) + 2}", "too_long", LONG)


def test_with_a_raised_limit_just_those_are_read(tmp_path: Path) -> None:
    """The names are those of a reading that had the limit from the start."""
    folder = tmp_path / "mine"
    folder.mkdir()
    long = [b'{"text": "' + b"y" * size + b'", "tier": "noisy"}' for size in (2000, 3 * PART)]
    (folder / "a.jsonl").write_bytes(b"\n".join([*long, lines(GOOD[:1])]))
    (folder / "b.txt").write_bytes(b"first\n" + b"z" * 5000 + b"\n\nlast")
    (folder / "c.txt.gz").write_bytes(packed(b"z" * 5000, ".gz"))
    (folder / "d.parquet").write_bytes(parquet([{"text": "x" * 2000}, {"text": "ok"}]))
    files = input_files([str(folder)], folder)
    whole = [d for file in files for d, _ in read_records(file, TextConfig(), HUGE)]
    kept = put_aside(folder)
    again = documents(read(tmp_path / "out", HUGE))
    assert {d.id for d in kept} & {d.id for d in again} == set()
    found = [document.with_text(document.text.strip()) for document in documents(kept) + again]
    expected = [document.with_text(document.text.strip()) for document in documents(whole)]
    assert sorted(found, key=lambda d: d.id) == sorted(expected, key=lambda d: d.id)


def test_bytes_that_were_put_right_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(GOOD[:1]) + '{"text": "旧的编码"}\n'.encode("gb18030") + b"{oops\n")
    put_aside(path)
    stored = tmp_path / "out" / NAME
    fixed = [
        Quarantined(b.file, b.place, b.reason, b.detail, b.number, b.raw.decode("gb18030").encode())
        for b in read_quarantine(stored)
    ]
    write_quarantine(stored, fixed)
    found, bad = read(tmp_path / "out")
    assert found == Document("a/a-2", "旧的编码", "a", "", "ordinary")
    assert isinstance(bad, Quarantined) and (bad.place, bad.reason) == (f"{path}:3", "not_json")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_the_rest_of_a_file_is_read_once_it_is_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    whole = packed(lines(GOOD), suffix)
    for cut in (3, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        kept = put_aside(path)
        assert [record.reason for record in quarantined(read(tmp_path / "out"))] == ["cut_short"]
        path.write_bytes(whole)
        assert kept + read(tmp_path / "out") == read(path)


def test_a_row_group_is_read_once_it_is_whole(tmp_path: Path) -> None:
    rows = [{"text": "".join(random.Random(n).choices("abcdef ", k=300))} for n in range(50)]
    whole = parquet(rows, group=10)
    damaged = bytearray(whole)
    damaged[len(damaged) // 2 : len(damaged) // 2 + 400] = b"\xff" * 400
    path = tmp_path / "a.parquet"
    path.write_bytes(damaged)
    kept = put_aside(path)
    assert 0 < len(kept) < 50
    path.write_bytes(whole)
    again = documents(read(tmp_path / "out"))
    ids = sorted(record.id for record in documents(kept) + again)
    assert ids == sorted(record.id for record in documents(read(path)))


def test_a_bomb_that_is_none_is_read_under_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    rows = [{"text": random.Random(n).randbytes(400).hex()} for n in range(5000)]
    path.write_bytes(packed(lines(rows), ".zst"))
    kept = put_aside(path, ReadingConfig(unpacked_bytes=1_000_000, unpacked_ratio=1))
    assert 0 < len(kept) < 5000
    assert documents(kept) + documents(read(tmp_path / "out")) == documents(read(path))


def test_a_file_that_is_gone_stays_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed(lines(GOOD), ".gz")[:-20])
    put_aside(path)
    before = read(tmp_path / "out")
    path.unlink()
    assert read(tmp_path / "out") == before


def test_a_file_that_names_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / NAME
    itself = InputFile(path, "quarantine", "a", "a")
    write_quarantine(path, [Quarantined(itself, "", "damaged", "", span=(None, None))])
    assert [record.reason for record in quarantined(read(path))] == ["damaged"]


def test_damage_to_the_quarantine_costs_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    noise = [random.Random(n).randbytes(300).hex() for n in range(4000)]
    path.write_bytes("".join(f"oops {each}\n" for each in noise).encode())
    put_aside(path)
    stored = tmp_path / "out" / NAME
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    *found, last = quarantined(read(stored))
    assert 0 < len(found) < 4000
    assert (last.reason, last.file.kind) == ("cut_short", "quarantine")
    stored.write_bytes(whole)
    assert len(read(stored)) == 4000


def test_every_position_of_a_quarantine(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"bad\n" + LONG[:5000] + b"\n" + lines(GOOD[:2]) + b"bad")
    (folder / "b.jsonl.gz").write_bytes(packed(lines(GOOD), ".gz")[:-20])
    (folder / "c.txt").write_bytes(b"\xff\n\n" + b"z" * 4000)
    put_aside(folder)
    (folder / "b.jsonl.gz").write_bytes(packed(lines(GOOD) + LONG, ".gz"))
    [file] = input_files([str(tmp_path / "out")], tmp_path)
    items = list(read_records(file, TextConfig(), SMALL))
    assert len(items) > 6
    for number, (_, position) in enumerate(items, start=1):
        start = json.loads(json.dumps(position))
        assert list(read_records(file, TextConfig(), SMALL, start)) == items[number:]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_in_is_kept_and_quarantined_and_a_replay_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Good and bad lines in three files, one of them cut short."""
    draw = random.Random(seed)
    tmp_path = tmp_path_factory.mktemp("mixed")
    folder = tmp_path / "mine"
    folder.mkdir()
    count = 0
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        bad = [line + b"\n" for _, line, _ in draw.sample(BAD_LINES, 10)]
        rows = [lines([{"text": f"{name} {number}"}]) for number in range(20)]
        mixed = draw.sample([*bad, *rows, LONG + b"\n"], 31)
        count += len(mixed)
        (folder / name).write_bytes(packed(b"".join(mixed), Path(name).suffix))
    whole = (folder / "c.jsonl.zst").read_bytes()
    kept = put_aside(folder, LIMITS)
    assert len(kept) == 60
    assert len(kept) + len(read(tmp_path / "out", LIMITS)) == count
    (folder / "c.jsonl.zst").write_bytes(whole[: draw.randrange(1, len(whole))])
    shutil.rmtree(tmp_path / "out")
    kept = put_aside(folder, LIMITS)
    (folder / "c.jsonl.zst").write_bytes(whole)
    assert len(kept) + len(read(tmp_path / "out", LIMITS)) == count
    again = [r for r in read(tmp_path / "out", LIMITS) if isinstance(r, Document)]
    assert len(kept) + len(again) == 60
