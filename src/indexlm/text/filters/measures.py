"""What the rule filters measure of each document, for all documents of a block at once.

Nothing here takes words for what stands between spaces where a language has none: a unit is a Han,
kana or Hangul character or a word of letters, and a phrase begins at a unit.

Shapes: N documents, C characters, L lines, W words, U units, M passages, S slots of a table.
"""

import re
from collections.abc import Iterator
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from indexlm.text.block import (
    DIGIT,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    LETTER,
    MARK,
    NEWLINE,
    OTHER,
    SPACE,
    SYMBOL,
    Block,
)
from indexlm.text.words import ENGLISH, word_flags

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

HAN_GRAM, WORD_GRAM, CODE_GRAM = 6, 20, 40
"""Characters of a phrase whose return counts as a repetition, by what it begins with: about four
words of Chinese or of English, a line of code."""
MIN_GRAMS = 20
"""Fewer phrases say nothing of how repetitive a text is."""
LONG_RUN = 60
"""Letters and digits without a break: base64 is broken at 64 or 76, SHA-256 in hex has 64."""
SHORT_HAN_LINE, SHORT_LINE = 12, 30
"""Characters: 30 in FineWeb (Penedo et al. 2024); a Chinese line says as much in 12."""

_STOP_CHARACTERS = "的了是在和有我不这一之也者而以其为于曰人這為於個个他她你们們到说說就"
_BULLETS = "•‣◦▪▫■□●○◆◇★☆►▶▸➢✓✔※"
_DASHES = "-*+"
_LONG_RUN = re.compile(f"[0-9A-Za-z+/=]{{{LONG_RUN},}}")
_AT_ONCE = 65_536  # phrases whose hashes and table stay inside a core's own cache
# Not the base of the hashes, a multiple of which is a difference of one letter.
_SPREAD = 0xD6E8FEB86659FD93
_STOP_CHARACTER, _RUN, _HEX, _BULLET, _DASH, _BRACKET, _OPENING, _SUSPECT, _ACCENTED = (
    1 << bit for bit in range(9)
)
# Of broken text: see `heuristics`, which looks closer.
_SUSPECTS, _ACCENTS = "\ufffd鐨鍦鏄鈥銆锛鎴浠嶅锟烫屯", "ÃÂâïåæçèé"
_PRIVATE = (0xE000, 0xF900)
# What stands before a curly bracket in a program or a style sheet, and not in a formula.
_BEFORE_BRACKETS = " )=:;>,(\n"


