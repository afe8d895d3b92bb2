"""Documents that say the same: exact copies by hash, near copies by MinHash.

Shingles are five characters long, spaces left out, so that Chinese and English are treated alike.
MinHash bands only propose pairs; a pair counts when the true Jaccard similarity of its two sets of
shingles reaches the bound, so two different documents are not taken for one by bad luck.

Shapes: N documents, G shingles of a batch of documents, P permutations.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from indexlm.records import Progress

SHINGLE = 5
BANDS, ROWS = 12, 5
"""A pair of similarity 0.8 shares a band with probability 1 - (1 - 0.8^5)^12 = 0.992; at 0.85,
0.9994; at 0.4, 0.12, which verification throws away."""
MARGIN = 0.2
"""A pair whose estimated similarity is lower than the bound by this is not verified. Over 60
permutations the standard deviation of the estimate is about 0.05 at 0.8."""
LARGE_BUCKET = 50
"""Of a bucket with more documents only neighbours and the first are compared: its documents are
alike enough that the chain holds."""
_BATCH = 200_000  # shingles at once: two rows of 64-bit hashes stay inside a core's cache

Uint64s = NDArray[np.uint64]


def key_text(text: str) -> str:
    """What counts when two documents are compared: no case, no white space."""
    return "".join(text.split()).casefold()


def exact_duplicates(texts: Iterable[str]) -> list[int]:
    """For each text the index of the first one that says the same (its own, for a first)."""
    first: dict[bytes, int] = {}
    return [
        first.setdefault(hashlib.blake2b(key_text(text).encode(), digest_size=16).digest(), index)
        for index, text in enumerate(texts)
    ]


def near_duplicates(texts: Sequence[str], jaccard: float, seed: int) -> list[int]:
    """For each text the index of the first text of its group (its own, for a first).

    Groups are the connected parts of the graph of pairs with a similarity of at least `jaccard`.
    """
    signatures_NP = _signatures(texts, seed)
    leader = list(range(len(texts)))
    shingles: dict[int, Uint64s] = {}
    for left, right in _candidates(signatures_NP):
        first, second = _find(leader, left), _find(leader, right)
        if first == second:
            continue
        estimate = float((signatures_NP[left] == signatures_NP[right]).mean())
        if estimate < jaccard - MARGIN:
            continue
        for index in (left, right):
            if index not in shingles:
                shingles[index] = np.unique(_shingles([texts[index]])[0])
        if _jaccard(shingles[left], shingles[right]) >= jaccard:
            leader[max(first, second)] = min(first, second)
    return [_find(leader, index) for index in range(len(texts))]


def _signatures(texts: Sequence[str], seed: int) -> NDArray[np.uint32]:
    """[N, P]: the least hash of each document's shingles under each permutation."""
    generator = np.random.default_rng(seed)
    permutations = BANDS * ROWS
    factors_P = generator.integers(0, 1 << 63, permutations, dtype=np.uint64) * 2 + 1
    offsets_P = generator.integers(0, 1 << 63, permutations, dtype=np.uint64)
    signatures_NP = np.empty((len(texts), permutations), dtype=np.uint32)
    progress = Progress("near duplicates", len(texts))
    done = 0
    for batch in _batches(texts):
        hashes_G, starts = _shingles(batch)
        for column, (factor, offset) in enumerate(zip(factors_P, offsets_P)):
            permuted_G = hashes_G * factor
            permuted_G += offset
            permuted_G >>= np.uint64(32)
            least = np.minimum.reduceat(permuted_G, starts)
            signatures_NP[done : done + len(batch), column] = least
        done += len(batch)
        progress.advance(len(batch))
    progress.close()
    return signatures_NP


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shingles(texts: Sequence[str]) -> tuple[Uint64s, NDArray[np.int64]]:
    """[G] hashes of all shingles, document after document, and where each document begins.

    A text shorter than a shingle is padded to one: two such are near only when they are equal.
    """
    keys = [key_text(text).ljust(SHINGLE, "\0") for text in texts]
    lengths = np.array([len(key) for key in keys])
    codes = np.frombuffer("".join(keys).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    count = len(codes) - SHINGLE + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for position in range(SHINGLE):
        # Odd constant of the golden ratio: a multiplicative hash that carries into high bits.
        hashes = (hashes + codes[position : position + count]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    ends = np.cumsum(lengths)
    whole = np.ones(len(codes), dtype=bool)
    for back in range(1, SHINGLE):
        whole[ends - back] = False
    starts = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)[:-1]])
    return hashes[whole[:count]], starts


def _candidates(signatures_NP: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Pairs that agree in all rows of some band, smaller index first."""
    for band in range(BANDS):
        rows = signatures_NP[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        keys = np.zeros(len(rows), dtype=np.uint64)
        for row in range(ROWS):
            keys = (keys + rows[:, row]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(31)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        borders = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        for start, end in zip(np.r_[0, borders], np.r_[borders, len(order)]):
            if end - start > 1:
                yield from _pairs(order[start:end].tolist())


def _pairs(bucket: list[int]) -> Iterator[tuple[int, int]]:
    if len(bucket) <= LARGE_BUCKET:
        yield from combinations(bucket, 2)
        return
    for before, index in pairwise(bucket):
        yield before, index
        if before != bucket[0]:
            yield bucket[0], index


def _jaccard(left: Uint64s, right: Uint64s) -> float:
    """Similarity of two sorted sets of hashes."""
    union = np.union1d(left, right).size
    return (left.size + right.size - union) / union


def _find(leader: list[int], index: int) -> int:
    """The leader of a group; the path to it is halved on the way."""
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = leader[index]
    return index
