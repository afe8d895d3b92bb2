"""Packed files: cut short, damaged, of several members, and such as unpack to far too much."""

import gzip
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from raw_files import (
    GOOD,
    documents,
    lines,
    packed,
    quarantined,
    read,
)

from indexlm.config import ReadingConfig
from indexlm.text.reading.files import open_packed
from indexlm.text.reading.quarantine import Quarantined

# Files that are damaged


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_before_the_cut_everything_is_kept(tmp_path: Path, suffix: str) -> None:
    content = lines(GOOD)
    whole = packed(content, suffix)
    path = tmp_path / f"a.jsonl{suffix}"
    for cut in range(1, len(whole), 7):
        path.write_bytes(whole[:cut])
        *kept, bad = read(path)
        assert isinstance(bad, Quarantined) and bad.reason == "cut_short"
        assert [record.text for record in documents(kept)] == [
            row["text"] for row in GOOD[: len(kept)]
        ]
        size = len(lines(GOOD[: len(kept)]))
        assert bad.raw == content[size : size + len(bad.raw)] and b"\n" not in bad.raw
        assert bad.span == ((size, len(kept)) if kept else None, None)
    path.write_bytes(whole)
    assert len(documents(read(path))) == len(GOOD)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_of_several_members_is_read_through(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    parts = [packed(lines([row]), suffix) for row in GOOD]
    path.write_bytes(b"".join(parts) + b"\0" * 100)
    assert len(documents(read(path))) == len(GOOD)
    path.write_bytes(b"".join(parts) + b"garbage behind it")
    *kept, bad = read(path)
    assert len(documents(kept)) == len(GOOD)
    assert isinstance(bad, Quarantined) and bad.reason == "damaged"
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0abcde"
    if suffix == ".zst":
        path.write_bytes(skippable + parts[0] + skippable)
        assert len(documents(read(path))) == 1


def test_a_changed_byte_of_gzip_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = bytearray(gzip.compress(lines(GOOD)))
    whole[-6] ^= 1  # of the checksum
    path.write_bytes(whole)
    *kept, bad = read(path)
    assert isinstance(bad, Quarantined) and bad.reason == "damaged"
    assert len(documents(kept)) < len(GOOD) or bad.raw == b""


def test_a_packed_file_that_is_damaged_raises_where_no_one_looks(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(GOOD)))
    with open_packed(path) as file:
        assert file.read() == lines(GOOD)
    path.write_bytes(gzip.compress(lines(GOOD))[:-12])
    with open_packed(path) as file, pytest.raises(EOFError, match="ends inside a gzip member"):
        file.read()


# Memory

PEAK = """
import sys
from pathlib import Path
from indexlm.config import ReadingConfig, TextConfig
from indexlm.text.reading.quarantine import Quarantined, QuarantineWriter
from indexlm.text.reading.sources import input_files, read_records

path, limits = Path(sys.argv[1]), ReadingConfig.model_validate_json(sys.argv[2])
kept, reasons = 0, []
with QuarantineWriter(path.with_name("out.quarantine.jsonl.zst")) as writer:
    for record, _ in read_records(input_files([str(path)], path)[0], TextConfig(), limits):
        if isinstance(record, Quarantined):
            writer.write(record)
            reasons.append(record.reason)
        else:
            kept += 1
# What getrusage says begins with what the process had that started this one.
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0])
print(kept, ",".join(reasons) or "none", peak // 1024)
"""


def peak(path: Path, limits: ReadingConfig | None = None) -> tuple[int, str, int]:
    """Documents, reasons, and the peak resident MiB of a process that reads a file."""
    settings = (limits or ReadingConfig()).model_dump_json()
    out = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), settings],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout.split()
    kept, reasons, used = out
    return int(kept), reasons, int(used)


def bomb(suffix: str, unit: bytes, times: int) -> bytes:
    """`times` as much, in one frame of zstd or 16 members of gzip."""
    if suffix == ".gz":
        return gzip.compress(unit * (times // 16)) * 16
    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as file:
        for _ in range(times):
            file.write(unit)
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.txt.zst", "a.jsonl.zst", "a.txt.gz", "a.parquet.zst"])
def test_a_bomb_is_stopped_before_it_fills_the_memory(tmp_path: Path, name: str) -> None:
    """A gigabyte in at most a megabyte."""
    path = tmp_path / name
    unit = b" " * 2**20 if "zst" in name else (b"word " * 204 + b"end\n") * 1024
    path.write_bytes(bomb(path.suffix, unit, 1024))
    assert path.stat().st_size < 5 * 2**20
    _, reasons, used = peak(path)
    assert reasons.split(",")[-1] == "unpacks_too_far"
    assert used < 200
    [*_, bad] = read(path, ReadingConfig(unpacked_bytes=2**20))
    assert isinstance(bad, Quarantined)
    assert "100 times" in bad.message() and "text.reading.unpacked_ratio" in bad.message()


def test_a_file_that_compresses_well_is_read_to_its_end_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(bomb(".zst", lines(GOOD), 1000))
    limits = ReadingConfig(unpacked_bytes=1_000_000, unpacked_ratio=10)
    assert quarantined(read(path, limits))[-1].reason == "unpacks_too_far"
    limits = ReadingConfig(unpacked_bytes=1_000_000, unpacked_ratio=1e6)
    assert len(documents(read(path, limits))) == 1000 * len(GOOD)
    assert len(documents(read(path))) == 1000 * len(GOOD)


def test_a_line_of_50_megabytes_goes_to_disk_unheld(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    noise = random.Random(1).randbytes(2**20).hex().encode()
    path.write_bytes(lines(GOOD[:1]) + b'{"text": "' + noise * 25 + b'"}\n' + lines(GOOD[1:2]))
    kept, reasons, used = peak(path)
    assert (kept, reasons) == (2, "too_long")
    assert used < 150


def test_a_large_text_file_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    paragraph = ("word " * 300 + "\n\n").encode() * 100
    path.write_bytes(bomb(".zst", paragraph, 1000))
    kept, reasons, used = peak(path, ReadingConfig(unpacked_ratio=1e6))
    assert reasons == "none" and kept > 30_000
    assert used < 110
