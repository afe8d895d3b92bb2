"""Keys of the windows of a text, so that windows that are equal can be brought together.

A window is a fixed number of bytes in a row of one document; its key is the least hash of its
grams, as in winnowing (Schleimer, Wilkerson & Aiken 2003, "Winnowing: local algorithms for document
fingerprinting"). Equal windows have equal keys, wherever they stand; windows side by side mostly
share theirs, so it is enough to write down where the key changes.

Shapes: B bytes, G grams, W windows, N documents, S stretches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Uint64s = NDArray[np.uint64]
Uint32s = NDArray[np.uint32]
Ints = NDArray[np.int64]

LEAST_WINDOW, MOST_WINDOW = 16, 60_000
"""Bytes: a gram is at least one machine word, and windows of a stretch are counted in 16 bits."""
SEEDS = 64

_TILE = 1 << 16  # windows hashed at a time: a row of 64-bit hashes stays inside a core's cache
_WORD = 8  # bytes that are hashed as one number
# Random factors whose last bits are 11: products of differences from 1 keep most of their bits.
_FACTORS = np.random.default_rng(2022).integers(0, 1 << 62, (SEEDS, 2), dtype=np.uint64) * 4 + 3


class Stretches(NamedTuple):
    """[S] each: windows in a row of one document under one key.

    The signature is a hash of the first and the last window, which cover all of the text: a stretch
    has at most one window more than a window has bytes. Where two equal windows lie in one stretch,
    its key has an earlier stretch with other text, in which no two are equal.
    """

    keys: Uint64s
    documents: Ints
    firsts: Ints
    """First byte of the first window in its document."""
    counts: Ints
    signatures: Uint32s

    def pick(self, chosen: NDArray[np.bool_] | Ints | slice) -> "Stretches":
        return Stretches(
            self.keys[chosen],
            self.documents[chosen],
            self.firsts[chosen],
            self.counts[chosen],
            self.signatures[chosen],
        )


def gram_bytes(window: int) -> int:
    """Half a window, rounded down to a power of two.

    Longer grams are met by chance more rarely; shorter ones leave longer stretches.
    """
    return 1 << (window // 2).bit_length() - 1


def window_hashes(text_B: NDArray[np.uint8], length: int, seed: int) -> Uint64s:
    """[B - length + 1] hashes of all pieces of `length` bytes (at least a machine word)."""
    assert _WORD <= length <= len(text_B)
    joined = np.ascontiguousarray(text_B)
    size = len(joined) - _WORD + 1
    words = np.ndarray((size,), dtype="<u8", buffer=joined, strides=(1,))
    hashes = words * _FACTORS[seed, 0]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _FACTORS[seed, 1]
    return _lengthened(hashes, _WORD, length, seed)


def _lengthened(hashes: Uint64s, covered: int, length: int, seed: int) -> Uint64s:
    """Hashes of longer pieces, each of two that cover it."""
    while covered < length:
        step = min(covered, length - covered)
        # Another factor at each level, or the order of four parts would not count.
        longer = hashes[:-step] * (_FACTORS[seed, 0] + np.uint64(4 * covered))
        longer += hashes[step:]
        hashes = longer
        covered += step
    return hashes


def stretches_of(texts: Sequence[bytes | memoryview], window: int) -> Stretches:
    """The stretches of documents, in order."""
    assert LEAST_WINDOW <= window <= MOST_WINDOW
    assert all(len(text) < 1 << 32 for text in texts)
    text_B = np.frombuffer(b"".join(texts), dtype=np.uint8)
    lengths_N = np.array([len(text) for text in texts], dtype=np.int64)
    ends_N = np.cumsum(lengths_N)
    starts_N = ends_N - lengths_N
    long_N = lengths_N >= window
    borders = np.union1d(starts_N[long_N], ends_N[long_N] - window + 1)
    windows = len(text_B) - window + 1
    starts, keys, signatures = _starts(text_B, borders[borders < windows], window)
    documents = np.searchsorted(starts_N, starts, side="right") - 1
    # A border stands behind a document's last window: a stretch lies in one document or in none.
    whole = starts + window <= ends_N[documents]
    counts = np.diff(starts, append=windows)[whole]
    starts, documents = starts[whole], documents[whole]
    return Stretches(
        _spread(keys[whole]), documents, starts - starts_N[documents], counts, signatures[whole]
    )


def _spread(keys: Uint64s) -> Uint64s:
    """Least hashes are small; what is made of them here fills 64 bits evenly, one to one."""
    keys = keys * _FACTORS[0, 0]
    keys ^= keys >> np.uint64(32)
    return keys * _FACTORS[0, 1]


def _starts(text_B: NDArray[np.uint8], borders: Ints, window: int) -> tuple[Ints, Uint64s, Uint32s]:
    """[S] where stretches begin in the joined text, their keys and signatures."""
    windows = max(0, len(text_B) - window + 1)
    starts: list[Ints] = [np.zeros(0, dtype=np.int64)]
    keys: list[Uint64s] = [np.zeros(0, dtype=np.uint64)]
    heads: list[Uint64s] = [np.zeros(0, dtype=np.uint64)]
    tails: list[Uint64s] = [np.zeros(0, dtype=np.uint64)]
    before = _Last(key=np.uint64(0), gone=False, hash=np.uint64(0))
    for tile in range(0, windows, _TILE):
        size = min(_TILE, windows - tile)
        low, high = np.searchsorted(borders, (tile, tile + size))
        grams_G = window_hashes(text_B[tile : tile + size + window - 1], gram_bytes(window), 0)
        least_W = _least(grams_G, size)
        gone_W = grams_G[:size] == least_W
        found = _tile_starts(least_W, gone_W, borders[low:high] - tile, before, window)
        hashes_W = _lengthened(grams_G, gram_bytes(window), window, 0)
        starts.append(found + tile)
        keys.append(least_W[found])
        heads.append(hashes_W[found])
        tails.append(np.where(found > 0, hashes_W[found - 1], before.hash))
        before = _Last(least_W[-1], bool(gone_W[-1]), hashes_W[-1])
    # The window before a stretch is the last one of the stretch before.
    first = np.concatenate(heads)
    last = np.append(np.concatenate(tails)[1:], before.hash)[: len(first)]
    signatures = (first * _FACTORS[1, 0] + last * _FACTORS[1, 1]) >> np.uint64(32)
    return np.concatenate(starts), np.concatenate(keys), signatures.astype(np.uint32)


class _Last(NamedTuple):
    """Of the window before a tile: its key, whether its first gram has that key, its hash."""

    key: np.uint64
    gone: bool
    hash: np.uint64


def _tile_starts(
    least_W: Uint64s, gone_W: NDArray[np.bool_], borders: Ints, before: _Last, window: int
) -> Ints:
    """Where stretches begin among the windows of a tile."""
    new_W = np.empty(len(least_W), dtype=bool)
    new_W[0] = least_W[0] != before.key
    np.not_equal(least_W[1:], least_W[:-1], out=new_W[1:])
    new_W[borders] = True
    starts = np.flatnonzero(new_W)
    # A gram that has the key has left the window, and the key has stayed: it is that of a second
    # gram. Only then can a window equal an earlier one under this key, the second gram being to it
    # what the first is to the other: there a new stretch begins.
    again_W = ~new_W
    again_W[0] &= before.gone
    again_W[1:] &= gone_W[:-1]
    again = np.flatnonzero(again_W)
    if not len(again):
        return starts
    following, first = np.unique(np.searchsorted(starts, again), return_index=True)
    again = again[first]
    # In a run of one character every window is like that. Pieces one gram long, with what may stand
    # before them in the last tile, are not longer than a stretch may be.
    gram = gram_bytes(window)
    pieces = -(-(np.append(starts, len(least_W))[following] - again) // gram)
    skipped = np.repeat(np.cumsum(pieces) - pieces, pieces)
    cuts = np.repeat(again, pieces) + gram * (np.arange(len(skipped)) - skipped)
    return np.sort(np.concatenate([starts, cuts]))


def _least(hashes: Uint64s, size: int) -> Uint64s:
    """[size] the least of all hashes from one place to the same place from the end."""
    span = len(hashes) - size + 1
    covered = 1
    while covered < span:
        step = min(covered, span - covered)
        hashes = np.minimum(hashes[:-step], hashes[step:])
        covered += step
    return hashes