class Measures:
    """An array by document for each measure, made when it is asked for. A share of none is 0."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.texts = [document.text for document in block.documents]
        self.languages_N = np.array([document.language for document in block.documents])
        self.chinese_N = self.languages_N == "zh"
        self.english_N = self.languages_N == "en"
        self.prose_N = self.languages_N != "code"

    @cached_property
    def visible_N(self) -> Counts:
        """Characters that are no white space."""
        counts_NK = self.block.counts_NK
        return self.block.lengths_N - counts_NK[:, [SPACE, NEWLINE, OTHER]].sum(axis=1)

    @cached_property
    def han_N(self) -> Counts:
        return self.block.counts_NK[:, HAN]

    @cached_property
    def suspect_N(self) -> Flags:
        """Whether a document holds what only broken text is likely to hold."""
        codes_C, last = self.block.codes_C, len(self.block.codes_C) - 1
        suspect_C = self._traits(_SUSPECT)
        # An accented letter is suspect before a character that no word goes on with.
        accents = np.flatnonzero(self._traits(_ACCENTED))
        nexts = codes_C[np.minimum(accents + 1, last)]
        odd = ((nexts > 0x7F) & (nexts < 0xC0)) | ((nexts > 0x2017) & (nexts < 0x20AD))
        suspect_C[accents[odd]] = True
        openings = np.flatnonzero(self._traits(_OPENING))
        suspect_C[openings[codes_C[np.maximum(openings, 1) - 1] == ord("~")]] = True
        return self.block.sums(suspect_C) > 0

    @cached_property
    def symbol_shares_N(self) -> Floats:
        """Of the visible characters, those that are no letters, digits or marks of prose, and the
        marks that only say again what stands before them: !!!!! or ......"""
        codes_C, again_C = self.block.codes_C, self.block.kinds_C == MARK
        again_C[1:] &= codes_C[1:] == codes_C[:-1]
        again_C[self.block.starts_N] = False
        # Chinese writes both the dash and the ellipsis as a pair.
        pairs_C = again_C & ((codes_C == ord("…")) | (codes_C == ord("—")))
        pairs_C[1:] &= ~again_C[:-1]
        symbols_N = self.block.counts_NK[:, SYMBOL] + self.block.sums(again_C & ~pairs_C)
        return _share(symbols_N, self.visible_N)

    @cached_property
    def digit_shares_N(self) -> Floats:
        return _share(self.block.counts_NK[:, DIGIT], self.visible_N)

    @cached_property
    def alphanumeric_shares_N(self) -> Floats:
        kinds = [LATIN, HAN, KANA, HANGUL, LETTER, DIGIT]
        return _share(self.block.counts_NK[:, kinds].sum(axis=1), self.visible_N)

    @cached_property
    def run_shares_N(self) -> Floats:
        """Of the visible characters, those in runs of LONG_RUN and more of base64 characters."""
        # A run that long fills a piece of half its length; only documents with one are searched.
        half = LONG_RUN // 2
        pieces = len(self.block.codes_C) // half
        full = self._traits(_RUN)[: pieces * half].reshape(pieces, half).all(axis=1)
        places = np.flatnonzero(full) * half
        runs_N = np.zeros(len(self.texts), dtype=np.int64)
        for index in np.unique(np.searchsorted(self.block.ends_N, places, side="right")).tolist():
            runs_N[index] = sum(map(len, _LONG_RUN.findall(self.texts[index])))
        return _share(runs_N, self.visible_N)

    @cached_property
    def hex_shares_N(self) -> Floats:
        """Of the letters and digits, those that hexadecimal numbers are written with; 0 where the
        digits are few, or so many that the numbers are decimal."""
        counts_NK = self.block.counts_NK
        digits_N, hex_N = counts_NK[:, DIGIT], self.block.sums(self._traits(_HEX))
        letters_N = counts_NK[:, LATIN] + digits_N + self.han_N
        mixed_N = (digits_N >= 0.2 * letters_N) & (hex_N - digits_N >= 0.2 * digits_N)
        return _share(hex_N, letters_N) * mixed_N

    @cached_property
    def bracket_shares_N(self) -> Floats:
        """Opening curly brackets where a program has them, of the visible characters."""
        opening_C = self.block.behind(self._traits(_BRACKET), self._traits(_OPENING))
        return _share(self.block.sums(opening_C), self.visible_N)

    @cached_property
    def link_marks_N(self) -> Counts:
        """Places where an address of the web begins, `:/` and `ww`, and some others."""
        codes_C = self.block.codes_C
        slash_C = self.block.behind(codes_C == ord(":"), codes_C == ord("/"))
        double_C = codes_C == ord("w")
        return self.block.sums(slash_C | self.block.behind(double_C, double_C))

    @cached_property
    def markup_marks_N(self) -> Counts:
        """Places where a tag or an entity may begin."""
        codes_C = self.block.codes_C
        return self.block.sums((codes_C == ord("<")) | (codes_C == ord("&")))

    @cached_property
    def tokens_N(self) -> Counts:
        """What stands between white space."""
        return self.block.sums(self._token_starts_C)

    @cached_property
    def lettered_shares_N(self) -> Floats:
        """Of what stands between white space, the share with a word of letters in it."""
        token_W = np.cumsum(self._token_starts_C, dtype=np.int32)[self.block.words_2W[0]]
        lettered = np.zeros(int(self.tokens_N.sum()) + 1, dtype=bool)
        lettered[token_W] = True
        return _share(_sums_of(lettered[1:], self.tokens_N), self.tokens_N)

    @cached_property
    def words_N(self) -> Counts:
        return self.block.sums(self._word_starts_C)

    @cached_property
    def stop_word_shares_N(self) -> Floats:
        """English function words, of all words."""
        return _share(self.block.sums(word_flags(self.block) & ENGLISH), self.words_N)

    @cached_property
    def stop_character_shares_N(self) -> Floats:
        """Chinese function characters of today's and the classical language, of the Han ones."""
        return _share(self.block.sums(self._traits(_STOP_CHARACTER)), self.han_N)

    @cached_property
    def lines_N(self) -> Counts:
        """Lines with something on them."""
        return self._of_lines(self._filled_L)

    @cached_property
    def bullet_shares_N(self) -> Floats:
        traits_L = self.block.line_values(self._traits_C, 0)
        bullet_L = (traits_L & _BULLET) != 0
        bullet_L |= ((traits_L & _DASH) != 0) & (
            self.block.line_values(self.block.codes_C, 1) == ord(" ")
        )
        return _share(self._of_lines(bullet_L & self._filled_L), self.lines_N)

    @cached_property
    def ellipsis_shares_N(self) -> Floats:
        ends_3L = [self.block.line_values(self.block.codes_C, -place) for place in (1, 2, 3)]
        dots_L = np.logical_and.reduce([ends_L == ord(".") for ends_L in ends_3L])
        dots_L |= ends_3L[0] == ord("…")
        return _share(self._of_lines(dots_L & self._filled_L), self.lines_N)

    @cached_property
    def ended_shares_N(self) -> Floats:
        """Lines that end in a mark of prose of any kind."""
        ended_L = self.block.line_values(self.block.kinds_C, -1) == MARK
        return _share(self._of_lines(ended_L & self._filled_L), self.lines_N)

    @cached_property
    def short_shares_N(self) -> Floats:
        """Lines shorter than SHORT_LINE."""
        limits_N = np.where(self.chinese_N, SHORT_HAN_LINE, SHORT_LINE)
        short_L = self._line_lengths_L < limits_N[self.block.line_owners_L]
        return _share(self._of_lines(short_L & self._filled_L), self.lines_N)

    @cached_property
    def mean_lines_N(self) -> Floats:
        """Characters of a line that is not empty."""
        return _share(self._of_lines(self._line_lengths_L), self.lines_N)

    def long_line_shares_N(self, longest: int) -> Floats:
        """Of the characters of lines, those in lines longer than that."""
        long_L = self._line_lengths_L * (self._line_lengths_L > longest)
        return _share(self._of_lines(long_L), self._of_lines(self._line_lengths_L))

    @cached_property
    def repeated_line_shares_N(self) -> Floats:
        """Of the characters of lines, those in lines that stood before; 0 of fewer than three."""
        lines_N = np.diff(self.block.first_lines_N, append=len(self.block.line_starts_L))
        hashes_L = self.block.hashes(self.block.line_firsts_L, self.block.line_ends_L)
        again_N = self._of_lines(self._line_lengths_L * ~_new(hashes_L, lines_N))
        return _share(again_N, self._of_lines(self._line_lengths_L)) * (self.lines_N >= 3)

    @cached_property
    def repeated_gram_shares_N(self) -> Floats:
        """Of the phrases of HAN_GRAM, WORD_GRAM or CODE_GRAM characters, those that came before.

        A phrase begins at each unit; the last ones are cut short by the document's end.
        """
        han_C = self._han_like_C
        units_C = han_C | self._word_starts_C
        starts_U, counts_N = np.flatnonzero(units_C), self.block.sums(units_C)
        new_N = np.zeros_like(counts_N)
        for part_N, part_U in _parts(counts_N):
            starts, counts = starts_U[part_U], counts_N[part_N]
            grams = np.where(han_C[starts], HAN_GRAM, WORD_GRAM)
            if not self.prose_N[part_N].all():
                grams[np.repeat(~self.prose_N[part_N], counts)] = CODE_GRAM
            ends = np.minimum(starts + grams, np.repeat(self.block.ends_N[part_N], counts))
            new_N[part_N] = _sums_of(_new(self.block.hashes(starts, ends), counts), counts)
        return _share(counts_N - new_N, counts_N) * (counts_N >= MIN_GRAMS)

    @cached_property
    def _word_starts_C(self) -> Flags:
        starts_C = np.zeros(len(self.block.codes_C), dtype=bool)
        starts_C[self.block.words_2W[0]] = True
        return starts_C

    @cached_property
    def _han_like_C(self) -> Flags:
        return (self.block.kinds_C >= HAN) & (self.block.kinds_C <= HANGUL)

    @cached_property
    def _token_starts_C(self) -> Flags:
        white_C = (self.block.kinds_C == SPACE) | (self.block.kinds_C == NEWLINE)
        starts_C = ~white_C
        starts_C[1:] &= white_C[:-1]
        starts_C[self.block.starts_N] = ~white_C[self.block.starts_N]
        return starts_C

    @cached_property
    def _line_lengths_L(self) -> Counts:
        return self.block.line_ends_L - self.block.line_firsts_L

    @cached_property
    def _filled_L(self) -> Flags:
        return self._line_lengths_L > 0

    def _of_lines(self, values_L: NDArray[np.generic]) -> Counts:
        return np.add.reduceat(values_L.astype(np.int64), self.block.first_lines_N)

    @cached_property
    def _traits_C(self) -> NDArray[np.uint16]:
        return np.take(_traits(), self.block.codes_C)

    def _traits(self, bit: int) -> Flags:
        return (self._traits_C & bit) != 0


