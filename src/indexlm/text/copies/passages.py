"""Passages that stood before, at any position: found exactly, and cut out.

A window is `passage_bytes` bytes in a row of one document. It is repeated when an equal window
begins earlier in the corpus: in an earlier document, or earlier in the same one. Every byte that a
repeated window covers is cut, so a passage stays where it stands first. Nothing is split into lines
or paragraphs beforehand, which would miss a menu that stands on one line with other text (Lee et
al. 2022, "Deduplicating training data makes language models better").

Windows are as many as bytes; three kinds of task keep the work small and its memory bounded:

1. `write_stretches`, for a shard: where the keys of its windows change (`stretches.py`).
2. `write_repeats`, for a range of keys of all shards: keys that stand once are passed over; of
   the stretches with one signature only the first is looked into; their windows are hashed whole
   and sorted. What the hashes say is believed after comparing the bytes.
3. `write_cuts`, for a shard: what all ranges found, united, and drawn in to whole characters.

The result is a property of the corpus: shards, ranges and hashes do not show in it.

Shapes: N documents, S stretches, W windows, R runs of bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexlm.text.copies.stretches import (
    SEEDS,
    Ints,
    Stretches,
    Uint64s,
    stretches_of,
    window_hashes,
)

TextBytes = Callable[[int, int], bytes | memoryview]
"""UTF-8 of a document, by shard and number in the shard."""

_BATCH = 1 << 17  # windows sorted at a time: larger batches leave the caches of a core
_MOST = 1 << 21  # windows of a single key that are sorted at a time, 100 bytes of memory each
_READ = 1 << 18  # bytes of text whose windows are hashed at a time
_COMPARED = 1 << 14  # runs of bytes compared at a time


class _Runs(NamedTuple):
    """[R] each: bytes in a row; `documents` is shard << 32 | number in the shard."""

    documents: Ints
    firsts: Ints
    ends: Ints


_NONE = _Runs(*np.zeros((3, 0), dtype=np.int64))


def write_stretches(path: Path, texts: Sequence[bytes | memoryview], passage_bytes: int) -> None:
    """The stretches of a shard, by key: a .npy file of uint32 [5, S].

    Rows: bits 32 to 63 of the key; bits 16 to 31, and in the low half the number of windows;
    document; first byte; signature. `texts` is the UTF-8 of all documents of the shard, in order.
    """
    found = stretches_of(texts, passage_bytes)
    order = np.argsort(found.keys >> np.uint64(16), kind="stable")
    keys = found.keys[order]
    rows = np.empty((5, len(order)), dtype=np.uint32)
    rows[0] = keys >> np.uint64(32)
    rows[1] = keys & np.uint64(0xFFFF0000) | found.counts[order].astype(np.uint64)
    rows[2:] = found.documents[order], found.firsts[order], found.signatures[order]
    np.save(path, rows)


def write_repeats(
    path: Path,
    stretch_files: Sequence[Path],
    kept: Sequence[NDArray[np.bool_]],
    text_bytes: TextBytes,
    passage_bytes: int,
    part: int,
    parts: int,
) -> None:
    """What the repeated windows of one range of keys cover: a .npy file of uint32 [4, R].

    Rows: shard, document, first byte, end; sorted, apart from each other. `stretch_files` and
    `kept` (which documents are still in the corpus) are in the order of the shards.
    """
    assert 0 <= part < parts
    copied, others = _without_copies(
        _stood_twice(stretch_files, kept, part, parts), text_bytes, passage_bytes
    )
    found = [_repeats(batch, text_bytes, passage_bytes, path.parent) for batch in _batches(others)]
    united = _united(_joined([copied, *found]))
    shards, documents = united.documents >> 32, united.documents & 0xFFFFFFFF
    np.save(path, np.array([shards, documents, united.firsts, united.ends], dtype=np.uint32))


def write_cuts(path: Path, repeat_files: Sequence[Path], shard: int, text_bytes: TextBytes) -> None:
    """What is cut from a shard: a .npy file of uint32 [3, R].

    Rows: document, first byte, end; sorted, apart from each other, each of whole characters.
    """
    found: list[NDArray[np.uint32]] = []
    for file in repeat_files:
        rows = np.load(file, mmap_mode="r")
        low, high = np.searchsorted(rows[0], np.array([shard, shard + 1], dtype=np.uint32))
        found.append(rows[1:, low:high])
    united = _united(_Runs(*np.concatenate(found, axis=1, dtype=np.int64)))
    rows = np.array(united, dtype=np.uint32)
    for column, (document, first, end) in enumerate(rows.T.tolist()):
        rows[1:, column] = _drawn_in(text_bytes(shard, document), first, end)
    np.save(path, rows)


def read_cuts(path: Path) -> dict[int, list[tuple[int, int]]]:
    """What `write_cuts` wrote: first byte and end, by the documents from which something is cut."""
    cuts: dict[int, list[tuple[int, int]]] = {}
    for document, first, end in np.load(path).T.tolist():
        cuts.setdefault(document, []).append((first, end))
    return cuts


def cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without some spans, which are sorted, in bytes of UTF-8, between characters."""
    encoded = text.encode()
    pieces: list[bytes] = []
    kept = 0
    for first, end in spans:
        pieces.append(encoded[kept:first])
        kept = end
    return b"".join([*pieces, encoded[kept:]]).decode()


