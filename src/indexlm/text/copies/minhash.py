"""MinHash signatures of documents, and the files that hold them.

Compared is the text without case and white space, as the set of its five-character shingles, so
that Chinese and English are treated alike. Documents whose sets are similar have a key of some
band in common with a known probability, and differ in few bits of their sketches.

Shapes: N documents of a block or a shard, C characters, K bins, B bands, W words of a sketch.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexlm.text.block import Block

Uint32s = NDArray[np.uint32]
Uint64s = NDArray[np.uint64]
Int64s = NDArray[np.int64]

SHINGLE = 5
BINS = 128
BANDS = 14
RECALL = 0.98
"""Share of the pairs right at the bound that shall meet in a band; more similar ones meet more
often. At a bound of 0.8 that makes 6 rows: pairs of similarity 0.7, 0.75, 0.8, 0.85, 0.9 meet with
probability 1 - (1 - s^6)^14 = 0.83, 0.94, 0.986, 0.9987, 0.99997; of 0.5 and 0.3, which nobody
wants, with 0.20 and 0.01."""
LEAST_JACCARD = 0.25
"""Below, bands of one row would find less than RECALL of the pairs at the bound."""
ROW = np.dtype([("marks", "<u4", BANDS), ("sketch", "<u8", BINS // 64)])
"""What is read of single documents: the low halves of their keys, and one bit of each bin."""

_DEVIATIONS = 4  # rejects 2 in 10,000 of the pairs at the bound, measured
_EMPTY = np.uint32(0xFFFFFFFF)
_FILLED = 1024  # documents at one time: half a megabyte of bins


class Signatures(NamedTuple):
    """Of some documents: 128-bit hashes of what they say, a key for each band, sketches."""

    contents_N2: Uint64s
    keys_NB: Uint64s
    sketches_NW: Uint64s


def rows_for(jaccard: float) -> int:
    """The most rows of a band with which pairs at the bound still meet often enough (RECALL)."""
    assert LEAST_JACCARD <= jaccard < 1, jaccard
    share = 1 - (1 - RECALL) ** (1 / BANDS)
    return min(int(math.log(share) / math.log(jaccard)), BINS // BANDS)


def most_unequal_bits(jaccard: float) -> float:
    """In how many bits the sketches of two documents of this similarity may differ.

    Bits of an unequal bin are equal half of the time; four standard deviations are allowed for.
    """
    share = (1 - jaccard) / 2
    return BINS * share + _DEVIATIONS * math.sqrt(BINS * share * (1 - share))


def signatures(block: Block, seed: int, jaccard: float) -> Signatures:
    """What the documents of a block are compared by; `seed` draws the hash functions.

    Bins as in one permutation hashing (Li, Owen and Zhang 2012, arXiv:1208.1259), empty ones filled
    as in optimal densification (Shrivastava 2017, arXiv:1703.04664), and of each bin one bit for a
    sketch (Li and König 2010, arXiv:0910.3349). The share of equal bins is an unbiased estimate of
    the similarity s. Its standard deviation at s = 0.8, measured, is 0.043 for documents of 9
    shingles, 0.040 for 36, 0.035 for 90 and 0.031 for 270, where classic MinHash with 128 hash
    functions has 0.035 at any length: a short document has fewer bins of its own.
    """
    codes_C, lengths_N = _compared(block.codes_C, block.lengths_N)
    minima_NK = _minima(codes_C, lengths_N, seed)
    rows = rows_for(jaccard)
    keys_NB = np.zeros((len(lengths_N), BANDS), dtype=np.uint64)
    for row in range(rows):
        keys_NB += minima_NK[:, row : rows * BANDS : rows]
        keys_NB *= np.uint64(0x9E3779B97F4A7C15)  # odd, of the golden ratio: carries into high bits
        keys_NB ^= keys_NB >> np.uint64(32)
    # By another factor in each bin: the bits of bins filled from one source stay independent.
    factors_K = _drawn(seed, "bits", BINS).astype(np.uint32) | np.uint32(1)
    bits_NK = (minima_NK * factors_K) >> np.uint32(31)
    sketches_NW = np.packbits(bits_NK.astype(np.uint8), axis=1).view("<u8")
    return Signatures(_contents(codes_C, lengths_N), keys_NB, sketches_NW)


def write_signatures(path: Path, blocks: Sequence[Signatures]) -> None:
    """One Arrow file for a shard, not compressed: the same bytes for the same documents.

    Hashes and the keys of each band are sorted, so that a range of values is a slice, with the
    indices of their documents; what single documents are asked for stands in their order. Takes
    260 bytes a document.
    """
    none = Signatures(*(np.empty((0, n), dtype=np.uint64) for n in (2, BANDS, BINS // 64)))
    contents_N2, keys_NB, sketches_NW = (np.concatenate(arrays) for arrays in zip(none, *blocks))
    rows_N = np.empty(len(keys_NB), dtype=ROW)
    rows_N["marks"] = keys_NB & np.uint64(0xFFFFFFFF)
    rows_N["sketch"] = sketches_NW
    buffers = [None, pa.py_buffer(rows_N.tobytes())]
    columns: dict[str, Any] = {
        "row": pa.FixedSizeBinaryArray.from_buffers(pa.binary(ROW.itemsize), len(rows_N), buffers)
    }
    order_N = np.lexsort((contents_N2[:, 1], contents_N2[:, 0]))
    columns["content"] = contents_N2[order_N, 0]
    columns["content_rest"] = contents_N2[order_N, 1]
    columns["content_index"] = order_N.astype(np.uint32)
    for band in range(BANDS):
        order_N = np.argsort(keys_NB[:, band], kind="stable")
        columns[f"band_{band}"] = keys_NB[order_N, band]
        columns[f"band_{band}_index"] = order_N.astype(np.uint32)
    batch = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


class SignatureFile:
    """What `write_signatures` wrote, memory-mapped; arrays are views of the file."""

    def __init__(self, path: Path) -> None:
        self._batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)

    def contents(self, part: int, parts: int) -> tuple[Uint32s, Uint64s, Uint64s]:
        """Of one of `parts` ranges of the hashes: documents, and both halves of their hashes."""
        at = self._range("content", part, parts)
        names = ("content_index", "content", "content_rest")
        index_M, head_M, rest_M = (self._column(name)[at] for name in names)
        return index_M, head_M, rest_M

    def band(self, band: int, part: int, parts: int) -> tuple[Uint32s, Uint64s]:
        """Of one of `parts` ranges of a band's keys: documents and keys."""
        at = self._range(f"band_{band}", part, parts)
        return self._column(f"band_{band}_index")[at], self._column(f"band_{band}")[at]

    def rows(self, index: Int64s) -> NDArray[np.void]:
        """ROWs of single documents (at least one)."""
        return np.frombuffer(self._batch.column("row").buffers()[1], dtype=ROW)[index]

    def _range(self, name: str, part: int, parts: int) -> slice:
        values = self._column(name)
        bounds = [(number << 64) // parts for number in (part, part + 1)]
        first, end = (
            int(np.searchsorted(values, np.uint64(bound))) if bound >> 64 == 0 else len(values)
            for bound in bounds
        )
        return slice(first, end)

    def _column(self, name: str) -> NDArray[Any]:
        return self._batch.column(name).to_numpy()


def shingle_sets(texts: Sequence[str]) -> Iterator[Uint64s]:
    """64-bit hashes of the shingles of each text, sorted, each once."""
    codes_C = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes_C, lengths_N = _compared(codes_C, np.array([len(text) for text in texts]))
    hashes = _shingles(codes_C, seed=0)
    ends = np.cumsum(lengths_N).tolist()
    for start, end in zip([0, *ends], ends):
        yield np.unique(hashes[start : end - SHINGLE + 1])


def _compared(codes_C: Uint32s, lengths_N: Int64s) -> tuple[Uint32s, Int64s]:
    """Characters that count, and how many of them each document has.

    A document with fewer than a shingle has is filled up to one with zeros: it is like another
    only when it is equal.
    """
    folded_C = np.take(_folding(), codes_C, mode="clip")
    counts_C = folded_C != 0
    starts_N = np.cumsum(lengths_N) - lengths_N
    lengths_N = np.add.reduceat(counts_C, starts_N, dtype=np.int64)
    codes_C = np.compress(counts_C, folded_C)
    missing_N = np.maximum(SHINGLE - lengths_N, 0)
    if missing_N.any():
        codes_C = np.insert(codes_C, np.repeat(np.cumsum(lengths_N), missing_N), 0)
    return codes_C, lengths_N + missing_N


@cache
def _folding() -> Uint32s:
    """Of every code point the simple case folding; 0 of white space."""
    folding = np.arange(0x110000, dtype=np.uint32)
    for code in range(0x20000):  # no character above has a case or is white space
        character = chr(code)
        folds = [fold for fold in (character.casefold(), character.lower()) if len(fold) == 1]
        folding[code] = 0 if character.isspace() else ord([*folds, character][0])
    return folding


def _contents(codes_C: Uint32s, lengths_N: Int64s) -> Uint64s:
    """[N, 2]: BLAKE2b of each document."""
    data = memoryview(codes_C.astype("<u4", copy=False).tobytes())
    ends = (np.cumsum(lengths_N) * codes_C.itemsize).tolist()
    digests = [
        hashlib.blake2b(data[start:end], digest_size=16).digest()
        for start, end in zip([0, *ends], ends)
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def _shingles(codes_C: Uint32s, seed: int) -> Uint64s:
    """[C - 4]: hashes of the five characters from each position on, across documents too.

    Multilinear hashing (Lemire and Kaser 2014, arXiv:1202.4961) of 42, 42 and 21 bits, then mixed
    so that all bits count.
    """
    first, second, third, last = _drawn(seed, "shingles", 4) | np.uint64(1)
    wide_C = codes_C.astype(np.uint64)
    couples = (wide_C[:-1] << np.uint64(21)) | wide_C[1:]
    hashes = couples[:-3] * first
    hashes += couples[2:-1] * second
    hashes += wide_C[4:] * third
    hashes ^= hashes >> np.uint64(32)
    hashes *= last
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _minima(codes_C: Uint32s, lengths_N: Int64s, seed: int) -> Uint32s:
    """[N, K]: the least hash in each bin of each document; an empty bin takes that of another."""
    hashes = _shingles(codes_C, seed)
    values = (hashes & np.uint64(0x7FFFFFFF)).astype(np.uint32)
    for back in range(1, SHINGLE):
        values[np.cumsum(lengths_N)[:-1] - back] = _EMPTY  # a shingle across two documents
    slots = (hashes >> np.uint64(65 - BINS.bit_length())).view(np.int64)
    slots += np.repeat(np.arange(len(lengths_N)) * BINS, lengths_N)[: len(slots)]
    minima = np.full(len(lengths_N) * BINS, _EMPTY)
    np.minimum.at(minima, slots, values)
    minima_NK = minima.reshape(-1, BINS)
    order_KK = _bin_order(seed)
    for start in range(0, len(minima_NK), _FILLED):
        _fill_bins(minima_NK[start : start + _FILLED].reshape(-1), order_KK)
    return minima_NK


def _fill_bins(minima: Uint32s, order_KK: Int64s) -> None:
    """Give each empty bin of some documents the hash of the first full one in its order."""
    own = minima.copy()
    places = np.flatnonzero(own == _EMPTY)
    for attempt in range(1, BINS):
        if not places.size:
            break
        bins = places % BINS
        taken = own[places - bins + order_KK[bins, attempt]]
        minima[places] = taken
        places = places[taken == _EMPTY]


@cache
def _bin_order(seed: int) -> Int64s:
    """[K, K]: for each bin the bins that may fill it, itself first, then all others at random."""
    drawn_KK = _drawn(seed, "bins", BINS * BINS).reshape(BINS, BINS).copy()
    np.fill_diagonal(drawn_KK, 0)
    return np.argsort(drawn_KK, axis=1, kind="stable")


def _drawn(seed: int, name: str, count: int) -> Uint64s:
    """Random numbers that do not depend on the version of a library."""
    return np.frombuffer(hashlib.shake_128(f"{name} {seed}".encode()).digest(8 * count), "<u8")
