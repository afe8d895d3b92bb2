"""Which language a document and its lines are in, and which script a Chinese one uses.

Nothing here is trained. Chinese is told by its characters. English is told from other languages in
Latin script by function words, which make up 30 to 50 % of its prose and hardly any of theirs. Code
is told from prose line by line, by points for what its lines have and prose has not; a document is
code where most of its text is, so that a technical book with listings stays prose. The script is
told by the characters that only one of two national standards has: GB 2312 those of the mainland,
Big5 those of Taiwan and Hong Kong.

Text is expected to be normalised. Shapes: N documents, C characters, L lines, W words.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from indexlm.text.block import DIGIT, HAN, HANGUL, KANA, LATIN, LETTER, SPACE, Block
from indexlm.text.words import CODE_WORD, ENGLISH, FOREIGN, KEYWORD, word_flags

NONE, ZH, EN, CODE, OTHER = range(5)
NAMES = ("", "zh", "en", "code", "other")
"""Languages by number. A line without letters has none."""

MIN_CODE_SHARE = 0.5
"""Share of the visible characters outside Markdown fences and comments."""
MIN_CODE_LINES = 2
"""A single line is code where it is long: JSON and minified scripts."""
LONG_CODE_LINE = 80
MAX_KANA_SHARE = 0.3
"""Of Han and kana together. Japanese prose has half of its characters in kana."""
MAX_ACCENT_SHARE = 0.03
"""Of Latin letters. English loan words give 0.001; French 0.04, pinyin with tones 0.2."""
MIN_ENGLISH_SHARE = 0.04
"""Function words among the words of a text; running English has 0.3 to 0.5."""
FEW_WORDS = 5
"""Words from which one sign of another language is enough, where none speaks for English."""
CERTAIN_WORDS = 50
"""Words from which too few English function words alone make a text another language."""
MIN_SCRIPT_SHARE = 0.7
"""Of the characters that tell the scripts apart."""

# Bits of a character.
_SYMBOL, _QUOTE, _JOINT, _SIMPLIFIED, _TRADITIONAL = (1 << bit for bit in range(5))

_CODE_SYMBOLS = "{}=<>;_[]|&$#@^~`\\*+/"
_JOINTS = ":,={}[]()"
_COMMENTS = ("#", "*", "|", "//", "/*", "--", "<!", '""', "''")
# What a line of code is worth. Logistic regression on lines of 12 languages of code and of prose
# gave the order; rounded, and lowered where it took layout for code (an indented line came to 3.1).
_SYMBOL_POINTS, _CALL_POINTS, _CAMEL_POINTS, _QUOTE_POINTS = 2, 1, 1, 2
_INDENT_POINTS, _FIRST_POINTS, _LOWER_POINTS, _KEYWORD_POINTS, _CODE_WORD_POINTS = 2, 2, 1, 2, 3
_END_POINTS = {**dict.fromkeys(";{}", 3), **dict.fromkeys("()[],>", 1), **dict.fromkeys(".?!", -2)}
_FUNCTION_POINTS, _PROSE_POINTS, _SCRIPT_POINTS, _LONG_POINTS = -3, -2, -4, -1
_LONG_LINE = 70
_MIN_POINTS = 3

Flags = NDArray[np.uint8]
Counts = NDArray[np.int64]
HAN_SHARE = 0.3
"""Share of Han characters among the letters from which a text is Chinese."""
HAN_CHARACTER = re.compile(r"[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LETTER = re.compile(r"[^\W\d_]")


def detect_language(text: str) -> str:
    """`zh` or `en` by script, of a question or an answer; without letters it counts as English."""
    letters = len(_LETTER.findall(text))
    return "zh" if len(HAN_CHARACTER.findall(text)) > HAN_SHARE * max(letters, 1) else "en"


def label(block: Block) -> tuple[list[str], list[str]]:
    """[N] the language of each document, zh, en, code or other, and its script.

    The script of a Chinese document is `simplified`, `traditional`, or empty where its characters
    do not tell; of any other it is empty. Text without letters counts as English.
    """
    lines = _lines(block)
    prose_L = ~(lines.code_L | lines.fenced_L)
    prose = lines.counts.of(prose_L, block.first_lines_N)
    # A document that is nothing but code, yet too little to call it that, is judged by that.
    whole = lines.counts.of(np.ones_like(prose_L), block.first_lines_N)
    languages_N = np.where(prose.units() > 0, prose.languages(), whole.languages())
    languages_N[_code_documents(block, lines)] = CODE
    languages_N[languages_N == NONE] = EN
    scripts_N = np.where(languages_N == ZH, _scripts(block, lines.traits_C), 0)
    names = ("", "simplified", "traditional")
    return [NAMES[i] for i in languages_N.tolist()], [names[i] for i in scripts_N.tolist()]


def _scripts(block: Block, traits_C: Flags) -> NDArray[np.int64]:
    """[N] 1 for simplified, 2 for traditional, 0 where it cannot be told."""
    simplified_N = block.sums((traits_C & _SIMPLIFIED) != 0)
    traditional_N = block.sums((traits_C & _TRADITIONAL) != 0)
    needed_N = MIN_SCRIPT_SHARE * np.maximum(simplified_N + traditional_N, 1)
    return 1 * (simplified_N >= needed_N) + 2 * (traditional_N >= needed_N)


def line_languages(block: Block) -> Flags:
    """[L] the language of each line, a number of NAMES.

    A line in Latin script is English unless its words speak against it: a title has no function
    word to show.
    """
    lines = _lines(block)
    languages_L = lines.counts.languages()
    languages_L[(lines.code_L | lines.fenced_L) & (lines.visible_L > 0)] = CODE
    return languages_L


def rough_languages(block: Block) -> Flags:
    """[N] the language of each document, a number of NAMES, with code taken for what words it has.

    It costs about half of `label` and differs from it where much of a document is code.
    """
    return _count(block, lambda kind: block.counts_NK[:, kind], block.sums).languages()


@dataclass(frozen=True)
class _Counts:
    """What speaks for a language, by line or by document."""

    han: Counts
    kana: Counts
    hangul: Counts
    words: Counts
    """Latin ones of two letters and more."""
    foreign_words: Counts
    """Words in any other script."""
    english: Counts
    foreign: Counts
    """Function words."""
    latin: Counts
    accented: Counts
    """Letters."""

    def of(self, chosen_L: NDArray[np.bool_], first_lines_N: Counts) -> "_Counts":
        """Sums over the chosen lines of each document."""
        sums = {
            name: np.add.reduceat(counts * chosen_L, first_lines_N)
            for name, counts in vars(self).items()
        }
        return _Counts(**sums)

    def units(self) -> Counts:
        """Han, kana and Hangul characters and words of other scripts: a Chinese word with its
        reading in Latin letters behind it is still Chinese."""
        return self.han + self.kana + self.hangul + self.words + self.foreign_words

    def languages(self) -> Flags:
        """The language with most units. Of Latin script and Han in equal parts it is Chinese, which
        names foreign things in Latin letters; Japanese is written with Han too."""
        japanese = self.kana > MAX_KANA_SHARE * (self.han + self.kana)
        foreign = self.kana + self.hangul + self.foreign_words + self.han * japanese
        languages = np.where(self._is_english(), EN, OTHER).astype(np.uint8)
        languages[(self.han >= self.words) & (self.han > foreign)] = ZH
        languages[foreign > np.maximum(self.words, self.han * ~japanese)] = OTHER
        languages[self.units() == 0] = NONE
        return languages

    def _is_english(self) -> NDArray[np.bool_]:
        few = self.english < MIN_ENGLISH_SHARE * self.words
        alone = (self.english == 0) & (self.words >= FEW_WORDS)
        outnumbered = (self.foreign > self.english) & ((self.foreign >= 2) | alone)
        accented = (self.accented > MAX_ACCENT_SHARE * self.latin) & (
            self.english < 3 * MIN_ENGLISH_SHARE * self.words
        )
        return ~(
            outnumbered
            | (few & (self.words >= CERTAIN_WORDS))
            | (accented & (self.words >= FEW_WORDS))
        )


@dataclass(frozen=True)
class _Lines:
    traits_C: Flags
    counts: _Counts
    visible_L: Counts
    code_L: NDArray[np.bool_]
    aside_L: NDArray[np.bool_]
    """What both code and prose may hold: comments (which begin like headings, items of lists and
    rows of tables), doc strings, displayed formulas."""
    fenced_L: NDArray[np.bool_]
    """Between two Markdown fences, or one of them."""


def _count(
    block: Block, kind: Callable[[int], Counts], sums: Callable[[NDArray[np.generic]], Counts]
) -> _Counts:
    """`kind` gives the characters of a kind, `sums` the sums of a value of each character."""
    flags_C, latin_C = word_flags(block), block.kinds_C == LATIN
    starts_W, ends_W = block.words_2W
    # The letters and commands of formulas are no words of a language.
    command_C = block.behind(block.codes_C == ord("\\"), latin_C)
    words_W = (ends_W - starts_W > 1) & ~command_C[starts_W]
    begins_C = np.zeros(len(latin_C), dtype=np.uint8)
    begins_C[starts_W] = np.where(latin_C[starts_W], words_W, 2)
    return _Counts(
        han=kind(HAN),
        kana=kind(KANA),
        hangul=kind(HANGUL),
        words=sums(begins_C == 1),
        foreign_words=sums(begins_C == 2),
        english=sums(flags_C & ENGLISH),
        foreign=sums((flags_C & FOREIGN) != 0),
        latin=kind(LATIN),
        accented=sums(latin_C & (block.codes_C > 0x7F)),
    )


@lru_cache(maxsize=1)
def _lines(block: Block) -> _Lines:
    traits_C, flags_C = np.take(_traits(), block.codes_C), word_flags(block)
    counts = _count(block, lambda kind: block.line_sums(block.kinds_C == kind), block.line_sums)
    lengths_L = block.line_ends_L - block.line_starts_L
    visible_L = lengths_L - block.line_sums(block.kinds_C == SPACE)
    edges = _Edges(block)
    points_L = _points(block, counts, traits_C, flags_C, edges)
    directive_L = edges.begin("#") & ((block.line_values(flags_C, 1) & KEYWORD) != 0)
    aside_L = edges.comment() & ~directive_L
    for opening, closing in (("/*", "*/"), ('"""', '"""'), ("$$", "$$")):
        aside_L |= edges.between(opening, closing)
    return _Lines(
        traits_C=traits_C,
        counts=counts,
        visible_L=visible_L,
        code_L=(points_L >= _MIN_POINTS) & ~aside_L & (visible_L > 0),
        aside_L=aside_L,
        fenced_L=edges.between("```", "```"),
    )


def _code_documents(block: Block, lines: _Lines) -> NDArray[np.bool_]:
    def characters(chosen_L: NDArray[np.bool_]) -> Counts:
        return np.add.reduceat(lines.visible_L * chosen_L, block.first_lines_N)

    judged_L = ~(lines.aside_L | lines.fenced_L)
    code_L = lines.code_L & judged_L
    code_N = characters(code_L)
    lines_N = np.add.reduceat(code_L.astype(np.int64), block.first_lines_N)
    enough_N = (lines_N >= MIN_CODE_LINES) | (code_N >= LONG_CODE_LINE)
    # A listing has nothing outside of its fences.
    listing_N = characters(~lines.fenced_L) == 0
    return ((code_N > MIN_CODE_SHARE * characters(judged_L)) & enough_N) | listing_N


def _points(
    block: Block, counts: _Counts, traits_C: Flags, flags_C: Flags, edges: "_Edges"
) -> NDArray[np.int64]:
    codes_C, kinds_C = block.codes_C, block.kinds_C
    latin_C = kinds_C == LATIN
    symbol_C = (traits_C & _SYMBOL) != 0
    named_C = latin_C | (kinds_C == DIGIT) | (codes_C == ord("_"))
    call_C = block.behind(named_C, codes_C == ord("("))
    low_C = latin_C & (codes_C >= ord("a"))
    capital_C = latin_C & ~low_C
    camel_C = block.behind(low_C, capital_C)
    quote_C, joint_C = (traits_C & _QUOTE) != 0, (traits_C & _JOINT) != 0
    quoted_C = block.behind(quote_C, joint_C) | block.behind(joint_C, quote_C)
    prose_C = (flags_C & (ENGLISH | KEYWORD)) == ENGLISH
    prose_L = block.line_sums(prose_C)
    visible_L = block.line_ends_L - block.line_firsts_L
    # Letters that no programming language uses; they stand in its strings.
    other_L = counts.han + counts.kana + counts.hangul + block.line_sums(kinds_C == LETTER)
    # The first word, or the one behind the mark that the line begins with.
    word_L = block.line_values(flags_C, 0) | block.line_values(flags_C, 1)
    sentence_L = block.line_values(capital_C, 0) & block.line_values(low_C, 1)
    points_L = np.take(_end_points(), edges.codes_L[-1]).astype(np.int64)
    for worth, true_L in (
        (_SYMBOL_POINTS, block.line_sums(symbol_C) > 0),
        (_CALL_POINTS, block.line_sums(call_C) > 0),
        (_CAMEL_POINTS, block.line_sums(camel_C) > 0),
        (_QUOTE_POINTS, block.line_sums(quoted_C) > 0),
        (_INDENT_POINTS, block.line_firsts_L - block.line_starts_L >= 2),
        (_INDENT_POINTS, codes_C[block.line_starts_L] == ord("\t")),
        (_KEYWORD_POINTS, (word_L & KEYWORD) != 0),
        (_CODE_WORD_POINTS - _KEYWORD_POINTS, (word_L & CODE_WORD) != 0),
        (_LOWER_POINTS, block.line_values(latin_C, 0) & ~sentence_L),
        (_FIRST_POINTS, np.logical_or.reduce([edges.begin(mark) for mark in "<}])@"])),
        (_FUNCTION_POINTS, prose_L > 0),
        (_PROSE_POINTS, prose_L > 0.2 * counts.words),
        (_SCRIPT_POINTS, other_L > 0.1 * visible_L),
        (2 * _SCRIPT_POINTS, other_L > 0.5 * visible_L),
        (_LONG_POINTS, visible_L > _LONG_LINE),
    ):
        points_L += worth * true_L
    return points_L


class _Edges:
    """What lines begin and end with, behind the blanks before them."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.codes_L = {at: block.line_values(block.codes_C, at) for at in range(-3, 3)}

    def begin(self, mark: str) -> NDArray[np.bool_]:
        return np.logical_and.reduce([self.codes_L[at] == ord(mark[at]) for at in range(len(mark))])

    def end(self, mark: str) -> NDArray[np.bool_]:
        places = range(-len(mark), 0)
        return np.logical_and.reduce([self.codes_L[at] == ord(mark[at]) for at in places])

    def comment(self) -> NDArray[np.bool_]:
        return np.logical_or.reduce([self.begin(mark) for mark in _COMMENTS])

    def between(self, opening: str, closing: str) -> NDArray[np.bool_]:
        """Lines from one that opens to one that closes; none where one is left open."""
        block, opens_L = self.block, self.begin(opening)
        alone_L = (block.line_ends_L - block.line_firsts_L == len(opening)) & (opening == closing)
        borders_L = (opens_L != self.end(closing)) | (opens_L & alone_L)
        if not borders_L.any():
            return borders_L
        passed_L = np.cumsum(borders_L)
        before_N = np.append(0, passed_L)[block.first_lines_N]
        odd_N = np.add.reduceat(borders_L.astype(np.int64), block.first_lines_N) % 2 == 1
        inside_L = (passed_L - before_N[block.line_owners_L]) % 2 == 1
        return (borders_L | inside_L) & ~odd_N[block.line_owners_L]


@cache
def _end_points() -> NDArray[np.int8]:
    """Points of a line by its last character."""
    points = np.zeros(0x110000, dtype=np.int8)
    for mark, worth in _END_POINTS.items():
        points[ord(mark)] = worth
    return points


@cache
def _traits() -> Flags:
    """Bits of every code point."""
    traits = np.zeros(0x110000, dtype=np.uint8)
    for marks, bit in ((_CODE_SYMBOLS, _SYMBOL), ("\"'", _QUOTE), (_JOINTS, _JOINT)):
        traits[[ord(mark) for mark in marks]] |= bit
    mainland, taiwan = _han_of("gb2312", 0xA1), _han_of("big5", 0x40)
    traits[[ord(character) for character in mainland - taiwan]] |= _SIMPLIFIED
    traits[[ord(character) for character in taiwan - mainland]] |= _TRADITIONAL
    return traits


def _han_of(encoding: str, lowest: int) -> set[str]:
    """The Han characters of a two-byte encoding whose second bytes begin at `lowest`."""
    pairs = b"\n".join(bytes([a, b]) for a in range(0xA1, 0xFF) for b in range(lowest, 0xFF))
    return {c for c in pairs.decode(encoding, "ignore") if "\u4e00" <= c <= "\u9fff"}