def _share(parts_N: NDArray[np.generic], wholes_N: Counts) -> Floats:
    return np.asarray(parts_N / np.maximum(wholes_N, 1), dtype=np.float64)


def _sums_of(values_M: Flags, counts_N: Counts) -> Counts:
    """[N] sums of the values of each document, which has `counts_N` of them and may have none."""
    ends_N = np.cumsum(counts_N)
    sums = np.append(0, np.cumsum(values_M))
    return sums[ends_N] - sums[ends_N - counts_N]


def _parts(counts_N: Counts) -> Iterator[tuple[slice, slice]]:
    """Documents next to each other, and what they have: at most _AT_ONCE, or one document."""
    ends_N = np.cumsum(counts_N)
    first, start = 0, 0
    while first < len(counts_N):
        last = max(first + 1, int(np.searchsorted(ends_N, start + _AT_ONCE, side="right")))
        end = int(ends_N[last - 1])
        yield slice(first, last), slice(start, end)
        first, start = last, end


def _new(hashes_M: NDArray[np.uint64], counts_N: Counts) -> Flags:
    """[M] whether no other is the same, or, of the same ones in a document, exactly one."""
    salts_N = np.arange(len(counts_N), dtype=np.uint64) * np.uint64(_SPREAD)
    return _different(hashes_M + np.repeat(salts_N, counts_N))