def whole_words(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans drawn in so that no word of Latin letters or digits is cut in two, and that what stood
    apart does not touch."""
    encoded = text.encode()

    def inside(place: int) -> bool:
        pair = encoded[place - 1 : place + 1] if place else b""
        return len(pair) == 2 and pair.isalnum() and pair.isascii()

    for first, end in spans:
        while first < end and inside(first):
            first += 1
        while first < end and inside(end):
            end -= 1
        touches = first > 0 and end < len(encoded) and encoded[first : first + 1].isspace()
        if touches and not encoded[first - 1 : first].isspace():
            first += not encoded[end : end + 1].isspace()
        if first < end:
            yield first, end


def _stood_twice(
    files: Sequence[Path], kept: Sequence[NDArray[np.bool_]], part: int, parts: int
) -> Stretches:
    """Stretches of one range of keys whose key stands twice in documents that are kept.

    They are sorted by key, number of windows and signature, then in the order of the corpus; their
    keys are cut to 48 bits, which only lets more of them seem to stand twice.
    """
    first, end = ((1 << 32) * edge // parts for edge in (part, part + 1))
    keys = np.concatenate(
        [_rows(file, kept_N, first, end)[1] for file, kept_N in zip(files, kept, strict=True)]
    )
    keys.sort()
    twice = np.append(np.unique(keys[1:][keys[1:] == keys[:-1]]), ~np.uint64(0))
    found: list[NDArray[np.uint32]] = []
    shards: list[Ints] = []
    for shard, (file, kept_N) in enumerate(zip(files, kept, strict=True)):
        rows, keys = _rows(file, kept_N, first, end)
        found.append(rows[:, twice[np.searchsorted(twice, keys)] == keys])
        shards.append(np.full(found[-1].shape[1], shard))
    high_bits, low_bits, documents, firsts, signatures = np.concatenate(found, axis=1)
    order = np.lexsort((signatures, low_bits, high_bits))
    return Stretches(
        _keys(high_bits, low_bits),
        np.concatenate(shards) << 32 | documents,
        firsts.astype(np.int64),
        (low_bits & np.uint32(0xFFFF)).astype(np.int64),
        signatures,
    ).pick(order)


def _rows(
    file: Path, kept_N: NDArray[np.bool_], first: int, end: int
) -> tuple[NDArray[np.uint32], Uint64s]:
    """Stretches of a file, in a range of the high 32 bits of their keys; 48 bits of the keys."""
    rows = np.load(file, mmap_mode="r")
    # The type of the row, or numpy makes float64 of all of it.
    low = np.searchsorted(rows[0], np.uint32(first))
    high = np.searchsorted(rows[0], np.uint32(end - 1), side="right")
    rows = rows[:, low:high]
    rows = rows[:, kept_N[rows[2]]]
    return rows, _keys(rows[0], rows[1])


def _keys(high_bits: NDArray[np.uint32], low_bits: NDArray[np.uint32]) -> Uint64s:
    return high_bits.astype(np.uint64) << np.uint64(16) | low_bits >> np.uint32(16)


def _without_copies(
    stretches: Stretches, text_bytes: TextBytes, passage_bytes: int
) -> tuple[_Runs, Stretches]:
    """What whole copies of stretches cover, and the stretches that are none."""
    same_S = np.zeros(len(stretches.keys), dtype=bool)
    same_S[1:] = stretches.keys[1:] == stretches.keys[:-1]
    same_S[1:] &= stretches.counts[1:] == stretches.counts[:-1]
    same_S[1:] &= stretches.signatures[1:] == stretches.signatures[:-1]
    copies = np.flatnonzero(same_S)
    originals = np.flatnonzero(~same_S)
    originals = originals[np.searchsorted(originals, copies) - 1]
    ends = stretches.firsts + stretches.counts + passage_bytes - 1
    runs = _Runs(stretches.documents[copies], stretches.firsts[copies], ends[copies])
    equal = _equal(
        runs, stretches.documents[originals], stretches.firsts[originals] - runs.firsts, text_bytes
    )
    same_S[copies] = equal
    others = stretches.pick(~same_S)
    # Where one text is left of a key, no two windows in it are equal.
    alone = np.ones(len(others.keys), dtype=bool)
    differs = others.keys[1:] != others.keys[:-1]
    alone[1:] &= differs
    alone[:-1] &= differs
    return _Runs(*(column[equal] for column in runs)), others.pick(~alone)


def _batches(stretches: Stretches) -> Iterator[Stretches]:
    """Stretches of whole keys, together about `_BATCH` windows, each in the order of the corpus."""
    begun = np.cumsum(stretches.counts) - stretches.counts
    groups = np.flatnonzero(np.diff(stretches.keys, prepend=~stretches.keys[:1]))
    edges = groups[np.flatnonzero(np.diff(begun[groups] // _BATCH, prepend=-1))]
    for low, high in zip(edges, np.append(edges[1:], len(begun))):
        batch = stretches.pick(slice(low, high))
        yield batch.pick(np.lexsort((batch.firsts, batch.documents)))


def _repeats(batch: Stretches, text_bytes: TextBytes, passage_bytes: int, folder: Path) -> _Runs:
    """What the repeated windows of a batch cover."""
    for seed in range(1, SEEDS):
        found = _repeats_by_hash(batch, text_bytes, passage_bytes, folder, seed)
        if found is not None:
            return found
    raise AssertionError(f"{SEEDS} hashes of 64 bits each took two different windows for one")


def _repeats_by_hash(
    batch: Stretches, text_bytes: TextBytes, passage_bytes: int, folder: Path, seed: int
) -> _Runs | None:
    """The same, or None where the hash of this seed takes two different windows for one.

    The windows of a key that stands very often do not fit in memory: their hashes go to a file, and
    a share of them, chosen by the hash, is sorted at a time.
    """
    window_ends_S = np.cumsum(batch.counts)
    hashes_W = _held(
        _hashes(batch, text_bytes, passage_bytes, seed), int(window_ends_S[-1]), folder
    )
    shares = 1 << ((len(hashes_W) - 1) // _MOST).bit_length()
    found = _NONE
    for share in range(shares):
        windows = _chosen(hashes_W, share, shares)
        later, earlier = _pairs(hashes_W[windows])
        documents, firsts = _places(batch, window_ends_S, windows[later])
        others, shifts = _places(batch, window_ends_S, windows[earlier])
        shifts -= firsts
        # Windows that touch, and are equal to windows that lie to each other as they do, are
        # compared as one piece of text.
        apart = np.diff([documents, others, shifts], prepend=-1).any(axis=0)
        apart |= np.diff(firsts, prepend=0) > passage_bytes
        heads = np.flatnonzero(apart)
        tails = np.append(heads[1:], len(later))[: len(heads)] - 1
        runs = _Runs(documents[heads], firsts[heads], firsts[tails] + passage_bytes)
        if not _equal(runs, others[heads], shifts[heads], text_bytes).all():
            return None
        found = _united(_joined([found, runs]))
    return found


def _hashes(
    batch: Stretches, text_bytes: TextBytes, passage_bytes: int, seed: int
) -> Iterator[Uint64s]:
    """Hashes of the windows of all stretches, in order, some stretches at a time."""
    ends_S = batch.firsts + batch.counts + passage_bytes - 1
    apart_S = np.ones(len(ends_S), dtype=bool)
    apart_S[1:] = batch.documents[1:] != batch.documents[:-1]
    apart_S[1:] |= batch.firsts[1:] > ends_S[:-1]
    read = np.cumsum(ends_S - batch.firsts)
    edges = np.unique(np.searchsorted(read, np.arange(0, read[-1], _READ)))
    for low, high in zip(edges, np.append(edges[1:], len(read))):
        heads = np.append(low, np.flatnonzero(apart_S[low + 1 : high]) + low + 1)
        tails = np.append(heads[1:], high) - 1
        firsts, ends = batch.firsts[heads], ends_S[tails]
        pieces = [
            np.frombuffer(_text(text_bytes, document)[first:end], dtype=np.uint8)
            for document, first, end in zip(
                batch.documents[heads].tolist(), firsts.tolist(), ends.tolist()
            )
        ]
        hashes = window_hashes(np.concatenate(pieces), passage_bytes, seed)
        # From the place in a document to the place in the pieces put one behind the other.
        shifts = np.repeat(np.cumsum(ends - firsts) - ends, tails - heads + 1)
        counts = batch.counts[low:high]
        starts = batch.firsts[low:high] + shifts - (np.cumsum(counts) - counts)
        yield hashes[np.repeat(starts, counts) + np.arange(counts.sum())]


def _held(pieces: Iterator[Uint64s], size: int, folder: Path) -> Uint64s:
    """Hashes in memory, or where they are many in a file of this folder that has no name."""
    if size <= _MOST:
        return np.concatenate(list(pieces))
    with TemporaryFile(dir=folder) as file:
        for piece in pieces:
            file.write(piece.data)
        file.flush()
        return np.memmap(file, dtype=np.uint64, mode="r")


def _chosen(hashes_W: Uint64s, share: int, shares: int) -> Ints:
    """Windows that belong to one share of all hashes; the number of shares is a power of two."""
    pieces: list[Ints] = []
    for low in range(0, len(hashes_W), _MOST):
        shares_W = hashes_W[low : low + _MOST] >> np.uint64(32) & np.uint64(shares - 1)
        pieces.append(low + np.flatnonzero(shares_W == share))
    return np.concatenate(pieces)


def _pairs(hashes_W: Uint64s) -> tuple[Ints, Ints]:
    """Windows, ascending, before which an equal hash stands, and the nearest such window."""
    order = np.argsort(hashes_W, kind="stable")
    ordered = hashes_W[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    earlier_W = np.full(len(order), -1)
    earlier_W[order[same + 1]] = order[same]
    later = np.flatnonzero(earlier_W >= 0)
    return later, earlier_W[later]


def _places(batch: Stretches, window_ends_S: Ints, windows: Ints) -> tuple[Ints, Ints]:
    """Document and first byte of some windows, which are counted through the batch."""
    owners = np.searchsorted(window_ends_S, windows, side="right")
    counted = window_ends_S - batch.counts
    return batch.documents[owners], batch.firsts[owners] + windows - counted[owners]


def _equal(runs: _Runs, others: Ints, shifts: Ints, text_bytes: TextBytes) -> NDArray[np.bool_]:
    """[R] whether another document says the same, so many bytes further on."""
    columns_R5 = np.column_stack([*runs, others, shifts])
    equal_R = np.empty(len(columns_R5), dtype=bool)
    # As Python numbers they take ten times the memory: not all at once.
    for low in range(0, len(columns_R5), _COMPARED):
        some = columns_R5[low : low + _COMPARED].tolist()
        equal_R[low : low + len(some)] = [
            bytes(_text(text_bytes, document)[first:end])
            == bytes(_text(text_bytes, other)[first + shift : end + shift])
            for document, first, end, other, shift in some
        ]
    return equal_R


def _text(text_bytes: TextBytes, document: int) -> bytes | memoryview:
    return text_bytes(document >> 32, document & 0xFFFFFFFF)


def _joined(found: Sequence[_Runs]) -> _Runs:
    return _Runs(*(np.concatenate(column) for column in zip(*found)))


def _united(runs: _Runs) -> _Runs:
    """Runs in the order of the corpus; those that overlap or touch become one."""
    if not len(runs.firsts):
        return runs
    order = np.lexsort((runs.firsts, runs.documents))
    documents, firsts, ends = (column[order] for column in runs)
    # With its number in front, the furthest end of a document so far never falls.
    _, numbers = np.unique(documents, return_inverse=True)
    furthest = np.maximum.accumulate(numbers << 32 | ends)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (numbers[1:] << 32 | firsts[1:]) > furthest[:-1]
    heads = np.flatnonzero(new)
    last = np.append(heads[1:], len(order)) - 1
    return _Runs(documents[heads], firsts[heads], furthest[last] & 0xFFFFFFFF)


def _drawn_in(text: bytes | memoryview, first: int, end: int) -> tuple[int, int]:
    """A run without the parts of characters at its ends."""
    while text[first] & 0xC0 == 0x80:
        first += 1
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end -= 1
    return first, end
