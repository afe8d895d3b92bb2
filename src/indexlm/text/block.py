"""Some documents whose characters lie in one array, so that a step looks at all of them at once.

Shapes: N documents, C characters, L lines, W words, M passages, K kinds of characters.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexlm.text.document import Document

Scalar = TypeVar("Scalar", bound=np.generic)

BLOCK_CHARS = 400_000
"""Characters of a block: its arrays of 64-bit hashes stay inside the caches of a core."""

OTHER, LATIN, HAN, KANA, HANGUL, LETTER, DIGIT, SPACE, NEWLINE, MARK, SYMBOL = range(11)
"""Kinds of characters. LETTER is of any other script; MARK is what ordinary prose is punctuated
with in either language; SYMBOL is any other visible character; OTHER is what is not visible."""
KINDS = 11

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)

_MARKS = frozenset(",.;:?!'\"()-–—…，。．、；：？！“”‘’（）《》〈〉〔〕「」『』【】·～")
_HAN = ((0x3007, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x40000))
_KANA = ((0x3041, 0x3097), (0x30A1, 0x30FB), (0x31F0, 0x3200), (0xFF66, 0xFF9E))
_HANGUL = ((0x1100, 0x1200), (0x3130, 0x3190), (0xAC00, 0xD7A4))
_LATIN = ((0x41, 0x5B), (0x61, 0x7B), (0xC0, 0x250), (0x1E00, 0x1F00))


class Block:
    """Documents, none of them empty, and their characters."""

    def __init__(self, documents: Sequence[Document]) -> None:
        assert all(document.text for document in documents)
        self.documents = documents

    @cached_property
    def codes_C(self) -> NDArray[np.uint32]:
        text = "".join(document.text for document in self.documents)
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)

    @cached_property
    def ends_N(self) -> NDArray[np.int64]:
        """Where each document ends; it begins where the one before ends."""
        return np.cumsum([len(document.text) for document in self.documents], dtype=np.int64)

    @cached_property
    def starts_N(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self.ends_N[:-1]])

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        return self.ends_N - self.starts_N

    @cached_property
    def kinds_C(self) -> NDArray[np.uint8]:
        return np.take(_kinds(), self.codes_C)

    @cached_property
    def counts_NK(self) -> NDArray[np.int64]:
        """Characters of each kind in each document."""
        return np.stack([self.sums(self.kinds_C == kind) for kind in range(KINDS)], axis=1)

    @cached_property
    def line_starts_L(self) -> NDArray[np.int64]:
        """Where lines begin: at each document's start and behind each newline inside it."""
        begins_C = np.empty(len(self.codes_C), dtype=bool)
        begins_C[1:] = self.kinds_C[:-1] == NEWLINE
        begins_C[self.starts_N] = True
        return np.flatnonzero(begins_C)

    @cached_property
    def line_ends_L(self) -> NDArray[np.int64]:
        """Where lines end, their newline left out."""
        nexts_L = np.append(self.line_starts_L[1:], len(self.codes_C))
        return nexts_L - (self.kinds_C[nexts_L - 1] == NEWLINE)

    @cached_property
    def line_firsts_L(self) -> NDArray[np.int64]:
        """The first character of each line that is no space; the line's end where none is."""
        firsts_L = self.line_starts_L.copy()
        space_C = self.kinds_C == SPACE
        spaced_L = np.flatnonzero(space_C[firsts_L])
        ends = np.append(np.flatnonzero(space_C[:-1] > space_C[1:]) + 1, len(space_C))
        firsts_L[spaced_L] = ends[np.searchsorted(ends, firsts_L[spaced_L], side="right")]
        return np.minimum(firsts_L, self.line_ends_L)

    @cached_property
    def first_lines_N(self) -> NDArray[np.int64]:
        """The number of each document's first line."""
        return np.searchsorted(self.line_starts_L, self.starts_N)

    @cached_property
    def line_owners_L(self) -> NDArray[np.int64]:
        lines_N = np.diff(self.first_lines_N, append=len(self.line_starts_L))
        return np.repeat(np.arange(len(self.documents)), lines_N)

    @cached_property
    def words_2W(self) -> NDArray[np.int64]:
        """Where words of letters begin and end. Han, kana and Hangul, which are written without
        spaces or count by the syllable, stand in none."""
        return self.runs((self.kinds_C == LATIN) | (self.kinds_C == LETTER))

    def runs(self, values_C: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[2, M] where runs of true characters begin and end, within documents."""
        borders = np.empty(len(values_C) + 1, dtype=bool)
        borders[0], borders[-1] = values_C[0], values_C[-1]
        np.not_equal(values_C[1:], values_C[:-1], out=borders[1:-1])
        places = np.flatnonzero(borders)
        inner_N = self.starts_N[1:]
        cuts = np.repeat(inner_N[values_C[inner_N] & values_C[inner_N - 1]], 2)
        places = np.insert(places, np.searchsorted(places, cuts), cuts)
        return np.stack([places[::2], places[1::2]])

    def behind(self, first_C: NDArray[np.bool_], second_C: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where a character of the second kind stands right behind one of the first."""
        pairs_C = second_C.copy()
        pairs_C[1:] &= first_C[:-1]
        pairs_C[self.starts_N] = False
        return pairs_C

    def line_values(self, values_C: NDArray[Scalar], offset: int) -> NDArray[Scalar]:
        """[L] the value so far behind the first visible character of each line, or, below 0, so far
        before its end; 0 where the line is shorter than that."""
        border_L = self.line_firsts_L if offset >= 0 else self.line_ends_L
        places_L = border_L + offset
        values_L = values_C[np.clip(places_L, 0, len(values_C) - 1)]
        values_L[(places_L < self.line_firsts_L) | (places_L >= self.line_ends_L)] = 0
        return values_L

    def sums(self, values_C: NDArray[np.generic]) -> NDArray[np.int64]:
        """[N] sums of a value of each character."""
        return _sums(values_C, self.starts_N)

    def line_sums(self, values_C: NDArray[np.generic]) -> NDArray[np.int64]:
        """[L] sums of a value of each character."""
        return _sums(values_C, self.line_starts_L)

    def hashes(self, starts_M: NDArray[np.int64], ends_M: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Hashes of passages, alike wherever a passage stands; A to Z hash like a to z.

        The hash of c_1 ... c_n is the sum of c_i B^i modulo 2^64 (Karp and Rabin 1987), a
        difference of two entries of one cumulative sum, so that a passage of any length costs
        the same. It tells text apart, not what somebody made to collide.
        """
        return (self._prefixes[ends_M] - self._prefixes[starts_M]) * _powers(
            _INVERSE, len(self.codes_C)
        )[starts_M]

    @cached_property
    def _prefixes(self) -> NDArray[np.uint64]:
        """[C+1] sums of code times B^(place+1) over all characters before."""
        count = len(self.codes_C)
        prefixes = np.zeros(count + 1, dtype=np.uint64)
        terms_C = prefixes[1:]  # in place: new memory costs more than the arithmetic
        np.take(_folded(), self.codes_C, out=terms_C, mode="clip")
        terms_C *= _powers(_BASE, count)[1 : count + 1]
        np.cumsum(terms_C, out=terms_C)
        return prefixes


def blocks(documents: Iterable[Document]) -> Iterator[Block]:
    """Documents in order, gathered to blocks."""
    gathered: list[Document] = []
    size = 0
    for document in documents:
        gathered.append(document)
        size += len(document.text)
        if size >= BLOCK_CHARS:
            yield Block(gathered)
            gathered, size = [], 0
    if gathered:
        yield Block(gathered)


def _sums(values_C: NDArray[np.generic], starts_M: NDArray[np.int64]) -> NDArray[np.int64]:
    # A kind of character that a block has none of is common, and cheap to see.
    if not values_C.any():
        return np.zeros(len(starts_M), dtype=np.int64)
    # Flags are summed in 32 bits, which is twice as quick and holds 2^31 characters.
    wide = np.int32 if values_C.dtype.itemsize == 1 else np.int64
    return np.add.reduceat(values_C, starts_M, dtype=wide).astype(np.int64)


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """At least `count + 1` powers of a base modulo 2^64, from the zeroth on."""
    return _first_powers(base, 1 << max(count, BLOCK_CHARS).bit_length())


@lru_cache(maxsize=4)
def _first_powers(base: int, count: int) -> NDArray[np.uint64]:
    powers = np.full(count + 1, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


@cache
def _folded() -> NDArray[np.uint64]:
    """Of every code point what it counts in a hash: itself, or its small letter."""
    folded = np.arange(0x110000, dtype=np.uint64)
    folded[ord("A") : ord("Z") + 1] += np.uint64(32)
    return folded


@cache
def _kinds() -> NDArray[np.uint8]:
    """Of every code point."""
    kinds = np.full(0x110000, OTHER, dtype=np.uint8)
    by_category = {"L": LETTER, "M": LETTER, "N": DIGIT, "Z": SPACE, "P": SYMBOL, "S": SYMBOL}
    for code in range(0x20000):
        kinds[code] = by_category.get(unicodedata.category(chr(code))[0], OTHER)
    for kind, ranges in ((HAN, _HAN), (KANA, _KANA), (HANGUL, _HANGUL), (LATIN, _LATIN)):
        for first, end in ranges:
            kinds[first:end] = kind
    kinds[[0xD7, 0xF7]] = SYMBOL
    kinds[[ord(mark) for mark in _MARKS]] = MARK
    kinds[ord("\t")] = SPACE
    kinds[ord("\n")] = NEWLINE
    return kinds