def _different(keys_M: NDArray[np.uint64]) -> Flags:
    """[M] whether no other key is the same, or, of the same ones, exactly one.

    Each is written to a slot of a table. Those that stand there in the end are different; of the
    others those that are not the same as what stands in their slot, one in six, go to the next
    table. Sorting takes four times as long.
    """
    different_M = np.zeros(len(keys_M), dtype=bool)
    keys, rest = keys_M, np.arange(len(keys_M), dtype=np.int32)
    while len(rest):
        bits = len(rest).bit_length() + 1
        slots = (keys >> np.uint64(64 - bits)).astype(np.int64)
        places = np.arange(len(rest), dtype=np.int32)
        table_S = np.empty(1 << bits, dtype=np.int32)
        table_S[slots] = places
        there = table_S[slots]
        stays = there == places
        different_M[rest[stays]] = True
        others = np.flatnonzero(~stays)
        others = others[keys[there[others]] != keys[others]]
        rest, keys = rest[others], keys[others] * np.uint64(_SPREAD)
    return different_M


@cache
def _traits() -> NDArray[np.uint16]:
    """Bits of every code point."""
    traits = np.zeros(0x110000, dtype=np.uint16)
    digits, letters = "0123456789", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for characters, bit in (
        (_STOP_CHARACTERS, _STOP_CHARACTER),
        (digits + letters + "+/=", _RUN),
        (digits + "abcdefABCDEFxX", _HEX),
        (_BULLETS, _BULLET),
        (_DASHES, _DASH),
        (_BEFORE_BRACKETS, _BRACKET),
        ("{", _OPENING),
        (_SUSPECTS, _SUSPECT),
        (_ACCENTS, _ACCENTED),
    ):
        traits[[ord(character) for character in characters]] |= bit
    traits[slice(*_PRIVATE)] |= _SUSPECT
    return traits
